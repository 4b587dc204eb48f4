"""Images of virtual machines: what a disk was read by makes no difference to what it holds."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import Invalid, StorageError
from holdfast.engine import (
    DiskInput,
    DiskSink,
    DiskSource,
    Image,
    Pool,
    PoolConfig,
)
from holdfast.sources.nbd import client, qemu_nbd
from holdfast.sources.nbd.protocol import Flags
from tests.kit import disk_images
from tests.kit.disk_images import needs_qemu

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.sources.nbd.client import Sockets

KEY = bytes(range(32))
HOLE, DATA, SAME = 0, 1, 2


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """A new pool in a directory."""
    config = PoolConfig(chunk_min=1024, chunk_avg=4096, chunk_max=16384, pack_bytes=1 << 20)
    (tmp_path / "pool").mkdir()
    return Pool.create(str(tmp_path / "pool"), KEY, config, 0)


def back_up(pool: Pool, *disks: DiskInput, parent: Image | None = None) -> Image:
    """Back up a machine of these disks."""
    return pool.backup_machine(
        files={"machine.json": b"{}", "definitions/domain.xml": b"<domain/>"},
        disks=list(disks),
        source="machine:test",
        host="web",
        started_ns=10**18,
        parent=parent.id if parent else None,
        labels={"machine": "a-b-c"},
    ).result()


def a_disk(tmp_path: Path, size: int = 9_000_000) -> Path:
    """A raw file with some data in it."""
    noise = random.Random(1)
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(size)
        for at in (0, 3_000_000, 4_190_000, 8_000_000):
            file.seek(at)
            file.write(noise.randbytes(200_000))
    return path


def test_a_disk_that_is_a_raw_file_is_in_the_image_and_what_is_known_of_it_is_not_read(
    pool: Pool, tmp_path: Path
) -> None:
    path = a_disk(tmp_path)
    source, size = DiskSource.file(str(path)), path.stat().st_size
    assert source.size == size
    assert source.read_at(size - 10, 100) == path.read_bytes()[-10:]
    first = back_up(pool, DiskInput("vda", size, [(0, size, DATA)], source, 5))
    assert first.labels == {"machine": "a-b-c"}
    assert [entry.name for entry in pool.list_dir(first.id, b"/")] == [
        b"definitions",
        b"disks",
        b"machine.json",
    ]
    entry = pool.entry(first.id, b"/disks/vda")
    assert (entry.size, entry.mtime_ns, entry.mode) == (size, 5, 0o600)
    assert pool.open_file(first.id, b"/disks/vda").read_at(0, size) == path.read_bytes()
    with path.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"changed")
    known = [(0, 983_040, SAME), (983_040, 65_536, DATA), (1_048_576, size - 1_048_576, SAME)]
    second = back_up(pool, DiskInput("vda", size, known, source, 6), parent=first)
    assert second.parent == first.id
    assert second.stats["bytes_read"] < 300_000
    assert pool.open_file(second.id, b"/disks/vda").read_at(0, size) == path.read_bytes()
    target = tmp_path / "restored"
    pool.restore(second.id, paths=[b"/disks"], to=os.fsencode(target)).result()
    assert (target / "disks/vda").read_bytes() == path.read_bytes()
    assert (target / "disks/vda").stat().st_blocks * 512 < size / 2
    assert pool.verify(None, read_data=True).result().problems == []


def test_what_is_known_of_a_disk_has_to_make_sense(pool: Pool, tmp_path: Path) -> None:
    path = a_disk(tmp_path)
    source, size = DiskSource.file(str(path)), path.stat().st_size
    for ranges in ([(0, size, SAME)], [(0, size - 1, DATA)], [(1, size - 1, DATA)]):
        with pytest.raises(Invalid):
            back_up(pool, DiskInput("vda", size, ranges, source, 0))
    with pytest.raises(Invalid, match="no kind of range"):
        DiskInput("vda", size, [(0, size, 3)], source, 0)
    assert pool.images() == []


def source_of(sockets: Sockets) -> DiskSource:
    """What the engine reads the export by."""
    export = sockets.export
    return DiskSource.nbd(sockets.fds, size=export.size, structured=export.structured)


@needs_qemu
@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_a_disk_goes_from_one_nbd_server_into_an_image_and_from_there_to_another(
    pool: Pool, tmp_path: Path, structured: bool, count: int
) -> None:
    disk = disk_images.create(tmp_path / "disk.qcow2", "qcow2", 20_000_768)
    disk_images.fill(disk, "qcow2")
    raw = tmp_path / "disk.raw"
    disk_images.run("qemu-img", "convert", "-O", "raw", disk, raw)
    node = qemu_nbd.image_node(disk, "qcow2")
    with (
        qemu_nbd.serving(node, "vda") as served,
        client.sockets(served.address, count=count, structured=structured) as sockets,
    ):
        source = source_of(sockets)
        assert source.read_at(5, 100) == raw.read_bytes()[5:105]
        image = back_up(pool, DiskInput("vda", source.size, [(0, source.size, DATA)], source, 0))
        source.close()
        with pytest.raises(StorageError):
            source.read_at(0, 1)
    reader = pool.open_file(image.id, b"/disks/vda")
    assert reader.read_at(0, reader.size) == raw.read_bytes()
    copy = disk_images.create(tmp_path / "copy.qcow2", "qcow2", reader.size)
    with (
        qemu_nbd.serving(qemu_nbd.image_node(copy, "qcow2"), "copy", writable=True) as served,
        client.sockets(served.address, count=count, structured=structured, writing=True) as sockets,
    ):
        flags = sockets.export.flags
        sink = DiskSink.nbd(
            sockets.fds,
            size=sockets.export.size,
            structured=sockets.export.structured,
            can_zero=bool(flags & Flags.SEND_WRITE_ZEROES),
            fresh=True,
            can_flush=bool(flags & Flags.SEND_FLUSH),
        )
        done = pool.restore_disk(image.id, b"/disks/vda", sink, verify=True).result()
        assert (done.files, done.verified_files, done.findings) == (1, 1, [])
        sink.close()
    disk_images.run("qemu-img", "compare", raw, copy)


@needs_qemu
def test_the_death_of_an_nbd_server_fails_the_backup_and_names_disk_and_place(
    pool: Pool, tmp_path: Path
) -> None:
    disk = disk_images.create(tmp_path / "disk.qcow2", "qcow2", 20 << 20)
    node = qemu_nbd.image_node(disk, "qcow2")
    with (
        qemu_nbd.serving(node, "vda") as served,
        client.sockets(served.address) as sockets,
    ):
        source = source_of(sockets)
    with pytest.raises(StorageError, match=r"disk 'vda': reading at byte 0: .*closed"):
        back_up(pool, DiskInput("vda", source.size, [(0, source.size, DATA)], source, 0))
    assert pool.images() == []


def test_a_restored_disk_is_a_sparse_file_that_was_not_there(pool: Pool, tmp_path: Path) -> None:
    path = a_disk(tmp_path)
    source, size = DiskSource.file(str(path)), path.stat().st_size
    image = back_up(pool, DiskInput("vda", size, [(0, size, DATA)], source, 0))
    to = tmp_path / "restored.raw"
    pool.restore_disk(image.id, b"/disks/vda", DiskSink.file(str(to), size), verify=True).result()
    assert to.read_bytes() == path.read_bytes()
    assert to.stat().st_blocks * 512 < size / 2
    with pytest.raises(Invalid, match="not empty"):
        DiskSink.file(str(to), size)


def test_a_reader_tells_where_data_is_and_reads_for_many_threads(
    pool: Pool, tmp_path: Path
) -> None:
    path = a_disk(tmp_path)
    source, size = DiskSource.file(str(path)), path.stat().st_size
    image = back_up(pool, DiskInput("vda", size, [(0, size, DATA)], source, 0))
    reader = pool.open_file(image.id, b"/disks/vda")
    data = reader.data_extents(0, size)
    assert data[0][0] == 0
    assert 4 * 200_000 <= sum(length for _, length in data) < 5 * 4 * 65_536 + 4 * 200_000
    assert reader.data_extents(100, 50) == [(100, 50)]
    assert reader.data_extents(size, 50) == []
    bytes_of, noise = path.read_bytes(), random.Random(7)
    places = [(noise.randrange(size), noise.randrange(50_000)) for _ in range(400)]
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda place: reader.read_at(*place), places))
    assert read == [bytes_of[at : at + length] for at, length in places]


def test_names_that_are_told_are_an_image_like_any_other(pool: Pool) -> None:
    writer = pool.write_index(
        source="inside:test", host="web", started_ns=10**18, labels={"index_of": "x"}
    )
    writer.add_dir(
        b"/vda/p1",
        [
            (b"hosts", 0, 0o644, 0, 0, 123, 5, 6, 7, None),
            (b"link", 2, 0o777, 0, 0, 0, 5, 6, 8, b"hosts"),
        ],
    )
    writer.add_dir(b"/vda", [(b"p1", 1, 0o755, 0, 0, 0, 5, 6, 2, None)])
    writer.add_dir(b"/", [(b"vda", 1, 0o755, 0, 0, 0, 5, 6, 1, None)])
    image = writer.finish()
    assert image.labels == {"index_of": "x"}
    assert [entry.name for entry in pool.list_dir(image.id, b"/vda/p1")] == [b"hosts", b"link"]
    assert pool.entry(image.id, b"/vda/p1/hosts").size == 123
    rows = [row for batch in pool.changes(None, image.id) for row in batch.rows]
    assert len(rows) == 4
    assert pool.verify(None).result().problems == []
    with pytest.raises(Invalid):
        writer.add_dir(b"/more", [])
    pool.write_index(source="inside:test", host="web", started_ns=10**18).abandon()
    assert len(pool.images()) == 1
