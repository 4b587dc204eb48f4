"""Answer questions about paths from one source's file.

Must not write. Every function runs inside the caller's read transaction, so its answer is of one
moment.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from holdfast.base.clock import from_ns
from holdfast.control.catalog.feed import to_unsigned
from holdfast.control.catalog.ingest import RestorePoint, restore_points
from holdfast.control.catalog.rows import DIRECTORY, KINDS, FileRow, FileVersion
from holdfast.control.catalog.source_file import ROOT

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from holdfast.base.ids import ImageId, SourceName

_ATTRIBUTES = "f.kind, f.size, f.mtime_ns, f.mode, f.uid, f.gid, f.inode"

_DIRECTORY_CACHE = 100_000


def sequence_of(connection: sqlite3.Connection, image: ImageId) -> int | None:
    """The sequence number of an image in a file, or None if the file does not hold it."""
    found = connection.execute(
        "SELECT sequence FROM restore_points WHERE image = ?", (image,)
    ).fetchone()
    return None if found is None else int(found[0])


def entry(connection: sqlite3.Connection, sequence: int, path: bytes) -> FileRow | None:
    """The name at a path as an image has it; None if it has none. Never the root."""
    place = _place(connection, path)
    if place is None:
        return None
    directory, name_id, name = place
    found = connection.execute(
        f"SELECT {_ATTRIBUTES} FROM files f "  # noqa: S608
        "WHERE f.directory = ? AND f.name = ? AND f.first <= ? AND f.last > ?",
        (directory, name_id, sequence, sequence),
    ).fetchone()
    return None if found is None else file_row(name, found)


def list_directory(
    connection: sqlite3.Connection, sequence: int, path: bytes
) -> list[FileRow] | None:
    """Names in a directory as an image has it, sorted by their bytes; None if it has none."""
    if path != b"/":
        found = entry(connection, sequence, path)
        if found is None or found.kind != KINDS[DIRECTORY]:
            return None
    directory = directory_id(connection, path)
    rows = connection.execute(
        f"SELECT n.name, {_ATTRIBUTES} FROM files f JOIN names n ON n.id = f.name "  # noqa: S608
        "WHERE f.directory = ? AND f.first <= ? AND f.last > ? ORDER BY n.name",
        (directory, sequence, sequence),
    )
    return [file_row(row[0], row[1:]) for row in rows]


def versions(connection: sqlite3.Connection, source: SourceName, path: bytes) -> list[FileVersion]:
    """Every version of a path that a live image shows, oldest first."""
    place = _place(connection, path)
    if place is None:
        return []
    rows = connection.execute(
        f"SELECT f.first, f.last, {_ATTRIBUTES} FROM files f "  # noqa: S608
        "WHERE f.directory = ? AND f.name = ? ORDER BY f.first",
        place[:2],
    ).fetchall()
    timeline = Timeline(connection, source)
    return [timeline.version(path, row[0], row[1], row[2:]) for row in rows]


def directory_id(connection: sqlite3.Connection, path: bytes) -> int | None:
    """Id of a directory that any image has, or had, something in; None otherwise."""
    directory = ROOT
    for name in filter(None, path.split(b"/")):
        found = connection.execute(
            "SELECT d.id FROM names n JOIN directories d ON d.parent = ? AND d.name = n.id "
            "WHERE n.name = ?",
            (directory, name),
        ).fetchone()
        if found is None:
            return None
        directory = int(found[0])
    return directory


def _place(connection: sqlite3.Connection, path: bytes) -> tuple[int, int, bytes] | None:
    parent, _, name = path.rpartition(b"/")
    directory = directory_id(connection, parent)
    if directory is None:
        return None
    found = connection.execute("SELECT id FROM names WHERE name = ?", (name,)).fetchone()
    return None if found is None else (directory, int(found[0]), name)


def file_row(name: bytes, attributes: Sequence[int]) -> FileRow:
    """Make a row of the columns kind, size, mtime_ns, mode, uid, gid, inode."""
    kind, size, mtime_ns, mode, uid, gid, inode = attributes
    return FileRow(name, KINDS[kind], size, mtime_ns, mode, uid, gid, to_unsigned(inode))


class DirectoryPaths:
    """Paths of directories by id, looked up once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._paths: dict[int, bytes] = {}

    def path(self, directory: int) -> bytes:
        """Path of a directory without the slash at its end: empty for the root."""
        if len(self._paths) > _DIRECTORY_CACHE:
            self._paths.clear()
        missing = []
        at = directory
        while at != ROOT and at not in self._paths:
            parent, name = self._connection.execute(
                "SELECT d.parent, n.name FROM directories d JOIN names n ON n.id = d.name "
                "WHERE d.id = ?",
                (at,),
            ).fetchone()
            missing.append((at, name))
            at = parent
        path = b"" if at == ROOT else self._paths[at]
        for one, name in reversed(missing):
            path = path + b"/" + name
            self._paths[one] = path
        return path


class Timeline:
    """The images of a source in order, to say which of them show an interval."""

    def __init__(self, connection: sqlite3.Connection, source: SourceName) -> None:
        held = restore_points(connection)
        self._source = source
        self._sequences = list(held)
        self._points: list[RestorePoint] = list(held.values())

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
            first_at=from_ns(oldest.started_ns),
            last_image=newest.image,
            last_at=from_ns(newest.started_ns),
            images=end - begin,
            current=end == len(self._points),
        )
