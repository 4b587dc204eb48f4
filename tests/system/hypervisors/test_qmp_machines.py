"""Machines without libvirt: frozen, read while they write, and left as they were."""

# Where a snapshot ends is where it fails: blocks within blocks say what happens in which.
# ruff: noqa: PT012, SIM117

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from holdfast.base.errors import (
    Busy,
    HoldfastError,
    HypervisorError,
    MachineMissing,
    SnapshotBroken,
    Unreachable,
)
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.provider import Kind, Remark, SnapshotOrder
from holdfast.sources.machines.providers import open_provider
from holdfast.sources.machines.qmp import QmpProvider, bitmaps
from holdfast.sources.machines.qmp import snapshot as snapshots
from holdfast.sources.machines.qmp.monitor import Monitor
from tests.kit.image_chain import ImageChain, lost, snapshot_order
from tests.kit.qemu import (
    GRAIN,
    MIB,
    SIZE,
    Load,
    Qemu,
    bytes_of,
    needs_qemu,
    read_disk,
)

pytestmark = needs_qemu


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Qemu]:
    with Qemu(tmp_path, formats=("qcow2", "raw")) as made:
        yield made


def provider(machine: Qemu) -> QmpProvider:
    made = open_provider("qmp", str(machine.run))
    assert isinstance(made, QmpProvider)
    return made


def order(machine: Qemu, **changed: Any) -> SnapshotOrder:
    return snapshot_order(machine, machine.directory, **changed)


def chain(machine: Qemu) -> ImageChain:
    return ImageChain(machine, "qmp", str(machine.run), machine.directory)


def test_a_snapshot_is_one_moment_of_a_machine_that_writes_on(machine: Qemu) -> None:
    machine.some_writes(Random(1), 20)
    with Load(machine, Random(2)) as load:
        load.wait_for(5)
        before = {name: len(one.log) for name, one in machine.contents.items()}
        with provider(machine).snapshot(order(machine)) as snapshot:
            load.wait_for(30)
            read = {one.name: read_disk(one) for one in snapshot.disks}
            again = {one.name: read_disk(one) for one in snapshot.disks}
            snapshot.check()
        load.wait_for(1)
    assert read == again
    for name in machine.names:
        assert read[name] in machine.contents[name].moments(before[name] - 1), name
        assert read[name] != machine.contents[name].now
    assert machine.leftovers() == []
    assert machine.status() == "running"


