"""Machines under a real libvirt: found, frozen, read while they write, and made again."""

# Where a snapshot ends is where it fails: blocks within blocks say what happens in which.
# ruff: noqa: PT012, SIM117

from __future__ import annotations

import itertools
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from holdfast.base.errors import (
    AlreadyExists,
    Busy,
    Forbidden,
    HoldfastError,
    HypervisorError,
    MachineMissing,
    NoSpace,
    NotQuiesced,
    SnapshotBroken,
    Unreachable,
)
from holdfast.sources.machines.machine import Disk, State
from holdfast.sources.machines.provider import DiskTarget, Kind, NewMachine, Part, SnapshotOrder
from holdfast.sources.machines.providers import open_provider
from tests.kit.image_chain import ImageChain, lost, snapshot_order, writer
from tests.kit.libvirtd import (
    GRAIN,
    MIB,
    SIZE,
    Libvirtd,
    LibvirtMachine,
    Make,
    libvirt_machines,
    libvirtd_kit,
    needs_libvirt,
)
from tests.kit.qemu import Load, bytes_of, needs_qemu, read_disk

pytestmark = [needs_qemu, needs_libvirt]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    """One for all tests here: it takes seconds to look what QEMU can do."""
    with libvirtd_kit() as made:
        yield made


@pytest.fixture
def make(daemon: Libvirtd) -> Iterator[Make]:
    """Machines that go when the test does."""
    with libvirt_machines(daemon) as make:
        yield make


@pytest.fixture
def machine(make: Make) -> LibvirtMachine:
    made = make()
    made.start()
    return made


def provider(machine: LibvirtMachine) -> Any:
    return open_provider("libvirt", machine.daemon.url)


def order(machine: LibvirtMachine, **changed: Any) -> SnapshotOrder:
    return snapshot_order(machine, machine.daemon.scratch, **changed)


def chain(machine: LibvirtMachine) -> ImageChain:
    return ImageChain(machine, "libvirt", machine.daemon.url, machine.daemon.scratch)


def test_a_snapshot_is_one_moment_of_a_machine_that_writes_on(machine: LibvirtMachine) -> None:
    random = Random(1)
    machine.some_writes(random, 20)
    with Load(machine, random) as load:
        before = {name: len(one.log) for name, one in machine.contents.items()}
        with provider(machine).snapshot(order(machine)) as snapshot:
            load.wait_for(30)
            read = {one.name: read_disk(one) for one in snapshot.disks}
            snapshot.check()
    for name, content in machine.contents.items():
        assert read[name] in content.moments(before[name] - 1), name
    assert machine.leftovers() == []


def test_ten_incrementals_hold_what_the_machine_held(machine: LibvirtMachine) -> None:
    images = chain(machine)
    random = Random(2)
    machine.some_writes(random, 30)
    images.back_up()
    for _ in range(10):
        machine.some_writes(random, 3)
        snapshot = images.back_up()
        assert lost(snapshot) == []
        assert machine.checkpoints() == {images.checkpoint}


def test_an_incremental_reads_what_changed(machine: LibvirtMachine) -> None:
    images = chain(machine)
    machine.write("vda", 0, SIZE, 1)
    images.back_up()
    machine.write("vda", 3 * GRAIN, GRAIN, 2)
    with images.provider.snapshot(images.order()) as snapshot:
        first, second = snapshot.disks
        assert bytes_of(first, Kind.DATA) == GRAIN
        assert bytes_of(second, Kind.SAME) == 0, "a raw disk has no bitmap"


def test_after_a_backup_that_failed_the_next_incremental_is_right(machine: LibvirtMachine) -> None:
    images = chain(machine)
    machine.some_writes(Random(4), 10)
    images.back_up()
    machine.some_writes(Random(5), 4)
    with pytest.raises(RuntimeError, match="the pool is gone"):
        with images.provider.snapshot(images.order()):
            machine.some_writes(Random(6), 4)
            raise RuntimeError("the pool is gone")
    assert machine.leftovers() == []
    assert machine.checkpoints() == {images.checkpoint}
    machine.some_writes(Random(7), 4)
    assert lost(images.back_up()) == []


def test_wherever_a_proxy_is_killed_the_next_run_is_right(machine: LibvirtMachine) -> None:
    images = chain(machine)
    machine.some_writes(Random(11), 10)
    images.back_up()
    seen = set()
    for step in ["read", "kept", *range(1, 200)]:
        machine.some_writes(Random(str(step)), 2)
        killed = images.die_at(step).killed
        machine.some_writes(Random(f"again {step}"), 2)
        snapshot = images.back_up()
        assert lost(snapshot) == [], step
        seen |= {one.code for one in snapshot.remarks}
        assert machine.checkpoints() == {images.checkpoint}, step
        if not killed:
            break
    assert "leftover" in seen
    assert not killed
    assert int(step) > 30


