"""Machines whose disk files stand still because nothing runs: what a backup reads them by.

Must not change a file. Invariants: while a disk is read, qemu's lock on it keeps a machine from
starting; that no other program wrote to a file meanwhile is made sure of at the end.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    HoldfastError,
    Invalid,
    NotQuiesced,
    SnapshotBroken,
    WrongState,
)
from holdfast.sources.machines import trimming
from holdfast.sources.machines.diskfiles import chain
from holdfast.sources.machines.diskfiles.formats import read_part, unreadable
from holdfast.sources.machines.diskfiles.mapped import MappedDisk, map_of
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.provider import Remark
from holdfast.sources.nbd.qemu_nbd import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from holdfast.sources.machines.diskfiles.definitions import Definition
    from holdfast.sources.machines.diskfiles.store import Store
    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import SnapshotOrder
    from holdfast.sources.nbd.qemu_nbd import Served

_LARGEST_DEFINITION = 64 * 1024 * 1024

Print = tuple[int, int, int, int]
"""What a file is known by again: device, inode, size, time of its last change."""


@dataclass(frozen=True, slots=True)
class FileSnapshot:
    """A machine that is off."""

    machine: Machine
    definitions: dict[str, bytes]
    disks: tuple[MappedDisk, ...]
    _known: tuple[Remark, ...]
    _prints: dict[Path, Print]
    _served: tuple[Served, ...]
    checkpoint: str | None = None
    frozen_s: float = 0.0

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """What happened on the way; asked at the end, also what was written to meanwhile.

        The engine may have read the last byte, and committed, after the last `check`.
        """
        return self._known + tuple(
            Remark("error", "changed-while-read", f"'{path}' was changed while it was read")
            for path, known in self._prints.items()
            if _changed(path, known)
        )

    def check(self) -> None:
        """Make sure that nobody wrote to the files.

        Raises:
            SnapshotBroken: Somebody did.
            HoldfastError: What reads a disk has ended.
        """
        for served in self._served:
            served.check()
        for path, known in self._prints.items():
            if _changed(path, known):
                raise SnapshotBroken(
                    f"'{path}' was changed while it was read",
                    "see what uses it: only machines that are off are backed up by their files",
                )

    def keep_checkpoint(self) -> None:
        """Nothing is kept: the next backup reads everything again."""


@contextlib.contextmanager
def frozen(store: Store, order: SnapshotOrder, alive: Callable[[], None]) -> Iterator[FileSnapshot]:
    """Open the disks of a machine that is off.

    Raises:
        NotFound: There is no such machine, or a file of it is missing.
        WrongState: It runs.
        Busy: Something else has a disk open.
        HoldfastError: A disk can't be read.
    """
    known = store.find(order.uuid)
    refuse_running(known)
    remarks = list(_remarks(known, order))
    with contextlib.ExitStack() as stack:
        served: list[Served] = []
        disks: list[MappedDisk] = []
        prints: dict[Path, Print] = {}
        for disk in known.disks:
            if disk.name in order.leave_out or disk.left_out is not None:
                continue
            alive()
            file = store.open(disk)
            prints.update((path, fingerprint(path)) for path in file.files)
            what = f"disk '{disk.name}' of '{known.name}' ({file.place})"
            served.append(stack.enter_context(serving(file.node, what)))
            made = MappedDisk(disk.name, file.size, served[-1].address, map_of(file, alive))
            disks.append(stack.enter_context(contextlib.closing(made)))
        alive()
        yield FileSnapshot(
            machine=_without(store.machine(known), order.leave_out),
            definitions=_definitions(store, known, remarks),
            disks=tuple(disks),
            _known=tuple(remarks),
            _prints=prints,
            _served=tuple(served),
        )


def refuse_running(known: Definition) -> None:
    """Make sure that a machine does not run, as far as its definition tells.

    Raises:
        WrongState: It does.
        HoldfastError: Its definition can't be read.
    """
    if known.error is not None:
        raise known.error
    if known.state in (State.RUNNING, State.PAUSED):
        raise WrongState(
            f"machine '{known.name}' is {known.state} by '{known.path}', and its files change",
            "back it up through its hypervisor, which can freeze it, or shut it down; if it is "
            "off, put the definition there that 'virsh dumpxml --inactive' gives",
        )


def _without(machine: Machine, names: Sequence[str]) -> Machine:
    """The machine, with disks that are not wanted said to be left out."""
    wish = "it was not wanted"
    disks = (replace(one, left_out=wish) if one.name in names else one for one in machine.disks)
    return replace(machine, disks=tuple(disks))


def _remarks(known: Definition, order: SnapshotOrder) -> Iterator[Remark]:
    for disk in known.disks:
        if disk.name in order.leave_out:
            continue
        if disk.left_out is not None:
            message = f"disk '{disk.name}' ({disk.said}) is not in the image: {disk.left_out}"
            yield Remark("warning", "disk-left-out", message, disk.name)
    if known.state is State.SUSPENDED:
        message = f"machine '{known.name}' is suspended: what it has in memory is not in the image"
        if order.require_quiesce:
            raise NotQuiesced(message, "shut it down, or let the policy do without")
        yield Remark("warning", "not-quiesced", message)
    if order.trim_s:
        yield trimming.of_nothing()
    if order.since is not None:
        message = "disk files tell no changes: everything is read"
        yield Remark("info", "no-changed-blocks", message)


def _definitions(store: Store, known: Definition, remarks: list[Remark]) -> dict[str, bytes]:
    found = {}
    for name, content in known.files.items():
        if isinstance(content, bytes):
            found[name] = content
            continue
        try:
            path = chain.allowed(known.path.parent / content, store.roots)
            data = read_part(path, 0, _LARGEST_DEFINITION + 1)
            if len(data) > _LARGEST_DEFINITION:
                raise Invalid(f"'{path}' is too large for the settings of a machine")
            found[name] = data
        except HoldfastError as error:
            message = f"{name} of '{known.name}' is not in the image: {error.message}"
            remarks.append(Remark("warning", "definition-left-out", message))
    return found


def fingerprint(path: Path) -> Print:
    """What tells whether a file was changed."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise unreadable(path, error) from error
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _changed(path: Path, known: Print) -> bool:
    try:
        return fingerprint(path) != known
    except HoldfastError:
        # It is gone, or another one has its name.
        return True


def look(store: Store, known: Definition, leave_out: Collection[str]) -> Sequence[Remark]:
    """What would keep a backup of a machine from its end, without these disks."""
    found = []
    try:
        refuse_running(known)
    except HoldfastError as error:
        found.append(_as_remark(error, None))
    for disk in known.disks:
        if disk.name in leave_out:
            continue
        if disk.left_out is not None:
            message = f"disk '{disk.name}' ({disk.said}) would not be in it: {disk.left_out}"
            found.append(Remark("warning", "disk-left-out", message, disk.name))
            continue
        try:
            file = store.open(disk)
            what = f"disk '{disk.name}' of '{known.name}' ({file.place})"
            with serving(file.node, what):
                map_of(file)
        except HoldfastError as error:
            found.append(_as_remark(error, disk.name))
    return found


def _as_remark(error: HoldfastError, disk: str | None) -> Remark:
    hint = f" ({error.hint})" if error.hint else ""
    return Remark("error", error.code, f"{error.message}{hint}", disk)
