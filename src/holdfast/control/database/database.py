"""Open the control database, bring its schema up to date, run transactions in it.

Must not know what the rows mean. Invariants, on SQLite and on PostgreSQL: a commit is durable; a
write transaction takes the writer's lock at its beginning, so that writers follow each other, none
fails in its middle, and what it has read stays true until it ends; a schema of a newer Holdfast is
refused before anything is read from it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event

from holdfast.base.errors import Busy, CatalogError, Invalid
from holdfast.control.database.commits import Commits
from holdfast.control.database.failures import server_errors, translated
from holdfast.control.database.revision import HEAD

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from holdfast.control.database.question import Question

BUSY_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10
_LOOK_AGAIN_S = 0.01

WRITER_LOCK = 0x486F6C64
"""PostgreSQL's advisory lock that a write transaction holds; `leadership` has the next number."""

_WRITES = "holdfast_writes"


class Database:
    """The control database of one site. Thread-safe.

    Attributes:
        name: What a person knows it by: the file, or the URL without its password.
        file: Where it is, if it is SQLite.
        together: For what many threads write: they share commits.
    """

    def __init__(self, place: Path | str) -> None:
        """Prepare; nothing is opened yet.

        Args:
            place: A file for SQLite, or a URL ``postgresql://user@host/name``.

        Raises:
            Invalid: The URL can't be understood, or is of another kind of database.
        """
        if isinstance(place, Path):
            self.file: Path | None = place
            self.name = str(place)
            self._engine = sa.create_engine(
                sa.URL.create("sqlite", database=str(place)),
                connect_args={"timeout": BUSY_TIMEOUT_S},
            )
            event.listen(self._engine, "connect", _configure)
            event.listen(self._engine, "begin", _begin)
            self._reader = self._engine
        else:
            self.file = None
            url = _postgresql(place)
            self.name = url.render_as_string(hide_password=True).replace("+psycopg", "")
            self._engine = sa.create_engine(
                url,
                pool_pre_ping=True,
                pool_size=10,
                connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
            )
            # what it saves in a minute's query it costs in a thousand quick ones
            event.listen(self._engine, "connect", _without_compiling)
            event.listen(self._engine, "begin", _begin_on_server)
            self._reader = self._engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        self._writer = self._engine.execution_options(**{_WRITES: True})
        self._turn = threading.Lock()
        self.together = Commits(self)

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent view of the database."""
        with translated(self.name), self._reader.begin() as connection:
            yield connection

    def look(self, question: Question, **values: object) -> list[tuple[Any, ...]]:
        """The rows of one statement, which is one consistent view by itself.

        For what is asked before every question about files: on SQLite, what SQLAlchemy has around a
        statement takes ten times as long as a short one.
        """
        if self.file is None:
            with self.read() as connection:
                return [tuple(row) for row in connection.execute(question.select, values)]
        with translated(self.name):
            borrowed = self._engine.raw_connection()
            try:
                driver: sqlite3.Connection = borrowed.driver_connection  # type: ignore[assignment]
                return driver.execute(question.words, question.arguments(values)).fetchall()
            finally:
                borrowed.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction; durable when the block has ended without an exception.

        Raises:
            Busy: Others write for longer than a person would wait.
        """
        with translated(self.name), self._in_turn(), self._writer.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Wait for the other threads of this process here.

        SQLite would have them look again after longer and longer pauses.
        """
        if not self._turn.acquire(timeout=BUSY_TIMEOUT_S):
            raise Busy(f"the database '{self.name}' is in use by other threads of this process")
        try:
            yield
        finally:
            self._turn.release()

    @contextlib.contextmanager
    def session(self) -> Iterator[sa.Connection]:
        """A connection of its own that lasts for the block, without a transaction."""
        with (
            translated(self.name),
            self._engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection,
        ):
            yield connection

    def driver_connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of the driver's own to the server, that commits each statement.

        For what is large: it counts neither as a reader nor as a writer here, and waits for none.
        The caller closes it, and translates what it raises: see `failures.server_errors`.

        Raises:
            DatabaseLost: The server can't be reached.
        """
        dialect = self._engine.dialect
        arguments, named = dialect.create_connect_args(self._engine.url)
        with server_errors(self.name):
            import psycopg

            connection = psycopg.connect(
                *arguments, **named, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S
            )
            connection.execute(_NO_COMPILING)
            return connection

    def migrate(self) -> None:
        """Create the schema, or bring an older one up to date.

        Raises:
            CatalogError: The schema is of a newer Holdfast.
            CatalogDamaged: The file is no database.
            DatabaseLost: The server can't be reached.
        """
        if self._revision() != HEAD:
            self._upgrade()

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()

    def _revision(self) -> str | None:
        with self.read() as connection:
            return _revision(connection)

    def _upgrade(self) -> None:
        # Another process may have done it before we got the writer's lock.
        with self.write() as connection:
            self.upgrade_on(connection)

    def upgrade_on(self, connection: sa.Connection, revision: str = "head") -> None:
        """Bring the schema up to a revision, in the caller's write transaction.

        Raises:
            CatalogError: The schema is of a newer Holdfast.
        """
        # Alembic takes a third of a second to import: only when there is something to do.
        from alembic import command, config, script

        migrations = config.Config()
        migrations.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        known = {
            one.revision for one in script.ScriptDirectory.from_config(migrations).walk_revisions()
        }
        found = _revision(connection)
        if found is not None and found not in known:
            raise CatalogError(
                f"the catalog '{self.name}' has schema {found}, this Holdfast knows up to {HEAD}",
                "use the newer Holdfast that wrote it",
            )
        migrations.attributes["connection"] = connection
        command.upgrade(migrations, revision)


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return found


def _postgresql(text: str) -> sa.URL:
    hint = "write for example postgresql://holdfast@db.example.org/holdfast"
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError) as error:
        # Not the text: there may be a password in it.
        raise Invalid("the database's URL can't be understood", hint) from error
    if url.drivername not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise Invalid(f"a database can't be of the kind '{url.drivername}'", hint)
    return url.set(drivername="postgresql+psycopg")


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    _begin_log(connection)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_log(connection: sqlite3.Connection) -> None:
    """Have a file use a write-ahead log; most do.

    Of some that open a new file at once, SQLite tells all but one right away that it is locked,
    whatever they would wait for anything else.
    """
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        else:
            return
        time.sleep(_LOOK_AGAIN_S)


_NO_COMPILING = "SET jit = off"


def _without_compiling(connection: psycopg.Connection[tuple[Any, ...]], _record: object) -> None:
    connection.execute(_NO_COMPILING)
    connection.commit()


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_on_server(connection: sa.Connection) -> None:
    if connection.get_execution_options().get(_WRITES, False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")
