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
from holdfast.sources.nbd.protocol import ALLOCATION, DIRTY_BITMAP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.sources.nbd.extents import Extent
    from holdfast.sources.nbd.wire import Address

CONNECTIONS = 2
"""Each has several requests under way."""
_ZERO = 2
_DIRTY = 1


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
        in_pieces: bool = False,
    ) -> None:
        """Name it; nobody is asked.

        Args:
            name: Of the disk.
            size: In bytes.
            address: Of the server.
            export: What the server calls it.
            bitmap: What the server calls the bitmap of what changed; None: everything is read.
            in_pieces: Have the server answer in pieces of what is alike.
        """
        self.name = name
        self.size = size
        self.address = address
        self.export = export
        self.bitmap = bitmap
        self._in_pieces = in_pieces
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
        whole = [(0, self.size, 0)] if self.size else []
        dirty = [(0, self.size, _DIRTY)] if self.size else []
        return joined(status.get(ALLOCATION, whole), status.get(changed or "", dirty))

    def source(self) -> DiskSource:
        """What the engine reads it by."""
        # Simple replies where they do: where qemu can't read a range that it answers in pieces, it
        # hangs up, and the true cause would be lost. Holes are not asked for anyhow.
        with client.sockets(
            self.address, self.export, count=CONNECTIONS, structured=self._in_pieces
        ) as made:
            found = DiskSource.nbd(
                made.fds, size=made.export.size, structured=made.export.structured
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
    offset, end, dirty = 0, 0, _DIRTY
    for start, length, flags in allocation:
        offset = start
        while offset < start + length:
            while end <= offset:
                begin, more, dirty = next(others)
                end = begin + more
            until = min(end, start + length)
            kind = Kind.HOLE if flags & _ZERO else Kind.DATA
            if not dirty & _DIRTY:
                kind = Kind.SAME
            if found and found[-1].kind is kind:
                found[-1] = Range(found[-1].offset, until - found[-1].offset, kind)
            else:
                found.append(Range(offset, until - offset, kind))
            offset = until
    return found
