"""Machines without libvirt that are made again from what was read."""

# Where a snapshot ends is where it fails: blocks within blocks say what happens in which.

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from holdfast.base.errors import (
    AlreadyExists,
    HypervisorError,
)
from holdfast.sources.machines.machine import Disk, State
from holdfast.sources.machines.provider import DiskTarget, NewMachine, Part, SnapshotOrder
from holdfast.sources.machines.providers import open_provider
from holdfast.sources.machines.qmp import QmpProvider
from holdfast.sources.machines.qmp.monitor import MONITORS
from tests.kit.image_chain import snapshot_order, writer
from tests.kit.qemu import (
    Qemu,
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


def test_a_machine_is_made_again_under_another_name(machine: Qemu, tmp_path: Path) -> None:
    machine.some_writes(Random(17), 10)
    made = provider(machine)
    with made.snapshot(order(machine)) as snapshot:
        held = {one.name: read_disk(one) for one in snapshot.disks}
    new = NewMachine(
        snapshot.machine, snapshot.definitions, "copy", False, (), str(tmp_path / "new"), "qcow2"
    )
    found = made.restore(new, writer(held))
    assert found.uuid != machine.uuid
    made.start(found.uuid)
    try:
        again = made.machine(found.uuid)
        assert (again.name, again.state) == ("copy", State.RUNNING)
        assert again.networks[0].mac != "52:54:00:12:34:56"
        with made.snapshot(order(machine, uuid=found.uuid)) as snapshot:
            assert {one.name: read_disk(one) for one in snapshot.disks} == held
        with pytest.raises(AlreadyExists):
            made.restore(new, writer(held))
    finally:
        with MONITORS.use(str(machine.run / "copy.qmp")) as monitor:
            pid = monitor.peer_pid()
        os.kill(pid, signal.SIGKILL)


def test_a_machine_that_runs_is_not_made_again_with_its_identity(
    machine: Qemu, tmp_path: Path
) -> None:
    made = provider(machine)
    known = made.machine(machine.uuid)
    new = NewMachine(known, {}, "copy", True, None, str(tmp_path / "new"), "qcow2")
    with pytest.raises(AlreadyExists, match="runs with the uuid"):
        made.restore(new, writer({}))


def test_a_disk_that_can_t_be_written_leaves_nothing(machine: Qemu, tmp_path: Path) -> None:
    def fail(disk: Disk, target: DiskTarget, _part: Part) -> None:
        raise HypervisorError("no")

    made = provider(machine)
    with made.snapshot(order(machine)) as snapshot:
        pass
    new = NewMachine(
        snapshot.machine, snapshot.definitions, "copy", False, None, str(tmp_path / "new"), "qcow2"
    )
    with pytest.raises(HypervisorError, match="no"):
        made.restore(new, fail)
    assert not list((tmp_path / "new").iterdir())


def test_a_machine_that_is_made_again_never_opens_a_disk_of_the_first(
    machine: Qemu, tmp_path: Path
) -> None:
    made = provider(machine)
    with made.snapshot(order(machine, leave_out=("disk1",))) as snapshot:
        held = {one.name: read_disk(one) for one in snapshot.disks}
    new = NewMachine(
        snapshot.machine, snapshot.definitions, "copy", False, None, str(tmp_path / "new"), "qcow2"
    )
    found = made.restore(new, writer(held))
    assert [one.name for one in found.disks if one.left_out is None] == ["disk0"]
    kept = json.loads((machine.run / "copy.machine").read_text())["words"]
    assert not [one for one in kept if str(machine.files[0]) in one or str(machine.files[1]) in one]
    assert not [one for one in kept if "disk1" in one]
    made.start(found.uuid)
    with MONITORS.use(str(machine.run / "copy.qmp")) as monitor:
        pid = monitor.peer_pid()
    os.kill(pid, signal.SIGKILL)
