"""Random histories of a source: fed step by step == rebuilt at once == brute force.

On SQLite and on PostgreSQL; what is rebuilt, is rebuilt in files, so that both keep the same rows.
"""

from __future__ import annotations

import shutil

from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog
from holdfast.control.database import Database
from tests.kit import quick_disk
from tests.kit.catalog_model import assert_answers
from tests.kit.clock import FakeClock
from tests.kit.databases import new_file
from tests.kit.fake_pool import DIR, FakeImage, FakePool, Node, Tree
from tests.kit.stored_rows import stored_rows

SOURCE = "host:/data"
ROWS = [f"file_rows.{one}" for one in ("versions", "directories", "names", "points", "sets")]

NAMES = st.sampled_from([b"a", b"b", b"C", "Ä".encode(), b"\xff", b"long name.txt"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda names: b"/" + b"/".join(names))
NODES = st.builds(Node, size=st.integers(0, 2), mtime_ns=st.integers(-1, 1))
EDITS = st.lists(st.tuples(PATHS, NODES | st.just(DIR) | st.none()), max_size=8)


def remove(tree: Tree, path: bytes) -> None:
    for each in [one for one in tree if one == path or one.startswith(path + b"/")]:
        del tree[each]


def edited(tree: Tree, edits: list[tuple[bytes, Node | None]]) -> Tree:
    """A tree after some edits: a node put, with its directories, or a whole subtree removed."""
    new = dict(tree)
    for path, node in edits:
        if node is None:
            remove(new, path)
            continue
        names = path.split(b"/")
        for depth in range(2, len(names)):
            above = b"/".join(names[:depth])
            if new.get(above, DIR).kind != "dir":
                remove(new, above)
            new.setdefault(above, DIR)
        if node.kind != "dir" and new.get(path, node).kind == "dir":
            remove(new, path)
        new[path] = node
    return new


class Histories(RuleBasedStateMachine):
    """Backups, expirations and rebuilds in any order; `live` is what must be known."""

    def __init__(self) -> None:
        super().__init__()
        self.path = quick_disk.make()
        self.database = self.empty_database()
        self.catalog = Catalog.open(self.path, FakeClock(), self.database)
        self.pool = FakePool(batch_rows=3)
        self.tree: Tree = {}
        self.older: list[Tree] = [{}]
        self.live: list[FakeImage] = []
        self.waiting: list[FakeImage] = []
        self.only_in_catalog: set[str] = set()

    def teardown(self) -> None:
        self.catalog.close()
        self.database.close()
        shutil.rmtree(self.path)

    def empty_database(self) -> Database:
        return new_file(self.path / "control.db")

    def feed(self, image: FakeImage) -> None:
        self.catalog.ingest(self.pool, ImageId(image.id))
        self.live = sorted([*self.live, image], key=lambda one: one.number)

    def edit_and_feed(self, edits: list[tuple[bytes, Node | None]]) -> None:
        self.tree = edited(self.tree, edits)
        self.feed(self.backup())

    def backup(self) -> FakeImage:
        image = self.pool.backup(self.tree, SOURCE)
        self.catalog.record_image(image, self.pool.pool_id)
        self.older.append(self.tree)
        return image

    @rule(edits=EDITS)
    def back_up_after_edits(self, edits: list[tuple[bytes, Node | None]]) -> None:
        self.edit_and_feed(edits)

    @rule(data=st.data())
    def back_up_something_seen_before(self, data: st.DataObject) -> None:
        self.tree = data.draw(st.sampled_from(self.older))
        self.feed(self.backup())

    @rule(edits=EDITS)
    def back_up_and_feed_later(self, edits: list[tuple[bytes, Node | None]]) -> None:
        self.tree = edited(self.tree, edits)
        self.waiting.append(self.backup())

    @precondition(lambda self: self.waiting and not self.only_in_catalog)
    @rule(data=st.data())
    def feed_what_waits(self, data: st.DataObject) -> None:
        image = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(image)
        if self.live and image.number < self.live[-1].number:
            event("fed late")
        self.feed(image)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        image = data.draw(st.sampled_from(self.live))
        if image.id not in self.only_in_catalog:
            self.pool.expire(image.id)
        self.catalog.expire(ImageId(image.id))
        self.live.remove(image)
        self.only_in_catalog.discard(image.id)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), newest=st.integers(1, 4), edits=EDITS)
    def go_back_after_the_pool_lost_the_newest(
        self, data: st.DataObject, newest: int, edits: list[tuple[bytes, Node | None]]
    ) -> None:
        for image in self.live[-newest:]:
            if image.id not in self.only_in_catalog:
                self.pool.expire(image.id)
                self.only_in_catalog.add(image.id)
        self.tree = data.draw(st.sampled_from(self.older[-newest - 1 :]))
        self.edit_and_feed(edits)

    @rule()
    def rebuild(self) -> None:
        result = self.catalog.rebuild(self.pool)
        assert result.dropped == len(self.only_in_catalog)
        kept = [image for image in self.live if image.id not in self.only_in_catalog]
        self.live = sorted([*kept, *self.waiting], key=lambda one: one.number)
        self.only_in_catalog.clear()
        self.waiting.clear()

    @rule()
    def open_again(self) -> None:
        self.catalog.close()
        self.catalog = Catalog.open(self.path, FakeClock(), self.database)

    @invariant()
    def answers_are_those_of_the_model(self) -> None:
        if self.catalog.sources() and not self.waiting:
            assert_answers(self.catalog, self.live, SOURCE)

    @precondition(lambda self: self.live and not self.waiting and not self.only_in_catalog)
    @rule()
    def rows_are_those_of_a_rebuild(self) -> None:
        with (
            quick_disk.directory() as rebuilt,
            Catalog.open(rebuilt, FakeClock()) as catalog,
        ):
            catalog.rebuild(self.pool)
            assert_answers(catalog, self.live, SOURCE)
            assert stored_rows(catalog) == stored_rows(self.catalog)


SETTINGS = settings(
    max_examples=40,
    stateful_step_count=14,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_histories_in_files() -> None:
    run_state_machine_as_test(Histories, settings=SETTINGS)


def test_histories_in_tables(postgres_url: str) -> None:
    database = Database(postgres_url)
    database.migrate()
    database.close()

    class InTables(Histories):
        def empty_database(self) -> Database:
            database = Database(postgres_url)
            with database.write() as connection:
                connection.exec_driver_sql(f"TRUNCATE {', '.join(ROWS)}, clients CASCADE")
            return database

    run_state_machine_as_test(InTables, settings=settings(SETTINGS, max_examples=15))
