"""What a backup will need of a libvirt of this machine is proved before it, by a trial of it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from holdfast.sources.machines.labels import PREFIX, TRIAL, owner_of
from holdfast.sources.machines.nbd_disk import NbdDisk
from holdfast.sources.machines.provider import Kind, Remark
from holdfast.sources.machines.providers import open_provider
from tests.kit.image_chain import ImageChain, lost
from tests.kit.libvirtd import (
    SIZE,
    Libvirtd,
    LibvirtMachine,
    Make,
    libvirt_machines,
    libvirtd_kit,
    needs_libvirt,
)
from tests.kit.qemu import MIB, bytes_of, needs_qemu

pytestmark = [needs_qemu, needs_libvirt]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    with libvirtd_kit() as made:
        yield made


@pytest.fixture
def make(daemon: Libvirtd) -> Iterator[Make]:
    with libvirt_machines(daemon) as make:
        yield make


@pytest.fixture
def machine(make: Make) -> LibvirtMachine:
    made = make()
    made.start()
    return made


@pytest.fixture
def images(machine: LibvirtMachine) -> ImageChain:
    return ImageChain(machine, "libvirt", machine.daemon.url, machine.daemon.scratch)


def errors(
    machine: LibvirtMachine, scratch: Path | None = None, leave_out: tuple[str, ...] = ()
) -> list[Remark]:
    provider = open_provider("libvirt", machine.daemon.url)
    found = provider.try_out(machine.uuid, scratch or machine.daemon.scratch, leave_out=leave_out)
    return [one for one in found if one.severity == "error"]


def test_a_trial_takes_all_steps_and_leaves_nothing(images: ImageChain) -> None:
    machine = images.machine
    machine.write("vda", 0, SIZE, 1)
    images.back_up()
    machine.write("vda", MIB, 65536, 2)
    assert errors(machine) == []
    assert machine.leftovers() == []
    assert machine.checkpoints() == {images.checkpoint}
    with images.provider.snapshot(images.order()) as snapshot:
        assert 0 < bytes_of(snapshot.disks[0], Kind.DATA) <= 2 * 65536, "it is followed on"
    assert lost(images.back_up()) == []


def test_scratch_that_qemu_does_not_get_to_is_told(machine: LibvirtMachine) -> None:
    """Root makes files there; QEMU is a user of its own."""
    closed = machine.daemon.directory / "closed"
    closed.mkdir(mode=0o700)
    try:
        (found,) = errors(machine, closed)
        assert found.code == "not-readable"
        assert "Permission denied" in found.message
        assert "a scratch directory that it gets to" in found.message
        assert list(closed.iterdir()) == []
    finally:
        closed.rmdir()
    assert machine.leftovers() == []
    assert machine.checkpoints() == set()


def test_scratch_that_is_full_or_can_t_be_written_is_told(
    machine: LibvirtMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (file, tmp_path / "missing", Path("/sys")):
        (found,) = errors(machine, place)
        assert (found.code, str(place) in found.message) == ("no-scratch", True)
        causes = ("Not a directory", "No such file", "not permitted", "Read-only")
        assert any(one in found.message for one in causes)
    monkeypatch.setattr("holdfast.sources.machines.scratch_room.RESERVE_BYTES", 1 << 60)
    (found,) = errors(machine)
    assert (found.code, "bytes free" in found.message) == ("no-scratch", True)
    assert machine.leftovers() == []
    assert machine.checkpoints() == set()


def test_a_path_that_is_too_long_for_a_backup_s_socket_is_told(machine: LibvirtMachine) -> None:
    long = machine.daemon.scratch / ("long" * 10)
    long.mkdir(mode=0o711)
    try:
        (found,) = errors(machine, long)
    finally:
        long.rmdir()
    assert "too long a path for a socket" in found.message
    assert "a short path" in found.message
    assert len(owner_of(TRIAL)) == 32, "as the name of a site"


def test_a_disk_that_takes_no_bitmap_is_told_and_backed_up(make: Make) -> None:
    machine = make(formats=("qcow2", "qcow2"))
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10"]
    subprocess.run([*words, str(machine.files[0]), str(SIZE)], check=True)
    machine.start()
    provider = open_provider("libvirt", machine.daemon.url)
    found = provider.try_out(machine.uuid, machine.daemon.scratch)
    (told,) = [one for one in found if one.code == "bitmap-refused"]
    without = provider.try_out(machine.uuid, machine.daemon.scratch, leave_out=("vda",))
    assert [one for one in without if one.code == "bitmap-refused"] == []
    assert (told.severity, "qemu-img amend" in told.message) == ("warning", True)
    assert [one for one in found if one.severity == "error"] == []
    images = ImageChain(machine, "libvirt", machine.daemon.url, machine.daemon.scratch)
    for step in range(2):
        machine.some_writes(Random(step), 4)
        assert told in images.back_up().remarks
        assert images.checkpoint is None
        assert machine.checkpoints() == set()
    # As it says, it is followed from then on.
    machine.shut_down()
    words = ["qemu-img", "amend", "-f", "qcow2", "-o", "compat=1.1", str(machine.files[0])]
    subprocess.run(words, check=True)
    machine.start()
    images.back_up()
    machine.some_writes(Random(3), 2)
    assert lost(images.back_up()) == []
    assert images.checkpoint is not None


def test_a_backup_under_way_is_in_nobody_s_way(images: ImageChain) -> None:
    machine = images.machine
    with images.provider.snapshot(images.order()) as snapshot:
        provider = open_provider("libvirt", machine.daemon.url)
        found = provider.try_out(machine.uuid, machine.daemon.scratch)
        assert [one.severity for one in found if one.code == "busy"] == ["info"]
        snapshot.check()
    place = machine.daemon.directory / "disks"
    place.chmod(0o777)
    xml = f"<domainbackup mode='pull'><server transport='unix' socket='{place}/x'/></domainbackup>"
    machine.domain.backupBegin(xml, None)
    assert errors(machine) == []
    assert machine.domain.backupGetXMLDesc(), "somebody else's"
    machine.domain.abortJob()


def test_a_backup_waits_for_a_trial(images: ImageChain, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    failed: list[BaseException] = []

    def back_up() -> None:
        try:
            images.back_up()
        except BaseException as error:  # noqa: BLE001 - the test tells of it
            failed.append(error)
        done.set()

    backup = threading.Thread(target=back_up)
    check = NbdDisk.check

    def checked(disk: NbdDisk) -> None:
        if not backup.ident:
            backup.start()
            assert not done.wait(0.5), "it neither ended nor failed"
        check(disk)

    monkeypatch.setattr(NbdDisk, "check", checked)
    assert errors(images.machine) == []
    backup.join(60)
    assert failed == []
    assert images.checkpoint is not None


def test_what_a_killed_trial_left_goes_with_the_next_backup(images: ImageChain) -> None:
    machine = images.machine
    images.back_up()
    machine.some_writes(Random(1), 3)
    given: dict[str, Any] = {"label": TRIAL, "since": None}
    before = images.checkpoint
    assert images.die_at("read", **given).killed
    assert machine.leftovers()
    left = {one.split(".")[1] for one in machine.checkpoints() if one != before}
    assert left == {owner_of(TRIAL)}
    assert all(one.startswith(f"{PREFIX}.") for one in machine.checkpoints())
    assert lost(images.back_up()) == []
    assert machine.checkpoints() == {images.checkpoint}


def test_files_of_a_machine_that_is_off_are_opened_with_all_they_lie_over(make: Make) -> None:
    machine = make()
    assert errors(machine) == []
    top = machine.files[0]
    middle, base = (top.with_name(f"{machine.name}-{one}.qcow2") for one in ("middle", "base"))
    for file, over in ((base, None), (middle, base), (top, middle)):
        words = ["qemu-img", "create", "-q", "-f", "qcow2"]
        words += [] if over is None else ["-F", "qcow2", "-b", str(over)]
        subprocess.run([*words, str(file), str(SIZE)], check=True)
    assert errors(machine) == []
    whole = base.read_bytes()
    base.unlink()
    (found,) = errors(machine)
    assert (found.code, found.about) == ("not-readable", "vda")
    assert "lies over a file that is missing" in found.message
    assert str(base) in found.message
    assert "bring that file back" in found.message
    assert errors(machine, leave_out=("vda",)) == []
    base.write_bytes(b"no disk" * 1000)
    (found,) = errors(machine)
    assert (found.code, found.about) == ("not-readable", "vda")
    assert "damaged" in found.message
    base.write_bytes(whole)
    assert errors(machine) == []
    # Open for a moment only, and without a lock.
    machine.start()
