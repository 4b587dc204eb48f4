"""Find names in the rows of many sources at once: an index proposes, the folded text decides.

Must not write, and must not rank: answers come as they are found. Runs inside the caller's read
transaction. Terms too short for trigrams read all names.
"""

from __future__ import annotations

import itertools
from operator import itemgetter
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql

from holdfast.base.ids import ImageId
from holdfast.control.catalog.file_rows import ROOT, RestorePoint
from holdfast.control.catalog.folding import fold_name
from holdfast.control.catalog.on_postgresql.browse import ATTRIBUTES
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

# What is looked for stands in the statement itself, so that it is planned for: one word is in
# every tenth name and another in none.
_NAMES: LiteralString = """
SELECT file_set, id, name, folded FROM file_rows.names
WHERE folded LIKE {like} AND file_set = ANY({sets})
"""

# Name by name, each by its key, until there are as many as are wanted: some are in thousands of
# directories.
_VERSIONS = f"""
SELECT w.file_set, w.name, found.*
FROM unnest(%b::int[], %b::int[]) w (file_set, name)
CROSS JOIN LATERAL (
    SELECT v.directory, v.first, v.last, {ATTRIBUTES} FROM file_rows.versions v
    WHERE v.file_set = w.file_set AND v.name = w.name
    ORDER BY v.directory, v.first
) found
LIMIT %b
"""  # noqa: S608

_NEWEST = f"""
SELECT w.file_set, w.name, found.*
FROM unnest(%b::int[], %b::int[]) w (file_set, name)
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (v.directory) v.directory, v.first, v.last, {ATTRIBUTES}
    FROM file_rows.versions v
    WHERE v.file_set = w.file_set AND v.name = w.name
    ORDER BY v.directory, v.first DESC
) found
LIMIT %b
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

_POINTS = """
SELECT file_set, sequence, number, started_ns, image, pool FROM file_rows.points
WHERE file_set = ANY(%s) ORDER BY file_set, sequence
"""

_Row = tuple[Any, ...]
_Names = dict[tuple[int, int], bytes]


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
    names = sql.SQL(_NAMES).format(like=sql.Literal(pattern.like), sets=sql.Literal(list(sets)))
    query = _VERSIONS if versions else _NEWEST
    # of what only its path may rule out, more may be needed
    most = limit if pattern.is_plain else None
    for some in _names(connection, names, pattern, limit):
        keys = [list(column) for column in zip(*some, strict=True)]
        rows = sorted(connection.execute(query, [*keys, most], binary=True).fetchall())
        answers.learn(rows)
        for row in rows:
            above = answers.path(row[0], row[2])
            if not pattern.needs_path or pattern.matches_above(fold_name(above)):
                yield answers.version(row, above + b"/" + some[row[0], row[1]])


def _names(
    connection: Connection, query: sql.Composed, pattern: Pattern, limit: int | None
) -> Iterator[_Names]:
    """Names that match, by set and id; in batches that grow, unless few are all that is wanted."""
    given: _Names = {}
    if pattern.is_plain and limit is not None and limit <= _MOST_NAMES:
        few = query + sql.SQL(" LIMIT {}").format(limit)
        rows = connection.execute(few, binary=True, prepare=False).fetchall()
        given = {(row[0], row[1]): row[2] for row in rows}
        if given:
            yield given
        if len(rows) < limit:
            return
        # Asked for more: some were names of nothing in particular.
    asked = _FIRST_NAMES
    with connection.cursor("names", binary=True) as cursor:
        cursor.execute(query)
        while batch := cursor.fetchmany(asked):
            asked = min(asked * 4, _MOST_NAMES)
            names = {
                (file_set, identity): name
                for file_set, identity, name, folded in batch
                if pattern.matches_name(folded) and (file_set, identity) not in given
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
        self._learn_timelines({file_set for file_set, _ in wanted})
        wanted -= self._paths.keys()
        if not wanted:
            return
        keys = [list(column) for column in zip(*wanted, strict=True)]
        found = self._connection.execute(_DIRECTORIES, keys, binary=True)
        above = {(row[0], row[1]): (row[2], row[3]) for row in found}
        for file_set, directory in wanted:
            self._spell(file_set, directory, above)

    def _learn_timelines(self, sets: set[int]) -> None:
        self._paths.update(((one, ROOT), b"") for one in sets)
        new = sets - self._timelines.keys()
        if not new:
            return
        points = self._connection.execute(_POINTS, (sorted(new),)).fetchall()
        for file_set, of_it in itertools.groupby(points, key=itemgetter(0)):
            held = {
                sequence: RestorePoint(number, started_ns, ImageId(image), pool)
                for _, sequence, number, started_ns, image, pool in of_it
            }
            self._timelines[file_set] = Timeline(self._sets[file_set], held)

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
