"""Images of a real Debian that writes all the while are, bit for bit, the moment of its rest.

What a disk holds while the guest is at rest is copied aside by the test, before the guest goes on.
Scripts of the guest agent ran before that moment, and after it.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.ids import ImageId, SourceName
from holdfast.movers.machines.backup_run import MachineOrder, run_machine_backup
from holdfast.movers.machines.ends import NearDestination
from holdfast.sources.machines.providers import open_provider
from holdfast.vault import PoolKey, create_pool
from tests.kit import debian_guest
from tests.kit.debian_guest import needs_debian
from tests.kit.debian_machine import DebianAlone, DebianMachine, DebianUnderLibvirt
from tests.kit.libvirtd import libvirtd_kit, why_no_libvirt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.engine import Pool
    from holdfast.sources.machines.provider import Remark

pytestmark = [needs_debian, pytest.mark.slow, pytest.mark.timeout(900)]

Running = tuple[DebianMachine, str, str, "Path", str]
PIECE = 8 << 20


@pytest.fixture(params=["qmp", "libvirt"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    """A Debian that has come up, how its hypervisor is opened, scratch, and what wakes it."""
    if request.param == "qmp":
        with DebianAlone(tmp_path) as machine:
            machine.wait_for_login()
            wakes = "holdfast.sources.machines.qmp.snapshot.QmpSnapshot._thaw"
            yield machine, "qmp", str(machine.run_directory), tmp_path, wakes
        return
    if reason := why_no_libvirt():
        pytest.skip(reason)
    with libvirtd_kit() as daemon, DebianUnderLibvirt(daemon) as under:
        under.wait_for_login()
        wakes = "holdfast.sources.machines.libvirt.running.RunningSnapshot._thaw"
        yield under, "libvirt", daemon.url, daemon.scratch, wakes


def moments(place: Path, disk: Path, wakes: str, patch: pytest.MonkeyPatch) -> list[Path]:
    """Copies of a disk, each taken before the guest is woken."""
    module, of, name = wakes.rsplit(".", 2)
    kept: list[Path] = []

    thaw = getattr(getattr(importlib.import_module(module), of), name)

    def keep_and_wake(*held: Any) -> None:
        kept.append(place / f"moment-{len(kept)}.qcow2")
        shutil.copyfile(disk, kept[-1])
        thaw(*held)

    patch.setattr(wakes, keep_and_wake)
    return kept


def assert_same(pool: Pool, image: ImageId, moment: Path) -> list[str]:
    """Compare all of an image with a moment; what the agent's script had noted by then."""
    raw = moment.with_suffix(".raw")
    words = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(moment), str(raw)]
    subprocess.run(words, check=True)
    stored = pool.open_file(image, b"/disks/vda")
    assert stored.size == debian_guest.SIZE == raw.stat().st_size
    with raw.open("rb") as file:
        for at in range(0, stored.size, PIECE):
            piece = file.read(PIECE)
            if stored.data_extents(at, PIECE):
                assert stored.read_at(at, PIECE) == piece, f"other bytes beyond {at}"
            else:
                assert piece.count(0) == len(piece), f"a hole at {at}"
    partition = f"{raw}?offset={debian_guest.FIRST * 512}"
    assert "recovering journal" not in told_of_ext("e2fsck", "-fn", partition)
    marks = told_of_ext("debugfs", "-R", f"cat {debian_guest.MARKS}", partition)
    raw.unlink()
    moment.unlink()
    return marks.splitlines()


def told_of_ext(*words: str) -> str:
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def test_a_full_and_incrementals_are_the_moment_of_rest(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, kind, url, scratch, wakes = running
    kept = moments(tmp_path, machine.disk, wakes, monkeypatch)
    pool = create_pool(
        str(tmp_path / "pool"), secret=PoolKey(bytes(range(32))), clock=SystemClock()
    )
    order = MachineOrder(
        uuid=machine.uuid,
        source=SourceName("debian:vm"),
        host="debian",
        scratch=scratch,
        label="site-7",
        require_quiesce=True,
    )
    provider, parent, read = open_provider(kind, url), None, []
    machine.start_load()
    told: list[Remark] = []
    for number in range(3):
        before = machine.counter()
        end = NearDestination(pool, parent)
        done = run_machine_backup(provider, order, end, SystemClock(), told.append)
        assert [one.message for one in told if one.severity != "info"] == []
        assert done.frozen_s > 0
        parent = ImageId(done.image.id)
        read.append(done.image.stats["bytes_read"])
        # It went on while it was read.
        assert machine.counter() > before
        assert len(kept) == number + 1
        # It was told to come to rest before that moment, and to go on only after it.
        marks = assert_same(pool, parent, kept[-1])
        assert marks == [*["freeze", "thaw"] * number, "freeze"]
        print(f"image {number}: stood still {done.frozen_s:.2f} s, read {read[-1] >> 20} MiB")
    assert max(read[1:]) < read[0] / 2
