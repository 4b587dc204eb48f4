"""What a trial of a machine without libvirt shows, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from holdfast.base.errors import HoldfastError, HypervisorError, HypervisorRefused, MachineMissing
from holdfast.sources.machines.provider import Remark
from holdfast.sources.machines.providers import open_provider
from holdfast.sources.machines.qmp import QmpProvider, fleece, trial
from holdfast.sources.machines.qmp.monitor import MONITORS, Monitor
from tests.kit.image_chain import ImageChain, die, snapshot_order
from tests.kit.qemu import GRAIN, MIB, SIZE, FakeAgent, Load, Qemu, needs_qemu, read_disk

pytestmark = needs_qemu

USUAL = {"bitmap-in-memory", "not-quiesced"}
"""What is told of the small machine beside."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Qemu]:
    with Qemu(tmp_path, formats=("qcow2", "raw")) as made:
        yield made


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    made = tmp_path / "scratch"
    made.mkdir()
    return made


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where directories of sockets are made, of this test alone."""
    made = tmp_path / "sockets"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What is said to monitors from now on."""
    real = Monitor.execute
    said: list[tuple[str, dict[str, Any]]] = []

    def execute(monitor: Monitor, command: str, *given: Any, **named: Any) -> Any:
        said.append((command, given[0] if given else {}))
        return real(monitor, command, *given, **named)

    monkeypatch.setattr(Monitor, "execute", execute)
    return said


def provider(machine: Qemu) -> QmpProvider:
    made = open_provider("qmp", str(machine.run))
    assert isinstance(made, QmpProvider)
    return made


def chain(machine: Qemu) -> ImageChain:
    return ImageChain(machine, "qmp", str(machine.run), machine.directory)


def told(machine: Qemu, scratch: Path, leave_out: tuple[str, ...] = ()) -> list[Remark]:
    """What a trial says, without what the small machine is always said to be."""
    found = provider(machine).try_out(machine.uuid, scratch, leave_out=leave_out)
    return [one for one in found if one.code not in USUAL]


def assert_clean(machine: Qemu) -> None:
    assert machine.leftovers() == []
    assert machine.test is not None
    with tempfile.TemporaryDirectory() as place:
        address = {"type": "unix", "data": {"path": f"{place}/other"}}
        machine.test.execute("nbd-server-start", {"addr": address})  # no other is on
        machine.test.execute("nbd-server-stop")


def test_a_trial_reads_as_a_backup_does_beside_a_guest_that_writes_on(
    machine: Qemu, scratch: Path, sockets: Path, commands: list[tuple[str, dict[str, Any]]]
) -> None:
    opened = len(os.listdir("/proc/self/fd"))
    with FakeAgent(machine.run / "web.qga") as agent, Load(machine, Random(1)) as load:
        load.wait_for(5)
        commands.clear()
        assert told(machine, scratch) == []
        seen = list(commands)
        load.wait_for(5)
    assert "guest-fsfreeze-freeze" not in agent.asked
    assert machine.status() == "running"
    made = [arguments["driver"] for command, arguments in seen if command == "blockdev-add"]
    assert made == ["file", "copy-before-write", "snapshot-access"] * 2
    asked = {command for command, _ in seen}
    assert not asked & {"stop", "cont", "block-dirty-bitmap-add"}
    assert machine.bitmaps() == set()
    assert_clean(machine)
    assert os.listdir(scratch) == os.listdir(sockets) == []
    assert len(os.listdir("/proc/self/fd")) == opened
    chain(machine).back_up()  # what the guest wrote meanwhile is there


def test_a_guest_that_stands_still_is_not_woken(machine: Qemu, scratch: Path) -> None:
    assert machine.test is not None
    machine.test.execute("stop")
    assert told(machine, scratch) == []
    assert machine.status() == "paused"
    # QEMU drops open files that it was told to drop when the guest runs.
    assert not [one for one in machine.leftovers() if "fdset-id" not in one]
    machine.test.execute("cont")
    assert told(machine, scratch) == []
    assert_clean(machine)


def test_a_backup_after_a_trial_reads_only_what_changed(machine: Qemu, scratch: Path) -> None:
    images = chain(machine)
    machine.some_writes(Random(2), 10)
    images.back_up()
    assert told(machine, scratch) == []
    machine.some_writes(Random(3), 3)
    assert not images.back_up().remarks
    assert machine.bitmaps() == {images.checkpoint}


