"""A frozen disk that a hypervisor shows by NBD: what of it is to be read, and what reads it.

Must not know who shows it. Invariant: a range is `SAME` only where a bitmap that was vouched for
says that it is clean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.errors import HypervisorError
from holdfast.engine import DiskSource
from holdfast.sources.machines.provider import Kind, Range
from holdfast.sources.nbd import client
from holdfast.sources.nbd.extents import Extent
from holdfast.sources.nbd.protocol import ALLOCATION, DIRTY, DIRTY_BITMAP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.sources.nbd.wire import Address

CONNECTIONS = 2
"""Each has several requests under way."""
_ZERO = 2


class NbdDisk:
    """A disk as it was at one moment, behind an NBD server. Thread-safe."""

    def __init__(
        self,
        name: str,
        size: int,
        address: Address,
        export: str,
        bitmap: str | None = None,
        *,
        grain: int | None = None,
        written: Callable[[], Sequence[Extent]] | None = None,
    ) -> None:
        """Name it; nobody is asked.

        Args:
            name: Of the disk.
            size: In bytes.
            address: Of the server.
            export: What the server calls it.
            bitmap: What the server calls the bitmap of what changed; None: everything is read.
            grain: No read is to cross a multiple of so many bytes; None: any may.
            written: Tells, of the whole disk, which ranges the server may have said of that they
                are empty though they are not (`DIRTY`); asked after the server was. None: of none.
        """
        self.name = name
        self.size = size
        self.address = address
        self.export = export
        self.bitmap = bitmap
        self._grain = grain
        self._written = written
        self._sources: list[DiskSource] = []

    def ranges(self) -> Sequence[Range]:
        """What is to be read.

        Raises:
            HypervisorError: The server has another size, or not the bitmap that it was to have.
        """
        changed = None if self.bitmap is None else f"{DIRTY_BITMAP}{self.bitmap}"
        wanted = [ALLOCATION] if changed is None else [ALLOCATION, changed]
        connection = client.connect(self.address, self.export, contexts=wanted)
        try:
            if connection.export.size != self.size:
                raise HypervisorError(
                    f"disk '{self.name}' has {connection.export.size} bytes at the hypervisor, "
                    f"not {self.size}",
                    "run it again: it was resized meanwhile",
                )
            if changed is not None and changed not in connection.export.contexts:
                raise HypervisorError(
                    f"the hypervisor does not show what changed on disk '{self.name}'"
                )
            if not connection.export.contexts:
                return [Range(0, self.size, Kind.DATA)] if self.size else []
            status = connection.block_status()
        finally:
            connection.close()
        whole = [Extent(0, self.size, 0)] if self.size else []
        dirty = [Extent(0, self.size, DIRTY)] if self.size else []
        allocation = status.get(ALLOCATION, whole)
        if self._written is not None:
            allocation = without_promises(allocation, self._written())
        return joined(allocation, status.get(changed or "", dirty))

    def source(self) -> DiskSource:
        """What the engine reads it by."""
        # Simple replies: where qemu can't read a range that it answers in pieces, it hangs up, and
        # the true cause would be lost. Holes are not asked for anyhow.
        with client.sockets(self.address, self.export, count=CONNECTIONS, structured=False) as made:
            found = DiskSource.nbd(
                made.fds,
                size=made.export.size,
                structured=made.export.structured,
                grain=self._grain,
            )
        self._sources.append(found)
        return found

    def check(self) -> None:
        """Read a byte: what is shown no longer is not read, either.

        Raises:
            HoldfastError: It can't be read.
        """
        if self.size:
            connection = client.connect(self.address, self.export)
            try:
                connection.read(0, min(self.size, 512))
            finally:
                connection.close()

    def close(self) -> None:
        """Let go of the server."""
        for one in self._sources:
            one.close()
        self._sources.clear()


def without_promises(allocation: Sequence[Extent], doubtful: Sequence[Extent]) -> list[Extent]:
    """What is allocated, where a server is not believed of some ranges that nothing is there.

    Args:
        allocation: Extents with flags of ``base:allocation``.
        doubtful: Extents of the same bytes; `DIRTY` where it is not believed.
    """
    found = []
    others = iter(doubtful)
    end, is_doubtful = 0, False
    for one in allocation:
        offset, upto = one.offset, one.offset + one.length
        while offset < upto:
            while end <= offset:
                begin, more, flags = next(others)
                end, is_doubtful = begin + more, bool(flags & DIRTY)
            until = min(end, upto)
            found.append(Extent(offset, until - offset, 0 if is_doubtful else one.flags))
            offset = until
    return found


def joined(
    allocation: Sequence[Extent | tuple[int, int, int]],
    changes: Sequence[Extent | tuple[int, int, int]],
) -> list[Range]:
    """Make one list of what is allocated and what changed.

    Args:
        allocation: Extents with flags of ``base:allocation``.
        changes: Extents of the same bytes with those of a dirty bitmap.
    """
    found: list[Range] = []
    others = iter(changes)
    offset, end, dirty = 0, 0, DIRTY
    for start, length, flags in allocation:
        offset = start
        while offset < start + length:
            while end <= offset:
                begin, more, dirty = next(others)
                end = begin + more
            until = min(end, start + length)
            kind = Kind.HOLE if flags & _ZERO else Kind.DATA
            if not dirty & DIRTY:
                kind = Kind.SAME
            if found and found[-1].kind is kind:
                found[-1] = Range(found[-1].offset, until - found[-1].offset, kind)
            else:
                found.append(Range(offset, until - offset, kind))
            offset = until
    return found
