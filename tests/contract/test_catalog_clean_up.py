"""What kills and restored databases left behind is put right; what is right is left alone."""

from __future__ import annotations

import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog, CatalogState, CleanUpResult
from holdfast.control.database import Database
from tests.kit.catalog_model import assert_answers, fed
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakePool, tree_of
from tests.kit.stored_rows import stored_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.fake_pool import FakeImage

SOURCE = "host:/data"
NOTHING = CleanUpResult(generations=0, images=0, lost=0, unreadable={})

TREES = [tree_of(b"/a/b", b"/c"), tree_of(b"/a/b", b"/a/d"), tree_of(b"/e")]


@pytest.fixture
def catalog(tmp_path: Path, database: Database) -> Iterator[Catalog]:
    with Catalog.open(tmp_path, FakeClock(), database) as opened:
        yield opened


def images_of(catalog: Catalog, pool: FakePool) -> list[FakeImage]:
    return [fed(catalog, pool, tree) for tree in TREES]


def run(catalog: Catalog, statement: str) -> None:
    with catalog._database.write() as connection:
        connection.execute(sa.text(statement))


def test_nothing_is_done_where_all_is_well(catalog: Catalog) -> None:
    pool = FakePool()
    assert catalog.clean_up() == NOTHING
    images = images_of(catalog, pool)
    waiting = pool.backup(TREES[0], "other:/")
    catalog.record_image(waiting, pool.pool_id)
    before = stored_rows(catalog)
    assert catalog.clean_up() == NOTHING
    assert stored_rows(catalog) == before
    assert catalog.pending() == [waiting.id]
    assert_answers(catalog, images, SOURCE)


def test_generation_that_nothing_names_goes(catalog: Catalog) -> None:
    images = images_of(catalog, FakePool())
    with catalog._files.exclusive(1) as stored:
        # a rebuild that was killed before the control database named what it had made
        with stored.building(2):
            pass
        assert stored.has(2)
        assert catalog._files.stored() == {1}
    assert catalog.clean_up() == CleanUpResult(generations=1, images=0, lost=0, unreadable={})
    with catalog._files.exclusive(1) as stored:
        assert stored.has(1)
        assert not stored.has(2)
    assert_answers(catalog, images, SOURCE)


def test_rows_of_a_source_that_nobody_knows_go(catalog: Catalog) -> None:
    pool = FakePool()
    images = images_of(catalog, pool)
    other = fed(catalog, pool, TREES[0], "other:/")
    for statement in (
        f"DELETE FROM copies WHERE image_id = '{other.id}'",
        f"DELETE FROM images WHERE id = '{other.id}'",
        "DELETE FROM sources WHERE name = 'other:/'",
    ):
        run(catalog, statement)
    assert len(catalog._files.stored()) == 2
    assert catalog.clean_up() == CleanUpResult(generations=1, images=0, lost=0, unreadable={})
    assert catalog._files.stored() == {1}
    assert len(stored_rows(catalog)) == 1
    assert_answers(catalog, images, SOURCE)


def test_rows_of_images_that_are_gone_go(catalog: Catalog) -> None:
    images = images_of(catalog, FakePool())
    run(catalog, f"DELETE FROM copies WHERE image_id = '{images[1].id}'")
    run(catalog, f"DELETE FROM images WHERE id = '{images[1].id}'")
    assert catalog.clean_up() == CleanUpResult(generations=0, images=1, lost=0, unreadable={})
    assert_answers(catalog, [images[0], images[2]], SOURCE)
    assert catalog.clean_up() == NOTHING


def test_image_whose_rows_were_lost_waits_to_be_fed_again(catalog: Catalog) -> None:
    pool = FakePool()
    images = images_of(catalog, pool)
    with catalog._files.exclusive(1) as stored, stored.writing(1) as writer:
        writer.expire([ImageId(images[2].id)])
    assert catalog.clean_up() == CleanUpResult(generations=0, images=0, lost=1, unreadable={})
    assert catalog.pending() == [images[2].id]
    catalog.ingest(pool, ImageId(images[2].id))
    assert_answers(catalog, images, SOURCE)


def test_source_whose_rows_were_lost_altogether_is_fed_again(catalog: Catalog) -> None:
    pool = FakePool()
    images = images_of(catalog, pool)
    with catalog._files.exclusive(1) as stored:
        stored.remove_others(0)
    assert catalog.clean_up() == CleanUpResult(generations=0, images=0, lost=3, unreadable={})
    assert catalog.pending() == [image.id for image in images]
    for image in images:
        assert catalog.image(ImageId(image.id)).catalog_detail == "its rows were lost"
        catalog.ingest(pool, ImageId(image.id))
    assert_answers(catalog, images, SOURCE)


def test_source_that_lost_its_last_image_takes_no_room(catalog: Catalog, tmp_path: Path) -> None:
    pool = FakePool(batch_rows=2000)
    image = fed(catalog, pool, tree_of(*(b"/d/a name of some length %d" % n for n in range(3000))))
    catalog.expire(ImageId(image.id))
    assert stored_rows(catalog) == [[]]
    assert sum(file.stat().st_size for file in tmp_path.glob("files/*.db")) < 100_000
    again = fed(catalog, pool, TREES[0])
    assert_answers(catalog, [again], SOURCE)


@pytest.fixture
def in_files(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path, FakeClock()) as opened:
        yield opened


def test_what_a_kill_left_beside_a_file_goes(in_files: Catalog, tmp_path: Path) -> None:
    images = images_of(in_files, FakePool())
    files = tmp_path / "files"
    for name in ("1.building", "1.building-journal", "1.9.db-wal", "7.building", "1.7.db"):
        (files / name).write_bytes(b"half of something")
    shutil.copy(files / "1.1.db", files / "12.1.db")
    assert in_files.clean_up() == CleanUpResult(generations=4, images=0, lost=0, unreadable={})
    left = {file.name for file in files.iterdir() if file.suffix != ".lock"}
    assert left - {"1.1.db-wal", "1.1.db-shm"} == {"1.1.db"}
    assert_answers(in_files, images, SOURCE)


@pytest.mark.parametrize("newer", [True, False], ids=["newer", "damaged"])
def test_file_that_can_not_be_read_is_named_and_left(
    in_files: Catalog, tmp_path: Path, newer: bool
) -> None:
    pool = FakePool()
    images_of(in_files, pool)
    other = fed(in_files, pool, TREES[0], "other:/")
    in_files._files.close()
    file = tmp_path / "files" / "1.1.db"
    if newer:
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA user_version=99")
        connection.close()
    else:
        file.write_bytes(b"no database" * 1000)
    before = file.read_bytes()
    result = in_files.clean_up()
    assert list(result.unreadable) == [SOURCE]
    assert (result.generations, result.lost) == (0, 0)
    assert file.read_bytes() == before
    assert in_files.states()[CatalogState.PENDING] == 0
    assert_answers(in_files, [other], "other:/")
