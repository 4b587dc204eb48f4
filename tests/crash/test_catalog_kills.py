"""The catalog is killed at every statement, and inside of long ones; what is left is completed.

The files are copied at each such moment: that is what a process killed there leaves behind, the
write-ahead log included. Caches are so small that pages of unfinished transactions are in it.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import ImageMissing
from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog
from holdfast.control.catalog.on_sqlite import source_file
from holdfast.control.database import database
from tests.kit import quick_disk
from tests.kit.catalog_model import assert_answers, fed
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakeImage, FakePool, Node, Tree, tree_of
from tests.kit.stored_rows import stored_in_files

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

SOURCE = "host:/data"
STEPS_OF_THE_VIRTUAL_MACHINE = 1000

FIRST: Tree = tree_of(*(b"/d%d/Name %d" % (n % 3, n) for n in range(40)))
SECOND: Tree = tree_of(*(b"/d%d/Name %d" % (n % 3, n) for n in range(20, 60)), b"/d0/x/y")
THIRD: Tree = FIRST | tree_of(b"/d0/Name 3", node=Node(size=999))


class Moments:
    """Copies of a directory, taken whenever SQLite is about to do something."""

    def __init__(self, directory: Path, copies: Path) -> None:
        self.directory = directory
        self.copies = copies
        self.taken: list[Path] = []
        self.armed = False

    def take(self, statement: str = "") -> None:
        # what only reads leaves the files as the next writing statement finds them
        if self.armed and not statement.startswith(("SELECT", "PRAGMA", "BEGIN")):
            copy = self.copies / str(len(self.taken))
            shutil.copytree(self.directory, copy)
            self.taken.append(copy)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connect, configure = source_file._connect, database._configure

        def watch(connection: sqlite3.Connection) -> None:
            connection.execute("PRAGMA cache_size=4")
            connection.set_trace_callback(self.take)
            connection.set_progress_handler(self.take, STEPS_OF_THE_VIRTUAL_MACHINE)

        def watched_connect(file: Path) -> sqlite3.Connection:
            connection = connect(file)
            watch(connection)
            return connection

        def watched_configure(connection: sqlite3.Connection, record: object) -> None:
            configure(connection, record)
            watch(connection)

        monkeypatch.setattr(source_file, "_connect", watched_connect)
        monkeypatch.setattr(database, "_configure", watched_configure)


@pytest.fixture
def quick_path() -> Iterator[Path]:
    with quick_disk.directory() as made:
        yield made


def killed_everywhere(
    quick_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Catalog], None],
    act: Callable[[Catalog], None],
    check: Callable[[Catalog], None],
) -> None:
    """Do something once, watched; then complete it from each moment, and compare."""
    (quick_path / "moments").mkdir()
    moments = Moments(quick_path / "catalog", quick_path / "moments")
    with Catalog.open(quick_path / "catalog", FakeClock()) as catalog:
        prepare(catalog)
    with monkeypatch.context() as patched:
        moments.watch(patched)
        with Catalog.open(quick_path / "catalog", FakeClock()) as catalog:
            moments.armed = True
            act(catalog)
            moments.armed = False
            check(catalog)
    expected = stored_in_files(quick_path / "catalog")
    assert len(moments.taken) > 20
    for copy in moments.taken:
        with Catalog.open(copy, FakeClock()) as catalog:
            act(catalog)
            check(catalog)
        assert stored_in_files(copy) == expected
        shutil.rmtree(copy)


def test_first_feed_killed_anywhere_is_completed_by_feeding_again(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = FakePool(batch_rows=20)
    image = pool.backup(FIRST)

    def act(catalog: Catalog) -> None:
        catalog.record_image(image, pool.pool_id)
        catalog.ingest(pool, ImageId(image.id))

    killed_everywhere(
        quick_path, monkeypatch, lambda _: None, act, lambda c: assert_answers(c, [image], SOURCE)
    )


def test_incremental_feed_killed_anywhere_is_completed_by_feeding_again(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
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
        quick_path, monkeypatch, prepare, act, lambda c: assert_answers(c, images, SOURCE)
    )


def test_expiration_killed_anywhere_is_completed_by_opening_the_catalog(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
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
        quick_path,
        monkeypatch,
        prepare,
        act,
        lambda c: assert_answers(c, [images[0], images[2]], SOURCE),
    )


def test_rebuild_killed_anywhere_leaves_answers_and_can_be_done_again(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = FakePool(batch_rows=20)
    images: list[FakeImage] = []

    def prepare(catalog: Catalog) -> None:
        images.extend(fed(catalog, pool, tree) for tree in (FIRST, SECOND, THIRD))
        pool.expire(images[1].id)

    def act(catalog: Catalog) -> None:
        for image in (images[0], images[2]):
            assert catalog.list_directory(ImageId(image.id), b"/d1")
        catalog.rebuild(pool)

    killed_everywhere(
        quick_path,
        monkeypatch,
        prepare,
        act,
        lambda c: assert_answers(c, [images[0], images[2]], SOURCE),
    )
