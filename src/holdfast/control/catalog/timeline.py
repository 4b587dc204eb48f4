"""Make answers of stored rows: kinds, numbers of 64 bits, and the images that show an interval.

Must not know where the rows are.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

from holdfast.base.clock import from_ns
from holdfast.control.catalog.rows import KINDS, FileRow, FileVersion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from typing import TypeAlias

    from holdfast.base.ids import ImageId, SourceName
    from holdfast.control.catalog.file_rows import RestorePoint

    _Shown: TypeAlias = tuple[ImageId, datetime, ImageId, datetime, int, bool]


_UNSIGNED = (1 << 64) - 1

_INTERVALS_KEPT = 10_000


def to_signed(value: int) -> int:
    """Wrap an unsigned 64-bit number into what databases can store."""
    return ((value + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


def to_unsigned(value: int) -> int:
    """The inverse of `to_signed`, for numbers that are never negative."""
    return value & _UNSIGNED


def file_row(row: Sequence[Any]) -> FileRow:
    """Make a row of the columns name, kind, size, mtime_ns, mode, uid, gid, inode."""
    name, kind, size, mtime_ns, mode, uid, gid, inode = row
    return FileRow(name, KINDS[kind], size, mtime_ns, mode, uid, gid, inode & _UNSIGNED)


class Timeline:
    """The images of a source in order, to say which of them show an interval."""

    def __init__(self, source: SourceName, points: Mapping[int, RestorePoint]) -> None:
        self._source = source
        self._sequences = list(points)
        self._points = list(points.values())
        # many answers of one search are of few intervals
        self._shown: dict[tuple[int, int], _Shown] = {}

    def version(self, path: bytes, first: int, last: int, attributes: Sequence[int]) -> FileVersion:
        """Name the images that show an interval of a path."""
        shown = self._shown.get((first, last))
        if shown is None:
            shown = self._learn(first, last)
        kind, size, mtime_ns, mode, uid, gid, inode = attributes
        return FileVersion(
            self._source,
            path,
            KINDS[kind],
            size,
            mtime_ns,
            mode,
            uid,
            gid,
            inode & _UNSIGNED,
            *shown,
        )

    def _learn(self, first: int, last: int) -> _Shown:
        if len(self._shown) > _INTERVALS_KEPT:
            self._shown.clear()
        begin = bisect.bisect_left(self._sequences, first)
        end = bisect.bisect_left(self._sequences, last)
        oldest, newest = self._points[begin], self._points[end - 1]
        shown = self._shown[first, last] = (
            oldest.image,
            from_ns(oldest.started_ns),
            newest.image,
            from_ns(newest.started_ns),
            end - begin,
            end == len(self._points),
        )
        return shown
