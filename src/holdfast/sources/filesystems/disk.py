"""What bytes of disks are read by, and parts of disks as if they were disks.

Must not interpret what it reads. Invariant: a read never returns more than was asked for, and fewer
only where the disk ends; a part never shows a byte outside of itself.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

SECTOR = 512


class Disk(Protocol):
    """The bytes of a disk, at any place; the engine's ``FileReader`` is one. Thread-safe."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def read_at(self, offset: int, length: int, /) -> bytes:
        """The bytes from an offset on; fewer than asked for only at the end."""
        ...


class Malformed(Exception):  # noqa: N818 - a state of a disk, which becomes a remark
    """What was read is not what it has to be; in words for a person."""


def exactly(disk: Disk, offset: int, length: int) -> bytes:
    """Read so many bytes.

    Raises:
        Malformed: The disk ends before.
    """
    data = disk.read_at(offset, length) if 0 <= offset < disk.size else b""
    if len(data) != length:
        raise Malformed(f"the disk of {disk.size} bytes ends before byte {offset + length}")
    return data


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a disk; it may be said to be longer than the disk, which then ends early."""

    of: Disk
    offset: int
    size: int

    def read_at(self, offset: int, length: int, /) -> bytes:
        """As `Disk.read_at`."""
        length = min(length, self.size - offset)
        if length <= 0 or self.offset + offset >= self.of.size:
            return b""
        return self.of.read_at(self.offset + offset, length)


Piece: TypeAlias = tuple[int, int, Disk, int]
"""A stretch of something that is put together: (begins at, length, disk, offset there)."""


class Pieces:
    """A disk that is put together of stretches of others. Thread-safe."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        """Take pieces in ascending order, without gaps, from 0 on.

        Raises:
            Malformed: They are not.
        """
        at = 0
        for begin, length, _, offset in pieces:
            if begin != at or length <= 0 or offset < 0:
                raise Malformed(f"no piece begins at byte {at}")
            at += length
        self._pieces = tuple(pieces)
        self._begins = [one[0] for one in pieces]
        self.size = at

    def read_at(self, offset: int, length: int, /) -> bytes:
        """As `Disk.read_at`."""
        length = min(length, self.size - offset)
        found: list[bytes] = []
        at = bisect.bisect_right(self._begins, offset) - 1
        while length > 0:
            begin, size, disk, place = self._pieces[at]
            take = min(length, begin + size - offset)
            data = disk.read_at(place + offset - begin, take)
            found.append(data)
            if len(data) != take:
                # one of the disks is shorter than it was
                break
            offset += take
            length -= take
            at += 1
        return found[0] if len(found) == 1 else b"".join(found)


class Striped:
    """A disk whose stripes lie on others in turn. Thread-safe."""

    def __init__(self, of: Sequence[Disk], stripe_bytes: int) -> None:
        """Take disks of one size.

        Raises:
            Malformed: They differ, or a stripe has no bytes.
        """
        if stripe_bytes <= 0 or not of or any(one.size != of[0].size for one in of):
            raise Malformed("stripes of no size, or on parts of several sizes")
        self._of = tuple(of)
        self._stripe = stripe_bytes
        self.size = of[0].size * len(of)

    def read_at(self, offset: int, length: int, /) -> bytes:
        """As `Disk.read_at`."""
        length = min(length, self.size - offset)
        found: list[bytes] = []
        while length > 0:
            stripe, within = divmod(offset, self._stripe)
            row, disk = divmod(stripe, len(self._of))
            take = min(length, self._stripe - within)
            data = self._of[disk].read_at(row * self._stripe + within, take)
            found.append(data)
            if len(data) != take:
                break
            offset += take
            length -= take
        return b"".join(found)
