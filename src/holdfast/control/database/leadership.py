"""Which of several masters on one database is the active one.

Must not decide what the active one does. Invariants: at most one process leads at a time; one
that dies leads no longer, without anybody's help; one that lost its connection to the database
finds out before it writes again, as its lock went with the connection.
"""

from __future__ import annotations

import contextlib
import fcntl
from typing import IO, TYPE_CHECKING

import sqlalchemy as sa

from holdfast.base.errors import HoldfastError, storage_error
from holdfast.control.database.database import WRITER_LOCK

if TYPE_CHECKING:
    from holdfast.control.database.database import Database

LEADER_LOCK = WRITER_LOCK + 1


class Leadership:
    """One process's candidacy. Not thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._file: IO[str] | None = None
        self._session: contextlib.ExitStack | None = None
        self._connection: sa.Connection | None = None

    def acquire(self) -> bool:
        """Try to lead, without waiting.

        Returns:
            Whether this process leads now.

        Raises:
            DatabaseLost: The server can't be reached.
        """
        if self.held():
            return True
        if self._database.file is not None:
            return self._lock_file()
        return self._lock_server()

    def held(self) -> bool:
        """Whether this process still leads; asks the server."""
        if self._file is not None:
            return True
        if self._connection is None:
            return False
        try:
            self._connection.execute(sa.text("SELECT 1"))
        except (HoldfastError, sa.exc.SQLAlchemyError):
            self.release()
            return False
        return True

    def release(self) -> None:
        """Let another process lead. More than once is fine."""
        if self._file is not None:
            self._file.close()
            self._file = None
        session, self._session, self._connection = self._session, None, None
        if session is not None:
            # A connection that is broken has given its lock back already.
            with contextlib.suppress(HoldfastError, sa.exc.SQLAlchemyError):
                session.close()

    def _lock_file(self) -> bool:
        assert self._database.file is not None  # noqa: S101 - narrows the type
        path = self._database.file.with_suffix(".leader")
        try:
            file = path.open("a")
        except OSError as error:
            raise storage_error(error)(f"can't write {path}: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True

    def _lock_server(self) -> bool:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(self._database.session())
            won = connection.scalar(sa.text(f"SELECT pg_try_advisory_lock({LEADER_LOCK})"))
            if not won:
                return False
            # What returns to the pool of connections must not bring the lock along.
            stack.callback(connection.invalidate)
            self._connection = connection
            self._session = stack.pop_all()
        return True
