"""Find names in one source's file: trigrams propose, the folded text decides.

Must not write, and must not rank: answers come as they are found. Runs inside the caller's read
transaction. Terms too short for trigrams, and files without a search index, read all names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.control.catalog.file_rows import ROOT
from holdfast.control.catalog.folding import fold_name
from holdfast.control.catalog.on_sqlite.browse import DirectoryPaths
from holdfast.control.catalog.on_sqlite.source_file import SEARCH_TEXT, STATE, has_search_index
from holdfast.control.catalog.on_sqlite.writer import restore_points
from holdfast.control.catalog.timeline import Timeline

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from holdfast.base.ids import SourceName
    from holdfast.control.catalog.pattern import Pattern
    from holdfast.control.catalog.rows import FoundRow

# More would only cost: the rarest decide, and every candidate is compared.
_TRIGRAMS_ASKED = 24

# What matches is seldom in one directory, but its directories often are: the last step above it
# is in the answer, and the steps above that are looked up once.
_FOUND = f"p.directory, d.parent, dn.name, f.first, f.last, {STATE}"
_BESIDE = """
CROSS JOIN attributes a ON a.id = f.attributes
LEFT JOIN directories d ON d.id = p.directory
LEFT JOIN names dn ON dn.id = d.name
"""

_VERSIONS = f"""
SELECT {_FOUND} FROM places p
CROSS JOIN files f ON f.directory = p.directory AND f.name = p.name
{_BESIDE}
WHERE p.name = ? ORDER BY p.directory, f.first
"""  # noqa: S608

_NEWEST = f"""
SELECT {_FOUND} FROM places p
CROSS JOIN files f ON f.directory = p.directory AND f.name = p.name AND f.first = (
    SELECT max(first) FROM files WHERE directory = p.directory AND name = p.name
)
{_BESIDE}
WHERE p.name = ? ORDER BY p.directory
"""  # noqa: S608


def find(
    connection: sqlite3.Connection, source: SourceName, pattern: Pattern, *, versions: bool
) -> Iterator[FoundRow]:
    """Find what matches in one file.

    Args:
        connection: The source's file.
        source: Its name, for the answers.
        pattern: What to find.
        versions: Every version of a path, oldest first, instead of the newest only.
    """
    timeline = None
    directories = DirectoryPaths(connection)
    query = _VERSIONS if versions else _NEWEST
    for name_id, name in _names(connection, pattern):
        # most searches find nothing in most files
        timeline = timeline or Timeline(source, restore_points(connection))
        for row in connection.execute(query, (name_id,)):
            directory, parent, directory_name, first, last, *state = row
            above = b""
            if directory != ROOT:
                above = directories.path(parent) + b"/" + directory_name
            if pattern.needs_path and not pattern.matches_above(fold_name(above)):
                continue
            yield timeline.version(above + b"/" + name, first, last, state)


def _names(connection: sqlite3.Connection, pattern: Pattern) -> Iterator[tuple[int, bytes]]:
    for name_id, name, folded in _candidates(connection, pattern):
        if pattern.matches_name(folded):
            yield name_id, name


def _candidates(
    connection: sqlite3.Connection, pattern: Pattern
) -> Iterator[tuple[int, bytes, str]]:
    columns = f"SELECT names.id, names.name, {SEARCH_TEXT}"
    if pattern.required and has_search_index(connection):
        asked = sorted(pattern.required)[:_TRIGRAMS_ASKED]
        # detail=none knows no phrases: trigrams, in any order
        expression = " AND ".join('"' + one.replace('"', '""') + '"' for one in asked)
        return connection.execute(
            # the index proposes one by one: a limit ends that, too
            f"{columns} FROM names_search CROSS JOIN names ON names.id = names_search.rowid "
            "WHERE names_search MATCH ?",
            (expression,),
        )
    if pattern.part:
        text = SEARCH_TEXT
        return connection.execute(f"{columns} FROM names WHERE instr({text}, ?)", (pattern.part,))
    return connection.execute(f"{columns} FROM names")
