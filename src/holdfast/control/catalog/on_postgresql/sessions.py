"""Connections of their own for those who read and write file rows.

Must not know what is in the rows. The pool of the control database asks whether a connection is
alive before each use, and is small, since what uses it is short; neither suits here. Invariant: a
connection that may hold a lock or a transaction of somebody else is not used again.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import psycopg

from holdfast.base.errors import Busy, DatabaseLost
from holdfast.control.database.failures import server_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.control.database import Database

    Connection = psycopg.Connection[tuple[Any, ...]]

READERS = 16
"""How many may ask at a time; a search asks until it is at its end, or let go."""

WAITS_S = 30.0

_IDLE = 4


class Sessions:
    """Connections to one server. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._readers = threading.BoundedSemaphore(READERS)

    @contextlib.contextmanager
    def locked(self, lock: int, number: int) -> Iterator[Connection]:
        """A connection that holds an advisory lock of two numbers, for one who writes."""

        def take(connection: Connection) -> None:
            connection.execute("SELECT pg_advisory_lock(%s, %s)", (lock, number))

        def release(connection: Connection) -> None:
            connection.execute("SELECT pg_advisory_unlock(%s, %s)", (lock, number))

        with self._used(take, release) as connection:
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that shows one moment, for as long as the block lasts.

        Raises:
            Busy: Too many ask already.
        """
        if not self._readers.acquire(timeout=WAITS_S):
            raise Busy(f"{READERS} questions are being put to '{self._database.name}' already")
        try:
            with self._used(_begin, _end) as connection, server_errors(self._database.name):
                yield connection
        finally:
            self._readers.release()

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextlib.contextmanager
    def _used(
        self, first: Callable[[Connection], None], last: Callable[[Connection], None]
    ) -> Iterator[Connection]:
        connection = self._begun(first)
        try:
            yield connection
        finally:
            self._give_back(connection, last)

    def _begun(self, first: Callable[[Connection], None]) -> Connection:
        with self._lock:
            idle = self._idle.pop() if self._idle else None
        if idle is not None:
            try:
                return self._after(first, idle)
            except DatabaseLost:
                # The server was started again since; the others are of no use either, and a new
                # connection tells whether it is there.
                self.close()
        return self._after(first, self._new())

    def _new(self) -> Connection:
        connection = self._database.driver_connection()
        # Statements find rows by key, and are planned once: to plan is dearer than to answer.
        connection.prepare_threshold = 1
        with server_errors(self._database.name):
            connection.execute("SET plan_cache_mode = force_generic_plan")
        return connection

    def _after(self, first: Callable[[Connection], None], connection: Connection) -> Connection:
        try:
            with server_errors(self._database.name):
                first(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _give_back(self, connection: Connection, last: Callable[[Connection], None]) -> None:
        try:
            last(connection)
        except psycopg.Error:
            connection.close()
            return
        with self._lock:
            if len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        connection.close()


def _begin(connection: Connection) -> None:
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")


def _end(connection: Connection) -> None:
    connection.execute("ROLLBACK")
