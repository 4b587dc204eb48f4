"""Translate what SQLite raises into errors for a person, once, at the edge of the catalog.

Must not swallow anything. Invariant: no `sqlite3.Error` leaves the catalog.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from holdfast.base.errors import (
    Busy,
    CatalogDamaged,
    CatalogError,
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


def translate(error: sqlite3.Error, file: Path) -> HoldfastError:
    """Say what an error of SQLite means for the catalog's file."""
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


@contextlib.contextmanager
def translated(file: Path) -> Iterator[None]:
    """Run a block; errors of SQLite in it leave as errors of Holdfast."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, file) from error
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise translate(error.orig, file) from error
        raise
