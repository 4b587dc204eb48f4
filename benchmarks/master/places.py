"""Databases to measure on: SQLite in a directory, and a PostgreSQL that is started for it."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast.control.database import Database
from tests.kit import postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"

# Unlike in tests, what is committed is on disk.
_DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB"}


@contextlib.contextmanager
def databases() -> Iterator[dict[str, Callable[[], Database]]]:
    """What makes an empty database of the newest schema, by the names of the kinds there are.

    Each is closed at the end. PostgreSQL is left out where it is not installed.
    """
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = 0

        def opened(place: Path | str) -> Database:
            database = Database(place)
            stack.callback(database.close)
            database.migrate()
            return database

        def on_sqlite() -> Database:
            nonlocal made
            made += 1
            return opened(directory / f"{made}.db")

        found = {SQLITE: on_sqlite}
        binaries = postgres.programs()
        if binaries is not None:
            server = stack.enter_context(postgres.server(binaries, _DURABLE, on_disk=True))
            found[POSTGRESQL] = lambda: opened(server.database()[1])
        yield found


def settle(database: Database) -> None:
    """Have a server know what was put into it, as it does by itself after a while."""
    if database.file is None:
        with database.session() as connection:
            connection.execute(sa.text("VACUUM ANALYZE"))
