"""Make answers of stored rows: kinds, numbers of 64 bits, and the images that show an interval.

Must not know where the rows are.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from holdfast.base.clock import from_ns
from holdfast.control.catalog.rows import KINDS, FileRow, FileVersion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from holdfast.base.ids import SourceName
    from holdfast.control.catalog.file_rows import RestorePoint


def to_signed(value: int) -> int:
    """Wrap an unsigned 64-bit number into what databases can store."""
    return ((value + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


def to_unsigned(value: int) -> int:
    """The inverse of `to_signed`, for numbers that are never negative."""
    return value & ((1 << 64) - 1)


def file_row(name: bytes, attributes: Sequence[int]) -> FileRow:
    """Make a row of the columns kind, size, mtime_ns, mode, uid, gid, inode."""
    kind, size, mtime_ns, mode, uid, gid, inode = attributes
    return FileRow(name, KINDS[kind], size, mtime_ns, mode, uid, gid, to_unsigned(inode))


class Timeline:
    """The images of a source in order, to say which of them show an interval."""

    def __init__(self, source: SourceName, points: Mapping[int, RestorePoint]) -> None:
        self._source = source
        self._sequences = list(points)
        self._points = list(points.values())
        self._moments: dict[int, datetime] = {}

    def version(self, path: bytes, first: int, last: int, attributes: Sequence[int]) -> FileVersion:
        """Name the images that show an interval of a path."""
        begin = bisect.bisect_left(self._sequences, first)
        end = bisect.bisect_left(self._sequences, last)
        oldest, newest = self._points[begin], self._points[end - 1]
        kind, size, mtime_ns, mode, uid, gid, inode = attributes
        return FileVersion(
            source=self._source,
            path=path,
            kind=KINDS[kind],
            size_bytes=size,
            mtime_ns=mtime_ns,
            mode=mode,
            uid=uid,
            gid=gid,
            inode=to_unsigned(inode),
            first_image=oldest.image,
            first_at=self._moment(begin),
            last_image=newest.image,
            last_at=self._moment(end - 1),
            images=end - begin,
            current=end == len(self._points),
        )

    def _moment(self, place: int) -> datetime:
        """When an image began; many answers of one search are of few images."""
        found = self._moments.get(place)
        if found is None:
            found = self._moments[place] = from_ns(self._points[place].started_ns)
        return found
