"""Files inside of machines are found like any others, for as long as their images are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.base.errors import PathMissing, StorageError, Unsupported
from holdfast.base.ids import ImageId, pool_id
from holdfast.control.catalog import Catalog, ImageLists, IndexingState, WantedImages
from holdfast.control.database import Database
from holdfast.engine import Pool, PoolConfig
from holdfast.movers.machines.indexing import told_after
from holdfast.movers.machines.inside import Inside
from holdfast.site import machine_indexes
from holdfast.site.machine_indexes import MachineIndexer, index_machine
from holdfast.sources.filesystems.entries import DIRECTORY, NO_STREAM, Batch, Entry, FilesUnreadable
from tests.kit.clock import FakeClock
from tests.kit.disks import MIB, blank, mounted, need, run
from tests.kit.guest_files import fill, walked
from tests.kit.machine_images import back_up
from tests.kit.served import until

pytest.importorskip("pytsk3", reason="pytsk3 is not installed: see the extra 'vm'")


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """A new pool in a directory."""
    (tmp_path / "pool").mkdir()
    return Pool.create(str(tmp_path / "pool"), bytes(range(32)), PoolConfig(), 0)


@pytest.fixture
def catalog(tmp_path: Path, database: Database) -> Iterator[Catalog]:
    """An empty catalog."""
    with Catalog.open(tmp_path / "catalog", FakeClock(), database) as opened:
        yield opened


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk with an ext4 on all of it."""
    need("mkfs.ext4")
    path = blank(tmp_path / "vda", 40 * MIB)
    run("mkfs.ext4", "-q", "-F", path)
    with mounted(path, tmp_path / "mnt") as at:
        fill(at)
    return path


def put(catalog: Catalog, pool: Pool, disk: Path) -> ImageId:
    """Back a machine up, and have the catalog know."""
    image = back_up(pool, {"vda": disk})
    catalog.record_image(pool.image(image), pool_id(pool.id))
    catalog.ingest(pool, image)
    return image


def feed(catalog: Catalog, pool: Pool) -> None:
    for one in catalog.pending():
        catalog.ingest(pool, one)


def test_files_inside_are_found_as_those_of_the_machine(
    tmp_path: Path, catalog: Catalog, pool: Pool, disk: Path
) -> None:
    image = put(catalog, pool, disk)
    assert catalog.unindexed() == [image]
    state = catalog.indexing(image)
    assert state is not None
    assert state.state is IndexingState.PENDING
    names = index_machine(catalog, pool, image)
    feed(catalog, pool)
    assert catalog.unindexed() == []
    assert catalog.indexings()[image].state is IndexingState.INDEXED
    with mounted(disk, tmp_path / "mnt", "ro") as at:
        expected = walked(at)
    assert names == len(expected)
    (index,) = catalog.indexes_of(image)
    told = {
        batch.directories[row[0]].rstrip(b"/") + b"/" + row[1]
        for batch in catalog.tree(index)
        for row in batch.rows
    }
    assert told == {b"/vda", b"/vda/fs", *(b"/vda/fs" + path for path in expected)}
    source = catalog.image(image).source
    (hosts,) = [one for one in catalog.find("hosts") if one.kind == "file"]
    assert (hosts.path, hosts.source) == (b"/vda/fs/etc/hosts", source)
    assert (hosts.first_image, hosts.last_image) == (image, image)
    assert (hosts.size_bytes, hosts.mtime_ns) == (20, expected[b"/etc/hosts"].mtime_ns)
    assert [one.path for one in catalog.find("hosts", source=source)] == [hosts.path]
    assert catalog.versions(source, hosts.path) == [hosts]
    listed = {one.name for one in catalog.list_directory(image, b"/vda/fs/etc")}
    assert listed == {path[5:] for path in expected if path.rpartition(b"/")[0] == b"/etc"}
    assert {b"vda", b"disks"} <= {one.name for one in catalog.list_directory(image, b"/")}
    assert catalog.entry(image, b"/vda/fs/etc/hosts").size_bytes == 20
    with pytest.raises(PathMissing):
        catalog.list_directory(image, b"/vda/fs/nothing")


def test_an_index_is_no_image_of_its_own(
    catalog: Catalog, database: Database, pool: Pool, disk: Path
) -> None:
    image = put(catalog, pool, disk)
    index_machine(catalog, pool, image)
    feed(catalog, pool)
    assert len(pool.images()) == 2
    assert catalog.image_ids() == [image]
    assert [one.id for one in catalog.images()] == [image]
    assert catalog.resolve("latest") == image
    assert catalog.sources() == [catalog.image(image).source]
    lists = ImageLists(database)
    assert [one.image.id for one in lists.images(WantedImages(), limit=9)] == [image]
    assert [one.name for one in lists.sources(limit=9)] == catalog.sources()
    # a second time, and after all is forgotten, there is still one
    assert index_machine(catalog, pool, image) == 0
    rebuilt = catalog.rebuild(pool)
    assert (rebuilt.images, rebuilt.sources) == (1, 1)
    assert catalog.unindexed() == []
    assert [one.last_image for one in catalog.find("hosts")] == [image]


