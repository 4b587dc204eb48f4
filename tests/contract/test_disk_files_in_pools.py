"""Disk files through a real pool and back: every format is restored as every other."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import DiskUnreadable, HoldfastError, SnapshotBroken
from holdfast.base.ids import ImageId, SourceName
from holdfast.movers.machines.backup_run import MachineImage, MachineOrder, run_machine_backup
from holdfast.movers.machines.ends import NearDestination, NearImage
from holdfast.movers.machines.restore_run import MachineRestoreOrder, run_machine_restore
from holdfast.movers.machines.work import connected
from holdfast.sources.machines.diskfiles import frozen
from holdfast.sources.machines.providers import open_provider
from holdfast.vault import PoolKey, create_pool
from tests.kit.disk_images import MIB, content, create, fill, needs_qemu, overlay, run, write

if TYPE_CHECKING:
    from holdfast.engine import Pool
    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import Remark

pytestmark = needs_qemu

FORMATS = {
    "qcow2": "qcow2",
    "raw": "raw",
    "vmdk": "vmdk",
    "vhdx": "vhdx",
    "vdi": "vdi",
    "vhd": "vpc",
}
SIZE = 24 * MIB + 512


class Bench:
    """A directory of disk files, another one for what is restored, and a pool."""

    def __init__(self, directory: Path) -> None:
        self.store, self.target = directory / "store", directory / "target"
        self.scratch = directory / "scratch"
        for one in (self.store, self.target, self.scratch):
            one.mkdir()
        self.told: list[Remark] = []
        self.pool: Pool = create_pool(
            str(directory / "pool"), secret=PoolKey(bytes(range(32))), clock=SystemClock()
        )

    def back_up(self, machine: Machine, parent: str | None = None) -> MachineImage:
        order = MachineOrder(
            uuid=machine.uuid,
            source=SourceName(f"{machine.name}:vm"),
            host=machine.name,
            scratch=self.scratch,
            label="site-7",
        )
        end = NearDestination(self.pool, None if parent is None else ImageId(parent))
        provider = open_provider("diskfiles", str(self.store))
        self.told = []
        return run_machine_backup(provider, order, end, SystemClock(), self.told.append)

    def restore(self, image: str, name: str, image_format: str) -> bytes:
        order = MachineRestoreOrder(
            name=name, keep_identity=False, format=image_format, verify=True
        )
        provider = open_provider("diskfiles", str(self.target))
        stored = NearImage(self.pool, ImageId(image))
        done = run_machine_restore(provider, stored, order, connected)
        (disk,) = done.machine.disks
        return content(Path(disk.place), image_format, self.scratch / "restored.raw")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_disk_comes_back_the_same_in_every_format(bench: Bench, suffix: str) -> None:
    image_format = FORMATS[suffix]
    options = ("force_size=on",) if image_format == "vpc" else ()
    path = create(bench.store / f"web.{suffix}", image_format, SIZE, *options)
    fill(path, image_format)
    write(path, image_format, "write -P 99 20M 3M")
    truth = content(path, image_format, bench.scratch / "truth.raw")
    (machine,) = open_provider("diskfiles", str(bench.store)).machines()
    done = bench.back_up(machine)
    assert bench.told == []
    stored = bench.pool.open_file(done.image.id, b"/disks/disk0")
    assert stored.size == len(truth)
    for target in FORMATS.values():
        found = bench.restore(done.image.id, f"as-{target}", target)
        assert found[: len(truth)] == truth
        assert not any(found[len(truth) :])


def test_machines_that_lie_over_one_disk_share_it_in_the_pool(bench: Bench) -> None:
    base = create(bench.store / "base.qcow2", "qcow2", 64 * MIB)
    raw = bench.scratch / "random.raw"
    raw.write_bytes(os.urandom(4 * MIB))
    run("qemu-io", "-f", "qcow2", "-c", f"write -s {raw} 8M 4M", base)
    write(base, "qcow2", "write -P 5 16M 8M")
    for name in ("one", "two", "three"):
        write(overlay(bench.store / f"{name}.qcow2", base), "qcow2", f"write -P {len(name)} 0 64k")
    images = {
        one.name: bench.back_up(one)
        for one in open_provider("diskfiles", str(bench.store)).machines()
    }
    assert set(images) == {"one", "two", "three"}
    new = sorted(done.image.stats["bytes_new"] for done in images.values())
    assert new[0] <= new[1] < MIB < new[2]
    for name, done in images.items():
        truth = content(bench.store / f"{name}.qcow2", "qcow2", bench.scratch / "truth.raw")
        assert bench.restore(done.image.id, name, "raw") == truth


def test_a_second_backup_reads_everything_and_stores_what_is_new(bench: Bench) -> None:
    path = create(bench.store / "web.qcow2", "qcow2", 64 * MIB)
    write(path, "qcow2", "write -P 5 16M 8M")
    (machine,) = open_provider("diskfiles", str(bench.store)).machines()
    first = bench.back_up(machine)
    write(path, "qcow2", "write -P 6 40M 64k")
    second = bench.back_up(machine, first.image.id)
    truth = content(path, "qcow2", bench.scratch / "truth.raw")
    assert bench.restore(second.image.id, "again", "qcow2") == truth
    assert second.image.stats["bytes_read"] >= 8 * MIB + 65536


def test_a_disk_that_is_truncated_leaves_no_image(bench: Bench) -> None:
    path = create(bench.store / "web.qcow2", "qcow2", 64 * MIB)
    write(path, "qcow2", "write -P 5 16M 8M")
    os.truncate(path, path.stat().st_size - 4 * MIB)
    (machine,) = open_provider("diskfiles", str(bench.store)).machines()
    with pytest.raises(DiskUnreadable, match="truncated"):
        bench.back_up(machine)
    assert bench.pool.images() == []


def test_a_disk_that_changes_meanwhile_leaves_no_image_without_a_word(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = create(bench.store / "web.raw", "raw", 8 * MIB)
    (machine,) = open_provider("diskfiles", str(bench.store)).machines()
    known = frozen.fingerprint(path)
    prints = itertools.chain([known], itertools.repeat((*known[:3], known[3] + 1)))
    monkeypatch.setattr(frozen, "fingerprint", lambda _: next(prints))
    try:
        bench.back_up(machine)
    except SnapshotBroken:
        # It was noticed while the engine still read.
        assert bench.pool.images() == []
    else:
        said = [(one.severity, one.code) for one in bench.told]
        assert said == [("error", "changed-while-read")]


@pytest.mark.parametrize(
    ("suffix", "options"), [("qcow2", "-c"), ("vmdk", "-osubformat=streamOptimized")]
)
def test_what_can_not_be_read_is_told_with_its_place(
    bench: Bench, suffix: str, options: str
) -> None:
    raw = bench.scratch / "random.raw"
    raw.write_bytes(b"".join(os.urandom(32768) + bytes(32768) for _ in range(160)))
    path = bench.store / f"web.{suffix}"
    run("qemu-img", "convert", "-f", "raw", "-O", suffix, options, raw, path)
    os.truncate(path, path.stat().st_size // 2)
    (machine,) = open_provider("diskfiles", str(bench.store)).machines()
    with pytest.raises(HoldfastError, match="disk0") as caught:
        bench.back_up(machine)
    assert "closed the connection" not in caught.value.message
    assert bench.pool.images() == []
