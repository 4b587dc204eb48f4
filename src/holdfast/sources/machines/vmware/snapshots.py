"""Snapshots that backups make of a machine: made at rest where that can be, known again, removed.

Must not touch one whose name is not ours. Invariant: whose a snapshot is, and on which machine the
process ran that made it, stands in its name and its description.
"""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from holdfast.base.errors import Busy, HoldfastError, NotQuiesced, WrongState
from holdfast.sources import places
from holdfast.sources.machines import trimming
from holdfast.sources.machines.labels import PREFIX, owner_of
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.provider import NOT_TRIMMED, Remark
from holdfast.sources.machines.vmware.connection import asked, translated
from holdfast.sources.machines.vmware.properties import told
from holdfast.sources.machines.vmware.tasks import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import SnapshotOrder
    from holdfast.sources.machines.vmware.connection import Session

_UNTRIMMED = (
    "the guest was not asked to trim: VMware's way into it takes a password of that guest's; have "
    "it trim by itself: systemctl enable fstrim.timer (Windows does)"
)
_QUIESCING = (
    vim.fault.ApplicationQuiesceFault,
    vim.fault.FilesystemQuiesceFault,
    vim.fault.ToolsUnavailable,
    vim.fault.GenericVmConfigFault,
)


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot of a machine.

    Attributes:
        reference: It.
        id: By which the interface names it: the same in every session.
        name: Of it.
        description: Of it.
        at_rest: Whether the guest's file systems were brought to rest.
    """

    reference: Any
    id: str
    name: str
    description: str
    at_rest: bool


def taken(session: Session, virtual_machine: Any) -> list[Taken]:
    """All snapshots of a machine, whoever made them.

    Raises:
        HoldfastError: It does not tell.
    """
    info = told(session, virtual_machine, "snapshot").get("snapshot")
    return list(_walked(info.rootSnapshotList)) if info is not None else []


def make(
    session: Session,
    virtual_machine: Any,
    machine: Machine,
    order: SnapshotOrder,
    place: Path,
    alive: Callable[[], None],
) -> tuple[Taken, list[Remark]]:
    """Make a snapshot for a backup.

    Args:
        session: By which.
        virtual_machine: Of what.
        machine: The same, as it is known.
        order: How.
        place: The directory that shows that the backup lives.
        alive: Called meanwhile.

    Raises:
        NotQuiesced: The guest could not be brought to rest, and has to be.
        HoldfastError: It can't be made; none is left.
    """
    name = name_of(order.label)
    said = json.dumps({"on": socket.gethostname(), "place": str(place)})
    running = str(machine.state) == "running"
    remarks: list[Remark] = []
    quiesce = order.quiesce and running
    not_trimmed = [untrimmed(machine)] if order.trim_s else []

    def create(at_rest: bool) -> None:
        with asked(f"no snapshot of '{machine.name}' could be made", session.place):
            task = virtual_machine.CreateSnapshot_Task(name, said, False, at_rest)
        wait(session, task, f"no snapshot of '{machine.name}' could be made", alive)

    try:
        try:
            create(quiesce)
        except HoldfastError as error:
            if not quiesce or not isinstance(error.__cause__, _QUIESCING):
                raise
            why = translated(error.__cause__, f"'{machine.name}' was not brought to rest").message
            remarks.append(_not_at_rest(why, order))
            create(False)
        made = [one for one in taken(session, virtual_machine) if one.name == name]
        if not made:
            raise WrongState(f"the snapshot of '{machine.name}' is gone as soon as it was made")
        if quiesce and not made[-1].at_rest and not remarks:
            why = f"'{machine.name}' was not brought to rest: VMware Tools do not run in it"
            remarks.append(_not_at_rest(why, order))
    except BaseException:
        # Also what came of a task that was told to end, and did not any more.
        with contextlib.suppress(HoldfastError):
            for one in taken(session, virtual_machine):
                if one.name == name:
                    remove(session, virtual_machine, one)
        raise
    return made[-1], not_trimmed + remarks


def untrimmed(machine: Machine) -> Remark:
    """That a guest does not trim, whatever its policy says."""
    if machine.state is not State.RUNNING:
        return trimming.of_nothing()
    return Remark("warning", NOT_TRIMMED, _UNTRIMMED)


def name_of(label: str) -> str:
    """What a backup's snapshot is called."""
    return f"{PREFIX}.{owner_of(label)}.{label.rpartition('-')[2]}"


def remove(session: Session, virtual_machine: Any, one: Taken) -> None:
    """Remove a snapshot, and have the machine's disks be one file each again.

    Raises:
        HoldfastError: It can't be removed.
    """
    what = f"the snapshot '{one.name}' could not be removed"
    try:
        with asked(what, session.place):
            task = one.reference.RemoveSnapshot_Task(removeChildren=False, consolidate=True)
        wait(session, task, what)
    except HoldfastError as error:
        if not isinstance(error.__cause__, vmodl.fault.ManagedObjectNotFound):
            raise
    needed = "runtime.consolidationNeeded"
    if told(session, virtual_machine, needed).get(needed):
        with asked(what, session.place):
            task = virtual_machine.ConsolidateVMDisks_Task()
        wait(session, task, what)


def remove_leftovers(session: Session, virtual_machine: Any, label: str) -> list[Remark]:
    """Remove what earlier backups of a site left at a machine.

    Raises:
        Busy: One of them still runs on this machine.
        HoldfastError: Something can't be removed.
    """
    found = []
    for one in reversed(taken(session, virtual_machine)):
        if not one.name.startswith(f"{PREFIX}.{owner_of(label)}."):
            continue
        if lives(one):
            raise Busy(f"the machine is being backed up: it has the snapshot '{one.name}'")
        remove(session, virtual_machine, one)
        text = f"the snapshot '{one.name}' of an earlier backup was removed"
        found.append(Remark("info", "leftover", text))
    return found


def lives(one: Taken) -> bool:
    """Whether the backup that made a snapshot still runs on this machine."""
    place = _place(one)
    return place is not None and places.lives(place)


def is_dead(one: Taken) -> bool:
    """Whether the backup that made a snapshot ran on this machine, and is no more."""
    place = _place(one)
    return place is not None and not places.lives(place)


def _place(one: Taken) -> Path | None:
    """Where a backup's directory is, if it ran on this machine."""
    if not one.name.startswith(f"{PREFIX}."):
        return None
    try:
        said = json.loads(one.description)
        mine = said["on"] == socket.gethostname()
        return Path(str(said["place"])) if mine else None
    except (ValueError, KeyError, TypeError):
        return None


def _not_at_rest(why: str, order: SnapshotOrder) -> Remark:
    if order.require_quiesce:
        raise NotQuiesced(why, "install VMware Tools in the guest, or let the policy do without")
    return Remark("warning", "not-quiesced", why)


def _walked(tree: Any) -> Iterator[Taken]:
    """A snapshot before those that follow it."""
    left = list(reversed(tree))
    while left:
        one = left.pop()
        yield Taken(
            one.snapshot, str(one.snapshot), one.name, one.description or "", bool(one.quiesced)
        )
        left.extend(reversed(one.childSnapshotList or ()))
