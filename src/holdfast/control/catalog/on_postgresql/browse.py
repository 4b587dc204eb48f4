"""Answer questions about paths from one source's rows.

Must not write. Every question runs inside the caller's read transaction, so that all answers are
of one moment; most are one statement, since the way to the server costs more than the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from holdfast.control.catalog.file_rows import ROOT
from holdfast.control.catalog.on_postgresql.writer import restore_points
from holdfast.control.catalog.rows import DIRECTORY, KINDS, TreeBatch
from holdfast.control.catalog.timeline import Timeline, file_row

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from holdfast.base.ids import ImageId, SourceName
    from holdfast.control.catalog.file_rows import RestorePoint
    from holdfast.control.catalog.on_postgresql.file_set import FileSet
    from holdfast.control.catalog.rows import Attributes, FileRow, FileVersion

    Connection = psycopg.Connection[tuple[Any, ...]]

_TREE_BATCH_ROWS = 10_000

# Modes and owners use all 32 bits; a column's integer is signed.
ATTRIBUTES = (
    "v.kind, v.size, v.mtime_ns, v.mode & 4294967295, v.uid & 4294967295, v.gid & 4294967295, "
    "v.inode"
)

_WALK = f"""
WITH RECURSIVE walk (depth, id) AS (
    SELECT 0, {ROOT}
    UNION ALL
    SELECT walk.depth + 1, d.id FROM walk
    JOIN file_rows.directories d
        ON d.file_set = %(set)s AND d.parent = walk.id AND d.name = (
            SELECT n.id FROM file_rows.names n
            WHERE n.file_set = %(set)s AND n.name = (%(above)b::bytea[])[walk.depth + 1]
        )
)
"""  # noqa: S608

_DIRECTORY_ID = f"{_WALK} SELECT id FROM walk WHERE depth = %(depth)s"  # noqa: S608

_VERSIONS = f"""
{_WALK}
SELECT v.first, v.last, {ATTRIBUTES} FROM walk
JOIN file_rows.names n ON n.file_set = %(set)s AND n.name = %(name)b
JOIN file_rows.versions v
    ON v.file_set = %(set)s AND v.directory = walk.id AND v.name = n.id
WHERE walk.depth = %(depth)s
"""  # noqa: S608

_ENTRY = f"{_VERSIONS} AND v.first <= %(sequence)s AND v.last > %(sequence)s"

_LIST = f"""
{_WALK}
SELECT n.name, {ATTRIBUTES} FROM walk
JOIN file_rows.versions v
    ON v.file_set = %(set)s AND v.directory = walk.id
    AND v.first <= %(sequence)s AND v.last > %(sequence)s
