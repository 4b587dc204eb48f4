"""The control database keeps its promises on SQLite and on PostgreSQL."""

from __future__ import annotations

import importlib
import multiprocessing
import pkgutil
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic import command, config, script
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import holdfast.control
from holdfast.base.errors import CatalogDamaged, CatalogError, DatabaseLost, Invalid
from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog
from holdfast.control.database import Database, Leadership, Question
from holdfast.control.database.metadata import metadata
from holdfast.control.database.revision import HEAD
from tests.kit.clock import FakeClock
from tests.kit.control_rows import SCHEMA, columns_of, contents, fill_every_table

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from tests.kit.postgres import Server


def load_every_schema() -> None:
    """Register the tables of every package of the control floor."""
    for module in pkgutil.walk_packages(holdfast.control.__path__, "holdfast.control."):
        if module.name.endswith(".schema"):
            importlib.import_module(module.name)


def test_schema_of_the_migrations_is_the_schema_of_the_code(database: Database) -> None:
    load_every_schema()
    with database.read() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
        tables = set(sa.inspect(connection).get_table_names())
    assert differences == []
    assert tables == {*metadata.tables, "alembic_version"}


def test_head_is_the_newest_migration_of_the_package() -> None:
    assert script.ScriptDirectory.from_config(migrations()).get_heads() == [HEAD]


def migrations() -> config.Config:
    place = Path(holdfast.control.__path__[0]) / "database" / "migrations"
    found = config.Config()
    found.set_main_option("script_location", str(place))
    return found


REVISIONS = [
    one.revision for one in script.ScriptDirectory.from_config(migrations()).walk_revisions()
]

OLD_SITE = (
    "INSERT INTO clients (id, name) VALUES (71, 'web1')",
    "INSERT INTO sources (id, client_id, name, generation) VALUES (71, 71, 'web1:/srv', 0)",
    (
        "INSERT INTO images (id, source_id, number, started_ns, finished_ns, files, size_bytes, "
        "online_bytes, new_bytes, transmitted_bytes, findings, status, software, catalog_state) "
        "VALUES ('0123456789abcdef0123456789abcdef', 71, 7, 1, 2, 3, 4, 5, 6, 7, 8, 'completed', "
        "'holdfast', 'pending')"
    ),
    "INSERT INTO copies VALUES ('0123456789abcdef0123456789abcdef', 'aa', 9)",
)


MADE_ANEW = {("sources", "generation"), ("images", "catalog_state"), ("images", "catalog_detail")}
"""What tells how far rows of files are; those are made anew where they are kept otherwise."""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("revision", REVISIONS)
def test_site_of_every_older_schema_is_brought_up_to_date(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str, revision: str
) -> None:
    sqlite = kind == "sqlite"
    database = Database(tmp_path / "old.db" if sqlite else request.getfixturevalue("postgres_url"))
    with database.write() as connection:
        older = migrations()
        older.attributes["connection"] = connection
        command.upgrade(older, revision)
        for statement in OLD_SITE:
            connection.execute(sa.text(statement))
    fill_every_table(database)
    before = named_rows(database)
    database.migrate()
    after = named_rows(database)
    for table, rows in before.items():
        kept = [{name: row[name] for name in rows[0]} for row in after[table]]
        assert sorted(kept, key=repr) == sorted(rows, key=repr), table
    load_every_schema()
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    with Catalog.open(tmp_path, FakeClock(), database) as catalog:
        image = catalog.image(ImageId("0123456789abcdef0123456789abcdef"))
    assert (image.number, image.source, image.findings) == (7, "web1:/srv", 8)
    database.close()