def test_whatever_qemu_refuses_in_a_trial_nothing_of_it_stays(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Qemu(tmp_path)
    real = Monitor.execute
    step, asked, refused = 0, 0, ""
    silent: set[str] = set()
    monkeypatch.setattr(trial, "_GONE_S", 0.2)

    def execute(monitor: Monitor, command: str, *given: Any, **named: Any) -> Any:
        nonlocal asked, refused
        if monitor is not machine.test:
            asked += 1
            if asked == step:
                refused = command
                raise HypervisorRefused(f"QEMU refused '{command}': no", reason="no")
        return real(monitor, command, *given, **named)

    with machine, MONITORS.use(str(machine.monitor_path)) as monitor:
        assert machine.test is not None
        monkeypatch.setattr(Monitor, "execute", execute)
        while True:
            step, asked, refused = step + 1, 0, ""
            try:
                found = trial.tried(monitor, scratch)
            except HoldfastError as error:
                found = [Remark("error", "", error.message)]
            assert machine.status() == "running"
            if not refused:
                assert found == []
                break
            assert {one.severity for one in found} <= {"error"}, (step, refused)
            if not found:
                silent.add(refused)
            if refused == "nbd-server-stop":
                machine.test.execute(refused)
            if refused == "remove-fd" or "not-released" in {one.code for one in found}:
                before, step = step, 0
                fleece.remove_all(monitor)
                step = before
            assert machine.leftovers() == [], (step, refused)
        assert step > 20
        # A node of the chain may be used by who shares it with nobody; what QEMU refuses to stop or
        # to drop is none any more.
        assert silent <= {"qom-get", "block-export-add", "nbd-server-stop", "remove-fd"}
        assert_clean(machine)


def test_wherever_a_trial_is_killed_the_machine_runs_and_the_next_backup_is_right(
    tmp_path: Path, scratch: Path
) -> None:
    with Qemu(tmp_path) as machine:
        images = chain(machine)
        machine.some_writes(Random(4), 10)
        images.back_up()
        order = {"uuid": machine.uuid, "scratch": str(scratch), "trial": True}
        step, killed, left = 1, True, 0
        while killed:
            with tempfile.TemporaryDirectory() as place:
                killed = die("qmp", str(machine.run), order, step, Path(place)).killed
            assert machine.status() == "running"
            machine.some_writes(Random(step), 2)
            left += bool(machine.leftovers())
            snapshot = images.back_up()
            assert {one.code for one in snapshot.remarks} <= {"leftover"}, step
            step += 3
        assert left > 5
        assert_clean(machine)


class OverABase(Qemu):
    """A machine whose second disk lies over another file, that QEMU may not be able to read."""

    def __init__(self, directory: Path, *, broken: bool) -> None:
        super().__init__(directory)
        self.base, self.over = directory / "base.raw", directory / "over.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "raw", self.base, str(SIZE)], check=True)
        words = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(self.base), str(self.over)]
        subprocess.run(["qemu-img", *words], check=True)
        write = ["qemu-io", "-f", "qcow2", "-c", f"write -P 1 0 {GRAIN}", str(self.over)]
        subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
        self._broken = broken

    def words(self) -> list[str]:
        base: dict[str, Any] = {"driver": "file", "filename": str(self.base)}
        if self._broken:
            errors = [{"event": "none", "iotype": "read", "errno": 5, "once": False}]
            base = {"driver": "blkdebug", "image": base, "inject-error": errors}
        over = {
            "driver": "qcow2",
            "node-name": "over",
            "file": {"driver": "file", "filename": str(self.over)},
            "backing": "base",
        }
        words = super().words()
        for node in ({"driver": "raw", "node-name": "base", "file": base}, over):
            words += ["-blockdev", json.dumps(node)]
        return [*words, "-device", "virtio-blk-pci,drive=over,id=disk1"]


@pytest.mark.parametrize("broken", [False, True])
def test_each_file_of_a_chain_is_read(tmp_path: Path, scratch: Path, broken: bool) -> None:
    """Of the upper one the first bytes can be read in either case."""
    with OverABase(tmp_path, broken=broken) as machine:
        found = told(machine, scratch)
        if not broken:
            assert found == []
        else:
            (error,) = found
            assert (error.severity, error.code, error.about) == ("error", "not-readable", "disk1")
            assert str(machine.base) in error.message
            assert "EIO" in error.message
            assert "storage that it lies on" in error.message
            assert told(machine, scratch, leave_out=("disk1",)) == []
        assert machine.status() == "running"
        assert_clean(machine)


