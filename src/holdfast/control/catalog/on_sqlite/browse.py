"""Answer questions about paths from one source's file.

Must not write. Every question runs inside the caller's read transaction, so that all answers are
of one moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.control.catalog.file_rows import ROOT
from holdfast.control.catalog.on_sqlite.remembered import remembered
from holdfast.control.catalog.on_sqlite.source_file import STATE
from holdfast.control.catalog.rows import DIRECTORY, KINDS, TreeBatch
from holdfast.control.catalog.timeline import file_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from holdfast.base.ids import ImageId, SourceName
    from holdfast.control.catalog.file_rows import RestorePoint
    from holdfast.control.catalog.on_sqlite.source_file import FileConnection
    from holdfast.control.catalog.rows import FileRow, FileVersion

_TREE_COLUMNS = "f.directory, n.name, f.attributes, f.size, f.mtime_ns, f.inode"

_DIRECTORY_CACHE = 100_000
_TREE_BATCH_ROWS = 10_000

_BELOW = """
WITH RECURSIVE down (id, parent, name) AS (
    SELECT id, parent, name FROM directories WHERE parent = ?
    UNION ALL
    SELECT d.id, d.parent, d.name FROM down JOIN directories d ON d.parent = down.id
)
"""

_DIRECTORIES_BELOW = f"""
{_BELOW}
SELECT down.id, down.parent, n.name FROM down CROSS JOIN names n ON n.id = down.name
"""  # noqa: S608

_TREE = f"""
{_BELOW}
SELECT {_TREE_COLUMNS}
FROM (SELECT ? AS id UNION ALL SELECT id FROM down) d
CROSS JOIN files f ON f.directory = d.id AND f.first <= ? AND f.last > ?
CROSS JOIN names n ON n.id = f.name
"""  # noqa: S608


_WHOLE_TREE = f"""
SELECT {_TREE_COLUMNS}
FROM files f CROSS JOIN names n ON n.id = f.name
WHERE f.first <= ? AND f.last > ?
"""  # noqa: S608


# In the order of their ids: a directory comes after those above it.
_DIRECTORIES = """
SELECT d.id, d.parent, n.name FROM directories d CROSS JOIN names n ON n.id = d.name ORDER BY d.id
"""

_ASKED_AT_ONCE = 16
_NO_DIRECTORY = 0

_SOME_DIRECTORIES = f"""
SELECT d.id, d.parent, n.name FROM directories d CROSS JOIN names n ON n.id = d.name
WHERE d.id IN ({", ".join("?" * _ASKED_AT_ONCE)})
"""  # noqa: S608

_LIST = f"""
SELECT n.name, {STATE} FROM files f CROSS JOIN names n ON n.id = f.name
CROSS JOIN attributes a ON a.id = f.attributes
WHERE f.directory = ? AND f.first <= ? AND f.last > ?
"""  # noqa: S608


class FileReader:
    """What one source's file says; see `file_rows.RowsReader`."""

    def __init__(self, connection: FileConnection, source: SourceName) -> None:
        self._connection = connection
        self._source = source
        self._known = remembered(connection)

    def points(self) -> dict[int, RestorePoint]:
        """The images in the file by sequence number, oldest first."""
        return self._known.points

    def sequence_of(self, image: ImageId) -> int | None:
        """The sequence number of an image in a file, or None if the file does not hold it."""
        return self._known.sequence_of(image)

    def entry(self, sequence: int, path: bytes) -> FileRow | None:
        """The name at a path as an image has it; None if it has none. Never the root."""
        place = self._place(path)
        if place is None:
            return None
        directory, name_id, name = place
        found = self._connection.execute(
            f"SELECT {STATE} FROM files f JOIN attributes a ON a.id = f.attributes "  # noqa: S608
            "WHERE f.directory = ? AND f.name = ? AND f.first <= ? AND f.last > ?",
            (directory, name_id, sequence, sequence),
        ).fetchone()
        return None if found is None else file_row((name, *found))

    def list_directory(self, sequence: int, path: bytes) -> list[FileRow] | None:
        """Names in a directory as an image has it, sorted by their bytes; None if it has none."""
        directory = self._directory_id(path)
        if directory is None:
            # nothing was ever in it, but it may be there
            return [] if self._shows_directory(sequence, path) else None
        rows = self._connection.execute(_LIST, (directory, sequence, sequence))
        found = sorted(map(file_row, rows))
        # an image that shows something in a directory shows the directory
        return found if found or self._shows_directory(sequence, path) else None

    def versions(self, path: bytes) -> list[FileVersion]:
        """Every version of a path that a live image shows, oldest first."""
        place = self._place(path)
        if place is None:
            return []
        rows = self._connection.execute(
            f"SELECT f.first, f.last, {STATE} FROM files f "  # noqa: S608
            "JOIN attributes a ON a.id = f.attributes "
            "WHERE f.directory = ? AND f.name = ? ORDER BY f.first",
            place[:2],
        ).fetchall()
        version = self._known.timeline(self._source).version
        return [version(path, first, last, state) for first, last, *state in rows]

    def tree(self, sequence: int, path: bytes) -> Iterator[TreeBatch] | None:
        """Everything below a directory as an image has it; None if it has no such directory."""
        if not self._shows_directory(sequence, path):
            return None
        top = self._directory_id(path)
        return iter(()) if top is None else self._tree(sequence, path.rstrip(b"/"), top)

    def _tree(self, sequence: int, path: bytes, top: int) -> Iterator[TreeBatch]:
        execute = self._connection.execute
        below = execute(_DIRECTORIES) if top == ROOT else execute(_DIRECTORIES_BELOW, (top,))
        paths = {top: path}
        for directory, parent, name in below:
            paths[directory] = paths[parent] + b"/" + name
        alike = {
            row[0]: row[1:] for row in execute("SELECT id, kind, mode, uid, gid FROM attributes")
        }
        if top == ROOT:
            rows = execute(_WHOLE_TREE, (sequence, sequence))
        else:
            rows = execute(_TREE, (top, top, sequence, sequence))
        while batch := rows.fetchmany(_TREE_BATCH_ROWS):
            yield TreeBatch(paths, alike, batch)

    def _shows_directory(self, sequence: int, path: bytes) -> bool:
        if path == b"/":
            return True
        found = self.entry(sequence, path)
        return found is not None and found.kind == KINDS[DIRECTORY]

    def _place(self, path: bytes) -> tuple[int, int, bytes] | None:
        parent, _, name = path.rpartition(b"/")
        directory = self._directory_id(parent)
        if directory is None:
            return None
        found = self._connection.execute("SELECT id FROM names WHERE name = ?", (name,)).fetchone()
        return None if found is None else (directory, int(found[0]), name)

    def _directory_id(self, path: bytes) -> int | None:
        found = self._known.directory_id(path.rstrip(b"/"))
        self._known.trim()
        return found


