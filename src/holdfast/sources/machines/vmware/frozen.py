"""A machine that has a snapshot: its disks as they were, and what of them changed.

Must not make or remove the snapshot. Invariant: a disk is read from the file that the snapshot
froze, and only if that one holds all of it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pyVmomi import vmodl

from holdfast.base.errors import (
    DiskUnreadable,
    HoldfastError,
    NotFound,
    SnapshotBroken,
    Unsupported,
)
from holdfast.sources.machines.provider import Kind, Remark
from holdfast.sources.machines.vmware import changes, disks, settings, snapshots
from holdfast.sources.machines.vmware.changes import Moment
from holdfast.sources.machines.vmware.connection import asked
from holdfast.sources.machines.vmware.datastore import Files, Reader
from holdfast.sources.machines.vmware.flat_disk import FlatDisk, Pieces
from holdfast.sources.machines.vmware.properties import told
from holdfast.sources.nbd.server import shown
from holdfast.sources.nbd.wire import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import Range
    from holdfast.sources.machines.vmware.connection import Session
    from holdfast.sources.machines.vmware.disks import DeviceDisk
    from holdfast.sources.machines.vmware.snapshots import Taken

CONNECTIONS = 4
"""That read from the vCenter or host at once, for one machine."""
_WORKERS = 32
"""Requests that the engine has under way, each of an eighth of a piece; most of them only wait."""
_LOOK_S = 5.0
_LARGEST_DESCRIPTOR = 1 << 20


class VmwareSnapshot:
    """See `Snapshot`. Thread-safe after it was made."""

    frozen_s = 0.0
    """Nobody tells how long the host held the guest still."""

    def __init__(
        self,
        session: Session,
        virtual_machine: Any,
        machine: Machine,
        definitions: dict[str, bytes],
        one: Taken,
        data_center: str,
    ) -> None:
        """Take over a snapshot; `take` opens the disks."""
        self.machine = machine
        self.definitions = definitions
        self.disks: Sequence[FlatDisk] = ()
        self.checkpoint: str | None = None
        self.noted: list[Remark] = []
        self._session = session
        self._virtual_machine = virtual_machine
        self._taken = one
        self._data_center = data_center
        self._files = Files(session, data_center)
        self._reader = Reader(session, data_center, threading.Semaphore(CONNECTIONS))
        self._looked_at = float("-inf")
        self._trouble: Exception | None = None
        self._open = contextlib.ExitStack()

    @property
    def remarks(self) -> Sequence[Remark]:
        """See `Snapshot.remarks`; asked at the end, also whether the snapshot stood until then."""
        try:
            self._look()
        except HoldfastError as error:
            return [*self.noted, Remark("error", "snapshot-lost", error.message)]
        return self.noted

    def check(self) -> None:
        """See `Snapshot.check`."""
        if isinstance(self._trouble, HoldfastError):
            raise self._trouble
        if time.monotonic() - self._looked_at >= _LOOK_S:
            self._look()

    def keep_checkpoint(self) -> None:
        """See `Snapshot.keep_checkpoint`: the host keeps what changed since any moment."""

    def take(
        self, wanted: Iterable[str], since: str | None, place: Path, alive: Callable[[], None]
    ) -> None:
        """Open the disks, and ask what is to be read of each.

        Args:
            wanted: Names of the disks.
            since: Checkpoint of the image that this one follows.
            place: A directory for the socket.
            alive: Called meanwhile.

        Raises:
            HoldfastError: One can't be read.
        """
        known = told(self._session, self._taken.reference, "config").get("config")
        if known is None:
            raise SnapshotBroken(f"the snapshot of '{self.machine.name}' tells of no disks")
        held = [one for one in disks.of_devices(known.hardware.device) if one.name in set(wanted)]
        disks.refuse_chain(held, self.machine.name)
        before = changes.from_checkpoint(since)
        address = Address(path=str(place / "nbd"))
        exports: dict[str, Pieces] = {}
        found: list[FlatDisk] = []
        moments: dict[str, Moment] = {}
        for one in held:
            alive()
            extent = self._extent(one)
            now = Moment(one.identity, one.change_id)
            wanted_ranges = self._ranges(one, since, before.get(one.name), now)
            if now.change_id:
                moments[one.name] = now
            exports[one.name] = Pieces(
                one.disk.size, wanted_ranges, self._fetch(one.datastore, extent)
            )
            found.append(FlatDisk(one.name, one.disk.size, wanted_ranges, address))
        self.checkpoint = changes.to_checkpoint(moments)
        if exports:
            self._open.enter_context(
                shown(exports, address, workers=_WORKERS, troubled=self._troubled)
            )
        self.disks = found

    def close(self) -> None:
        """Let go of the files; the snapshot stays."""
        for disk in self.disks:
            disk.close()
        self._reader.close()
        self._files.close()
        with self._open:
            pass

    def _fetch(self, datastore: str, extent: str) -> Callable[[int, int], bytes]:
        return lambda offset, length: self._reader.read(datastore, extent, offset, length)

    def _extent(self, one: DeviceDisk) -> str:
        descriptor = self._files.whole(one.datastore, one.path, _LARGEST_DESCRIPTOR)
        text = descriptor.decode(errors="replace")
        extent = disks.extent_of(text, one.path, one.disk.size)
        if (size := self._files.size(one.datastore, extent)) < one.disk.size:
            raise DiskUnreadable(
                f"'[{one.datastore}] {extent}' is truncated: it has {size} bytes of "
                f"{one.disk.size}",
                "see in the datastore what became of it",
            )
        return extent

    def _ranges(
        self, one: DeviceDisk, since: str | None, before: Moment | None, now: Moment
    ) -> list[Range]:
        size = one.disk.size
        if since is not None:
            reason = changes.why_not(before, now)
            if reason is None and before is not None:
                try:
                    return changes.ranges(self._areas(one, before.change_id), size, Kind.SAME)
                except HoldfastError as error:
                    reason = error.message
            self._note("warning", "bitmap-lost", f"is read whole: {reason}", one)
        if now.change_id:
            try:
                return changes.ranges(self._areas(one, changes.ALL), size, Kind.HOLE)
            except HoldfastError as error:
                text = f"is read with what was never written: {error.message}"
                self._note("info", "no-allocation", text, one)
        elif since is None:
            text = "has no marks of what changes: the next backup reads all of it, too"
            self._note("info", "no-bitmap", text, one)
        return changes.ranges([(0, size)] if size else [], size, Kind.DATA)

    def _areas(self, one: DeviceDisk, change_id: str) -> changes.Areas:
        def ask(offset: int) -> Any:
            with asked(f"what changed on '{one.name}' is not told", self._session.place):
                return self._virtual_machine.QueryChangedDiskAreas(
                    self._taken.reference, one.key, offset, change_id
                )

        return changes.all_areas(ask, one.disk.size)

    def _note(self, severity: str, code: str, text: str, one: DeviceDisk) -> None:
        self.noted.append(Remark(severity, code, f"disk '{one.name}' {text}", one.name))

    def _troubled(self, _: str, error: Exception) -> None:
        self._trouble = self._trouble or error

    def _look(self) -> None:
        try:
            there = {one.id for one in snapshots.taken(self._session, self._virtual_machine)}
        except HoldfastError as error:
            if isinstance(error.__cause__, vmodl.MethodFault | OSError):
                raise
            raise SnapshotBroken(f"the snapshot can't be looked at: {error.message}") from error
        if self._taken.id not in there:
            raise SnapshotBroken(
                f"somebody removed the snapshot '{self._taken.name}' while it was read",
                "run it again; keep other programs from removing snapshots they did not make",
            )
        self._looked_at = time.monotonic()


def definitions(session: Session, virtual_machine: Any, machine: Machine, data_center: str) -> Any:
    """What makes a machine again, and what of it could not be had.

    Returns:
        Files by name, and remarks.

    Raises:
        HoldfastError: Its settings are not told.
    """
    config = told(session, virtual_machine, "config").get("config")
    if config is None:
        raise NotFound(f"the vCenter has lost sight of '{machine.name}'", "see its host")
    found = {settings.NAME: settings.to_bytes(config)}
    remarks = []
    files = Files(session, data_center)
    try:
        datastore, vmx = disks.split(config.files.vmPathName)
        found["machine.vmx"] = files.whole(datastore, vmx, settings.LARGEST)
        named = [str(one.value) for one in config.extraConfig or () if one.key == "nvram"]
        usual = PurePosixPath(vmx).with_suffix(".nvram")
        nvram = usual.parent / PurePosixPath(named[-1]).name if named and named[-1] else usual
        with contextlib.suppress(NotFound):
            found["nvram"] = files.whole(datastore, str(nvram), settings.LARGEST)
    except (HoldfastError, Unsupported) as error:
        text = f"a file of '{machine.name}' is not in the image: {error.message}"
        remarks.append(Remark("warning", "definition-left-out", text))
    finally:
        files.close()
    return found, remarks
