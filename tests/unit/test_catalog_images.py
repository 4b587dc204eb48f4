"""Images are listed and named; schemas are created, upgraded and refused."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import (
    CatalogDamaged,
    CatalogError,
    ImageAmbiguous,
    ImageMissing,
    Invalid,
    NotFound,
)
from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog, set_aside
from holdfast.control.catalog.on_sqlite import source_file
from holdfast.control.database import Database
from tests.kit.catalog_model import assert_answers, fed
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakePool, tree_of
from tests.kit.stored_rows import stored_in_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.fake_pool import FakeImage

SOURCE = "host:/data"


@pytest.fixture
def catalog(tmp_path: Path, database: Database) -> Iterator[Catalog]:
    with Catalog.open(tmp_path, FakeClock(), database) as opened:
        yield opened


def test_images_are_listed_newest_last(catalog: Catalog) -> None:
    pool = FakePool()
    made = [pool.backup({}, f"host:/{n % 2}", number=5 - n) for n in range(4)]
    for image in made:
        catalog.record_image(image, pool.pool_id)
    assert [row.id for row in catalog.images()] == [image.id for image in reversed(made)]
    assert [row.number for row in catalog.images("host:/1")] == [2, 4]
    assert catalog.images("host:/unknown") == []


def test_image_says_who_ordered_it_before_and_after_a_rebuild(catalog: Catalog) -> None:
    pool = FakePool()
    ordered = {"policy": "files", "schedule": "nightly", "kind": "full", "job": "a/7"}
    made = [pool.backup({}, labels=ordered), pool.backup({})]
    for image in made:
        catalog.record_image(image, pool.pool_id)
    for _ in range(2):
        found = [(row.policy, row.schedule, row.backup_kind, row.job) for row in catalog.images()]
        assert found == [("files", "nightly", "full", "a/7"), (None, None, None, None)]
        for image in made:
            catalog.expire(ImageId(image.id))
        catalog.rebuild(pool)


def test_image_is_named_by_id_prefix_or_latest(catalog: Catalog) -> None:
    pool = FakePool()
    first = pool.backup({}, "one:/")
    second = pool.backup({}, "two:/")
    for image in (first, second):
        catalog.record_image(image, pool.pool_id)
    assert catalog.resolve(first.id) == first.id
    assert catalog.resolve(first.id[:9].upper()) == first.id
    assert catalog.resolve("latest") == second.id
    assert catalog.resolve(" Latest ", "one:/") == first.id
    with pytest.raises(ImageMissing, match="one:/"):
        catalog.resolve(second.id, "one:/")


def test_text_that_names_no_image_is_explained(catalog: Catalog) -> None:
    with pytest.raises(ImageMissing, match="no image in the catalog yet"):
        catalog.resolve("latest")
    with pytest.raises(ImageMissing, match="begins with 'abc'"):
        catalog.resolve("abc")
    for text in ("", "yesterday", "%", "latest~1", "a" * 33):
        with pytest.raises(Invalid):
            catalog.resolve(text)


def test_prefix_of_several_images_is_refused_with_a_few_of_them(catalog: Catalog) -> None:
    pool = FakePool()
    by_digit: dict[str, list[str]] = {}
    while not any(len(ids) > 3 for ids in by_digit.values()):
        image = pool.backup({})
        catalog.record_image(image, pool.pool_id)
        by_digit.setdefault(image.id[0], []).append(image.id)
    digit = next(digit for digit, ids in by_digit.items() if len(ids) > 3)
    with pytest.raises(ImageAmbiguous, match=f"begin with '{digit}'.*…"):
        catalog.resolve(digit)


def test_source_is_browsed_as_of_a_moment(catalog: Catalog) -> None:
    pool = FakePool()
    images = [fed(catalog, pool, tree_of(b"/%d" % n)) for n in range(3)]
    second = datetime.fromtimestamp(images[1].started_ns // 10**9, UTC)
    assert catalog.as_of(SOURCE, second) == images[1].id
    assert catalog.as_of(SOURCE, second - timedelta(seconds=1)) == images[0].id
    assert catalog.as_of(SOURCE, second + timedelta(days=999)) == images[2].id
    with pytest.raises(ImageMissing):
        catalog.as_of(SOURCE, second - timedelta(days=999))


def test_image_with_two_copies_lives_until_the_last_is_expired(catalog: Catalog) -> None:
    pool = FakePool()
    image = fed(catalog, pool, tree_of(b"/a"))
    catalog.record_image(image, "f" * 32)
    assert len(catalog.copies(ImageId(image.id))) == 2
    catalog.expire(ImageId(image.id), pool.pool_id)
    assert_answers(catalog, [image], SOURCE)
    catalog.expire(ImageId(image.id), "f" * 32)
    assert catalog.images() == []
    with pytest.raises(ImageMissing):
        catalog.image(ImageId(image.id))
    with pytest.raises(ImageMissing):
        catalog.expire(ImageId(image.id))


def test_unknown_source_is_named_in_the_error(catalog: Catalog) -> None:
    with pytest.raises(NotFound, match="host:/nowhere"):
        catalog.versions("host:/nowhere", b"/a")


def test_catalog_of_a_newer_schema_is_refused_untouched(tmp_path: Path) -> None:
    Catalog.open(tmp_path, FakeClock()).close()
    with sqlite3.connect(tmp_path / "catalog.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(CatalogError, match="9999") as refused:
        Catalog.open(tmp_path, FakeClock())
    assert refused.value.hint is not None


def test_file_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    pool = FakePool()
    with Catalog.open(tmp_path, FakeClock()) as catalog:
        image = fed(catalog, pool, tree_of(b"/a"))
        (file,) = (tmp_path / "files").glob("*.db")
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA user_version=99")
        connection.close()
        with pytest.raises(CatalogError, match="schema 99"):
            catalog.list_directory(ImageId(image.id), b"/")
        second = pool.backup(tree_of(b"/b"))
        catalog.record_image(second, pool.pool_id)
        with pytest.raises(CatalogError, match="schema 99"):
            catalog.ingest(pool, ImageId(second.id))


def as_of_schema(file: Path, version: int) -> None:
    """Put what a file holds into one of an older schema, as that Holdfast made it."""
    aside = file.with_name("aside")
    file.rename(aside)
    old = sqlite3.connect(file)
    for script in source_file.MIGRATIONS[:version]:
        old.executescript(script)
    old.execute("ATTACH ? AS new", (str(aside),))
    for table in ("restore_points", "names", "directories"):
        old.execute(f"INSERT INTO main.{table} SELECT * FROM new.{table}")
    old.execute(
        "INSERT INTO main.files SELECT directory, name, first, last, kind, size, mtime_ns, "
        "mode, uid, gid, inode FROM new.files JOIN new.attributes ON id = attributes"
    )
    if version > 1:
        old.execute("INSERT INTO main.places SELECT * FROM new.places")
    old.commit()
    old.executescript(source_file._SEARCH_INDEX)
    old.execute(
        "INSERT INTO names_search (rowid, folded) "
        f"SELECT id, {source_file.SEARCH_TEXT} FROM main.names"
    )
    old.execute(f"PRAGMA user_version={version}")
    old.commit()
    old.close()


@pytest.mark.parametrize("version", range(1, len(source_file.MIGRATIONS)))
def test_file_of_an_older_schema_is_upgraded_and_goes_on(tmp_path: Path, version: int) -> None:
    pool = FakePool()
    trees = [tree_of(b"/a/b", b"/a/c"), tree_of(b"/a/b", "/Ä".encode()), tree_of(b"/a/c")]
    with Catalog.open(tmp_path / "old", FakeClock()) as catalog:
        images = [fed(catalog, pool, tree) for tree in trees]
    (file,) = (tmp_path / "old" / "files").glob("*.db")
    as_of_schema(file, version)
    with Catalog.open(tmp_path / "old", FakeClock()) as catalog:
        assert_answers(catalog, images, SOURCE)
        assert [row.path for row in catalog.find("ä")] == ["/Ä".encode()]
        images.append(fed(catalog, pool, tree_of(b"/a/c", b"/new")))
        pool.expire(images[0].id)
        catalog.expire(ImageId(images.pop(0).id))
        assert_answers(catalog, images, SOURCE)
    with Catalog.open(tmp_path / "new", FakeClock()) as catalog:
        catalog.rebuild(pool)
    assert stored_in_files(tmp_path / "old") == stored_in_files(tmp_path / "new")


def test_file_of_an_older_schema_is_upgraded_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = FakePool()
    with Catalog.open(tmp_path, FakeClock()) as catalog:
        image = fed(catalog, pool, tree_of(b"/a"))
    later = (*source_file.MIGRATIONS, "CREATE TABLE later (x); CREATE INDEX later_x ON later (x)")
    monkeypatch.setattr(source_file, "MIGRATIONS", later)
    with Catalog.open(tmp_path, FakeClock()) as catalog:
        assert_answers(catalog, [image], SOURCE)
    (file,) = (tmp_path / "files").glob("*.db")
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(later),)
    assert connection.execute("SELECT * FROM later").fetchall() == []
    connection.close()


def test_damaged_database_is_named_and_can_be_set_aside_and_rebuilt(tmp_path: Path) -> None:
    pool = FakePool()
    with Catalog.open(tmp_path, FakeClock()) as catalog:
        images = [fed(catalog, pool, tree_of(b"/a")), fed(catalog, pool, tree_of(b"/b"))]
    (tmp_path / "catalog.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(CatalogDamaged, match=r"catalog\.db") as damaged:
        Catalog.open(tmp_path, FakeClock())
    assert "catalog rebuild" in (damaged.value.hint or "")
    aside = set_aside(tmp_path, FakeClock())
    assert (aside / "catalog.db").read_bytes().startswith(b"no database")
    assert set_aside(tmp_path, FakeClock()) != aside
    with Catalog.open(tmp_path, FakeClock()) as catalog:
        catalog.rebuild(pool)
        assert_answers(catalog, images, SOURCE)


@pytest.mark.parametrize("ruin", ["garbage", "missing", "empty"])
def test_damaged_file_of_a_source_is_named_and_rebuilt(tmp_path: Path, ruin: str) -> None:
    pool = FakePool()
    with Catalog.open(tmp_path, FakeClock()) as catalog:
        images = [fed(catalog, pool, tree_of(b"/a")), fed(catalog, pool, tree_of(b"/b"))]
    (file,) = (tmp_path / "files").glob("*.db")
    file.unlink()
    if ruin != "missing":
        file.write_bytes(b"rubbish " * 4096 if ruin == "garbage" else b"")
    with Catalog.open(tmp_path, FakeClock()) as catalog:
        with pytest.raises(CatalogError) as damaged:
            catalog.list_directory(ImageId(images[0].id), b"/")
        assert "catalog rebuild" in (damaged.value.hint or "")
        catalog.rebuild(pool)
        assert_answers(catalog, images, SOURCE)
    assert len(list((tmp_path / "files").glob("*.db"))) == 1


def test_several_threads_may_create_the_catalog_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        opened = [threads.submit(Catalog.open, tmp_path, FakeClock()) for _ in range(4)]
    for catalog in opened:
        catalog.result().close()


def test_sources_are_fed_and_asked_by_several_threads_at_once(catalog: Catalog) -> None:
    pools = [FakePool(f"pool {n}", batch_rows=5) for n in range(3)]

    def work(n: int) -> list[FakeImage]:
        images: list[FakeImage] = []
        for turn in range(5):
            tree = tree_of(*(b"/%d/%d" % (turn % 2, k) for k in range(turn, 30)))
            images.append(fed(catalog, pools[n], tree, f"host:/{n}"))
            assert list(catalog.find("1", source=f"host:/{n}"))
            if turn % 3 == 2:
                catalog.expire(ImageId(images.pop(0).id))
        return images

    with ThreadPoolExecutor(3) as threads:
        histories = list(threads.map(work, range(3)))
    for n, images in enumerate(histories):
        assert_answers(catalog, images, f"host:/{n}")
