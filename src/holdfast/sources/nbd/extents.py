"""What a server says of a disk's ranges, put together without gaps and in bounded memory.

Must not ask anybody. Invariants: extents ascend, have no gaps, and neighbours differ; where a
disk has more of them than are kept, small ones are joined to their neighbours so that nothing is
lost: at worst more is read than has to be.
"""

from __future__ import annotations

from typing import NamedTuple

from holdfast.sources.nbd.protocol import ALLOCATION

MOST_EXTENTS = 1_000_000
"""Of one disk. A terabyte in clusters of 64 KiB, every second one empty, has sixteen times that."""


class Extent(NamedTuple):
    """A range of a disk, in bytes, and the flags of a context that hold for all of it."""

    offset: int
    length: int
    flags: int


class Extents:
    """Extents of one context, as they come in."""

    def __init__(self, context: str, most: int = MOST_EXTENTS) -> None:
        """Begin at the start of the disk.

        Args:
            context: `base:allocation`, or a bitmap; it says which flags are
                safe for a range of both.
            most: How many are kept.
        """
        self._promises = context == ALLOCATION
        self._most = most
        self._lengths: list[int] = []
        self._flags: list[int] = []
        self._grain = 0
        self.end = 0

    def add(self, length: int, flags: int) -> None:
        """Go on with a range that begins where the last one ended."""
        self.end += length
        if self._flags and (
            self._flags[-1] == flags or length < self._grain or self._lengths[-1] < self._grain
        ):
            self._lengths[-1] += length
            self._flags[-1] = self._both(self._flags[-1], flags)
            return
        self._lengths.append(length)
        self._flags.append(flags)
        if len(self._lengths) > self._most:
            self._coarsen()

    def extents(self) -> list[Extent]:
        """What came in so far."""
        found: list[Extent] = []
        offset = 0
        for length, flags in zip(self._lengths, self._flags, strict=True):
            if found and found[-1].flags == flags:
                found[-1] = Extent(found[-1].offset, found[-1].length + length, flags)
            else:
                found.append(Extent(offset, length, flags))
            offset += length
        return found

    def _both(self, one: int, other: int) -> int:
        """Flags of `base:allocation` promise: both have to. A bitmap's warn: one is enough."""
        return one & other if self._promises else one | other

    def _coarsen(self) -> None:
        while len(self._lengths) > self._most // 2:
            self._grain = max(2 * self._grain, 128 * 1024)
            lengths, flags = self._lengths, self._flags
            self._lengths, self._flags = [lengths[0]], [flags[0]]
            for length, flag in zip(lengths[1:], flags[1:], strict=True):
                small = length < self._grain or self._lengths[-1] < self._grain
                if small or flag == self._flags[-1]:
                    self._lengths[-1] += length
                    self._flags[-1] = self._both(self._flags[-1], flag)
                else:
                    self._lengths.append(length)
                    self._flags.append(flag)