def named_rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table by their columns, but for the one that says which schema it is."""
    found = {}
    for table, rows in contents(database).items():
        names = columns_of(database, table)
        if table != SCHEMA:
            found[table] = [
                {
                    name: value
                    for name, value in zip(names, row, strict=True)
                    if (table, name) not in MADE_ANEW
                }
                for row in rows
            ]
    return found


def test_schema_of_a_newer_holdfast_is_refused(database_place: Path | str) -> None:
    database = Database(database_place)
    with database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(CatalogError, match="9999"):
        database.migrate()
    database.close()


def test_migrations_of_two_processes_at_once_end_well(tmp_path: Path, postgres_url: str) -> None:
    for place in (tmp_path / "new.db", postgres_url):
        databases = [Database(place) for _ in range(4)]
        failed: list[BaseException] = []

        def work(database: Database, failed: list[BaseException] = failed) -> None:
            try:
                database.migrate()
            except BaseException as error:  # noqa: BLE001 - looked at below
                failed.append(error)

        threads = [threading.Thread(target=work, args=(one,)) for one in databases]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert failed == []
        for database in databases:
            database.close()


def test_a_new_file_is_opened_by_many_at_once(tmp_path: Path) -> None:
    for number in range(60):
        databases = [Database(tmp_path / f"{number}.db") for _ in range(6)]
        together = threading.Barrier(len(databases))
        failed: list[object] = []

        def work(database: Database, together: threading.Barrier, failed: list[object]) -> None:
            together.wait()
            try:
                with database.write():
                    pass
            except Exception as error:  # noqa: BLE001 - looked at below
                failed.append(error)

        threads = [threading.Thread(target=work, args=(one, together, failed)) for one in databases]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        for database in databases:
            database.close()
        assert failed == []


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with database.write() as connection:
            connection.execute(sa.text("INSERT INTO clients (id, name) VALUES (1, 'web1')"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.read() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM clients")) == 0


def test_reading_shows_one_moment(database: Database) -> None:
    count = sa.text("SELECT count(*) FROM clients")
    with database.read() as before:
        assert before.scalar(count) == 0
        with database.write() as connection:
            connection.execute(sa.text("INSERT INTO clients (id, name) VALUES (1, 'web1')"))
        assert before.scalar(count) == 0
    with database.read() as after:
        assert after.scalar(count) == 1


def test_question_is_answered_as_its_statement_is(database: Database) -> None:
    numbers = sa.table("clock_marks", sa.column("wall_ns"), sa.column("boot"))
    question = Question(
        sa.select(numbers.c.wall_ns, numbers.c.boot)
        .where(numbers.c.wall_ns > sa.bindparam("least"), numbers.c.boot != "other")
        .order_by(numbers.c.wall_ns)
    )
    assert database.look(question, least=0) == []
    with database.write() as connection:
        connection.execute(
            sa.text("INSERT INTO clock_marks VALUES (1, 5, 6, 'this'), (2, 7, 8, 'other')")
        )
        # not before it is committed
        assert database.look(question, least=0) == []
    assert database.look(question, least=4) == [(5, "this")]
    assert database.look(question, least=5) == []


def test_question_to_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_bytes(b"this is no database, but it is long enough" * 100)
    database = Database(tmp_path / "other.db")
    with pytest.raises(CatalogDamaged):
        database.look(Question(sa.select(sa.column("name")).select_from(sa.table("sources"))))
    database.close()


def test_writers_follow_each_other(database: Database) -> None:
    """Counting up by reading and writing loses nothing: what was read stays true."""
    with database.write() as connection:
        connection.execute(sa.text("INSERT INTO clients (id, name) VALUES (1, '0')"))

    def count_up() -> None:
        for _ in range(10):
            with database.write() as connection:
                now = int(connection.scalar(sa.text("SELECT name FROM clients")) or 0)
                connection.execute(sa.text("UPDATE clients SET name = :n"), {"n": str(now + 1)})

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    with database.read() as connection:
        assert connection.scalar(sa.text("SELECT name FROM clients")) == "40"


def test_only_one_leads(database_place: Path | str) -> None:
    first, second = Database(database_place), Database(database_place)
    one, other = Leadership(first), Leadership(second)
    assert one.acquire()
    assert one.acquire()
    assert not other.acquire()
    assert not other.held()
    assert one.held()
    one.release()
    assert not one.held()
    assert other.acquire()
    other.release()
    first.close()
    second.close()


def lead(place: Path | str, pipe: Connection) -> None:
    database = Database(place)
    leadership = Leadership(database)
    pipe.send(leadership.acquire())
    # Until it is killed.
    pipe.recv()
    leadership.release()


def test_another_takes_over_from_a_leader_that_is_killed(database_place: Path | str) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=lead, args=(database_place, theirs))
    process.start()
    assert ours.recv() is True
    database = Database(database_place)
    leadership = Leadership(database)
    assert not leadership.acquire()
    process.kill()
    process.join()
    # The server notices that a client is gone when it reads from the socket, which is at once.
    for _ in range(100):
        if leadership.acquire():
            break
        threading.Event().wait(0.05)
    assert leadership.held()
    leadership.release()
    database.close()


def test_server_that_vanishes_is_named_and_comes_back(postgres_server: Server) -> None:
    name, url = postgres_server.database()
    database = Database(url)
    database.migrate()
    leadership = Leadership(database)
    assert leadership.acquire()
    postgres_server.stop()
    try:
        with pytest.raises(DatabaseLost, match="can't reach the database"), database.read():
            pass
        assert not leadership.held()
        with pytest.raises(DatabaseLost):
            leadership.acquire()
    finally:
        postgres_server.start()
    with database.read() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM clients")) == 0
    assert leadership.acquire()
    leadership.release()
    database.close()
    postgres_server.drop(name)


def test_place_that_is_no_database_is_refused_without_its_password() -> None:
    for url in ("mysql://root:secret@host/x", "no url: secret", "sqlite:///secret"):
        with pytest.raises(Invalid) as refused:
            Database(url)
        assert "secret" not in str(refused.value)
    lost = Database("postgresql://holdfast:secret@127.0.0.1:1/x")
    with pytest.raises(DatabaseLost) as unreached, lost.read():
        pass
    assert "secret" not in str(unreached.value)
    assert "127.0.0.1" in str(unreached.value)


def test_database_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    file.write_bytes(b"no database at all" * 1000)
    database = Database(file)
    with pytest.raises(CatalogError):
        database.migrate()
    database.close()
    assert file.read_bytes().startswith(b"no database")
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(file).execute("SELECT * FROM sqlite_master")
