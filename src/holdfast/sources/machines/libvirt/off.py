"""A machine that is off: its disk files, read as they lie.

Must not keep anybody from starting it: the files are opened without a lock. A machine that was
started meanwhile fails the backup instead, or has it end with an error where all was read by then.
Bitmaps in the files are of the last image made while it ran, and go on being followed.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import HoldfastError, SnapshotBroken
from holdfast.sources.machines.diskfiles.mapped import MappedDisk
from holdfast.sources.machines.libvirt import checkpoints
from holdfast.sources.machines.libvirt.there import reason
from holdfast.sources.machines.nbd_disk import NbdDisk
from holdfast.sources.machines.provider import Remark

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from holdfast.sources.machines.domain_xml import DomainDisk
    from holdfast.sources.machines.libvirt.connection import Libvirt
    from holdfast.sources.machines.libvirt.side import Side
    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import SnapshotOrder
    from holdfast.sources.nbd.qemu_nbd import Served


def try_disk(side: Side, machine: Machine, source: DomainDisk, scratch: Path) -> list[Remark]:
    """Open a disk as a backup does, with all that it lies over, and read of it; what is in the way.

    Args:
        side: Who opens it.
        machine: Of whom it is.
        source: The disk.
        scratch: As in `SnapshotOrder`.
    """
    what = f"disk '{source.name}' of '{machine.name}'"
    size = next(one.size for one in machine.disks if one.name == source.name)
    try:
        side.state(source)
        with (
            side.off_disk(source, what, scratch) as file,
            file.serving(None) as served,
        ):
            NbdDisk(source.name, size, served.address, "").check()
    except HoldfastError as error:
        return [Remark("error", "not-readable", reason(error), source.name)]
    return []


class OffSnapshot:
    """See `Snapshot`. Thread-safe after it was made."""

    def __init__(
        self,
        host: Libvirt,
        order: SnapshotOrder,
        machine: Machine,
        definitions: dict[str, bytes],
        sources: Sequence[DomainDisk],
        side: Side,
    ) -> None:
        """Begin with nothing; `take` opens the disks."""
        self._side = side
        self.machine = machine
        self.definitions = definitions
        self.disks: Sequence[NbdDisk] = ()
        self.checkpoint: str | None = None
        self.noted: list[Remark] = []
        self.frozen_s = 0.0
        self._host = host
        self._order = order
        self._sources = sources
        self._kept = False
        self._served: list[Served] = []
        self._written: list[tuple[DomainDisk, object]] = []
        self._open = contextlib.ExitStack()

    @property
    def remarks(self) -> Sequence[Remark]:
        """What happened on the way; asked at the end, also whether it was off until then.

        The engine may have read the last byte, and committed, after the last `check`.
        """
        try:
            torn = self._is_torn()
        except HoldfastError as error:
            return [*self.noted, Remark("error", "changed-while-read", error.message)]
        return [*self.noted, *[Remark("error", "changed-while-read", self._torn)] * torn]

    def check(self) -> None:
        """See `Snapshot.check`."""
        for served in self._served:
            served.check()
        if self._is_torn():
            raise SnapshotBroken(
                self._torn, "run it again: a machine that runs is read by a snapshot"
            )

    def _is_torn(self) -> bool:
        """Whether it was started, or somebody wrote to its disks, since they were opened."""
        if any(self._side.state(one) != known for one, known in self._written):
            return True
        return bool(self._host.domain(self._order.uuid).isActive())

    @property
    def _torn(self) -> str:
        return (
            f"machine '{self.machine.name}' was started, or its disks written, while they were read"
        )

    def keep_checkpoint(self) -> None:
        """See `Snapshot.keep_checkpoint`."""
        self._kept = True

    def take(self, wanted: Sequence[DomainDisk], alive: Callable[[], None]) -> None:
        """Open the disks."""
        sizes = {one.name: one.size for one in self.machine.disks}
        since = self._order.since
        domain: Any = self._host.domain(self._order.uuid)
        tracked = checkpoints.of_disks(domain, since) if since is not None else set()
        # One that has moved here has its bitmaps with it, and this libvirt does not know of them.
        moved = since is not None and not checkpoints.is_known(domain, since)
        found: list[NbdDisk] = []
        for source in wanted:
            alive()
            self._written.append((source, self._side.state(source)))
            what = f"disk '{source.name}' of '{self.machine.name}'"
            file = self._open.enter_context(self._side.off_disk(source, what, self._order.scratch))
            bitmap = None
            if since is not None and checkpoints.tracks_changes(source):
                reason: str | None = checkpoints.GONE
                if moved or source.name in tracked:
                    reason = checkpoints.why_not_off(file.info(), since)
                if reason is None:
                    bitmap = since
                else:
                    self.noted.append(checkpoints.lost(source, reason))
            served = self._open.enter_context(file.serving(bitmap))
            self._served.append(served)
            size = sizes[source.name]
            # Of what changed little is read, and a map would be of all of the disk.
            lies = None if bitmap is not None else file.map(size, alive)
            if lies is None:
                found.append(NbdDisk(source.name, size, served.address, "", bitmap))
            else:
                found.append(MappedDisk(source.name, size, served.address, lies))
            if bitmap is not None:
                self.checkpoint = since
        self.disks = found

    def release(self) -> None:
        """Close the disks, and delete the checkpoints that nobody follows any more.

        Raises:
            HoldfastError: libvirt does not let us; the next backup does it then.
        """
        for disk in self.disks:
            disk.close()
        with self._open:
            pass
        keep = {*self._order.keep}
        keep |= {str(self.checkpoint)} if self._kept else {str(self._order.since)}
        domain = self._host.domain(self._order.uuid)
        with contextlib.suppress(HoldfastError):  # the next backup does it, too
            checkpoints.delete_stale(
                domain, self._order.label, keep, self._sources, self._side.bitmap_tool()
            )
