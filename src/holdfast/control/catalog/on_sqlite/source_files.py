"""Where the files of sources are, who may write to one, and open connections to them.

Must not know what is in them. Invariants: a source has one file at a time, named by its
generation; a new generation appears whole, by a rename, before the control database names it;
one writer at a time per source, across processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import sqlite3
import threading
from typing import TYPE_CHECKING

from holdfast.base.errors import CatalogError
from holdfast.control.catalog.on_sqlite import source_file
from holdfast.control.catalog.on_sqlite.browse import FileReader
from holdfast.control.catalog.on_sqlite.search import Search
from holdfast.control.catalog.on_sqlite.writer import FileWriter
from holdfast.control.database.failures import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from holdfast.base.ids import ImageId
    from holdfast.control.catalog.file_rows import RowsReader, RowsWriter, Source, SourceRows
    from holdfast.control.catalog.on_sqlite.apart import FilesApart
    from holdfast.control.catalog.on_sqlite.source_file import FileConnection
    from holdfast.control.catalog.pattern import Pattern
    from holdfast.control.catalog.rows import FoundRow

_IDLE_READERS = 64
"""A search asks the file of every source, and to open one takes longer than to ask it."""

_IDLE_WRITERS = 4
"""Each keeps what it has read, which is more than a reader may."""

_PATHS_KNOWN = 10_000

_OF_A_SOURCE = re.compile(r"(\d+)\.(\d+\.db|building)(-wal|-shm|-journal)?")


class SourceFiles:
    """The files of all sources under one directory; see `file_rows.FileRows`. Thread-safe."""

    def __init__(self, directory: Path, generation_of: Callable[[int], int]) -> None:
        """Prepare; nothing is opened yet.

        Args:
            directory: Where the files are.
            generation_of: Tells which generation of a source counts now.
        """
        self._directory = directory
        self._generation_of = generation_of
        self._readers = _Idle(_IDLE_READERS)
        self._writers = _Idle(_IDLE_WRITERS)
        self._files: dict[tuple[int, int], Path] = {}

    @contextlib.contextmanager
    def exclusive(self, source: int) -> Iterator[SourceRows]:
        """Be the only writer of a source; waits for another one, in any process."""
        with (self._directory / f"{source}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield _OneSource(self, source)

    @contextlib.contextmanager
    def reading(self, source: Source) -> Iterator[RowsReader]:
        """Ask a source, in one read transaction."""
        with self._reading(source) as connection:
            yield FileReader(connection, source.name)

    @contextlib.contextmanager
    def showing(
        self, image: ImageId, source_of: Callable[[], Source]
    ) -> Iterator[tuple[RowsReader, int] | None]:
        """Ask an image's source, with the image's sequence number."""
        source = source_of()
        if not source.generation:
            yield None
            return
        with self.reading(source) as rows:
            sequence = rows.sequence_of(image)
            yield None if sequence is None else (rows, sequence)

    def find(
        self,
        sources: Sequence[Source],
        pattern: Pattern,
        *,
        versions: bool,
        limit: int | None,
    ) -> Iterator[FoundRow]:
        """Find names, source by source."""
        search = Search(pattern, versions=versions, limit=limit)
        for source in sources:
            if source.generation:
                with self._reading(source) as connection:
                    yield from search.find(connection, source.name)

    @contextlib.contextmanager
    def apart(self) -> Iterator[FilesApart]:
        """Write in a process of its own: SQLite and Python share one processor here."""
        # Starting processes takes much to load, and searches have no use for it.
        from holdfast.control.catalog.on_sqlite.apart import FilesApart

        with contextlib.closing(FilesApart(self._directory)) as files:
            yield files

    def stored(self) -> set[int]:
        """Ids of sources that have a file of any kind, but for a lock."""
        names = (_OF_A_SOURCE.fullmatch(file.name) for file in self._directory.iterdir())
        return {int(name[1]) for name in names if name is not None}

    def close(self) -> None:
        """Close idle connections."""
        self._readers.close()
        self._writers.close()

    def file(self, source: int, generation: int) -> Path:
        """Where a generation of a source's file is."""
        place = source, generation
        file = self._files.get(place)
        if file is None:
            if len(self._files) > _PATHS_KNOWN:
                self._files.clear()
            file = self._files[place] = self._directory / f"{source}.{generation}.db"
        return file

    @contextlib.contextmanager
    def writing(self, source: int, generation: int) -> Iterator[RowsWriter]:
        """The current file, for one who holds the lock."""
        file = self.file(source, generation)
        with self._writers.borrowed(file, source_file.open_for_writing) as connection:
            yield FileWriter(connection)

    @contextlib.contextmanager
    def building(self, source: int, generation: int) -> Iterator[RowsWriter]:
        """Make a new file; it is there under its name when the block has ended."""
        building = self._directory / f"{source}.building"
        connection = source_file.create(building)
        try:
            with translated(building):
                yield FileWriter(connection)
            source_file.seal(connection, building, self.file(source, generation))
        except BaseException:
            connection.close()
            building.unlink(missing_ok=True)
            raise

    def remove_others(self, source: int, generation: int) -> int:
        """Delete what is of a source and is not this generation; readers at work may finish."""
        kept = self.file(source, generation).name
        gone = [
            file
            for file in self._directory.glob(f"{source}.*")
            if _OF_A_SOURCE.fullmatch(file.name) and not file.name.startswith(kept)
        ]
        for file in gone:
            for idle in (self._readers, self._writers):
                idle.drop(file)
            file.unlink(missing_ok=True)
        return sum(file.suffix in {".db", ".building"} for file in gone)

    @contextlib.contextmanager
    def _reading(self, source: Source) -> Iterator[FileConnection]:
        file = self.file(source.id, source.generation)
        try:
            connection = self._readers.take(file, source_file.open_for_reading)
        except CatalogError:
            # A rebuild may have put another file in its place since.
            generation = self._generation_of(source.id)
            if generation == source.generation:
                raise
            file = self.file(source.id, generation)
            connection = self._readers.take(file, source_file.open_for_reading)
        with self._readers.lent(file, connection):
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                # also when a search is left half-way: nothing was written
                connection.execute("ROLLBACK")