@pytest.mark.parametrize("exports", [["other"], []])
def test_a_qemu_that_serves_somebody_else_is_left_alone(
    machine: Qemu, scratch: Path, tmp_path: Path, exports: list[str]
) -> None:
    assert machine.test is not None
    address = {"type": "unix", "data": {"path": str(tmp_path / "other.sock")}}
    machine.test.execute("nbd-server-start", {"addr": address})
    node = machine.test.execute("query-block")[0]["inserted"]["node-name"]
    for name in exports:
        other = {"type": "nbd", "id": name, "node-name": node, "name": name}
        machine.test.execute("block-export-add", other)
    (busy,) = told(machine, scratch)
    assert (busy.severity, busy.code) == ("info", "busy")
    assert "serves disks for somebody else" in busy.message
    assert [one["id"] for one in machine.test.execute("query-block-exports")] == exports
    machine.test.execute("nbd-server-stop")  # which is refused where it was stopped
    assert_clean(machine)


def test_a_machine_that_is_being_backed_up_is_not_tried(machine: Qemu, scratch: Path) -> None:
    machine.write("disk0", 0, MIB, 1)
    order = snapshot_order(machine, machine.directory)
    with provider(machine).snapshot(order) as snapshot:
        machine.write("disk0", 0, MIB, 2)
        (busy,) = told(machine, scratch)
        assert (busy.severity, busy.code) == ("info", "busy")
        assert "is being backed up" in busy.message
        assert read_disk(snapshot.disks[0])[:MIB] == b"\x01" * MIB
        snapshot.check()


def test_a_backup_that_comes_in_a_trial_waits_for_its_end(
    machine: Qemu, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, is_there, may_end = trial.tried, threading.Event(), threading.Event()

    def slow(monitor: Monitor, scratch: Path, leave_out: Collection[str]) -> list[Remark]:
        is_there.set()
        assert may_end.wait(60)
        return real(monitor, scratch, leave_out)

    monkeypatch.setattr(trial, "tried", slow)
    found: list[Remark] = []
    trying = threading.Thread(target=lambda: found.extend(told(machine, scratch)))
    ending = threading.Timer(0.2, may_end.set)
    with ExitStack() as stack:
        trying.start()
        stack.callback(trying.join)
        stack.callback(may_end.set)
        assert is_there.wait(60)
        ending.start()
        chain(machine).back_up()
        assert may_end.is_set()
    assert found == []
    assert_clean(machine)


def test_what_a_dead_backup_left_is_taken_out_by_a_trial(machine: Qemu, scratch: Path) -> None:
    images = chain(machine)
    machine.some_writes(Random(5), 10)
    images.back_up()
    assert images.die_at("read").killed
    assert machine.leftovers()
    (left,) = told(machine, scratch)
    assert (left.severity, left.code) == ("info", "leftover")
    assert_clean(machine)
    machine.some_writes(Random(6), 3)
    assert {one.code for one in images.back_up().remarks} <= {"leftover"}


def test_scratch_that_can_not_be_written_is_told_with_the_cause(
    machine: Qemu, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(scratch)]
    if subprocess.run(mounted, check=False).returncode:
        pytest.skip("needs to mount a small file system")
    try:
        monkeypatch.setattr("holdfast.sources.machines.scratch_room.RESERVE_BYTES", 0)
        (scratch / "full").write_bytes(bytes(MIB))
        found = told(machine, scratch)
        assert [(one.severity, one.about) for one in found] == [
            ("error", "disk0"),
            ("error", "disk1"),
        ]
        assert all(f"scratch files in '{scratch}' can't be written" in one.message for one in found)
        assert all("No space left" in one.message for one in found)
        assert_clean(machine)
    finally:
        subprocess.run(["umount", scratch], check=True)


def test_a_machine_that_ends_in_its_trial_is_told(
    machine: Qemu, scratch: Path, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: Any) -> None:
        machine.kill()
        raise HypervisorError("the machine ended")

    monkeypatch.setattr(fleece, "insert", ended)
    first, *_ = told(machine, scratch)
    assert (first.severity, first.about) == ("error", "disk0")
    assert "the machine ended" in first.message
    assert os.listdir(scratch) == os.listdir(sockets) == []


def test_of_a_machine_that_is_off_it_is_said_what_backs_it_up(machine: Qemu, scratch: Path) -> None:
    with pytest.raises(MachineMissing, match="runs under") as caught:
        provider(machine).try_out("00000000-0000-0000-0000-000000000001", scratch)
    assert "'diskfiles'" in str(caught.value.hint)
