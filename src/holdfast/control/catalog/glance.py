"""A search of a catalog on SQLite that has nothing to do before: without SQLAlchemy.

To load that takes three times as long as the rest of a search. Must not write, and must not
answer where `Catalog` would do something first, or say what is wrong: it is asked then. Invariant:
what is found is what `Catalog.find` finds.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from holdfast.base.ids import FILES_OF, SourceName, files_source
from holdfast.control.catalog import pattern
from holdfast.control.catalog.damage import DATABASE, FILES
from holdfast.control.catalog.file_rows import Source
from holdfast.control.catalog.on_sqlite import SourceFiles
from holdfast.control.database.failures import translated
from holdfast.control.database.revision import HEAD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from holdfast.control.catalog.rows import FoundRow

_TIMEOUT_S = 30.0

_UNFINISHED = (
    "SELECT 1 FROM images WHERE catalog_state = 'pending' "
    "UNION ALL SELECT 1 FROM images WHERE catalog_state = 'expiring' LIMIT 1"
)
_SOURCES = "SELECT id, name, generation FROM sources ORDER BY name"


def find(
    directory: Path, pattern_text: str, *, source: str | None = None, versions: bool = False
) -> Iterator[FoundRow] | None:
    """Search names in every image of every source; see `Catalog.find`.

    Args:
        directory: Where the catalog is.
        pattern_text: What to find.
        source: Only in this source.
        versions: Every version of what matches, instead of its newest.

    Returns:
        What was found, while it is being found; None where `Catalog` is to be asked: it is not
        there yet, of another schema or damaged, has images to take in or to let go of, knows no
        such source, or has files inside of machines.

    Raises:
        Invalid: The pattern can't match anything.
    """
    wanted = pattern.parse(pattern_text)
    try:
        sources = _settled_sources(directory / DATABASE)
    except sqlite3.Error:
        return None
    if sources is None:
        return None
    if source is not None:
        sources = [one for one in sources if one.name in {source, files_source(SourceName(source))}]
    if not sources or any(one.name.startswith(FILES_OF) for one in sources):
        return None
    return _found(directory, sources, wanted, versions=versions)


def _found(
    directory: Path, sources: Sequence[Source], wanted: pattern.Pattern, *, versions: bool
) -> Iterator[FoundRow]:
    database = directory / DATABASE

    def generation_of(number: int) -> int:
        with translated(database), _looking(database) as connection:
            question = "SELECT generation FROM sources WHERE id = ?"
            found = connection.execute(question, (number,)).fetchone()
            return int(found[0]) if found else 0

    with contextlib.closing(SourceFiles(directory / FILES, generation_of)) as files:
        yield from files.find(sources, wanted, versions=versions, limit=None)


def _settled_sources(database: Path) -> list[Source] | None:
    """All sources by name; None unless the schema is ours and nothing is left to do."""
    with _looking(database) as connection:
        connection.execute("BEGIN")
        if connection.execute("SELECT version_num FROM alembic_version").fetchall() != [(HEAD,)]:
            return None
        if connection.execute(_UNFINISHED).fetchone() is not None:
            return None
        rows = connection.execute(_SOURCES).fetchall()
    return [Source(number, SourceName(name), generation) for number, name, generation in rows]


def _looking(database: Path) -> contextlib.closing[sqlite3.Connection]:
    # Not read-only: readers of a database with a write-ahead log write in what they share.
    connection = sqlite3.connect(
        f"{database.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=_TIMEOUT_S,
        isolation_level=None,
    )
    return contextlib.closing(connection)
