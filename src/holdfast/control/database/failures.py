"""Translate what a database raises into errors for a person, once, at its edge.

Must not swallow anything, nor load SQLAlchemy: a search does without. Invariant: no
`sqlite3.Error`, and no error of PostgreSQL that says more about the world than about our
statements, leaves the control floor.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    Busy,
    CatalogDamaged,
    CatalogError,
    DatabaseLost,
    HoldfastError,
    InputOutput,
    NoPermission,
    NoSpace,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REBUILD_HINT = "bring it back from the pool with: holdfast catalog rebuild"

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_FORBIDDEN = {
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
}

_SERVER_FULL = {"53100", "53200"}
_SERVER_BUSY = {"40001", "40P01", "55P03", "57014", "53300"}
_SERVER_FORBIDS = {"42501", "25006"}
_SERVER_DAMAGED = {"XX001", "XX002"}


def translate(error: sqlite3.Error, file: Path | str) -> HoldfastError:
    """Say what an error of SQLite means for one of the catalog's files."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _DAMAGED:
        return CatalogDamaged(f"the catalog's file '{file}' is damaged: {error}", REBUILD_HINT)
    if code in _BUSY:
        return Busy(
            f"the catalog's file '{file}' is in use by another process",
            "try again when the other command has ended",
        )
    if code == sqlite3.SQLITE_FULL:
        return NoSpace(f"no space left for the catalog's file '{file}'", "free space and try again")
    if code in _FORBIDDEN:
        return NoPermission(
            f"the catalog's file '{file}' can't be opened for writing: {error}",
            "check the owner and the mode of the catalog's directory",
        )
    if code == sqlite3.SQLITE_IOERR:
        return InputOutput(f"the catalog's file '{file}' can't be read or written: {error}")
    return CatalogError(f"the catalog's file '{file}' failed: {error}", REBUILD_HINT)


def translate_server(
    cause: BaseException, name: str, *, lost: bool = False
) -> HoldfastError | None:
    """Say what an error of PostgreSQL's driver means; None for one that is a defect of ours.

    Args:
        cause: What the driver raised.
        name: What a person knows the database by.
        lost: Whether the connection is known to be of no use any more.
    """
    state = getattr(cause, "sqlstate", None)
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    said = lines[0]
    if state in _SERVER_FULL:
        return NoSpace(f"no space left in the database '{name}': {said}", "free space there")
    if state in _SERVER_BUSY:
        return Busy(f"the database '{name}' is busy: {said}")
    if state in _SERVER_FORBIDS:
        return NoPermission(
            f"the database '{name}' forbids it: {said}",
            "the user of the URL has to own the database",
        )
    if state in _SERVER_DAMAGED:
        return CatalogDamaged(f"the database '{name}' is damaged: {said}")
    # A server that was never reached, or went away, names no state or one of these classes.
    gone = state is None and type(cause).__name__ in {"OperationalError", "InterfaceError"}
    if gone or (state or "")[:2] in {"08", "28", "3D", "57"} or lost:
        return DatabaseLost(f"can't reach the database '{name}': {said}")
    return None


@contextlib.contextmanager
def translated(place: Path | str) -> Iterator[None]:
    """Run a block; errors of the database in it leave as errors of Holdfast."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, place) from error
    except Exception as error:
        told = _of_sqlalchemy(error, place)
        if told is None:
            raise
        raise told from error


def _of_sqlalchemy(error: Exception, place: Path | str) -> HoldfastError | None:
    """What an error of SQLAlchemy means; None for any other, and for a defect of ours."""
    if "sqlalchemy.exc" not in sys.modules:
        return None
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    if isinstance(error, PoolTimeout):
        return Busy(f"the database '{place}' has no connection to spare")
    if not isinstance(error, DBAPIError):
        return None
    if isinstance(error.orig, sqlite3.Error):
        return translate(error.orig, place)
    cause = error.orig or error
    return translate_server(cause, str(place), lost=error.connection_invalidated)


@contextlib.contextmanager
def server_errors(name: str) -> Iterator[None]:
    """Run a block that uses PostgreSQL's driver itself; its errors leave as errors of Holdfast."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        told = translate_server(error, name)
        if told is None:
            raise
        raise told from error
