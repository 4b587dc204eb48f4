"""Where the files of sources are, who may write to one, and open connections to them.

Must not know what is in them. Invariants: a source has one file at a time, named by its
generation; a new generation appears whole, by a rename, before ``catalog.db`` names it; one
writer at a time per source, across processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import threading
from typing import TYPE_CHECKING

from holdfast.control.catalog import source_file
from holdfast.control.database.failures import translated

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

_IDLE_READERS = 16


class SourceFiles:
    """The files of all sources under one directory. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._idle: dict[Path, sqlite3.Connection] = {}

    def file(self, source: int, generation: int) -> Path:
        """Where a generation of a source's file is."""
        return self._directory / f"{source}.{generation}.db"

    def building(self, source: int) -> Path:
        """Where the next generation is made."""
        return self._directory / f"{source}.building"

    @contextlib.contextmanager
    def locked(self, source: int) -> Iterator[None]:
        """Be the only writer of a source; waits for another one, in any process."""
        with (self._directory / f"{source}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def writing(self, source: int, generation: int) -> Iterator[sqlite3.Connection]:
        """The current file, for one who holds the lock."""
        file = self.file(source, generation)
        connection = source_file.open_for_writing(file)
        try:
            with translated(file):
                yield connection
        finally:
            connection.close()

    @contextlib.contextmanager
    def reading(self, source: int, generation: int) -> Iterator[sqlite3.Connection]:
        """The current file, in one read transaction."""
        file = self.file(source, generation)
        with self._lock:
            connection = self._idle.pop(file, None)
        if connection is None:
            connection = source_file.open_for_reading(file)
        healthy = False
        try:
            with translated(file):
                connection.execute("BEGIN")
                try:
                    yield connection
                finally:
                    # also when a search is left half-way: nothing was written
                    connection.execute("ROLLBACK")
                    healthy = True
        finally:
            self._give_back(file, connection, reuse=healthy)

    def remove(self, source: int, generation: int) -> None:
        """Delete a generation that ``catalog.db`` no longer names; readers at work may finish."""
        file = self.file(source, generation)
        with self._lock:
            connection = self._idle.pop(file, None)
        if connection is not None:
            connection.close()
        for suffix in ("", "-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connection in idle.values():
            connection.close()

    def _give_back(self, file: Path, connection: sqlite3.Connection, *, reuse: bool) -> None:
        surplus = connection
        if reuse:
            with self._lock:
                if file not in self._idle:
                    self._idle[file] = connection
                    if len(self._idle) <= _IDLE_READERS:
                        return
                    oldest = next(iter(self._idle))
                    surplus = self._idle.pop(oldest)
        surplus.close()
