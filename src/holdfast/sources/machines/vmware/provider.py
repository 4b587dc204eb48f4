"""Machines of a vCenter or an ESXi host.

Must not remember what a machine was: each question is asked anew, in a session of its own. A
machine is read by a snapshot, whether it runs or not.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from holdfast.base.errors import Busy, HoldfastError
from holdfast.sources import places
from holdfast.sources.machines.machine import NOT_WANTED, State
from holdfast.sources.machines.overlays import RunsNoImages
from holdfast.sources.machines.provider import Remark
from holdfast.sources.machines.vmware import (
    disks,
    frozen,
    inventory,
    rebuild,
    rights,
    snapshots,
)
from holdfast.sources.machines.vmware.connection import asked
from holdfast.sources.machines.vmware.frozen import VmwareSnapshot
from holdfast.sources.machines.vmware.properties import told
from holdfast.sources.machines.vmware.tasks import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import DiskWriter, NewMachine, SnapshotOrder
    from holdfast.sources.machines.vmware.connection import Session, VCenter
    from holdfast.sources.machines.vmware.disks import DeviceDisk
    from holdfast.sources.machines.vmware.snapshots import Taken

_PLACE = "holdfast-vm-"
_TOOLS = "guestToolsRunning"

_under_way: set[tuple[str, str]] = set()
_turn = threading.Lock()


class VmwareProvider(RunsNoImages):
    """See `Provider`. Thread-safe."""

    _kind = "VMware"

    def __init__(self, vcenter: VCenter) -> None:
        """Name it; nobody is asked."""
        self._vcenter = vcenter

    def machines(self) -> Sequence[Machine]:
        """See `Provider.machines`."""
        with self._vcenter.session() as session:
            return inventory.machines(session)

    def machine(self, uuid: str) -> Machine:
        """See `Provider.machine`."""
        with self._vcenter.session() as session:
            return inventory.machine(session, inventory.find(session, uuid))

    def try_out(
        self,
        uuid: str,
        scratch: Path,  # noqa: ARG002 - snapshots lie in the datastore
        *,
        trim: bool = False,
        leave_out: Collection[str] = (),
    ) -> Sequence[Remark]:
        """See `Provider.try_out`."""
        with self._vcenter.session() as session:
            one = inventory.find(session, uuid)
            return list(_tried(session, one, trim=trim, leave_out=leave_out))

    @contextlib.contextmanager
    def snapshot(
        self, order: SnapshotOrder, alive: Callable[[], None] = lambda: None
    ) -> Iterator[VmwareSnapshot]:
        """See `Provider.snapshot`."""
        with (
            self._alone(order.uuid),
            places.private_directory(_PLACE) as place,
            self._vcenter.session() as session,
        ):
            one = inventory.find(session, order.uuid)
            remarks = snapshots.remove_leftovers(session, one, order.label)
            machine = inventory.machine(session, one).without(order.leave_out)
            remarks += _left_out(machine) + _past_files(session, one, order.leave_out)
            data_center = inventory.data_center_path(session, one)
            wanted = [each.name for each in machine.disks if each.left_out is None]
            disks.refuse_chain(_held(session, one, wanted), machine.name)
            definitions, unread = frozen.definitions(session, one, machine, data_center)
            remarks += unread + _mark_changes(session, one, machine, alive)
            alive()
            taken, more = snapshots.make(session, one, machine, order, place, alive)
            made = VmwareSnapshot(session, one, machine, definitions, taken, data_center)
            made.noted += remarks + more
            try:
                made.take(wanted, order.since, place, alive)
                yield made
            except BaseException:
                made.close()
                with contextlib.suppress(HoldfastError):  # what failed first is what is told
                    self._release(order.uuid, taken)
                raise
            made.close()
            self._release(order.uuid, taken)

    def restore(self, order: NewMachine, write: DiskWriter) -> Machine:
        """See `Provider.restore`."""
        with self._vcenter.session() as session:
            return rebuild.restore(session, order, write)

    def throw_away(self, order: NewMachine) -> Sequence[str]:
        """See `Provider.throw_away`."""
        with self._vcenter.session() as session:
            return rebuild.throw_away(session, order)

    def start(self, uuid: str) -> None:
        """See `Provider.start`."""
        with self._vcenter.session() as session:
            one = inventory.find(session, uuid)
            what = f"machine {uuid} does not start"
            with asked(what, session.place):
                task = one.PowerOnVM_Task()
            wait(session, task, what)

    def clean_up(self) -> Sequence[Remark]:
        """See `Provider.clean_up`: of backups that ran on this machine, and are no more."""
        places.clear(_PLACE)
        found = []
        with self._vcenter.session() as session:
            for machine in inventory.machines(session):
                one = inventory.find(session, machine.uuid)
                for left in reversed(snapshots.taken(session, one)):
                    if snapshots.is_dead(left):
                        snapshots.remove(session, one, left)
                        text = f"the snapshot '{left.name}' of '{machine.name}' was removed"
                        found.append(Remark("info", "leftover", text))
        return found

    def _release(self, uuid: str, taken: Taken) -> None:
        """Remove the snapshot, in a session that is not older than the last hours."""
        with self._vcenter.session() as session:
            one = inventory.find(session, uuid)
            for left in snapshots.taken(session, one):
                if left.id == taken.id:
                    snapshots.remove(session, one, left)

    @contextlib.contextmanager
    def _alone(self, uuid: str) -> Iterator[None]:
        key = (str(self._vcenter.place), uuid)
        with _turn:
            if key in _under_way:
                raise Busy(f"machine {uuid} is being backed up")
            _under_way.add(key)
        try:
            yield
        finally:
            with _turn:
                _under_way.discard(key)


def _mark_changes(
    session: Session, one: Any, machine: Machine, alive: Callable[[], None]
) -> list[Remark]:
    """Have changes marked from the next snapshot on; what is in the way of it."""
    marked, can = "config.changeTrackingEnabled", "capability.changeTrackingSupported"
    said = told(session, one, marked, can)
    if said.get(marked):
        return []
    if said.get(can) is False:
        text = f"the hardware of '{machine.name}' is too old to mark changes: all is read each time"
        return [Remark("info", "no-bitmap", text)]
    try:
        with asked("changes can't be marked", session.place):
            task = one.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True))
        wait(session, task, "changes can't be marked", alive)
    except HoldfastError as error:
        return [Remark("warning", "bitmap-refused", f"the next backup reads all: {error.message}")]
    return []


def _tried(
    session: Session, one: Any, *, trim: bool, leave_out: Collection[str]
) -> Iterator[Remark]:
    machine = inventory.machine(session, one).without(leave_out)
    for right in rights.missing(session, one, rights.OF_BACKUPS):
        text = f"the user may not {rights.OF_BACKUPS[right]}: the right '{right}' is missing"
        yield Remark("error", "not-allowed", text)
    tools, can = "guest.toolsRunningStatus", "capability.changeTrackingSupported"
    said = told(session, one, "datastore", tools, can)
    with asked("the vCenter does not tell of its datastores", session.place):
        stores = {each.name: each for each in said.get("datastore", ())}
    for name in machine.datastores:
        if name in stores:
            for right in rights.missing(session, stores[name], rights.OF_READING):
                text = f"the user may not {rights.OF_READING[right]} in datastore '{name}': "
                yield Remark("error", "not-allowed", f"{text}the right '{right}' is missing")
    yield from _left_out(machine) + _past_files(session, one, leave_out)
    try:
        wanted = [each.name for each in machine.disks if each.left_out is None]
        disks.refuse_chain(_held(session, one, wanted), machine.name)
    except HoldfastError as error:
        if not all(each.name.startswith("holdfast.") for each in snapshots.taken(session, one)):
            yield Remark("error", "lies-over-snapshots", f"{error.message} ({error.hint})")
    if said.get(can) is False:
        yield Remark("info", "no-bitmap", "its hardware is too old to mark changes")
    if machine.state is State.RUNNING and said.get(tools) != _TOOLS:
        yield Remark("warning", "not-quiesced", "VMware Tools do not run in the machine")
    if trim:
        yield snapshots.untrimmed(machine)


def _held(session: Session, one: Any, wanted: Sequence[str]) -> list[DeviceDisk]:
    """The disks of a machine that are wanted."""
    known = told(session, one, "config.hardware.device")
    found = disks.of_devices(known.get("config.hardware.device", ()))
    return [each for each in found if each.name in wanted]


def _past_files(session: Session, one: Any, unwanted: Collection[str] = ()) -> list[Remark]:
    known = told(session, one, "config.hardware.device")
    return [
        Remark("warning", "disk-left-out", f"device '{name}' is not in the image: {reason}", name)
        for name, reason in disks.past_files(known.get("config.hardware.device", ()))
        if name not in unwanted
    ]


def _left_out(machine: Machine) -> list[Remark]:
    found = []
    for one in machine.disks:
        if one.left_out is not None:
            text = f"disk '{one.name}' is not in the image: {one.left_out}"
            severity = "info" if one.left_out == NOT_WANTED else "warning"
            found.append(Remark(severity, "disk-left-out", text, one.name))
    return found