def test_a_machine_that_was_shut_down_is_still_followed(machine: LibvirtMachine) -> None:
    images = chain(machine)
    machine.some_writes(Random(12), 10)
    images.back_up()
    machine.some_writes(Random(13), 4)
    machine.shut_down()
    assert lost(images.back_up()) == []
    first = images.checkpoint
    assert machine.checkpoints() == {first}
    machine.start()
    machine.some_writes(Random(14), 4)
    assert lost(images.back_up()) == []
    assert images.checkpoint != first


def test_a_machine_that_is_off_is_read_from_its_files(make: Make) -> None:
    machine = make()
    machine.start()
    machine.some_writes(Random(15), 10)
    machine.shut_down()
    snapshot = chain(machine).back_up()
    assert snapshot.checkpoint is None
    assert snapshot.machine.state is State.OFF


def test_a_disk_that_lies_over_another_is_read_whole_off_and_running(make: Make) -> None:
    machine = make(formats=("qcow2",))
    machine.start()
    machine.some_writes(Random(23), 10)
    machine.shut_down()
    (file,) = machine.files
    base = file.with_suffix(".base")
    file.rename(base)
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(file)]
    subprocess.run(words, check=True)
    images = chain(machine)
    images.back_up()
    machine.start()
    machine.some_writes(Random(24), 4)
    images.back_up()
    machine.some_writes(Random(25), 4)
    assert lost(images.back_up()) == []


def test_a_machine_may_be_started_while_its_files_are_read(machine: LibvirtMachine) -> None:
    machine.shut_down()
    with pytest.raises(SnapshotBroken, match="was started"):
        with provider(machine).snapshot(order(machine)) as snapshot:
            machine.start()
            snapshot.check()
    chain(machine).back_up()


def settle(machine: LibvirtMachine) -> None:
    """What the test believes is what the files hold: a killed QEMU had not written all."""
    for name, file, kind in zip(machine.names, machine.files, machine.formats, strict=True):
        raw = machine.daemon.directory / "raw"
        words = ["qemu-img", "convert", "-U", "-f", kind, "-O", "raw", str(file), str(raw)]
        subprocess.run(words, check=True)
        machine.contents[name].now = bytearray(raw.read_bytes())
        raw.unlink()


def refused_increment(machine: LibvirtMachine, images: ImageChain) -> int:
    """What libvirt itself says of an incremental backup since the last image: its error's code."""
    import libvirt

    scratch = f"{machine.daemon.scratch}/y"
    disks = f"<disk name='vda' backup='yes' type='file'><scratch file='{scratch}'/></disk>"
    disks += "<disk name='vdb' backup='no'/>"
    xml = (
        f"<domainbackup mode='pull'><incremental>{images.checkpoint}</incremental>"
        f"<server transport='unix' socket='{machine.daemon.scratch}/x'/><disks>{disks}</disks>"
        "</domainbackup>"
    )
    with pytest.raises(libvirt.libvirtError) as caught:
        machine.domain.backupBegin(xml, None)
    return int(caught.value.get_error_code())


@pytest.mark.parametrize("stored", [False, True])
def test_a_machine_that_was_killed_is_read_whole(machine: LibvirtMachine, stored: bool) -> None:
    images = chain(machine)
    machine.some_writes(Random(16), 10)
    images.back_up()
    if stored:
        machine.shut_down()
        machine.start()
    machine.some_writes(Random(17), 4)
    machine.kill()
    machine.start()
    settle(machine)
    if stored:
        assert refused_increment(machine, images) == 109, "VIR_ERR_CHECKPOINT_INCONSISTENT"
    snapshot = images.back_up()
    assert lost(snapshot) == ["vda"]
    if stored:
        assert any("inconsistent" in one.message for one in snapshot.remarks)
    machine.some_writes(Random(18), 4)
    assert lost(images.back_up()) == []
    assert machine.checkpoints() == {images.checkpoint}


def test_a_machine_that_was_killed_and_is_off_is_read_whole(machine: LibvirtMachine) -> None:
    images = chain(machine)
    images.back_up()
    machine.some_writes(Random(19), 4)
    machine.kill()
    settle(machine)
    snapshot = images.back_up()
    assert lost(snapshot) == ["vda"]
    assert images.checkpoint is None


def test_a_machine_that_dies_meanwhile_fails_the_backup_and_no_other(
    machine: LibvirtMachine,
) -> None:
    with pytest.raises(SnapshotBroken, match="ended before it was read"):
        with provider(machine).snapshot(order(machine)) as snapshot:
            machine.kill()
            with pytest.raises(HoldfastError):
                read_disk(snapshot.disks[0])
            snapshot.check()
    machine.start()
    settle(machine)
    chain(machine).back_up()


