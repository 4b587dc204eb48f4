"""What file rows on PostgreSQL promise beyond what they have in common with those in files."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic import command

from holdfast.base.errors import DatabaseLost, NoPermission, Unsupported
from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog, CatalogState
from holdfast.control.database import Database
from holdfast.control.database.database import WRITER_LOCK
from tests.contract.test_control_database import migrations
from tests.kit.catalog_model import assert_answers, fed
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakePool, tree_of
from tests.kit.stored_rows import stored_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kit.fake_pool import Batch
    from tests.kit.postgres import Server

SOURCE = "host:/data"


@pytest.fixture
def tables(postgres_url: str) -> Iterator[Database]:
    opened = Database(postgres_url)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def catalog(tmp_path: Path, tables: Database) -> Iterator[Catalog]:
    with Catalog.open(tmp_path, FakeClock(), tables) as opened:
        yield opened


class Interrupting(FakePool):
    """A pool that does something between the batches of a comparison."""

    meanwhile: Callable[[], None]

    def changes(self, old: str | None, new: str | None, /) -> Iterator[Batch]:
        for batch in super().changes(old, new):
            yield batch
            self.meanwhile()


def asked(database: Database, query: str) -> list[tuple[Any, ...]]:
    with database.read() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def test_rows_are_partitioned_and_the_end_of_a_version_is_in_no_index(tables: Database) -> None:
    parts = asked(
        tables,
        "SELECT inhparent::regclass::text, count(*) FROM pg_inherits "
        "WHERE inhparent::regclass::text LIKE 'file_rows.%' GROUP BY 1 ORDER BY 1",
    )
    assert ("file_rows.versions", 8) in parts
    assert ("file_rows.names_search", 8) in parts
    indexed = asked(
        tables,
        "SELECT DISTINCT a.attname FROM pg_index i "
        "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) "
        "WHERE i.indrelid = 'file_rows.versions_0'::regclass",
    )
    assert sorted(name for (name,) in indexed) == ["directory", "file_set", "first", "name"]


def test_end_of_a_version_is_changed_within_its_page(catalog: Catalog, tables: Database) -> None:
    pool = FakePool(batch_rows=1000)
    paths = [b"/d%d/f%d" % (n % 7, n) for n in range(400)]
    fed(catalog, pool, tree_of(*paths))
    fed(catalog, pool, tree_of(*paths[5:]))
    # a connection's counts are there for others when it has ended
    catalog._files.close()
    counted = (
        "SELECT sum(n_tup_upd), sum(n_tup_hot_upd) FROM pg_stat_user_tables "
        "WHERE schemaname = 'file_rows' AND relname LIKE 'versions%'"
    )
    while asked(tables, counted)[0][0] == 0:
        threading.Event().wait(0.01)
    assert asked(tables, counted) == [(5, 5)]


def test_feed_holds_nobody_up_who_writes_to_the_control_database(
    catalog: Catalog, tables: Database
) -> None:
    pool = Interrupting(batch_rows=2)
    free = []

    def look() -> None:
        with tables.session() as connection:
            free.append(connection.scalar(sa.text(f"SELECT pg_try_advisory_lock({WRITER_LOCK})")))
            connection.exec_driver_sql("SELECT pg_advisory_unlock_all()")

    pool.meanwhile = look
    fed(catalog, pool, tree_of(b"/a/b", b"/a/c", b"/d"))
    fed(catalog, pool, tree_of(b"/a/b", b"/x", b"/y", b"/z"))
    assert len(free) == 5
    assert set(free) == {True}


def test_second_writer_of_a_source_waits_for_the_first(catalog: Catalog, tables: Database) -> None:
    entered, files = threading.Event(), catalog._files

    def second() -> None:
        with files.exclusive(7):
            entered.set()

    thread = threading.Thread(target=second)
    with files.exclusive(7):
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while asked(tables, waiting) != [(1,)]:
            threading.Event().wait(0.01)
        assert not entered.is_set()
        with files.exclusive(8):
            pass
    thread.join(10)
    assert entered.is_set()


def test_connection_that_breaks_in_a_feed_leaves_the_image_pending(
    catalog: Catalog, tables: Database
) -> None:
    pool = Interrupting(batch_rows=2)
    pool.meanwhile = lambda: None
    first = fed(catalog, pool, tree_of(b"/a/b"))
    before = stored_rows(catalog)
    second = pool.backup(tree_of(b"/a/b", b"/c", b"/d", b"/e"))
    catalog.record_image(second, pool.pool_id)

    def cut() -> None:
        asked(
            tables,
            "SELECT pg_terminate_backend(pid) FROM pg_locks "
            "WHERE locktype = 'advisory' AND objsubid = 2",
        )

    pool.meanwhile = cut
    with pytest.raises(DatabaseLost):
        catalog.ingest(pool, ImageId(second.id))
    assert catalog.pending() == [second.id]
    assert stored_rows(catalog) == before
    pool.meanwhile = lambda: None
    catalog.ingest(pool, ImageId(second.id))
    assert_answers(catalog, [first, second], SOURCE)


def test_connections_that_were_idle_when_the_server_restarted_are_replaced(
    catalog: Catalog, tables: Database
) -> None:
    pool = FakePool()
    first = fed(catalog, pool, tree_of(b"/a"))
    asked(
        tables,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    second = fed(catalog, pool, tree_of(b"/b"))
    assert_answers(catalog, [first, second], SOURCE)


def test_user_who_may_not_make_the_extension_is_told_what_to_do(postgres_server: Server) -> None:
    name, url = postgres_server.database()
    postgres_server.execute("DROP ROLE IF EXISTS plain")
    postgres_server.execute("CREATE ROLE plain LOGIN")
    postgres_server.execute("GRANT ALL ON SCHEMA public TO plain", name)
    plain = Database(url.replace("holdfast@", "plain@"))
    with pytest.raises(NoPermission, match="pg_trgm") as refused:
        plain.migrate()
    assert "CREATE EXTENSION pg_trgm" in (refused.value.hint or "")
    postgres_server.execute("CREATE EXTENSION pg_trgm", name)
    with pytest.raises(NoPermission, match="permission denied"):
        plain.migrate()
    postgres_server.execute(f"GRANT CREATE ON DATABASE {name} TO plain")
    plain.migrate()
    plain.close()
    postgres_server.drop(name)
    postgres_server.execute("DROP ROLE plain")


def test_database_of_another_encoding_is_refused(postgres_server: Server) -> None:
    postgres_server.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    database = Database(postgres_server.url("latin"))
    with pytest.raises(Unsupported, match="LATIN1"):
        database.migrate()
    database.close()
    postgres_server.drop("latin")


def test_what_was_in_files_before_waits_to_be_fed_again(postgres_url: str, tmp_path: Path) -> None:
    database = Database(postgres_url)
    with database.write() as connection:
        older = migrations()
        older.attributes["connection"] = connection
        command.upgrade(older, "0010")
    pool = FakePool()
    image = pool.backup(tree_of(b"/a/b"))
    with database.write() as connection:
        connection.exec_driver_sql("INSERT INTO clients VALUES (1, 'host')")
        connection.exec_driver_sql(f"INSERT INTO sources VALUES (1, 1, '{SOURCE}', 3)")
        connection.exec_driver_sql(
            "INSERT INTO images (id, source_id, number, started_ns, finished_ns, files, "
            "size_bytes, online_bytes, new_bytes, transmitted_bytes, findings, status, software, "
            f"catalog_state) VALUES ('{image.id}', 1, 1, {image.started_ns}, 2, 3, 4, 5, 6, 7, 0, "
            "'completed', 'holdfast', 'indexed')"
        )
        connection.exec_driver_sql(f"INSERT INTO copies VALUES ('{image.id}', '{pool.pool_id}', 9)")
    database.migrate()
    with Catalog.open(tmp_path, FakeClock(), database) as catalog:
        assert catalog.image(ImageId(image.id)).catalog_state is CatalogState.PENDING
        catalog.ingest(pool, ImageId(image.id))
        assert_answers(catalog, [image], SOURCE)
    database.close()