def test_several_disks_without_an_agent_are_of_one_moment(
    machine: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No processor runs from before the first filter is in until after the last one is."""
    real = Monitor.execute
    seen: list[tuple[str, str]] = []

    def look(monitor: Monitor, command: str, *given: Any, **named: Any) -> Any:
        if command == "qom-set":
            seen.append((command, machine.status()))
        return real(monitor, command, *given, **named)

    monkeypatch.setattr(Monitor, "execute", look)
    with provider(machine).snapshot(order(machine)) as snapshot:
        assert seen == [("qom-set", "paused")] * 2
        assert machine.status() == "running"
    assert snapshot.frozen_s > 0
    with provider(machine).snapshot(order(machine, leave_out=("disk0",))) as snapshot:
        assert seen[4:] == [("qom-set", "running")]
        assert snapshot.frozen_s == 0


def test_ten_incrementals_hold_what_the_machine_held(machine: Qemu) -> None:
    images = chain(machine)
    random = Random(3)
    machine.some_writes(random, 30)
    images.back_up()
    for _ in range(10):
        machine.some_writes(random, 3)
        snapshot = images.back_up()
        assert not snapshot.remarks
        assert machine.bitmaps() == {images.checkpoint}


def test_an_incremental_reads_little_more_than_what_changed(machine: Qemu) -> None:
    images = chain(machine)
    machine.write("disk0", 0, SIZE, 1)
    images.back_up()
    machine.write("disk0", 3 * GRAIN, GRAIN, 2)
    with images.provider.snapshot(images.order()) as snapshot:
        first, second = snapshot.disks
        assert bytes_of(first, Kind.DATA) == GRAIN
        assert bytes_of(second, Kind.SAME) == SIZE


def test_holes_are_told_apart_from_data(machine: Qemu) -> None:
    machine.write("disk0", MIB, MIB, 7)
    with provider(machine).snapshot(order(machine)) as snapshot:
        assert bytes_of(snapshot.disks[0], Kind.HOLE) == SIZE - MIB
        assert bytes_of(snapshot.disks[1], Kind.HOLE) >= SIZE - 4096  # which qemu-img writes


def test_after_a_backup_that_failed_the_next_incremental_is_right(machine: Qemu) -> None:
    images = chain(machine)
    machine.some_writes(Random(4), 10)
    images.back_up()
    machine.some_writes(Random(5), 4)
    with pytest.raises(RuntimeError, match="the pool is gone"):
        with images.provider.snapshot(images.order()):
            machine.some_writes(Random(6), 4)
            raise RuntimeError("the pool is gone")
    assert machine.leftovers() == []
    assert machine.bitmaps() == {images.checkpoint}
    machine.some_writes(Random(7), 4)
    assert not images.back_up().remarks


def test_a_committed_image_is_followed_although_nobody_said_so(machine: Qemu) -> None:
    """The proxy died after the commit, and before it kept the checkpoint."""
    images = chain(machine)
    machine.some_writes(Random(8), 10)
    images.back_up()
    machine.some_writes(Random(9), 4)
    now = {name: bytes(one.now) for name, one in machine.contents.items()}
    death = images.die_at("read")
    assert death.read == now
    images.checkpoint, images.held = death.said, now
    machine.some_writes(Random(10), 4)
    snapshot = images.back_up()
    assert [one.code for one in snapshot.remarks] == ["leftover"]
    assert machine.bitmaps() == {images.checkpoint}


def test_wherever_a_proxy_is_killed_the_next_run_is_right(tmp_path: Path) -> None:
    step, killed = 1, True
    with Qemu(tmp_path, formats=("qcow2", "raw")) as machine:
        images = chain(machine)
        machine.some_writes(Random(11), 10)
        images.back_up()
        while killed:
            machine.some_writes(Random(step), 2)
            killed = images.die_at(step).killed
            until = time.monotonic() + 60
            while machine.status() != "running":
                assert time.monotonic() < until, f"nobody wakes the machine: step {step}"
                time.sleep(0.01)
            machine.some_writes(Random(-step), 2)
            snapshot = images.back_up()
            assert {one.code for one in snapshot.remarks} <= {"leftover"}, step
            step += 1
        assert step > 60
    assert not list(Path(tempfile.gettempdir()).glob(f"{snapshots.PREFIX}*"))


def test_a_machine_that_was_shut_down_is_still_followed(machine: Qemu) -> None:
    """The bitmap lies in the qcow2; of a raw disk it is forgotten, and that is said."""
    images = chain(machine)
    machine.some_writes(Random(12), 10)
    images.back_up()
    machine.shut_down()
    machine.start()
    machine.some_writes(Random(13), 4)
    snapshot = images.back_up()
    assert [(one.code, one.about) for one in snapshot.remarks] == [("bitmap-lost", "disk1")]
    assert "is gone" in snapshot.remarks[0].message


@pytest.mark.parametrize("stored", [False, True])
def test_a_machine_that_was_killed_is_read_whole(machine: Qemu, stored: bool) -> None:
    images = chain(machine)
    machine.some_writes(Random(14), 10)
    images.back_up()
    if stored:
        machine.shut_down()
        machine.start()
    machine.some_writes(Random(15), 4)
    machine.io("disk0", "flush")
    machine.kill()
    machine.start()
    for name, file in zip(machine.names, machine.files, strict=True):  # what it had not written
        raw = machine.directory / "raw"
        subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", file, raw], check=True)
        machine.contents[name].now = bytearray(raw.read_bytes())
    snapshot = images.back_up()
    assert lost(snapshot) == ["disk0", "disk1"]
    message = next(one.message for one in snapshot.remarks if one.code == "bitmap-lost")
    assert ("inconsistent" if stored else "is gone") in message
    assert lost(images.back_up()) == []


def test_a_list_of_changes_that_somebody_removed_is_missed(machine: Qemu) -> None:
    images = chain(machine)
    images.back_up()
    assert machine.test is not None
    nodes = machine.test.execute("query-block")
    where = {"node": nodes[0]["inserted"]["node-name"], "name": images.checkpoint}
    machine.test.execute("block-dirty-bitmap-remove", where)
    machine.write("disk0", 0, 512, 3)
    snapshot = images.back_up()
    assert [(one.code, one.about) for one in snapshot.remarks] == [("bitmap-lost", "disk0")]


def test_a_list_of_changes_that_somebody_switched_off_is_not_believed(machine: Qemu) -> None:
    images = chain(machine)
    images.back_up()
    assert machine.test is not None
    nodes = machine.test.execute("query-block")
    where = {"node": nodes[0]["inserted"]["node-name"], "name": images.checkpoint}
    machine.test.execute("block-dirty-bitmap-disable", where)
    machine.write("disk0", 0, 512, 3)
    snapshot = images.back_up()
    assert [(one.code, one.about) for one in snapshot.remarks] == [("bitmap-lost", "disk0")]
    assert "switched off" in snapshot.remarks[0].message


def test_another_image_s_checkpoint_is_kept_where_it_is_needed(machine: Qemu) -> None:
    one, other = chain(machine), chain(machine)
    one.back_up()
    machine.write("disk0", 0, 512, 1)
    other.back_up(keep=(one.checkpoint,))
    machine.write("disk0", MIB, 512, 2)
    assert not one.back_up(keep=(other.checkpoint,)).remarks
    assert not other.back_up(keep=(one.checkpoint,)).remarks
    assert machine.bitmaps() == {one.checkpoint, other.checkpoint}


def test_another_site_s_checkpoint_is_left_alone(machine: Qemu) -> None:
    one, other = chain(machine), chain(machine)
    one.back_up()
    other.back_up(label="other-1")
    assert not one.back_up().remarks
    assert {one.checkpoint, other.checkpoint} == machine.bitmaps()


def test_a_machine_that_dies_meanwhile_fails_the_backup_and_no_other(machine: Qemu) -> None:
    images = chain(machine)
    machine.some_writes(Random(16), 10)
    with pytest.raises(HypervisorError), images.provider.snapshot(order(machine)) as snapshot:
        machine.kill()
        with pytest.raises(HoldfastError):
            read_disk(snapshot.disks[0])
        snapshot.check()
    machine.start()
    machine.write("disk0", 0, SIZE, 5)
    machine.write("disk1", 0, SIZE, 6)
    images.back_up()
    assert not list(Path(tempfile.gettempdir()).glob(f"{snapshots.PREFIX}*"))


def test_a_full_scratch_directory_breaks_the_snapshot_and_not_the_machine(
    machine: Qemu, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", small], check=False)
    if done.returncode:
        pytest.skip("needs to mount a small file system")
    try:
        images = chain(machine)
        machine.write("disk0", 0, SIZE, 1)
        with pytest.raises(SnapshotBroken, match=r"no more room") as caught:
            with images.provider.snapshot(order(machine, scratch=small)) as snapshot:
                read_disk(snapshot.disks[0])
                machine.write("disk0", 0, SIZE, 2)
                assert machine.status() == "running"
                with pytest.raises(HoldfastError):
                    read_disk(snapshot.disks[0])
                snapshot.check()
        assert "scratch" in str(caught.value.hint)
        assert machine.leftovers() == []
        assert os.statvfs(small).f_bfree == os.statvfs(small).f_blocks
        machine.write("disk0", 0, MIB, 3)
        images.back_up()
    finally:
        subprocess.run(["umount", small], check=True)


def test_more_scratch_than_is_allowed_gives_the_snapshot_up(machine: Qemu) -> None:
    machine.write("disk0", 0, SIZE, 1)
    with pytest.raises(SnapshotBroken, match=f"{MIB} are allowed"):
        with provider(machine).snapshot(order(machine, scratch_bytes=MIB)) as snapshot:
            machine.write("disk0", 0, SIZE, 2)
            until = time.monotonic() + 60
            while machine.leftovers():  # whoever reads nothing just now does not fill the disk
                assert time.monotonic() < until
                time.sleep(0.01)
            snapshot.check()
    assert machine.status() == "running"


def test_what_is_found_of_a_machine(machine: Qemu) -> None:
    (found,) = provider(machine).machines()
    assert found == provider(machine).machine(machine.uuid)
    assert (found.name, found.uuid, found.state) == ("web", machine.uuid, State.RUNNING)
    assert (found.memory, found.cpus) == (32 * MIB, 1)
    assert [(one.name, one.size, one.format, one.left_out) for one in found.disks] == [
        ("disk0", SIZE, "qcow2", None),
        ("disk1", SIZE, "raw", None),
    ]
    assert [one.mac for one in found.networks] == ["52:54:00:12:34:56"]
    assert found.datastores == (str(machine.directory),)
    with pytest.raises(MachineMissing):
        provider(machine).machine("00000000-0000-0000-0000-000000000001")


def test_what_would_not_go_well_is_said_beforehand(machine: Qemu, tmp_path: Path) -> None:
    found = {one.code: one for one in provider(machine).try_out(machine.uuid, tmp_path)}
    assert set(found) == {"bitmap-in-memory", "not-quiesced"}
    assert found["bitmap-in-memory"].about == "disk1"
    with pytest.raises(HoldfastError, match="no scratch file"):
        list(provider(machine).try_out(machine.uuid, tmp_path / "missing"))


def test_too_little_scratch_is_told_by_a_trial(
    machine: Qemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.sources.machines.scratch_room.RESERVE_BYTES", 1 << 60)
    (short,) = (
        one for one in provider(machine).try_out(machine.uuid, tmp_path) if one.code == "no-scratch"
    )
    assert (short.severity, str(tmp_path) in short.message) == ("error", True)


class WithMemoryThatStays(Qemu):
    """A machine with disks of which QEMU's block layer knows nothing."""

    def words(self) -> list[str]:
        words = super().words()
        words[words.index("-m") + 1] = "32,slots=4,maxmem=256M"
        words += ["-machine", "pc,nvdimm=on"]
        for at, device in enumerate(("nvdimm,id=kept,memdev=m0", "nvdimm,memdev=m1")):
            words += ["-object", f"memory-backend-ram,id=m{at},size=16M", "-device", device]
        return words


def test_what_is_stored_past_qemu_is_told_and_the_rest_is_backed_up(tmp_path: Path) -> None:
    with WithMemoryThatStays(tmp_path) as machine:
        told = provider(machine).try_out(machine.uuid, tmp_path)
        named = [one.message for one in told if one.code == "disk-left-out"]
        assert [one.partition(":")[0] for one in named] == [
            "device 'kept' is not in the image",
            "device 'nvdimm device[1]' is not in the image",
        ]
        with provider(machine).snapshot(order(machine)) as snapshot:
            assert [one.name for one in snapshot.disks] == ["disk0"]
            said = [one.message for one in snapshot.remarks if one.code == "disk-left-out"]
        assert said == named
        assert all("memory that keeps its content" in one for one in said)
        unwanted = order(machine, leave_out=["kept"])
        with provider(machine).snapshot(unwanted) as snapshot:
            assert [one.message for one in snapshot.remarks if "memory" in one.message] == named[1:]


def test_a_monitor_that_somebody_else_holds_is_busy(machine: Qemu) -> None:
    held = Monitor(str(machine.monitor_path))
    try:
        with pytest.raises(Busy, match="another program holds") as caught:
            Monitor(str(machine.monitor_path), greeting_timeout_s=0.2)
        assert "monitor of their own" in str(caught.value.hint)
    finally:
        held.close()


def test_two_backups_of_one_machine_at_once_are_refused(machine: Qemu) -> None:
    with provider(machine).snapshot(order(machine)):
        assert provider(machine).machine(machine.uuid).name == "web"
        with pytest.raises(Busy), provider(machine).snapshot(order(machine)):
            pass


def test_a_machine_that_is_off_has_no_monitor(machine: Qemu) -> None:
    machine.shut_down()
    with pytest.raises(Unreachable):
        QmpProvider(str(machine.monitor_path)).machines()
    assert provider(machine).machines() == []


def test_leftovers_are_cleaned_up_when_asked(machine: Qemu) -> None:
    assert chain(machine).die_at("read").killed
    assert machine.leftovers()
    told = provider(machine).clean_up()
    assert {one.code for one in told} == {"leftover"}
    assert machine.leftovers() == []
    assert len(machine.bitmaps()) == 1, "an image may have been committed with it"
    assert not provider(machine).clean_up()


def test_a_disk_that_is_not_wanted_is_left_alone(machine: Qemu) -> None:
    with provider(machine).snapshot(order(machine, leave_out=("disk0",))) as snapshot:
        assert [one.name for one in snapshot.disks] == ["disk1"]


def test_a_machine_of_which_no_disk_is_wanted_is_backed_up_again_and_again(machine: Qemu) -> None:
    images = chain(machine)
    for _ in range(2):
        with provider(machine).snapshot(order(machine, leave_out=("disk0", "disk1"))) as snapshot:
            assert snapshot.disks == ()
    images.back_up()


def test_a_read_that_begins_where_the_guest_wrote_shows_what_was_there(machine: Qemu) -> None:
    """Some versions of QEMU show the new bytes, where a read ends beyond what was written."""
    machine.write("disk0", 0, SIZE, 1)
    with provider(machine).snapshot(order(machine)) as snapshot:
        source = snapshot.disks[0].source()
        machine.write("disk0", MIB + 1024, 512, 7)
        machine.write("disk0", 3 * MIB, 3 * GRAIN, 8)
        for offset, length in ((0, SIZE), (MIB, MIB), (MIB + 512, 2 * GRAIN), (3 * MIB, MIB)):
            assert source.read_at(offset, length) == b"\x01" * length, (offset, length)


def test_what_the_guest_zeroes_meanwhile_is_as_it_was_in_the_snapshot(machine: Qemu) -> None:
    """Some versions of QEMU call it empty, and answer with the zeroes of now."""
    for disk in machine.names:
        machine.write(disk, 0, SIZE - MIB, 1)
    with provider(machine).snapshot(order(machine)) as snapshot:
        for disk in machine.names:
            machine.io(disk, f"write -z -u {MIB // 2} {GRAIN}")
            machine.io(disk, f"discard {MIB + 1024} {300 * 1024}")
        for frozen in snapshot.disks:
            ranges = [(one.kind, one.length) for one in frozen.ranges()]
            assert ranges == [(Kind.DATA, SIZE - MIB), (Kind.HOLE, MIB)]
            source = frozen.source()
            for disk in machine.names:
                machine.io(disk, f"write -z -u {2 * MIB} {5 * GRAIN}")
            for length in (512, 5 * 512, GRAIN, 3 * GRAIN, MIB):
                for offset in range(0, SIZE - MIB - length, length):
                    assert source.read_at(offset, length) == b"\x01" * length, (offset, length)
    assert machine.leftovers() == []


def test_without_a_list_of_writes_nothing_is_believed_to_be_empty(
    machine: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_monitor: Any, _device: Any, _checkpoint: str) -> Remark:
        return Remark("warning", "bitmap-refused", "no")

    monkeypatch.setattr(bitmaps, "add", refuse)
    with provider(machine).snapshot(order(machine)) as snapshot:
        assert snapshot.checkpoint is None
        for frozen in snapshot.disks:
            assert [(one.kind, one.length) for one in frozen.ranges()] == [(Kind.DATA, SIZE)]
