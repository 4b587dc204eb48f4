"""The catalog on PostgreSQL is killed before every message to the server, and completed after.

A process that dies is, to the server, connections that end: all of them are closed at that moment,
and whatever the dying one would still say is not heard.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from holdfast.base.errors import ImageMissing
from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog
from holdfast.control.database import Database
from tests.kit.catalog_model import assert_answers, fed
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakeImage, FakePool, Tree, tree_of
from tests.kit.stored_rows import stored_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kit.postgres import Server

pytestmark = pytest.mark.slow

SOURCE = "host:/data"

FIRST: Tree = tree_of(*(b"/d%d/Name %d" % (n % 3, n) for n in range(20)))
SECOND: Tree = tree_of(*(b"/d%d/Name %d" % (n % 3, n) for n in range(10, 30)), b"/d0/x/y")
THIRD: Tree = FIRST | tree_of(b"/d1/new")


class Killed(BaseException):
    """The end of a process."""


class Life:
    """Counts the messages to the server; ends every connection before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.messages = 0
        self.last: int | None = None
        self.over = False
        self.connections: list[psycopg.Connection[Any]] = []
        wait, connect = psycopg.Connection.wait, psycopg.Connection.connect.__func__  # type: ignore[attr-defined]

        def counting_wait(connection: Any, *arguments: Any, **named: Any) -> Any:
            self.message()
            return wait(connection, *arguments, **named)

        def counting_connect(cls: Any, *arguments: Any, **named: Any) -> Any:
            self.message()
            connection = connect(cls, *arguments, **named)
            self.connections.append(connection)
            return connection

        monkeypatch.setattr(psycopg.Connection, "wait", counting_wait)
        monkeypatch.setattr(psycopg.Connection, "connect", classmethod(counting_connect))
        monkeypatch.setattr(psycopg, "connect", psycopg.Connection.connect)

    def message(self) -> None:
        if self.over:
            raise psycopg.OperationalError("the process is dead")
        self.messages += 1
        if self.messages == self.last:
            self.over = True
            for connection in self.connections:
                connection.pgconn.finish()
            raise Killed


@contextlib.contextmanager
def catalog_of(url: str, directory: Path) -> Iterator[Catalog]:
    database = Database(url)
    try:
        with Catalog.open(directory, FakeClock(), database) as catalog:
            yield catalog
    finally:
        database.close()


def killed_everywhere(
    server: Server,
    tmp_path: Path,
    prepare: Callable[[Catalog], None],
    act: Callable[[Catalog], None],
    check: Callable[[Catalog], None],
) -> None:
    """Do something once; then up to each message, complete it, and compare."""
    template, url = server.database()
    with catalog_of(url, tmp_path) as catalog:
        prepare(catalog)
    name, url = server.database(template)
    with pytest.MonkeyPatch.context() as patched, catalog_of(url, tmp_path) as catalog:
        life = Life(patched)
        act(catalog)
        messages = life.messages
    with catalog_of(url, tmp_path) as catalog:
        check(catalog)
        expected = stored_rows(catalog)
    server.drop(name)
    assert messages > 15
    for last in range(1, messages + 1):
        name, url = server.database(template)
        with pytest.MonkeyPatch.context() as patched, contextlib.suppress(Killed, Exception):
            life = Life(patched)
            life.last = last
            with catalog_of(url, tmp_path) as catalog:
                act(catalog)
        assert life.over
        with catalog_of(url, tmp_path) as catalog:
            act(catalog)
            check(catalog)
            assert stored_rows(catalog) == expected
        server.drop(name)
    server.drop(template)


def test_first_feed_killed_anywhere_is_completed_by_feeding_again(
    postgres_server: Server, tmp_path: Path
) -> None:
    pool = FakePool(batch_rows=20)
    image = pool.backup(FIRST)

    def act(catalog: Catalog) -> None:
        catalog.record_image(image, pool.pool_id)
        catalog.ingest(pool, ImageId(image.id))

    killed_everywhere(
        postgres_server,
        tmp_path,
        lambda _: None,
        act,
        lambda catalog: assert_answers(catalog, [image], SOURCE),
    )


def test_incremental_feed_killed_anywhere_is_completed_by_feeding_again(
    postgres_server: Server, tmp_path: Path
) -> None:
    pool = FakePool(batch_rows=20)
    images: list[FakeImage] = []

    def prepare(catalog: Catalog) -> None:
        images.append(fed(catalog, pool, FIRST))
        images.append(pool.backup(SECOND))
        catalog.record_image(images[1], pool.pool_id)

    def act(catalog: Catalog) -> None:
        assert catalog.list_directory(ImageId(images[0].id), b"/")
        catalog.ingest(pool, ImageId(images[1].id))

    killed_everywhere(
        postgres_server,
        tmp_path,
        prepare,
        act,
        lambda catalog: assert_answers(catalog, images, SOURCE),
    )


def test_expiration_killed_anywhere_is_completed_by_opening_the_catalog(
    postgres_server: Server, tmp_path: Path
) -> None:
    pool = FakePool(batch_rows=20)
    images: list[FakeImage] = []

    def prepare(catalog: Catalog) -> None:
        images.extend(fed(catalog, pool, tree) for tree in (FIRST, SECOND, THIRD))

    def act(catalog: Catalog) -> None:
        try:
            catalog.expire(ImageId(images[1].id))
        except ImageMissing:
            # the kill came after the decision: opening the catalog has finished it
            assert len(catalog.images()) == 2

    killed_everywhere(
        postgres_server,
        tmp_path,
        prepare,
        act,
        lambda catalog: assert_answers(catalog, [images[0], images[2]], SOURCE),
    )


def test_rebuild_killed_anywhere_leaves_answers_and_can_be_done_again(
    postgres_server: Server, tmp_path: Path
) -> None:
    pool = FakePool(batch_rows=50)
    images: list[FakeImage] = []

    def prepare(catalog: Catalog) -> None:
        images.extend(fed(catalog, pool, tree) for tree in (FIRST, SECOND, THIRD))
        pool.expire(images[1].id)

    def act(catalog: Catalog) -> None:
        for image in (images[0], images[2]):
            assert catalog.list_directory(ImageId(image.id), b"/d1")
        catalog.rebuild(pool)

    killed_everywhere(
        postgres_server,
        tmp_path,
        prepare,
        act,
        lambda catalog: assert_answers(catalog, [images[0], images[2]], SOURCE),
    )