def test_changes_of_files_inside_are_versions(
    tmp_path: Path, catalog: Catalog, pool: Pool, disk: Path
) -> None:
    first = put(catalog, pool, disk)
    index_machine(catalog, pool, first)
    with mounted(disk, tmp_path / "mnt") as at:
        (at / "etc" / "hosts").write_text("changed")
    second = put(catalog, pool, disk)
    index_machine(catalog, pool, second)
    feed(catalog, pool)
    source = catalog.image(first).source
    versions = catalog.versions(source, b"/vda/fs/etc/hosts")
    assert [(one.first_image, one.last_image) for one in versions] == [
        (first, first),
        (second, second),
    ]
    (same,) = catalog.versions(source, b"/vda/fs/large")
    assert (same.first_image, same.last_image, same.images) == (first, second, 2)


def test_what_can_not_be_indexed_says_why(
    catalog: Catalog, pool: Pool, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = put(catalog, pool, disk)

    def fails(*_: object) -> object:
        raise error

    monkeypatch.setattr(machine_indexes, "index_image", fails)
    error: Exception = StorageError("the store is away")
    with pytest.raises(StorageError):
        index_machine(catalog, pool, image)
    assert catalog.indexings()[image].state is IndexingState.PENDING
    assert "the store is away" in str(catalog.indexings()[image].detail)
    assert catalog.unindexed() == [image]
    error = Unsupported("not here", "install it")
    with pytest.raises(Unsupported):
        index_machine(catalog, pool, image)
    assert catalog.indexings()[image].state is IndexingState.FAILED
    assert catalog.indexings()[image].detail == "not here; install it"
    assert catalog.unindexed() == []
    catalog.retry_indexing()
    assert catalog.unindexed() == [image]


def test_a_volume_that_can_not_be_read_is_left_out_and_told_of(
    tmp_path: Path, catalog: Catalog, pool: Pool, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tmp_path / "vdb"
    second.write_bytes(disk.read_bytes())
    image = back_up(pool, {"vda": disk, "vdb": second})
    catalog.record_image(pool.image(image), pool_id(pool.id))
    walk = Inside.walk

    def fails(self: Inside, volume: object, *more: object) -> Iterator[Batch]:
        batches = walk(self, volume, *more)  # type: ignore[arg-type]
        yield next(iter(batches))
        if volume.name == "vdb/fs":  # type: ignore[attr-defined]
            raise FilesUnreadable("vdb/fs: reading it failed")
        yield from batches

    monkeypatch.setattr(Inside, "walk", fails)
    index_machine(catalog, pool, image)
    feed(catalog, pool)
    assert "vdb/fs: reading it failed" in str(catalog.indexings()[image].detail)
    found = {one.path for one in catalog.find("hosts")}
    assert b"/vda/fs/etc/hosts" in found


def test_the_indexer_takes_up_what_waits(
    catalog: Catalog, pool: Pool, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = put(catalog, pool, disk)
    tried: list[ImageId] = []
    index = machine_indexes.index_machine

    def first_fails(*arguments: object) -> int:
        tried.append(image)
        if len(tried) == 1:
            raise StorageError("away for a moment")
        return index(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(machine_indexes, "index_machine", first_fails)
    indexer = MachineIndexer(catalog, lambda _: pool, look_s=0.05, retry_s=0.05)
    indexer.start()
    try:
        until(lambda: bool(catalog.indexes_of(image)), "the index")
    finally:
        indexer.stop()
    assert len(tried) == 2


def entry(directory: int, name: bytes, kind: int = 0) -> Entry:
    return Entry(directory, kind, 0, 0, 0, 0, 0, 0, 0, 1, 1, NO_STREAM, name, b"")


def test_directories_are_told_behind_those_below_them() -> None:
    batches = [
        Batch([b"/", b"/a"], [entry(0, b"a", DIRECTORY), entry(0, b"b", DIRECTORY)]),
        Batch([b"/a", b"/a/c"], [entry(0, b"c", DIRECTORY), entry(1, b"x")]),
        Batch([b"/b"], []),
    ]
    told = [(path, [one.name for one in found]) for path, found in told_after(batches)]
    assert told == [(b"/a/c", [b"x"]), (b"/a", [b"c"]), (b"/b", []), (b"/", [b"a", b"b"])]
    with pytest.raises(FilesUnreadable):
        list(told_after([Batch([b"/", b"/a", b"/b", b"/a/c"], [])]))
