"""Find names in one source's file: trigrams propose, the folded text decides.

Must not write, and must not rank: answers come as they are found. Runs inside the caller's read
transaction. Terms too short for trigrams, and files without a search index, read all names.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from holdfast.control.catalog.file_rows import ROOT
from holdfast.control.catalog.folding import fold_name
from holdfast.control.catalog.on_sqlite.browse import DirectoryPaths
from holdfast.control.catalog.on_sqlite.remembered import remembered
from holdfast.control.catalog.on_sqlite.source_file import SEARCH_TEXT, STATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.base.ids import SourceName
    from holdfast.control.catalog.on_sqlite.source_file import FileConnection
    from holdfast.control.catalog.pattern import Pattern
    from holdfast.control.catalog.rows import FoundRow

# More would only cost: the rarest decide, and every candidate is compared.
_TRIGRAMS_ASKED = 24

# SQLite's own limit is 50,000 bytes; no name is as long.
_LONGEST_LIKE = 10_000

# Directories are looked up for so many answers at once; the first ones are not to wait for many.
_FIRST_ANSWERS = 16
_MOST_ANSWERS = 512

# What matches is seldom in one directory, but its directories often are: the last step above it
# is in the answer, and the steps above that are looked up once.
_FOUND = f"SELECT names.name, p.directory, d.parent, dn.name, f.first, f.last, {STATE}"

# The index proposes one by one: a limit ends that, too.
_PROPOSED = "names_search CROSS JOIN names ON names.id = names_search.rowid"

# In the order of the keys, so that the versions of a path come oldest first.
_PLACES = """
CROSS JOIN places p ON p.name = names.id
CROSS JOIN files f ON f.directory = p.directory AND f.name = p.name
"""

_NEWEST = """
AND f.first = (SELECT max(first) FROM files WHERE directory = p.directory AND name = p.name)
"""

_BESIDE = """
CROSS JOIN attributes a ON a.id = f.attributes
LEFT JOIN directories d ON d.id = p.directory
LEFT JOIN names dn ON dn.id = d.name
"""


class Search:
    """One question, asked of one file after the other: it is put into words once."""

    def __init__(self, pattern: Pattern, *, versions: bool, limit: int | None) -> None:
        """Prepare.

        Args:
            pattern: What to find.
            versions: Every version of a path, oldest first, instead of the newest only.
            limit: The caller takes no more than so many of all files together.
        """
        self._pattern = pattern
        self._left = sys.maxsize if limit is None else limit
        # in the file
        self._compared = pattern.is_plain and len(pattern.like) < _LONGEST_LIKE
        self._indexed = _query(pattern, versions=versions, indexed=True)
        self._unindexed = _query(pattern, versions=versions, indexed=False)

    def find(self, connection: FileConnection, source: SourceName) -> Iterator[FoundRow]:
        """Find what matches in the file of a source."""
        known = remembered(connection)
        query, arguments = self._indexed if known.has_search_index else self._unindexed
        pattern = self._pattern
        compares_names, compares_paths = not self._compared, pattern.needs_path
        paths_of = DirectoryPaths(connection, known.paths).of
        version = known.timeline(source).version
        rows = connection.execute(query, arguments)
        at_once = _FIRST_ANSWERS
        try:
            while batch := rows.fetchmany(max(1, min(at_once, self._left))):
                at_once = min(at_once * 2, _MOST_ANSWERS)
                paths = paths_of({row[2] for row in batch if row[1] != ROOT})
                for name, directory, parent, directory_name, first, last, *state in batch:
                    if compares_names and not pattern.matches_name(fold_name(name)):
                        continue
                    above = b"" if directory == ROOT else paths[parent] + b"/" + directory_name
                    if compares_paths and not pattern.matches_above(fold_name(above)):
                        continue
                    self._left -= 1
                    yield version(above + b"/" + name, first, last, state)
        finally:
            known.trim()


def _query(pattern: Pattern, *, versions: bool, indexed: bool) -> tuple[str, list[str]]:
    """What asks a file, in one statement: a question for each name would take longer to ask."""
    names = "names"
    conditions: list[str] = []
    arguments: list[str] = []
    if pattern.required and indexed:
        names = _PROPOSED
        conditions.append("names_search MATCH ?")
        asked = sorted(pattern.required)[:_TRIGRAMS_ASKED]
        # detail=none knows no phrases: trigrams, in any order
        arguments.append(" AND ".join('"' + one.replace('"', '""') + '"' for one in asked))
    if pattern.part:
        conditions.append(f"instr({SEARCH_TEXT}, ?)")
        arguments.append(pattern.part)
    elif pattern.part is None and len(pattern.like) < _LONGEST_LIKE:
        conditions.append(f"{SEARCH_TEXT} LIKE ? ESCAPE '\\'")
        arguments.append(pattern.like)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    newest = "" if versions else _NEWEST
    return f"{_FOUND} FROM {names} {_PLACES} {newest} {_BESIDE} {where}", arguments