class _OneSource:
    """The files of one source, for the holder of its lock; see `file_rows.SourceRows`."""

    def __init__(self, files: SourceFiles, source: int) -> None:
        self._files = files
        self._source = source

    def writing(self, generation: int) -> contextlib.AbstractContextManager[RowsWriter]:
        return self._files.writing(self._source, generation)

    def building(self, generation: int) -> contextlib.AbstractContextManager[RowsWriter]:
        return self._files.building(self._source, generation)

    def has(self, generation: int) -> bool:
        return self._files.file(self._source, generation).exists()

    def remove_others(self, generation: int) -> int:
        return self._files.remove_others(self._source, generation)


class _Idle:
    """Open connections that nobody uses; a few, so that the next question is quick. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._connections: dict[Path, FileConnection] = {}

    @contextlib.contextmanager
    def borrowed(
        self, file: Path, connect: Callable[[Path], FileConnection]
    ) -> Iterator[FileConnection]:
        connection = self.take(file, connect)
        with self.lent(file, connection):
            yield connection

    def take(self, file: Path, connect: Callable[[Path], FileConnection]) -> FileConnection:
        """A connection to a file, to be given back by `lent`."""
        with self._lock:
            connection = self._connections.pop(file, None)
        if connection is None:
            self._drop_deleted()
            connection = connect(file)
        return connection

    @contextlib.contextmanager
    def lent(self, file: Path, connection: FileConnection) -> Iterator[None]:
        """Take a connection back when the block has ended."""
        reuse = False
        try:
            with translated(file):
                try:
                    yield
                except sqlite3.Error:
                    raise
                except BaseException:
                    # a search left half-way, a path that is not there: not the file's fault
                    reuse = not connection.in_transaction
                    raise
                reuse = not connection.in_transaction
        finally:
            self._give_back(file, connection, reuse=reuse)

    def _drop_deleted(self) -> None:
        """Connections to files that another process deleted go."""
        with self._lock:
            gone = [one for one in self._connections if not one.exists()]
            closing = [self._connections.pop(one) for one in gone]
        for one in closing:
            one.close()

    def drop(self, file: Path) -> None:
        with self._lock:
            connection = self._connections.pop(file, None)
        if connection is not None:
            connection.close()

    def close(self) -> None:
        with self._lock:
            idle, self._connections = self._connections, {}
        for connection in idle.values():
            connection.close()

    def _give_back(self, file: Path, connection: FileConnection, *, reuse: bool) -> None:
        surplus = connection
        if reuse:
            with self._lock:
                if file not in self._connections:
                    self._connections[file] = connection
                    if len(self._connections) <= self._most:
                        return
                    oldest = next(iter(self._connections))
                    surplus = self._connections.pop(oldest)
        surplus.close()
