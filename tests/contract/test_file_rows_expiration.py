"""Expired images leave, what others show stays, and a rebuild gives the same."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import ImageMissing, PathMissing
from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog, CatalogState
from holdfast.control.database import Database
from tests.kit.catalog_model import assert_answers, fed
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakePool, Node, Tree, tree_of
from tests.kit.stored_rows import stored_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = "host:/data"

TREES: list[Tree] = [
    tree_of(b"/always", b"/a/first", b"/a/b/c/deep"),
    tree_of(b"/always", b"/a/second", node=Node(size=5)),
    tree_of(b"/always", b"/a/first", b"/a/b/c/deep", b"/changing"),
    {},
    tree_of(b"/always", b"/a/first", b"/changing", b"/last"),
]


@pytest.fixture
def catalog(tmp_path: Path, database: Database) -> Iterator[Catalog]:
    with Catalog.open(tmp_path, FakeClock(), database) as opened:
        yield opened


@pytest.mark.parametrize("order", list(itertools.permutations(range(5), 3))[::4])
def test_images_expire_in_any_order(
    catalog: Catalog, tmp_path_factory: pytest.TempPathFactory, order: tuple[int]
) -> None:
    pool = FakePool()
    images = [fed(catalog, pool, tree) for tree in TREES]
    live = list(images)
    for place in order:
        pool.expire(images[place].id)
        catalog.expire(ImageId(images[place].id))
        live.remove(images[place])
        assert_answers(catalog, live, SOURCE)
    rebuilt = tmp_path_factory.mktemp("rebuilt")
    with Catalog.open(rebuilt, FakeClock()) as other:
        other.rebuild(pool)
        assert stored_rows(catalog) == stored_rows(other)


def test_state_that_comes_back_is_one_version_once_nothing_parts_it(catalog: Catalog) -> None:
    pool = FakePool()
    before = fed(catalog, pool, tree_of(b"/mount/data"))
    between = fed(catalog, pool, {})
    after = fed(catalog, pool, tree_of(b"/mount/data"))
    assert len(catalog.versions(SOURCE, b"/mount/data")) == 2
    catalog.expire(ImageId(between.id))
    (version,) = catalog.versions(SOURCE, b"/mount/data")
    assert (version.first_image, version.last_image) == (before.id, after.id)
    assert (version.images, version.current) == (2, True)


def test_expiring_the_newest_image_reopens_what_it_had_closed(catalog: Catalog) -> None:
    pool = FakePool()
    first = fed(catalog, pool, tree_of(b"/a", b"/b"))
    second = fed(catalog, pool, tree_of(b"/a"))
    pool.expire(second.id)
    catalog.expire(ImageId(second.id))
    assert [version.current for version in catalog.versions(SOURCE, b"/b")] == [True]
    third = fed(catalog, pool, tree_of(b"/b"))
    assert pool.asked[-1] == (first.id, third.id)
    assert_answers(catalog, [first, third], SOURCE)


def test_source_whose_images_all_expired_can_be_fed_again(catalog: Catalog) -> None:
    pool = FakePool()
    for tree in TREES[:2]:
        image = fed(catalog, pool, tree)
        pool.expire(image.id)
        catalog.expire(ImageId(image.id))
    assert stored_rows(catalog) == [[]]
    assert list(catalog.find("")) == []
    image = fed(catalog, pool, TREES[2])
    assert_answers(catalog, [image], SOURCE)


def test_image_that_was_never_fed_can_expire(catalog: Catalog) -> None:
    pool = FakePool()
    image = pool.backup(tree_of(b"/a"))
    catalog.record_image(image, pool.pool_id)
    catalog.expire(ImageId(image.id))
    assert catalog.images() == []
    assert catalog.pending() == []


def test_expiration_cut_short_by_a_kill_is_finished_at_the_next_opening(
    tmp_path: Path, database: Database
) -> None:
    pool = FakePool()
    with Catalog.open(tmp_path, FakeClock(), database) as catalog:
        images = [fed(catalog, pool, tree) for tree in TREES[:3]]
        with catalog._database.write() as connection:
            from holdfast.control.catalog import registry

            registry.drop_copy(connection, ImageId(images[1].id), None)
        assert [row.id for row in catalog.images()] == [images[0].id, images[2].id]
    with Catalog.open(tmp_path, FakeClock(), database) as catalog:
        assert_answers(catalog, [images[0], images[2]], SOURCE)
        assert len(stored_rows(catalog)[0]) == 7


def test_rebuild_from_the_pool_alone_gives_the_same_answers(
    catalog: Catalog, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pool = FakePool()
    ours = [fed(catalog, pool, tree, "one:/") for tree in TREES]
    theirs = [fed(catalog, pool, tree, "two:/") for tree in reversed(TREES)]
    bare = tmp_path_factory.mktemp("bare")
    with Catalog.open(bare, FakeClock()) as rebuilt:
        result = rebuilt.rebuild(pool)
        assert (result.sources, result.images, result.dropped) == (2, 10, 0)
        assert result.failed == {}
        for images, source in ((ours, "one:/"), (theirs, "two:/")):
            assert_answers(rebuilt, images, source)
        assert rebuilt.images() == catalog.images()
        assert stored_rows(rebuilt) == stored_rows(catalog)


def test_rebuild_forgets_what_the_pool_lost_and_learns_what_it_gained(catalog: Catalog) -> None:
    pool = FakePool()
    lost = fed(catalog, pool, TREES[0])
    kept = fed(catalog, pool, TREES[1])
    pool.expire(lost.id)
    gained = pool.backup(TREES[2])
    other = pool.backup(TREES[0], "other:/")
    result = catalog.rebuild(pool)
    assert (result.sources, result.images, result.dropped) == (2, 3, 1)
    assert_answers(catalog, [kept, gained], SOURCE)
    assert_answers(catalog, [other], "other:/")


def test_rebuild_keeps_images_that_lie_in_another_pool(catalog: Catalog) -> None:
    pool, other = FakePool("one"), FakePool("other")
    there = fed(catalog, other, TREES[0])
    here = fed(catalog, pool, TREES[1], number=2)
    catalog.rebuild(pool)
    states = {row.id: row.catalog_state for row in catalog.images()}
    assert states == {there.id: CatalogState.PENDING, here.id: CatalogState.INDEXED}
    catalog.ingest(other, ImageId(there.id))
    assert catalog.list_directory(ImageId(there.id), b"/a/b")[0].name == b"c"


def test_rebuild_names_images_it_could_not_read_and_goes_on(catalog: Catalog) -> None:
    pool = FakePool()
    images = [pool.backup(tree) for tree in TREES[:3]]
    pool.damaged.add(images[1].id)
    result = catalog.rebuild(pool)
    assert list(result.failed) == [images[1].id]
    assert (result.images, result.sources) == (2, 1)
    catalog.expire(ImageId(images[1].id))
    assert_answers(catalog, [images[0], images[2]], SOURCE)


def test_rebuild_that_is_stopped_leaves_the_old_answers(catalog: Catalog) -> None:
    pool = FakePool(batch_rows=1)
    images = [fed(catalog, pool, tree) for tree in TREES[:3]]

    def stop(rows: int) -> None:
        if rows > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        catalog.rebuild(pool, stop)
    assert_answers(catalog, images, SOURCE)


def test_rebuild_makes_a_catalog_with_no_images_from_an_empty_pool(catalog: Catalog) -> None:
    pool = FakePool()
    image = fed(catalog, pool, TREES[0])
    pool.expire(image.id)
    assert catalog.rebuild(pool).dropped == 1
    assert catalog.images() == []
    assert list(catalog.find("")) == []


def test_directories_are_those_of_now_though_others_were_listed_before(catalog: Catalog) -> None:
    pool = FakePool()
    first = fed(catalog, pool, tree_of(b"/kept"))
    old = fed(catalog, pool, tree_of(b"/kept", b"/old/older/below/thing"))
    assert_answers(catalog, [first, old], SOURCE)
    # what goes leaves its ids to what comes
    catalog.expire(ImageId(old.id))
    pool.expire(old.id)
    new = fed(catalog, pool, tree_of(b"/kept", b"/older/old/other/below"))
    assert_answers(catalog, [first, new], SOURCE)
    with pytest.raises(ImageMissing):
        catalog.list_directory(ImageId(old.id), b"/old/older")
    with pytest.raises(PathMissing):
        catalog.list_directory(ImageId(new.id), b"/old/older")
