"""Files of a machine that is made in a datastore: its disks as flat files, each sent from here.

Must not make the machine. Invariants: a directory without a journal of ours is never written to; a
disk counts as there when all of it was sent, and its file is still the one that was; nobody can
append to a file by HTTPS, so one that was cut off is sent again.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from holdfast.base.errors import (
    AlreadyExists,
    HoldfastError,
    IntegrityError,
    NotFound,
    Unreachable,
)
from holdfast.sources.machines import staged
from holdfast.sources.machines.unfinished import Journal
from holdfast.sources.machines.vmware import inventory
from holdfast.sources.machines.vmware.connection import asked
from holdfast.sources.machines.vmware.datastore import Files
from holdfast.sources.machines.vmware.tasks import wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import ExitStack
    from pathlib import Path

    from holdfast.sources.machines.machine import Disk
    from holdfast.sources.machines.provider import DiskWriter, NewMachine
    from holdfast.sources.machines.vmware.connection import Session

JOURNAL = "holdfast-restore.journal"
"""In the directory of a machine that is not whole yet."""
_LARGEST_JOURNAL = 16 << 20
_KIB = 1024
_PIECE = 4 << 20
_PAUSES_S = (1.0, 5.0, 15.0)
"""Before each further try to send a disk whose connection was lost."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a machine is made.

    Attributes:
        datastore: For all of its files.
        data_center: Whose that is.
        folder: That the machine is filed in.
        pool: Of which it has its memory and processors.
        host: That runs it.
    """

    datastore: Any
    data_center: Any
    folder: Any
    pool: Any
    host: Any

    @property
    def name(self) -> str:
        """Of the datastore."""
        return str(self.datastore.name)

    def path(self, directory: str, file: str = "") -> str:
        """A path in the datastore, as the interface takes it."""
        return f"[{self.name}] {directory}{'/' if file else ''}{file}"


class NewFiles:
    """The files of one machine that is being made."""

    def __init__(
        self,
        session: Session,
        target: Target,
        order: NewMachine,
        journal: Journal,
        stack: ExitStack,
    ) -> None:
        """Go on with what there is.

        Args:
            session: By which.
            target: Where.
            order: What.
            journal: Of its directory.
            stack: Ends when the machine is made, or has failed.
        """
        self._session = session
        self._target = target
        self._order = order
        self._journal = journal
        self._stack = stack
        self._staged: staged.Staged | None = None

    def disk(self, disk: Disk, write: DiskWriter) -> tuple[str, int]:
        """Have a disk in its place, from its beginning to its end.

        Returns:
            Its path, as the interface takes it, and its size.

        Raises:
            HoldfastError: It can't be written.
        """
        size = -(-disk.size // _KIB) * _KIB
        path = self._target.path(self._order.name, f"{disk.name}.vmdk")
        if not self._order.verify and self._journal.has(disk.name, path):
            staged.tell(self._order, disk.name, size, size)
            return path, size
        if self._staged is None:
            place = _place(self._session, self._target)
            self._staged = self._stack.enter_context(staged.staged(self._order, place))
        here = self._staged.disk(disk, "raw", write)
        if here.stat().st_size < size:
            os.truncate(here, size)
        part = self._journal.part(replace(disk, size=size), path, is_ours=True)
        if not part.is_new:
            self._journal.disbelieve(part)
        _make(self._session, self._target, path, size, disk.name)
        self._send(disk.name, here, size)
        part.made()
        part.keep(size)
        self._staged.drop(disk.name, here)
        return path, size

    def file(self, name: str, data: bytes) -> None:
        """Have a small file in its place."""
        with contextlib.closing(_files(self._session, self._target)) as files:
            files.put(self._target.name, f"{self._order.name}/{name}", data, len(data))

    def hand_over(self) -> None:
        """The machine is about to be there: its disks are its own."""
        if self._staged is None:  # an earlier try wrote and sent all
            staged.throw_away(self._order.name, _place(self._session, self._target))
        self._journal.hand_over()

    def _send(self, name: str, here: Path, size: int) -> None:
        path = f"{self._order.name}/{name}-flat.vmdk"
        with (
            contextlib.closing(_files(self._session, self._target)) as files,
            here.open("rb") as content,
        ):
            for pause_s in (*_PAUSES_S, None):
                content.seek(0)
                try:
                    files.put(self._target.name, path, content, size)
                    break
                except Unreachable:
                    if pause_s is None:
                        raise
                    time.sleep(pause_s)
            there = files.size(self._target.name, path)
            if there != size:
                raise IntegrityError(
                    f"'{self._target.path(path)}' has {there} bytes of {size} that were sent",
                    "see whether the datastore is full, and give the same command again",
                )
            if self._order.verify:
                _compare(files, self._target.name, path, content, size)


def _compare(files: Files, datastore: str, path: str, content: Any, size: int) -> None:
    """Read a file back, and make sure that it is what was sent."""
    content.seek(0)
    for at in range(0, size, _PIECE):
        length = min(_PIECE, size - at)
        if files.read(datastore, path, at, length) != content.read(length):
            raise IntegrityError(
                f"'[{datastore}] {path}' is not what was sent, from byte {at} on",
                "see what else writes there, and give the same command with --restart",
            )


@contextlib.contextmanager
def making(session: Session, target: Target, order: NewMachine) -> Iterator[NewFiles]:
    """Have a directory for a machine; it goes with what fails, but for disks that are gone on with.

    Raises:
        AlreadyExists: There is something of that name, or another restore of it is unfinished.
        HoldfastError: It can't be made.
    """
    shelf = DatastoreShelf(session, target, order.name)
    shelf.prepare()
    with contextlib.ExitStack() as stack:
        journal = Journal.opened(shelf, order)
        shelf.keep_only(one.path for one in journal.known.values())
        if not journal.known:
            journal.renew()
        try:
            yield NewFiles(session, target, order, journal, stack)
        except BaseException:
            with contextlib.suppress(HoldfastError):  # what failed first is what is told
                if not journal.failed():
                    shelf.take_away()
            raise


def throw_away(session: Session, target: Target, order: NewMachine) -> list[str]:
    """Take away what restores of a machine of that name left there, and here.

    Raises:
        Busy: One is at work here.
    """
    gone = staged.throw_away(order.name, _place(session, target))
    shelf = DatastoreShelf(session, target, order.name)
    with contextlib.suppress(NotFound):
        if JOURNAL in shelf.list():
            shelf.take_away()
            gone.append(target.path(order.name))
    return gone


class DatastoreShelf:
    """See `Shelf`: a file in the machine's directory, written anew each time."""

    def __init__(self, session: Session, target: Target, name: str) -> None:
        """Name it; nothing is made."""
        self._session = session
        self._target = target
        self._name = name
        self._data = b""

    def prepare(self) -> None:
        """Make the directory, or take one that a restore of ours made.

        Raises:
            AlreadyExists: There is another one.
        """
        path = self._target.path(self._name)
        try:
            with asked(f"'{path}' can't be made", self._session.place):
                self._session.content.fileManager.MakeDirectory(
                    path, self._target.data_center, False
                )
        except AlreadyExists as error:
            if (found := self.list()) and JOURNAL not in found:
                raise AlreadyExists(
                    f"there is something at '{path}'",
                    "give the machine another name, or remove it by hand",
                ) from error

    def keep_only(self, known: Iterable[str]) -> None:
        """Take away what was being sent when a restore was interrupted."""
        kept = {JOURNAL} | {
            name
            for path in known
            for name in (path.rpartition("/")[2], _flat(path).rpartition("/")[2])
        }
        for name in set(self.list()) - kept:
            self._delete(self._target.path(self._name, name))

    def take_away(self) -> None:
        """Take the directory away, with all that is in it."""
        self._delete(self._target.path(self._name))

    def read(self) -> bytes:
        """See `Shelf.read`."""
        self._data = b""
        with (
            contextlib.closing(_files(self._session, self._target)) as files,
            contextlib.suppress(NotFound),
        ):
            path = f"{self._name}/{JOURNAL}"
            self._data = files.whole(self._target.name, path, _LARGEST_JOURNAL)
        return self._data

    def append(self, data: bytes) -> None:
        """See `Shelf.append`."""
        self._data += data
        with contextlib.closing(_files(self._session, self._target)) as files:
            path = f"{self._name}/{JOURNAL}"
            files.put(self._target.name, path, self._data, len(self._data))

    def clear(self) -> None:
        """See `Shelf.clear`."""
        if self._data:
            self._delete(self._target.path(self._name, JOURNAL))
        self._data = b""

    def look(self, path: str) -> str | None:
        """See `Shelf.look`: of a disk, of the file that has its content."""
        found = self.list()
        return found.get(_flat(path).rpartition("/")[2]) or found.get(path.rpartition("/")[2])

    def remove(self, path: str) -> None:
        """See `Shelf.remove`."""
        for one in (path, _flat(path)):
            self._delete(one)

    def life(self) -> str:
        """See `Shelf.life`: a datastore keeps what it took."""
        return ""

    def list(self) -> dict[str, str]:
        """The files of the directory: when each was changed, and its size.

        Raises:
            NotFound: There is no such directory.
        """
        path = self._target.path(self._name)
        flags = vim.host.DatastoreBrowser.FileInfo.Details(
            fileType=False, fileSize=True, modification=True, fileOwner=False
        )
        spec = vim.host.DatastoreBrowser.SearchSpec(details=flags, matchPattern=["*"])
        what = f"'{path}' can't be listed"
        with asked(what, self._session.place):
            task = self._target.datastore.browser.SearchDatastore_Task(path, spec)
        found = wait(self._session, task, what)
        return {
            str(one.path): f"{one.modification.isoformat()} {one.fileSize}" for one in found.file
        }

    def _delete(self, path: str) -> None:
        manager, what = self._session.content.fileManager, f"'{path}' can't be removed"
        with contextlib.suppress(NotFound):
            with asked(what, self._session.place):
                task = manager.DeleteDatastoreFile_Task(path, self._target.data_center)
            wait(self._session, task, what)


def _flat(path: str) -> str:
    """The file that has the content of a disk."""
    return f"{path.removesuffix('.vmdk')}-flat.vmdk"


def _place(session: Session, target: Target) -> str:
    """What no other datastore is called by."""
    return f"{session.place}\0{target.data_center.name}\0{target.name}"


def _make(session: Session, target: Target, path: str, size: int, disk: str) -> None:
    spec = vim.VirtualDiskManager.FileBackedVirtualDiskSpec(
        diskType="thin",
        adapterType="ide" if disk.startswith("ide") else "lsiLogic",
        capacityKb=size // _KIB,
    )
    what = f"'{path}' can't be made"
    with asked(what, session.place):
        manager = session.content.virtualDiskManager
        task = manager.CreateVirtualDisk_Task(path, target.data_center, spec)
    wait(session, task, what)


def _files(session: Session, target: Target) -> Files:
    return Files(session, inventory.data_center_path(session, target.data_center))
