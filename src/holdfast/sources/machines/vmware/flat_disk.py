"""A frozen disk of VMware: read in large pieces ahead of who asks, and shown by NBD to the engine.

Must not know whether the snapshot still stands. Invariants: memory is bounded, whatever the size of
the disk; a piece is asked for once, however many wait for it.
"""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING

from holdfast.engine import DiskSource
from holdfast.sources.machines.provider import Kind
from holdfast.sources.nbd import client

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.sources.machines.provider import Range
    from holdfast.sources.nbd.wire import Address

PIECE = 4 << 20
"""What is read at once where all of it is wanted; the engine reads cells of this size."""
KEPT = 24
"""Pieces of one disk in memory."""
CONNECTIONS = 2
"""Of the engine to the server here; each has several requests under way."""


class Pieces:
    """The bytes of one disk, as a server shows them. Thread-safe."""

    def __init__(
        self, size: int, wanted: Sequence[Range], fetch: Callable[[int, int], bytes]
    ) -> None:
        """Nothing is read yet.

        Args:
            size: Of the disk.
            wanted: Ranges of the disk; those of data are read in pieces, as they will be asked for.
            fetch: Reads a range.
        """
        self.size = size
        self._fetch = fetch
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._starts: list[int] = []
        self._ends: list[int] = []
        for one in wanted:
            if one.kind is Kind.DATA:
                self._starts.append(one.offset)
                self._ends.append(one.offset + one.length)

    def data_extents(self, offset: int, length: int) -> Sequence[tuple[int, int]]:
        """All of it: who reads knows what is not worth it."""
        return [(offset, length)]

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes from an offset on."""
        found: list[bytes] = []
        at, end = offset, offset + length
        while at < end:
            begin, until = self._piece(at)
            if begin == until:
                # Nobody was to want this: read just that.
                found.append(self._fetch(at, end - at))
                break
            data = self._have(begin, until)
            found.append(data[at - begin : min(end, until) - begin])
            at = min(end, until)
        return found[0] if len(found) == 1 else b"".join(found)

    def _piece(self, at: int) -> tuple[int, int]:
        """The piece that a byte is in: within one range, and one cell."""
        number = bisect.bisect_right(self._starts, at) - 1
        if number < 0 or at >= self._ends[number]:
            return 0, 0
        cell = at - at % PIECE
        return max(self._starts[number], cell), min(self._ends[number], cell + PIECE)

    def _have(self, begin: int, until: int) -> bytes:
        with self._lock:
            known = self._kept.get(begin)
            if known is None:
                mine: Future[bytes] = Future()
                self._kept[begin] = mine
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
        if known is not None:
            return known.result()
        try:
            data = self._fetch(begin, until - begin)
        except BaseException as error:
            with self._lock:
                self._kept.pop(begin, None)
            mine.set_exception(error)
            raise
        mine.set_result(data)
        return data


class FlatDisk:
    """See `FrozenDisk`. Thread-safe."""

    def __init__(self, name: str, size: int, wanted: Sequence[Range], address: Address) -> None:
        """Name it; nobody is asked."""
        self.name = name
        self.size = size
        self._ranges = wanted
        self._address = address
        self._sources: list[DiskSource] = []

    def ranges(self) -> Sequence[Range]:
        """See `FrozenDisk.ranges`."""
        return self._ranges

    def source(self) -> DiskSource:
        """See `FrozenDisk.source`."""
        # Structured replies say why something can't be read.
        with client.sockets(self._address, self.name, count=CONNECTIONS) as made:
            found = DiskSource.nbd(
                made.fds, size=made.export.size, structured=made.export.structured
            )
        self._sources.append(found)
        return found

    def close(self) -> None:
        """Let go of the server."""
        for one in self._sources:
            one.close()
        self._sources.clear()
