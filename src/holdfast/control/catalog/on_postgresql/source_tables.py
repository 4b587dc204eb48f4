"""The rows of all sources in one control database: who may write, and the sets that there are.

A *set* is one generation of one source's rows. Must not know what is in the rows. Invariants: a
set's number never comes again; a writer's lock lives and dies with the connection that writes;
what is written here waits for no writer of the control database, and none waits for it.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from holdfast.base.errors import CatalogError, DatabaseLost, HoldfastError
from holdfast.control.catalog.on_postgresql import search
from holdfast.control.catalog.on_postgresql.browse import TableReader
from holdfast.control.catalog.on_postgresql.writer import TableWriter
from holdfast.control.database.failures import REBUILD_HINT, server_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.control.catalog.file_rows import RowsReader, RowsWriter, Source, SourceRows
    from holdfast.control.catalog.pattern import Pattern
    from holdfast.control.catalog.rows import FoundRow
    from holdfast.control.database import Database

    Connection = psycopg.Connection[tuple[Any, ...]]

SOURCE_LOCK = 0x46726F77
"""The first number of the advisory lock that a source's writer holds; the second is the source."""

_IDLE = 4

_OF_A_SET = ("versions", "directories", "names", "points")


class SourceTables:
    """The rows of all sources; see `file_rows.FileRows`. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._idle: list[Connection] = []

    @contextlib.contextmanager
    def exclusive(self, source: int) -> Iterator[SourceRows]:
        """Be the only writer of a source; waits for another one, in any process."""
        connection = self._locked(source)
        try:
            yield _OneSource(connection, source, self._database.name)
        finally:
            self._give_back(connection, source)

    @contextlib.contextmanager
    def reading(self, source: Source) -> Iterator[RowsReader]:
        """Ask a source, in one read transaction."""
        with self._reading() as connection:
            found = connection.execute(
                "SELECT f.id FROM sources s JOIN file_rows.sets f "
                "ON f.source = s.id AND f.generation = s.generation WHERE s.id = %s",
                (source.id,),
            ).fetchone()
            if found is None:
                raise _missing(source.id, source.generation)
            yield TableReader(connection, source.name, found[0])

    def find(
        self, sources: Sequence[Source], pattern: Pattern, *, versions: bool, limit: int | None
    ) -> Iterator[FoundRow]:
        """Find names, in all sources at once."""
        with self._reading() as connection:
            yield from search.find(connection, sources, pattern, versions=versions, limit=limit)

    @contextlib.contextmanager
    def apart(self) -> Iterator[SourceTables]:
        """The server has processes of its own; here nothing more is needed."""
        yield self

    def abandon(self) -> None:
        """Nothing to do: a feed is stopped between two batches."""

    def stored(self) -> set[int]:
        """Ids of sources that have a set."""
        with self._reading() as connection:
            rows = connection.execute("SELECT DISTINCT source FROM file_rows.sets")
            return {row[0] for row in rows}

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._database.read() as opened, server_errors(self._database.name):
            connection: Any = opened.connection.driver_connection
            yield connection

    def _locked(self, source: int) -> Connection:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._lock_source(connection, source)
            except DatabaseLost:
                # The server was started again since; a new connection tells whether it is there.
                connection = None
        return self._lock_source(self._database.driver_connection(), source)

    def _give_back(self, connection: Connection, source: int) -> None:
        # A connection that may still hold the lock must not come to another writer.
        try:
            with server_errors(self._database.name):
                connection.execute("SELECT pg_advisory_unlock(%s, %s)", (SOURCE_LOCK, source))
        except HoldfastError:
            connection.close()
            return
        with self._lock:
            if len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _lock_source(self, connection: Connection, source: int) -> Connection:
        try:
            with server_errors(self._database.name):
                connection.execute("SELECT pg_advisory_lock(%s, %s)", (SOURCE_LOCK, source))
        except BaseException:
            connection.close()
            raise
        return connection


class _OneSource:
    """The sets of one source, for the holder of its lock; see `file_rows.SourceRows`."""

    def __init__(self, connection: Connection, source: int, database: str) -> None:
        self._connection = connection
        self._source = source
        self._database = database

    @contextlib.contextmanager
    def writing(self, generation: int) -> Iterator[RowsWriter]:
        with server_errors(self._database):
            number = self._number_of(generation)
            if number is None:
                raise _missing(self._source, generation)
            yield TableWriter(self._connection, number)

    @contextlib.contextmanager
    def building(self, generation: int) -> Iterator[RowsWriter]:
        with server_errors(self._database):
            # what an earlier attempt left under this number
            self._remove("generation = %s", generation)
            made = self._connection.execute(
                "INSERT INTO file_rows.sets (source, generation) VALUES (%s, %s) RETURNING id",
                (self._source, generation),
            ).fetchone()
            assert made is not None  # noqa: S101 - a row that was inserted is returned
            try:
                yield TableWriter(self._connection, made[0])
            except BaseException:
                # what the writer failed of is to be heard of, and not this
                with contextlib.suppress(psycopg.Error):
                    self._remove("generation = %s", generation)
                raise

    def has(self, generation: int) -> bool:
        with server_errors(self._database):
            return self._number_of(generation) is not None

    def remove_others(self, generation: int) -> int:
        with server_errors(self._database):
            return self._remove("generation <> %s", generation)

    def _number_of(self, generation: int) -> int | None:
        found = self._connection.execute(
            "SELECT id FROM file_rows.sets WHERE source = %s AND generation = %s",
            (self._source, generation),
        ).fetchone()
        return None if found is None else int(found[0])

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
