"""What one process, and one thread of it, does at a time, however long it takes.

Must not be a transaction: those are short, and this may last as long as storage takes to answer.
Invariant: whoever dies, or loses the connection, is out at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from typing import IO, TYPE_CHECKING

import sqlalchemy as sa

from holdfast.base.errors import Busy, storage_error
from holdfast.control.database.database import WRITER_LOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.control.database.database import Database

PROTECTION = "protection"
"""Placing holds and locks, and letting images go."""

WAIT_S = 60.0
_FILE_POLL_S, _SERVER_POLL_S = 0.005, 0.02
_NUMBERS = {PROTECTION: WRITER_LOCK + 2}


@contextlib.contextmanager
def exclusively(database: Database, what: str, wait_s: float = WAIT_S) -> Iterator[None]:
    """Do something in the block that nobody else who asks does meanwhile.

    Args:
        database: Whose.
        what: One of the names above.
        wait_s: For so long others may have it.

    Raises:
        Busy: Others have it for longer.
        DatabaseLost: The server can't be reached.
    """
    locked = (
        _in_file(database, what, wait_s) if database.file else _on_server(database, what, wait_s)
    )
    with locked:
        yield


@contextlib.contextmanager
def _in_file(database: Database, what: str, wait_s: float) -> Iterator[None]:
    assert database.file is not None  # noqa: S101 - narrows the type
    path = database.file.with_suffix(f".{what}")
    try:
        file = path.open("a")
    except OSError as error:
        raise storage_error(error)(f"can't write {path}: {error.strerror}") from error
    with file:
        _wait_for(lambda: _is_ours(file), what, wait_s, _FILE_POLL_S)
        yield


def _is_ours(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _on_server(database: Database, what: str, wait_s: float) -> Iterator[None]:
    number = _NUMBERS[what]
    with database.session() as connection:
        take = sa.text(f"SELECT pg_try_advisory_lock({number})")
        _wait_for(lambda: bool(connection.scalar(take)), what, wait_s, _SERVER_POLL_S)
        try:
            yield
        finally:
            connection.execute(sa.text(f"SELECT pg_advisory_unlock({number})"))


def _wait_for(took: Callable[[], bool], what: str, wait_s: float, poll_s: float) -> None:
    until_s = time.monotonic() + wait_s
    while not took():
        if time.monotonic() > until_s:
            raise Busy(f"others have been at the {what} of images for {wait_s:.0f} s")
        time.sleep(poll_s)