JOIN file_rows.names n ON n.file_set = %(set)s AND n.id = v.name
WHERE walk.depth = %(depth)s
ORDER BY n.name
"""  # noqa: S608

_BELOW = """
WITH RECURSIVE down (id, parent, name) AS (
    SELECT id, parent, name FROM file_rows.directories
    WHERE file_set = %(set)s AND parent = %(top)s
    UNION ALL
    SELECT d.id, d.parent, d.name FROM down
    JOIN file_rows.directories d ON d.file_set = %(set)s AND d.parent = down.id
)
"""

_DIRECTORIES_BELOW = f"""
{_BELOW}
SELECT down.id, down.parent, n.name FROM down
JOIN file_rows.names n ON n.file_set = %(set)s AND n.id = down.name
"""  # noqa: S608

_TREE = f"""
SELECT v.directory, n.name, {ATTRIBUTES} FROM file_rows.versions v
JOIN file_rows.names n ON n.file_set = %(set)s AND n.id = v.name
WHERE v.file_set = %(set)s AND v.first <= %(sequence)s AND v.last > %(sequence)s
"""  # noqa: S608


class TableReader:
    """What the rows of one source say; see `file_rows.RowsReader`."""

    def __init__(self, connection: Connection, source: SourceName, file_set: FileSet) -> None:
        self._connection = connection
        self._source = source
        self._set = file_set

    def points(self) -> dict[int, RestorePoint]:
        """The images that are held, by sequence number, oldest first."""
        return restore_points(self._connection, self._set.id)

    def sequence_of(self, image: ImageId) -> int | None:
        """The sequence number of an image, or None if it is not held."""
        found = self._connection.execute(
            "SELECT sequence FROM file_rows.points WHERE file_set = %s AND image = %s",
            (self._set.id, image),
        ).fetchone()
        return None if found is None else int(found[0])

    def entry(self, sequence: int, path: bytes) -> FileRow | None:
        """The name at a path as an image has it; None if it has none. Never the root."""
        found = self._ask(_ENTRY, path, sequence=sequence)
        return file_row((path.rpartition(b"/")[2], *found[0][2:])) if found else None

    def list_directory(self, sequence: int, path: bytes) -> list[FileRow] | None:
        """Names in a directory as an image has it, sorted by their bytes; None if it has none."""
        rows = self._ask(_LIST, path.rstrip(b"/") + b"/", sequence=sequence)
        if not rows and not self._shows_directory(sequence, path):
            return None
        # an image that shows something in a directory shows the directory
        return list(map(file_row, rows))

    def versions(self, path: bytes) -> list[FileVersion]:
        """Every version of a path that a live image shows, oldest first."""
        rows = sorted(self._ask(_VERSIONS, path))
        timeline = Timeline(self._source, self.points()) if rows else None
        return [timeline.version(path, row[0], row[1], row[2:]) for row in rows if timeline]

    def tree(self, sequence: int, path: bytes) -> Iterator[TreeBatch] | None:
        """Everything below a directory as an image has it; None if it has no such directory."""
        if not self._shows_directory(sequence, path):
            return None
        found = self._ask(_DIRECTORY_ID, path.rstrip(b"/") + b"/")
        return self._tree(sequence, path.rstrip(b"/"), found[0][0]) if found else iter(())

    def _tree(self, sequence: int, path: bytes, top: int) -> Iterator[TreeBatch]:
        execute = self._connection.execute
        values: dict[str, object] = {"set": self._set.id, "top": top, "sequence": sequence}
        below = execute(self._set.sql(_DIRECTORIES_BELOW), values, binary=True)
        waiting = {row[0]: (row[1], row[2]) for row in below}
        paths = {top: path}
        for directory in waiting:
            _spell(directory, waiting, paths)
        query = _TREE
        if top != ROOT:
            query += " AND v.directory = ANY(%(directories)s)"
            values["directories"] = list(paths)
        with self._connection.cursor("tree", binary=True) as cursor:
            cursor.execute(self._set.sql(query), values)
            while batch := cursor.fetchmany(_TREE_BATCH_ROWS):
                yield _tree_batch(paths, batch)

    def _shows_directory(self, sequence: int, path: bytes) -> bool:
        if path == b"/":
            return True
        found = self.entry(sequence, path)
        return found is not None and found.kind == KINDS[DIRECTORY]

    def _ask(self, query: LiteralString, path: bytes, **more: object) -> list[tuple[Any, ...]]:
        """Run a query about a path; its last component is the name, a slash at the end has none."""
        *above, name = path.split(b"/")
        above = [one for one in above if one]
        values = {"set": self._set.id, "above": above, "depth": len(above), "name": name, **more}
        return self._connection.execute(self._set.sql(query), values, binary=True).fetchall()


def _tree_batch(paths: dict[int, bytes], batch: list[tuple[Any, ...]]) -> TreeBatch:
    ids: dict[Attributes, int] = {}
    rows = [
        (directory, name, ids.setdefault((kind, mode, uid, gid), len(ids)), size, mtime_ns, inode)
        for directory, name, kind, size, mtime_ns, mode, uid, gid, inode in batch
    ]
    return TreeBatch(paths, {number: alike for alike, number in ids.items()}, rows)


def _spell(directory: int, known: dict[int, tuple[int, bytes]], paths: dict[int, bytes]) -> bytes:
    """Path of a directory, and of those above it, from (parent, name) of each; kept in `paths`."""
    missing = []
    while directory not in paths:
        missing.append(directory)
        directory = known[directory][0]
    path = paths[directory]
    for one in reversed(missing):
        path = path + b"/" + known[one][1]
        paths[one] = path
    return path
