"""The rows of all sources in one control database: who may write, and the sets that there are.

A *set* is one generation of one source's rows. Must not know what is in the rows. Invariants: a
set's number never comes again; a writer's lock lives and dies with the connection that writes;
what is written here waits for no writer of the control database, and none waits for it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from holdfast.base.errors import CatalogError
from holdfast.control.catalog.on_postgresql import search
from holdfast.control.catalog.on_postgresql.browse import TableReader
from holdfast.control.catalog.on_postgresql.file_set import PART_OF, FileSet
from holdfast.control.catalog.on_postgresql.sessions import Sessions
from holdfast.control.catalog.on_postgresql.writer import TableWriter
from holdfast.control.database.failures import REBUILD_HINT, server_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from holdfast.base.ids import ImageId
    from holdfast.control.catalog.file_rows import RowsReader, RowsWriter, Source, SourceRows
    from holdfast.control.catalog.pattern import Pattern
    from holdfast.control.catalog.rows import FoundRow
    from holdfast.control.database import Database

    Connection = psycopg.Connection[tuple[Any, ...]]

SOURCE_LOCK = 0x46726F77
"""The first number of the advisory lock that a source's writer holds; the second is the source."""

_OF_A_SET = ("versions", "directories", "names", "points")

_SET_OF_SOURCE = f"""
SELECT f.id, {PART_OF} FROM sources s
JOIN file_rows.sets f ON f.source = s.id AND f.generation = s.generation
WHERE s.id = %s
"""  # noqa: S608

_SET_OF_GENERATION = f"""
SELECT f.id, {PART_OF} FROM file_rows.sets f WHERE f.source = %s AND f.generation = %s
"""  # noqa: S608

_SHOWN = f"""
SELECT f.id, {PART_OF}, s.name, p.sequence FROM images i
JOIN sources s ON s.id = i.source_id
JOIN file_rows.sets f ON f.source = s.id AND f.generation = s.generation
JOIN file_rows.points p ON p.file_set = f.id AND p.image = i.id
WHERE i.id = %s AND i.catalog_state <> 'expiring'
"""  # noqa: S608


class SourceTables:
    """The rows of all sources; see `file_rows.FileRows`. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._name = database.name
        self._sessions = Sessions(database)

    @contextlib.contextmanager
    def exclusive(self, source: int) -> Iterator[SourceRows]:
        """Be the only writer of a source; waits for another one, in any process."""
        with self._sessions.locked(SOURCE_LOCK, source) as connection:
            yield _OneSource(connection, source, self._name)

    @contextlib.contextmanager
    def reading(self, source: Source) -> Iterator[RowsReader]:
        """Ask a source, in one read transaction."""
        with self._sessions.reading() as connection:
            found = connection.execute(_SET_OF_SOURCE, (source.id,)).fetchone()
            if found is None:
                raise _missing(source.id, source.generation)
            yield TableReader(connection, source.name, FileSet(*found))

    @contextlib.contextmanager
    def showing(
        self,
        image: ImageId,
        source_of: Callable[[], Source],  # noqa: ARG002 - it is in the same database
    ) -> Iterator[tuple[RowsReader, int] | None]:
        """Ask an image's source, with the image's sequence number."""
        with self._sessions.reading() as connection:
            found = connection.execute(_SHOWN, (image,)).fetchone()
            if found is None:
                yield None
            else:
                number, part, name, sequence = found
                yield TableReader(connection, name, FileSet(number, part)), sequence

    def find(
        self, sources: Sequence[Source], pattern: Pattern, *, versions: bool, limit: int | None
    ) -> Iterator[FoundRow]:
        """Find names, partition by partition."""
        with self._sessions.reading() as connection:
            yield from search.find(connection, sources, pattern, versions=versions, limit=limit)

    @contextlib.contextmanager
    def apart(self) -> Iterator[SourceTables]:
        """The server has processes of its own; here nothing more is needed."""
        yield self

    def abandon(self) -> None:
        """Nothing to do: a feed is stopped between two batches."""

    def stored(self) -> set[int]:
        """Ids of sources that have a set."""
        with self._sessions.reading() as connection:
            rows = connection.execute("SELECT DISTINCT source FROM file_rows.sets")
            return {row[0] for row in rows}

    def close(self) -> None:
        """Close idle connections."""
        self._sessions.close()


class _OneSource:
    """The sets of one source, for the holder of its lock; see `file_rows.SourceRows`."""

    def __init__(self, connection: Connection, source: int, database: str) -> None:
        self._connection = connection
        self._source = source
        self._database = database

    @contextlib.contextmanager
    def writing(self, generation: int) -> Iterator[RowsWriter]:
        with server_errors(self._database):
            found = self._set_of(generation)
            if found is None:
                raise _missing(self._source, generation)
            yield TableWriter(self._connection, found)

    @contextlib.contextmanager
    def building(self, generation: int) -> Iterator[RowsWriter]:
        with server_errors(self._database):
            # what an earlier attempt left under this number
            self._remove("generation = %s", generation)
            self._connection.execute(
                "INSERT INTO file_rows.sets (source, generation) VALUES (%s, %s)",
                (self._source, generation),
            )
            made = self._set_of(generation)
            assert made is not None  # noqa: S101 - just inserted, under the source's lock
            try:
                yield TableWriter(self._connection, made)
            except BaseException:
                # what the writer failed of is to be heard of, and not this
                with contextlib.suppress(psycopg.Error):
                    self._remove("generation = %s", generation)
                raise

    def has(self, generation: int) -> bool:
        with server_errors(self._database):
            return self._set_of(generation) is not None

    def remove_others(self, generation: int) -> int:
        with server_errors(self._database):
            return self._remove("generation <> %s", generation)

    def _set_of(self, generation: int) -> FileSet | None:
        values = (self._source, generation)
        found = self._connection.execute(_SET_OF_GENERATION, values).fetchone()
        return None if found is None else FileSet(*found)

    def _remove(self, which: LiteralString, generation: int) -> int:
        execute = self._connection.execute
        sets = execute(
            f"SELECT id FROM file_rows.sets WHERE source = %s AND {which}",  # noqa: S608
            (self._source, generation),
        ).fetchall()
        for one in sets:
            # the number last: until then somebody can find what is left of a set
            with self._connection.transaction():
                for table in _OF_A_SET:
                    execute(f"DELETE FROM file_rows.{table} WHERE file_set = %s", one)  # noqa: S608
                execute("DELETE FROM file_rows.sets WHERE id = %s", one)
        return len(sets)


def _missing(source: int, generation: int) -> CatalogError:
    return CatalogError(
        f"the catalog's rows of source {source}, generation {generation}, are missing",
        REBUILD_HINT,
    )
