"""The catalog is fed by the real engine, and shows what the engine's own trees show."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog
from holdfast.control.database import Database
from holdfast.engine import Pool, PoolConfig
from tests.kit import trees
from tests.kit.clock import FakeClock
from tests.kit.stored_rows import stored_rows

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.engine import Entry, Image

CLOCK = FakeClock()
SOURCE = "host:/home"


def back_up(pool: Pool, catalog: Catalog, path: Path) -> Image:
    run = pool.backup(
        paths=[os.fsencode(path)], source=SOURCE, host="host", started_ns=CLOCK.now_ns()
    )
    image = run.result()
    catalog.record_image(image, pool.id.hex())
    catalog.ingest(pool, ImageId(image.id))
    return image


def columns(entry: Entry) -> tuple[object, ...]:
    return (
        entry.name,
        entry.kind,
        entry.size,
        entry.mtime_ns,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.inode,
    )


def assert_shows_the_trees(catalog: Catalog, pool: Pool, images: list[Image]) -> None:
    for image in images:
        waiting, seen = [b"/"], 0
        while waiting:
            path = waiting.pop()
            entries = pool.list_dir(image.id, path)
            rows = catalog.list_directory(ImageId(image.id), path)
            assert [
                (r.name, r.kind, r.size_bytes, r.mtime_ns, r.mode, r.uid, r.gid, r.inode)
                for r in rows
            ] == [columns(entry) for entry in entries]
            seen += len(rows)
            waiting += [
                (b"" if path == b"/" else path) + b"/" + entry.name
                for entry in entries
                if entry.kind == "dir"
            ]
        assert seen > 50


@pytest.mark.parametrize("batch_rows", [7, 50_000])
def test_catalog_shows_what_the_trees_of_real_backups_show(
    tmp_path: Path, batch_rows: int, database: Database
) -> None:
    class Batched:
        """The engine's pool, cutting batches where the test wants them."""

        def __init__(self, pool: Pool) -> None:
            self.pool = pool
            self.id = pool.id

        def __getattr__(self, name: str) -> object:
            return getattr(self.pool, name)

        def changes(self, old: str | None, new: str | None) -> object:
            return self.pool.changes(old, new, batch_rows=batch_rows)

    home = tmp_path / "home"
    trees.make_tree(home)
    store = tmp_path / "pool"
    engine = Pool.create(str(store), bytes(range(32)), PoolConfig(), CLOCK.now_ns())
    pool: Pool = Batched(engine)  # type: ignore[assignment]
    with Catalog.open(tmp_path / "catalog", CLOCK, database) as catalog:
        images = [back_up(pool, catalog, home)]

        (home / "text").write_bytes(b"shorter now")
        (home / "many" / "0007").unlink()
        (home / "level 0" / "level 1" / "new").mkdir()
        (home / "level 0" / "level 1" / "new" / "Grüße").write_bytes(b"x")
        os.rename(home / "noise", home / "noise moved")
        (home / "empty").chmod(0o600)
        images.append(back_up(pool, catalog, home))
        assert [row.path for row in catalog.find("GRÜSSE")] == [
            os.fsencode(home / "level 0" / "level 1" / "new" / "Grüße")
        ]

        trees.make_tree(home / "more", seed=2)
        os.unlink(home / "links" / "first")
        os.mkdir(home / "links" / "first")
        images.append(back_up(pool, catalog, home))
        images.append(back_up(pool, catalog, home))
        assert_shows_the_trees(catalog, engine, images)
        versions = catalog.versions(SOURCE, os.fsencode(home / "text"))
        assert [version.images for version in versions] == [1, 3]

        engine.expire(images[1].id)
        catalog.expire(ImageId(images.pop(1).id))
        assert_shows_the_trees(catalog, engine, images)

        with Catalog.open(tmp_path / "rebuilt", CLOCK) as rebuilt:
            result = rebuilt.rebuild(pool)
            assert (result.images, result.failed) == (3, {})
            assert_shows_the_trees(rebuilt, engine, images)
            assert rebuilt.images() == catalog.images()
            assert stored_rows(rebuilt) == stored_rows(catalog)


def test_engine_s_pool_is_what_the_catalog_asks_for(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    for number in range(60):
        (tmp_path / "home" / f"file {number}").write_bytes(b"%d" % number)
    pool = Pool.create(str(tmp_path / "pool"), bytes(32), PoolConfig(), CLOCK.now_ns())
    with Catalog.open(tmp_path / "catalog", CLOCK) as catalog:
        image = back_up(pool, catalog, tmp_path / "home")
        assert_shows_the_trees(catalog, pool, [image])
        assert [row.files for row in catalog.images()] == [60]
