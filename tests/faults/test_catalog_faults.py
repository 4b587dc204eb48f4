"""A full disk, a locked file, a file that may not be written: named, nothing lost, tried again."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import Busy, CatalogDamaged, NoPermission, NoSpace
from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog
from holdfast.control.catalog.on_sqlite import source_file
from holdfast.control.database import database
from holdfast.control.database.failures import translate
from tests.kit.catalog_model import assert_answers, fed
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakePool, tree_of
from tests.kit.stored_rows import stored_in_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = "host:/data"
LITTLE = tree_of(*(b"/d/f%d" % n for n in range(5)))
MUCH = tree_of(*(b"/%d/a longer name of a file %d" % (n % 20, n) for n in range(4000)))


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path, FakeClock()) as opened:
        yield opened


@pytest.mark.parametrize("pages", [1, 15, 20, 40, 80])
@pytest.mark.parametrize("first", [True, False], ids=["first feed", "incremental"])
def test_full_disk_leaves_the_image_pending_and_the_rest_intact(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: int, first: bool
) -> None:
    pool = FakePool(batch_rows=500)
    images = [] if first else [fed(catalog, pool, LITTLE)]
    before = stored_in_files(tmp_path)
    image = pool.backup(MUCH)
    catalog.record_image(image, pool.pool_id)
    connect = source_file._connect

    def on_a_small_disk(file: Path) -> sqlite3.Connection:
        connection = connect(file)
        connection.execute(f"PRAGMA max_page_count={pages}")
        return connection

    with monkeypatch.context() as patched:
        patched.setattr(source_file, "_connect", on_a_small_disk)
        with pytest.raises(NoSpace, match="files"):
            catalog.ingest(pool, ImageId(image.id))
        assert catalog.pending() == [image.id]
        assert "no space" in (catalog.image(ImageId(image.id)).catalog_detail or "")
    assert stored_in_files(tmp_path) == before
    catalog.ingest(pool, ImageId(image.id))
    assert catalog.image(ImageId(image.id)).catalog_detail is None
    assert_answers(catalog, [*images, image], SOURCE)


def test_file_that_another_program_holds_locked_is_busy(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_file, "BUSY_TIMEOUT_S", 0.01)
    pool = FakePool()
    first = fed(catalog, pool, LITTLE)
    second = pool.backup(MUCH)
    catalog.record_image(second, pool.pool_id)
    (file,) = (tmp_path / "files").glob("*.db")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Busy):
        catalog.ingest(pool, ImageId(second.id))
    assert catalog.list_directory(ImageId(first.id), b"/d")
    other.execute("ROLLBACK")
    other.close()
    catalog.ingest(pool, ImageId(second.id))
    assert_answers(catalog, [first, second], SOURCE)


def test_main_database_that_another_program_holds_locked_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.01)
    pool = FakePool()
    image = pool.backup(LITTLE)
    with Catalog.open(tmp_path, FakeClock()) as catalog:
        other = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy, match=r"catalog\.db"):
            catalog.record_image(image, pool.pool_id)
        other.execute("ROLLBACK")
        other.close()
        catalog.record_image(image, pool.pool_id)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_file_that_may_not_be_written_is_named(catalog: Catalog, tmp_path: Path) -> None:
    pool = FakePool()
    fed(catalog, pool, LITTLE)
    second = pool.backup(MUCH)
    catalog.record_image(second, pool.pool_id)
    (file,) = (tmp_path / "files").glob("*.db")
    file.chmod(0o400)
    with pytest.raises(NoPermission, match="files"):
        catalog.ingest(pool, ImageId(second.id))


def test_page_of_rubbish_in_a_file_is_damage_and_a_rebuild_mends_it(
    tmp_path: Path,
) -> None:
    pool = FakePool(batch_rows=500)
    with Catalog.open(tmp_path, FakeClock()) as catalog:
        images = [fed(catalog, pool, MUCH), fed(catalog, pool, LITTLE)]
    (file,) = (tmp_path / "files").glob("*.db")
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    file.write_bytes(content)
    with Catalog.open(tmp_path, FakeClock()) as catalog:
        with pytest.raises(CatalogDamaged):
            list(catalog.find("name"))
        third = pool.backup(LITTLE)
        catalog.record_image(third, pool.pool_id)
        with pytest.raises(CatalogDamaged):
            catalog.ingest(pool, ImageId(third.id))
        catalog.rebuild(pool)
        assert_answers(catalog, [*images, third], SOURCE)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_CORRUPT, CatalogDamaged),
        (sqlite3.SQLITE_CORRUPT_VTAB, CatalogDamaged),
        (sqlite3.SQLITE_NOTADB, CatalogDamaged),
        (sqlite3.SQLITE_FULL, NoSpace),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Busy),
        (sqlite3.SQLITE_READONLY_DIRECTORY, NoPermission),
        (sqlite3.SQLITE_CANTOPEN, NoPermission),
    ],
)
def test_error_of_sqlite_is_translated_by_its_code(
    tmp_path: Path, code: int, kind: type[Exception]
) -> None:
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = code
    translated = translate(error, tmp_path / "x.db")
    assert type(translated) is kind
    assert "x.db" in translated.message
