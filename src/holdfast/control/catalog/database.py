"""Open the catalog's main database, bring its schema up to date, run transactions in it.

Must not know what the rows mean. Invariants: write-ahead log, every commit synced; a write
transaction takes the writer's lock at its beginning, so that it never fails in its middle; a
schema of a newer Holdfast is refused before anything is read from it.
"""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import event

from holdfast.base.errors import CatalogError
from holdfast.control.catalog.failures import translated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from sqlite3 import Connection as SqliteConnection

HEAD = "0002"
"""The newest revision in ``migrations/versions``; a test holds it against Alembic's opinion."""

BUSY_TIMEOUT_S = 30.0

_WRITES = "holdfast_writes"


class Database:
    """The main database of one catalog. Thread-safe."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(file)), connect_args={"timeout": BUSY_TIMEOUT_S}
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(**{_WRITES: True})

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent view of the database."""
        with translated(self.file), self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction; durable when the block has ended without an exception."""
        with translated(self.file), self._writer.begin() as connection:
            yield connection

    def migrate(self) -> None:
        """Create the schema, or bring an older one up to date.

        Raises:
            CatalogError: The schema is of a newer Holdfast.
            CatalogDamaged: The file is no database.
        """
        if self._revision() == HEAD:
            return
        with self.file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._upgrade(self._revision())

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()

    def _revision(self) -> str | None:
        with self.read() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            found: str | None = connection.scalar(
                sa.text("SELECT version_num FROM alembic_version")
            )
            return found

    def _upgrade(self, revision: str | None) -> None:
        # Alembic takes a third of a second to import: only when there is something to do.
        from alembic import command, config, script

        migrations = config.Config()
        migrations.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        known = {
            one.revision for one in script.ScriptDirectory.from_config(migrations).walk_revisions()
        }
        if revision is not None and revision not in known:
            raise CatalogError(
                f"the catalog '{self.file}' has schema {revision}, "
                f"this Holdfast knows up to {HEAD}",
                "use the newer Holdfast that wrote it",
            )
        with self.write() as connection:
            migrations.attributes["connection"] = connection
            command.upgrade(migrations, "head")


def _configure(connection: SqliteConnection, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