def test_a_checkpoint_that_somebody_deleted_is_missed(machine: LibvirtMachine) -> None:
    images = chain(machine)
    images.back_up()
    machine.domain.checkpointLookupByName(images.checkpoint).delete()
    machine.write("vda", 0, 512, 3)
    snapshot = images.back_up()
    assert lost(snapshot) == ["vda"]


def test_a_libvirtd_that_is_killed_fails_the_backup_and_no_other() -> None:
    with libvirtd_kit() as daemon:
        machine = LibvirtMachine(daemon, "web", str(uuid.uuid4()))
        machine.start()
        images = chain(machine)
        machine.some_writes(Random(20), 10)
        images.back_up()
        machine.some_writes(Random(21), 4)
        with pytest.raises(Unreachable):
            with images.provider.snapshot(images.order()) as snapshot:
                daemon.kill()
                snapshot.check()
        daemon.start()
        machine.reconnect()
        assert machine.domain.isActive()
        machine.some_writes(Random(22), 4)
        snapshot = images.back_up()
        assert lost(snapshot) == []
        assert "leftover" in {one.code for one in snapshot.remarks}
        assert machine.checkpoints() == {images.checkpoint}


def test_scratch_is_given_up_before_the_guest_stands_still(
    machine: LibvirtMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.write("vda", 0, SIZE, 1)
    with pytest.raises(SnapshotBroken, match=f"{MIB} are allowed"):
        with provider(machine).snapshot(order(machine, scratch_bytes=MIB)) as snapshot:
            machine.write("vda", 0, SIZE, 2)
            until = time.monotonic() + 60
            while any("<domainbackup" in one for one in machine.leftovers()):
                assert time.monotonic() < until
                time.sleep(0.02)
            snapshot.check()
    assert machine.status() == 1
    chain(machine).back_up()


def test_too_little_scratch_is_said_before_anything_is_frozen(
    machine: LibvirtMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.sources.machines.libvirt.near.RESERVE_BYTES", 1 << 60)
    with pytest.raises(NoSpace, match="would stand still"):
        with provider(machine).snapshot(order(machine)):
            pass
    assert machine.leftovers() == []


def test_a_guest_without_agent_is_backed_up_with_a_remark_or_not_at_all(
    machine: LibvirtMachine,
) -> None:
    with provider(machine).snapshot(order(machine, quiesce=True)) as snapshot:
        assert "not-quiesced" in {one.code for one in snapshot.remarks}
    with pytest.raises(NotQuiesced):
        with provider(machine).snapshot(order(machine, quiesce=True, require_quiesce=True)):
            pass
    assert machine.leftovers() == []
    assert machine.checkpoints() == set()


def test_a_guest_that_is_not_asked_to_trim_is_backed_up_with_a_remark(make: Make) -> None:
    machine = make(formats=("qcow2",))
    driver = "<driver name='qemu' type='qcow2'"
    machine.xml = machine.xml.replace(f"{driver}/>", f"{driver} discard='unmap'/>")
    machine.domain = machine.connection.defineXML(machine.xml)

    def told() -> list[str]:
        with provider(machine).snapshot(order(machine, trim_s=5)) as snapshot:
            return [one.message for one in snapshot.remarks if one.code == "not-trimmed"]

    assert told() == ["nothing was trimmed: the machine does not run"]
    machine.start()
    (message,) = told()
    assert message.startswith("the guest was not asked to trim: no guest agent answers in it; see")
    tried = provider(machine).try_out(machine.uuid, machine.daemon.scratch, trim=True)
    assert "not-trimmed" not in {one.code for one in tried}


def test_somebody_else_s_backup_is_not_touched(machine: LibvirtMachine) -> None:
    place = machine.daemon.directory / "disks"
    os.chmod(place, 0o777)
    xml = f"<domainbackup mode='pull'><server transport='unix' socket='{place}/x'/></domainbackup>"
    machine.domain.backupBegin(xml, None)
    with pytest.raises(Busy, match="by somebody else"):
        with provider(machine).snapshot(order(machine)):
            pass
    assert machine.domain.backupGetXMLDesc()
    machine.domain.abortJob()


def test_two_backups_of_one_machine_at_once_are_refused(machine: LibvirtMachine) -> None:
    with provider(machine).snapshot(order(machine)):
        assert provider(machine).machine(machine.uuid).uuid == machine.uuid
        with pytest.raises(Busy):
            with provider(machine).snapshot(order(machine)):
                pass


def test_leftovers_are_cleaned_up_when_asked(machine: LibvirtMachine) -> None:
    assert chain(machine).die_at("read").killed
    assert machine.leftovers()
    told = provider(machine).clean_up()
    assert {one.code for one in told} == {"leftover"}
    assert machine.leftovers() == []
    assert not provider(machine).clean_up()


METADATA = """<h:machine xmlns:h='urn:holdfast:machine'><h:folder>shop/web</h:folder>
<h:tag>tier=1</h:tag><h:tag>public</h:tag></h:machine>
<o:libosinfo xmlns:o='http://libosinfo.org/xmlns/libvirt/domain/1.0'>
<o:os id='http://debian.org/debian/12'/></o:libosinfo>"""


def test_what_is_found_of_machines(make: Make, tmp_path: Path) -> None:
    lun = "<disk type='file' device='floppy'><target dev='fda' bus='fdc'/></disk>"
    machine = make(metadata=METADATA, more=lun)
    found = provider(machine).machine(machine.uuid)
    assert found in provider(machine).machines()
    assert (found.name, found.state, found.folder) == (machine.name, State.OFF, "shop/web")
    assert found.tags == ("tier=1", "public")
    assert found.guest == "debian 12"
    assert (found.memory, found.cpus) == (32 * MIB, 1)
    held = [one for one in found.disks if one.left_out is None]
    assert [(one.name, one.size, one.format) for one in held] == [
        ("vda", SIZE, "qcow2"),
        ("vdb", SIZE, "raw"),
    ]
    assert [one.mac for one in found.networks] == ["52:54:00:12:34:56"]
    machine.start()
    assert provider(machine).machine(machine.uuid).state is State.RUNNING
    with pytest.raises(MachineMissing):
        provider(machine).machine(str(uuid.uuid4()))


def test_what_would_not_go_well_is_said_beforehand(machine: LibvirtMachine) -> None:
    found = provider(machine).try_out(machine.uuid, machine.daemon.scratch)
    assert {"no-bitmap", "not-quiesced", "disk-left-out"} == {one.code for one in found}


def test_true_causes_are_told(daemon: Libvirtd) -> None:
    with pytest.raises(Unreachable, match="No such file") as caught:
        open_provider("libvirt", "qemu:///system?socket=/nowhere/libvirt-sock").machines()
    assert "libvirtd runs" in str(caught.value.hint)


def test_a_user_who_may_only_look_is_told_so(machine: LibvirtMachine) -> None:
    """The read-only socket is what a user without the group gets."""
    url = machine.daemon.url.replace("libvirt-sock", "libvirt-sock-ro")
    assert open_provider("libvirt", url).machines()
    with pytest.raises(Forbidden) as caught:
        open_provider("libvirt", url).try_out(machine.uuid, machine.daemon.scratch)
    assert "group 'libvirt'" in str(caught.value.hint)


def test_a_machine_is_made_again_under_another_name(machine: LibvirtMachine) -> None:
    machine.some_writes(Random(30), 10)
    made = provider(machine)
    with made.snapshot(order(machine)) as snapshot:
        held = {one.name: read_disk(one) for one in snapshot.disks}
    place = machine.daemon.directory / "new"
    new = NewMachine(
        snapshot.machine, snapshot.definitions, f"{machine.name}-2", False, (), str(place), "qcow2"
    )
    found = made.restore(new, writer(held))
    try:
        assert found.uuid != machine.uuid
        assert found.state is State.OFF
        assert found.networks[0].mac != "52:54:00:12:34:56"
        assert [one.format for one in found.disks if one.left_out is None] == ["qcow2", "qcow2"]
        with made.snapshot(order(machine, uuid=found.uuid)) as snapshot:
            assert {one.name: read_disk(one) for one in snapshot.disks} == held
        made.start(found.uuid)
        assert made.machine(found.uuid).state is State.RUNNING
        with pytest.raises(AlreadyExists, match="there is a machine"):
            made.restore(new, writer(held))
    finally:
        domain = machine.connection.lookupByUUIDString(found.uuid)
        if domain.isActive():
            domain.destroy()
        domain.undefine()


def test_a_machine_that_is_there_is_not_made_again_with_its_identity(
    machine: LibvirtMachine,
) -> None:
    known = provider(machine).machine(machine.uuid)
    new = NewMachine(known, {}, "other", True, None, str(machine.daemon.directory), "qcow2")
    with pytest.raises(AlreadyExists, match="has the uuid"):
        provider(machine).restore(new, writer({}))


def test_a_disk_that_can_t_be_written_leaves_nothing(machine: LibvirtMachine) -> None:
    calls = itertools.count()

    def fail(disk: Disk, target: DiskTarget, _part: Part) -> None:
        if next(calls):
            raise HypervisorError("no")

    made = provider(machine)
    with made.snapshot(order(machine)) as snapshot:
        pass
    place = machine.daemon.directory / "nothing"
    new = NewMachine(snapshot.machine, snapshot.definitions, "x", False, None, str(place), "raw")
    with pytest.raises(HypervisorError, match="no"):
        made.restore(new, fail)
    assert list(place.iterdir()) == []
    assert "x" not in {one.name for one in made.machines()}
