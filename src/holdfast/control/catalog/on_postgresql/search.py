"""Find names in the rows of many sources at once: the index proposes, the folded text decides.

Must not write, and must not rank: answers come as they are found. Runs inside the caller's read
transaction. Terms too short for trigrams read all names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.control.catalog.file_rows import ROOT
from holdfast.control.catalog.folding import fold_name
from holdfast.control.catalog.on_postgresql.browse import ATTRIBUTES
from holdfast.control.catalog.on_postgresql.writer import restore_points
from holdfast.control.catalog.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import psycopg

    from holdfast.base.ids import SourceName
    from holdfast.control.catalog.file_rows import Source
    from holdfast.control.catalog.pattern import Pattern
    from holdfast.control.catalog.rows import FoundRow

    Connection = psycopg.Connection[tuple[Any, ...]]

_FIRST_NAMES = 100
_MOST_NAMES = 5_000
_DIRECTORIES_KNOWN = 100_000

_SETS = """
SELECT f.id, s.name FROM sources s JOIN file_rows.sets f
ON f.source = s.id AND f.generation = s.generation
WHERE s.id = ANY(%s)
"""

_NAMES = """
SELECT file_set, id, name, folded FROM file_rows.names
WHERE folded LIKE %(like)s AND file_set = ANY(%(sets)s)
"""

_VERSIONS = f"""
SELECT w.file_set, w.name, v.directory, v.first, v.last, {ATTRIBUTES}
FROM unnest(%b::int[], %b::int[]) w (file_set, name)
JOIN file_rows.versions v ON v.file_set = w.file_set AND v.name = w.name
ORDER BY 1, 2, 3, 4
"""  # noqa: S608

_DIRECTORIES = """
WITH RECURSIVE up (file_set, id, parent, name) AS (
    SELECT d.file_set, d.id, d.parent, d.name
    FROM unnest(%b::int[], %b::int[]) w (file_set, id)
    JOIN file_rows.directories d ON d.file_set = w.file_set AND d.id = w.id
    UNION
    SELECT d.file_set, d.id, d.parent, d.name FROM up
    JOIN file_rows.directories d ON d.file_set = up.file_set AND d.id = up.parent
)
SELECT up.file_set, up.id, up.parent, n.name FROM up
JOIN file_rows.names n ON n.file_set = up.file_set AND n.id = up.name
"""

_NEWEST = f"""
SELECT DISTINCT ON (w.file_set, w.name, v.directory)
    w.file_set, w.name, v.directory, v.first, v.last, {ATTRIBUTES}
FROM unnest(%b::int[], %b::int[]) w (file_set, name)
JOIN file_rows.versions v ON v.file_set = w.file_set AND v.name = w.name
ORDER BY 1, 2, 3, 4 DESC
"""  # noqa: S608

_Row = tuple[Any, ...]


def find(
    connection: Connection,
    sources: Sequence[Source],
    pattern: Pattern,
    *,
    versions: bool,
    limit: int | None,
) -> Iterator[FoundRow]:
    """Find what matches; see `file_rows.FileRows.find`."""
    sets: dict[int, SourceName] = dict(connection.execute(_SETS, ([one.id for one in sources],)))
    answers = _Answers(connection, sets)
    for names in _names(connection, list(sets), pattern, limit):
        query = _VERSIONS if versions else _NEWEST
        keys = [list(column) for column in zip(*names, strict=True)]
        rows = connection.execute(query, keys, binary=True).fetchall()
        answers.learn(rows)
        for row in rows:
            above = answers.path(row[0], row[2])
            if not pattern.needs_path or pattern.matches_above(fold_name(above)):
                yield answers.version(row, above + b"/" + names[row[0], row[1]])


def _names(
    connection: Connection, sets: list[int], pattern: Pattern, limit: int | None
) -> Iterator[dict[tuple[int, int], bytes]]:
    """Names that match, by set and id, in batches that grow: few may be all that is wanted."""
    asked = min(limit or _FIRST_NAMES, _MOST_NAMES)
    with connection.cursor("names", binary=True) as cursor:
        cursor.execute(_NAMES, {"like": pattern.like, "sets": sets})
        while batch := cursor.fetchmany(asked):
            asked = min(asked * 4, _MOST_NAMES)
            names = {
                (file_set, identity): name
                for file_set, identity, name, folded in batch
                if pattern.matches_name(folded)
            }
            if names:
                yield names


class _Answers:
    """What is needed to make answers of rows, looked up for many at once."""

    def __init__(self, connection: Connection, sets: dict[int, SourceName]) -> None:
        self._connection = connection
        self._sets = sets
        self._timelines: dict[int, Timeline] = {}
        self._paths: dict[tuple[int, int], bytes] = {}

    def learn(self, rows: Iterable[_Row]) -> None:
        """Look up what the next calls are about."""
        if len(self._paths) > _DIRECTORIES_KNOWN:
            self._paths.clear()
        wanted = {(row[0], row[2]) for row in rows} - self._paths.keys()
        for file_set in {file_set for file_set, _ in wanted}:
            self._paths[file_set, ROOT] = b""
            if file_set not in self._timelines:
                points = restore_points(self._connection, file_set)
                self._timelines[file_set] = Timeline(self._sets[file_set], points)
        wanted -= self._paths.keys()
        if not wanted:
            return
        keys = [list(column) for column in zip(*wanted, strict=True)]
        found = self._connection.execute(_DIRECTORIES, keys, binary=True)
        above = {(row[0], row[1]): (row[2], row[3]) for row in found}
        for file_set, directory in wanted:
            self._spell(file_set, directory, above)

    def path(self, file_set: int, directory: int) -> bytes:
        """Path of a directory without the slash at its end: empty for the root."""
        return self._paths[file_set, directory]

    def version(self, row: _Row, path: bytes) -> FoundRow:
        """The answer that a row stands for."""
        return self._timelines[row[0]].version(path, row[3], row[4], row[5:])

    def _spell(
        self, file_set: int, directory: int, above: dict[tuple[int, int], tuple[int, bytes]]
    ) -> None:
        missing = []
        while (file_set, directory) not in self._paths:
            missing.append(directory)
            directory = above[file_set, directory][0]
        path = self._paths[file_set, directory]
        for one in reversed(missing):
            path = path + b"/" + above[file_set, one][1]
            self._paths[file_set, one] = path
