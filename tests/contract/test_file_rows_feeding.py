"""Images are recorded, fed and asked for: file rows on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import (
    Cancelled,
    CatalogError,
    ImageMissing,
    InputOutput,
    IntegrityError,
    PathMissing,
)
from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog, CatalogState, feed
from holdfast.control.database import Database
from tests.kit.catalog_model import all_versions, assert_answers, fed
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import DIR, FakePool, Node, tree_of
from tests.kit.stored_rows import stored_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.fake_pool import Batch

SOURCE = "host:/data"


@pytest.fixture
def catalog(tmp_path: Path, database: Database) -> Iterator[Catalog]:
    with Catalog.open(tmp_path, FakeClock(), database) as opened:
        yield opened


def test_recorded_image_is_pending_until_it_is_fed(catalog: Catalog) -> None:
    pool = FakePool()
    image = pool.backup(tree_of(b"/a/b"))
    catalog.record_image(image, pool.pool_id)
    assert catalog.pending() == [image.id]
    assert catalog.image(ImageId(image.id)).catalog_state is CatalogState.PENDING
    with pytest.raises(CatalogError, match="pending"):
        catalog.list_directory(ImageId(image.id), b"/")
    assert catalog.ingest(pool, ImageId(image.id)) == 2
    assert catalog.pending() == []
    assert_answers(catalog, [image], SOURCE)


def test_image_row_tells_what_the_manifest_says(catalog: Catalog) -> None:
    pool = FakePool()
    image = fed(catalog, pool, tree_of(b"/a/b", node=Node(size=1200)))
    row = catalog.image(ImageId(image.id))
    assert (row.number, row.source, row.host) == (1, SOURCE, "host")
    assert (row.files, row.size_bytes, row.online_bytes) == (1, 1200, 600)
    assert (row.new_bytes, row.transmitted_bytes, row.status) == (400, 300, "completed")
    assert int(row.started_at.timestamp()) * 10**9 == image.started_ns
    assert [copy.pool for copy in catalog.copies(row.id)] == [pool.pool_id]


def test_feeding_twice_feeds_nothing_the_second_time(catalog: Catalog) -> None:
    pool = FakePool()
    image = fed(catalog, pool, tree_of(b"/a/b"))
    before = stored_rows(catalog)
    catalog.record_image(image, pool.pool_id)
    assert catalog.ingest(pool, ImageId(image.id)) == 0
    assert stored_rows(catalog) == before
    assert_answers(catalog, [image], SOURCE)


def test_incremental_feed_asks_the_pool_for_differences_only(catalog: Catalog) -> None:
    pool = FakePool()
    first_tree = tree_of(*(b"/d%d/f%d" % (n % 5, n) for n in range(100)))
    first = fed(catalog, pool, first_tree)
    second_tree = dict(first_tree)
    del second_tree[b"/d0/f0"]
    second_tree[b"/d1/f1"] = replace(first_tree[b"/d1/f1"], size=77)
    second_tree[b"/d1/new"] = Node(size=3)
    second = pool.backup(second_tree)
    catalog.record_image(second, pool.pool_id)
    assert catalog.ingest(pool, ImageId(second.id)) == 3
    assert pool.asked == [(None, first.id), (first.id, second.id)]
    assert_answers(catalog, [first, second], SOURCE)


def test_directory_that_becomes_a_file_and_back_is_followed(catalog: Catalog) -> None:
    pool = FakePool()
    images = [
        fed(catalog, pool, tree_of(b"/x/y/z", b"/k")),
        fed(catalog, pool, tree_of(b"/x", b"/k")),
        fed(catalog, pool, tree_of(b"/x/y/z", b"/k")),
    ]
    assert_answers(catalog, images, SOURCE)


def test_base_that_the_pool_lost_is_replaced_by_an_older_one(
    catalog: Catalog,
) -> None:
    pool = FakePool()
    shared = tree_of(*(b"/d/f%d" % n for n in range(40)))
    first = fed(catalog, pool, shared | tree_of(b"/gone", b"/back", b"/kind"))
    second_tree = shared | tree_of(b"/new", b"/kind/below")
    second_tree[b"/d/f1"] = Node(size=99)
    second = fed(catalog, pool, second_tree)
    pool.expire(second.id)
    third_tree = shared | tree_of(b"/back", b"/new", b"/kind")
    third = fed(catalog, pool, third_tree)
    assert pool.asked[-1] == (first.id, third.id)
    assert_answers(catalog, [first, second, third], SOURCE)
    assert len(stored_rows(catalog)[0]) == len(all_versions([first, second, third]))


def test_without_any_base_the_whole_tree_is_compared_by_the_catalog(catalog: Catalog) -> None:
    pool = FakePool()
    shared = tree_of(*(b"/d/f%d" % n for n in range(40)))
    first = fed(catalog, pool, shared | tree_of(b"/gone/deep/down"))
    pool.expire(first.id)
    second = fed(catalog, pool, shared | tree_of(b"/new"))
    assert pool.asked[-1] == (None, second.id)
    assert_answers(catalog, [first, second], SOURCE)


def test_image_in_another_pool_is_fed_against_the_rows_that_are_there(catalog: Catalog) -> None:
    one, other = FakePool("one"), FakePool("other")
    first = fed(catalog, one, tree_of(b"/a/b", b"/a/c"))
    second = fed(catalog, other, tree_of(b"/a/b", b"/d"), number=2)
    assert_answers(catalog, [first, second], SOURCE)


def test_damaged_base_does_not_keep_the_next_image_from_being_fed(catalog: Catalog) -> None:
    pool = FakePool(batch_rows=2)
    first = fed(catalog, pool, tree_of(b"/a/b", b"/a/c"))
    pool.damaged.add(first.id)
    second = fed(catalog, pool, tree_of(b"/a/b", b"/d", b"/e", b"/f"))
    assert_answers(catalog, [first, second], SOURCE)


def test_damaged_image_is_failed_with_its_reason_and_later_ones_are_fed(catalog: Catalog) -> None:
    pool = FakePool(batch_rows=2)
    first = fed(catalog, pool, tree_of(b"/a/b", b"/a/c"))
    bad = pool.backup(tree_of(b"/x", b"/y", b"/z"))
    pool.damaged.add(bad.id)
    catalog.record_image(bad, pool.pool_id)
    with pytest.raises(IntegrityError):
        catalog.ingest(pool, ImageId(bad.id))
    row = catalog.image(ImageId(bad.id))
    assert row.catalog_state is CatalogState.FAILED
    assert row.catalog_detail is not None
    assert "damaged" in row.catalog_detail
    third = fed(catalog, pool, tree_of(b"/a/b", b"/z"))
    catalog.expire(ImageId(bad.id))
    assert_answers(catalog, [first, third], SOURCE)


def test_image_that_failed_is_fed_between_its_neighbours_later(catalog: Catalog) -> None:
    pool = FakePool(batch_rows=2)
    first = fed(catalog, pool, tree_of(b"/a/b", b"/a/c"))
    late = pool.backup(tree_of(b"/a/b", b"/y", b"/z"))
    catalog.record_image(late, pool.pool_id)
    third = fed(catalog, pool, tree_of(b"/a/c", b"/z/q"))
    fourth = fed(catalog, pool, tree_of(b"/a/b", b"/y", b"/z"))
    assert catalog.ingest(pool, ImageId(late.id)) > 0
    assert_answers(catalog, [first, late, third, fourth], SOURCE)


def test_late_image_is_refused_when_a_newer_one_could_not_be_fed_again(catalog: Catalog) -> None:
    pool = FakePool()
    late = pool.backup(tree_of(b"/a"))
    catalog.record_image(late, pool.pool_id)
    newer = fed(catalog, pool, tree_of(b"/b"))
    pool.expire(newer.id)
    with pytest.raises(CatalogError, match=newer.id):
        catalog.ingest(pool, ImageId(late.id))
    catalog.expire(ImageId(late.id))
    assert_answers(catalog, [newer], SOURCE)


def test_number_that_comes_again_after_an_expiration_does_not_make_an_image_late(
    catalog: Catalog,
) -> None:
    pool = FakePool()
    first = fed(catalog, pool, tree_of(b"/a"), number=2)
    pool.expire(first.id)
    second = fed(catalog, pool, tree_of(b"/b"), number=1)
    (old,), (new,) = catalog.versions(SOURCE, b"/a"), catalog.versions(SOURCE, b"/b")
    assert (old.last_image, old.current) == (first.id, False)
    assert (new.first_image, new.current) == (second.id, True)


def test_feeding_that_is_stopped_leaves_nothing_behind(catalog: Catalog) -> None:
    pool = FakePool(batch_rows=2)
    first = fed(catalog, pool, tree_of(b"/a/b", b"/a/c"))
    before = stored_rows(catalog)
    second = pool.backup(tree_of(b"/a/b", b"/1", b"/2", b"/3", b"/4", b"/5", b"/6"))
    catalog.record_image(second, pool.pool_id)

    def stop(rows: int) -> None:
        if rows >= 4:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        catalog.ingest(pool, ImageId(second.id), stop)
    assert catalog.pending() == [second.id]
    assert stored_rows(catalog) == before
    catalog.ingest(pool, ImageId(second.id))
    assert_answers(catalog, [first, second], SOURCE)


def test_directories_of_a_feed_that_was_undone_are_stored_by_the_next(catalog: Catalog) -> None:
    pool = FakePool(batch_rows=2)
    first = fed(catalog, pool, tree_of(b"/a/b", b"/a/c"))
    bad = pool.backup(tree_of(b"/a/b", b"/a/new/deep/x", b"/a/new/deep/y"))
    pool.damaged.add(bad.id)
    catalog.record_image(bad, pool.pool_id)
    with pytest.raises(IntegrityError):
        catalog.ingest(pool, ImageId(bad.id))
    pool.expire(bad.id)
    catalog.expire(ImageId(bad.id))
    third = fed(catalog, pool, tree_of(b"/a/b", b"/a/new/deep/x"))
    assert_answers(catalog, [first, third], SOURCE)
    stored_rows(catalog)


@pytest.mark.parametrize("by_another", [False, True])
def test_directories_that_an_expiration_took_are_stored_again(
    tmp_path: Path, database: Database, catalog: Catalog, by_another: bool
) -> None:
    pool = FakePool()
    first = fed(catalog, pool, tree_of(b"/a/b"))
    second = fed(catalog, pool, tree_of(b"/a/b", b"/gone/deep/x", b"/gone/deep/y"))
    third = fed(catalog, pool, tree_of(b"/a/b", b"/other/z"))
    pool.expire(second.id)
    with Catalog.open(tmp_path, FakeClock(), database) as another:
        (another if by_another else catalog).expire(ImageId(second.id))
    fourth = fed(catalog, pool, tree_of(b"/a/b", b"/gone/deep/x", b"/other/z"))
    assert_answers(catalog, [first, third, fourth], SOURCE)
    stored_rows(catalog)


def test_lost_store_leaves_the_image_pending_and_says_why(catalog: Catalog) -> None:
    class Offline(FakePool):
        def changes(self, old: str | None, new: str | None, /) -> Iterator[Batch]:
            raise InputOutput("the store does not answer")

    pool = Offline()
    image = pool.backup(tree_of(b"/a"))
    catalog.record_image(image, pool.pool_id)
    with pytest.raises(InputOutput):
        catalog.ingest(pool, ImageId(image.id))
    assert catalog.pending() == [image.id]
    assert catalog.image(ImageId(image.id)).catalog_detail == "the store does not answer"


def test_progress_counts_the_rows(catalog: Catalog) -> None:
    pool = FakePool(batch_rows=3)
    image = pool.backup(tree_of(*(b"/f%d" % n for n in range(8))))
    catalog.record_image(image, pool.pool_id)
    seen: list[int] = []
    catalog.ingest(pool, ImageId(image.id), seen.append)
    assert seen == [3, 6, 8]


def test_unchanged_tree_is_seen_by_both_images(catalog: Catalog) -> None:
    pool = FakePool()
    tree = tree_of(b"/a/b")
    images = [fed(catalog, pool, tree), fed(catalog, pool, tree), fed(catalog, pool, {})]
    assert_answers(catalog, images, SOURCE)
    (version,) = catalog.versions(SOURCE, b"/a/b")
    assert (version.images, version.current) == (2, False)


def test_image_of_an_empty_tree_can_be_listed(catalog: Catalog) -> None:
    pool = FakePool()
    image = fed(catalog, pool, {})
    assert catalog.list_directory(ImageId(image.id), b"/") == []


def test_empty_directory_can_be_listed(catalog: Catalog) -> None:
    pool = FakePool()
    image = fed(catalog, pool, {b"/empty": DIR})
    assert catalog.list_directory(ImageId(image.id), b"/empty") == []


def test_paths_deeper_than_path_max_are_kept(catalog: Catalog) -> None:
    pool = FakePool(batch_rows=10_000)
    deep = b"/" + b"/".join([b"directory"] * 1500) + b"/end"
    image = fed(catalog, pool, tree_of(deep))
    (row,) = catalog.find("end")
    assert row.path == deep
    assert catalog.entry(ImageId(image.id), deep).kind == "file"


@pytest.mark.parametrize(("names", "directories"), [(0, 0), (3, 100), (100, 2), (9, 4)])
def test_feed_that_outgrows_what_it_may_remember_stores_the_same(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, names: int, directories: int
) -> None:
    monkeypatch.setattr(feed, "NAMES_KNOWN", names)
    monkeypatch.setattr(feed, "DIRECTORIES_KNOWN", directories)
    pool = FakePool(batch_rows=4)
    first = tree_of(*(b"/d%d/e%d/f%d" % (n % 3, n % 5, n % 11) for n in range(60)))
    second = first | tree_of(*(b"/d%d/new/f%d" % (n % 3, n % 13) for n in range(30)))
    images = [fed(catalog, pool, first), fed(catalog, pool, second), fed(catalog, pool, first)]
    assert_answers(catalog, images, SOURCE)
    stored_rows(catalog)


def test_numbers_that_fill_64_bits_survive(catalog: Catalog) -> None:
    pool = FakePool()
    node = Node(size=2**62, inode=2**64 - 2, mtime_ns=-(2**62), uid=2**32 - 1, gid=2**32 - 2)
    images = [fed(catalog, pool, tree_of(b"/a", node=node)), fed(catalog, pool, tree_of(b"/b"))]
    assert_answers(catalog, images, SOURCE)


def test_names_of_any_bytes_survive(catalog: Catalog) -> None:
    pool = FakePool()
    names = [bytes([byte]) for byte in range(1, 256) if byte != ord("/")]
    names += [b"\xff" * 255, b"caf\xe9", "café".encode(), b"\xed\xa0\x80", b"a\nb", b"-", b"'\""]
    names = [name for name in names if name != b"."]
    image = fed(catalog, pool, tree_of(*(b"/d\xfe/" + name for name in names)))
    assert_answers(catalog, [image], SOURCE)


def test_sources_do_not_mix(catalog: Catalog) -> None:
    pool = FakePool()
    ours = fed(catalog, pool, tree_of(b"/a"), source="one:/")
    theirs = fed(catalog, pool, tree_of(b"/a", b"/b"), source="two:/")
    assert_answers(catalog, [ours], "one:/")
    assert_answers(catalog, [theirs], "two:/")
    assert catalog.sources() == ["one:/", "two:/"]


def test_image_unknown_to_the_catalog_is_not_fed(catalog: Catalog) -> None:
    pool = FakePool()
    image = pool.backup(tree_of(b"/a"))
    with pytest.raises(ImageMissing):
        catalog.ingest(pool, ImageId(image.id))


def test_image_of_another_pool_is_not_fed(catalog: Catalog) -> None:
    pool = FakePool("one")
    image = pool.backup(tree_of(b"/a"))
    catalog.record_image(image, pool.pool_id)
    with pytest.raises(ImageMissing):
        catalog.ingest(FakePool("other"), ImageId(image.id))
    assert catalog.pending() == [image.id]


def test_missing_path_and_file_as_directory_are_told_apart(catalog: Catalog) -> None:
    pool = FakePool()
    image = ImageId(fed(catalog, pool, tree_of(b"/a/b")).id)
    with pytest.raises(PathMissing, match="nothing at '/a/c'"):
        catalog.list_directory(image, b"/a/c")
    with pytest.raises(PathMissing, match="not a directory"):
        catalog.list_directory(image, b"/a/b")
    with pytest.raises(PathMissing):
        catalog.entry(image, b"/nowhere/at/all")
    assert catalog.entry(image, b"a//b/").name == b"b"


def test_restarted_catalog_answers_as_before(tmp_path: Path, database: Database) -> None:
    pool = FakePool()
    with Catalog.open(tmp_path, FakeClock(), database) as catalog:
        images = [fed(catalog, pool, tree_of(b"/a/b")), fed(catalog, pool, tree_of(b"/a/c"))]
    with Catalog.open(tmp_path, FakeClock(), database) as catalog:
        assert_answers(catalog, images, SOURCE)