class DirectoryPaths:
    """Paths of directories by id, looked up once, and those of many answers together."""

    def __init__(self, connection: FileConnection, known: dict[int, bytes]) -> None:
        """Prepare.

        Args:
            connection: The source's file.
            known: Paths by id that are known; more are added, and all go if they get too many.
        """
        self._connection = connection
        self._paths = known

    def of(self, directories: Iterable[int]) -> Mapping[int, bytes]:
        """Paths of these directories, and of others, by id.

        Each is without the slash at its end: empty for the root.
        """
        paths = self._paths
        if len(paths) > _DIRECTORY_CACHE:
            paths.clear()
        paths[ROOT] = b""
        wanted = {one for one in directories if one not in paths}
        above: dict[int, tuple[int, bytes]] = {}
        missing = wanted
        while missing:
            found = {one: (parent, name) for one, parent, name in self._some(sorted(missing))}
            above |= found
            missing = {parent for parent, _ in found.values()}.difference(paths, above)
        for one in wanted:
            self._spell(one, above)
        return paths

    def _some(self, directories: Sequence[int]) -> Iterator[tuple[int, int, bytes]]:
        """(id, parent, name) of some directories."""
        for at in range(0, len(directories), _ASKED_AT_ONCE):
            some = directories[at : at + _ASKED_AT_ONCE]
            # the same words each time, or SQLite would have to understand them again
            yield from self._connection.execute(
                _SOME_DIRECTORIES, (*some, *[_NO_DIRECTORY] * (_ASKED_AT_ONCE - len(some)))
            )

    def _spell(self, directory: int, above: Mapping[int, tuple[int, bytes]]) -> None:
        paths = self._paths
        unspelt = []
        while directory not in paths:
            unspelt.append(directory)
            directory = above[directory][0]
        path = paths[directory]
        for one in reversed(unspelt):
            path = path + b"/" + above[one][1]
            paths[one] = path
