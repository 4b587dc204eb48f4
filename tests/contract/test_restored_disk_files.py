"""Disks that the engine writes as files of a format itself: qemu finds in them what was there."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from holdfast.base.errors import HoldfastError, IntegrityError, Invalid
from holdfast.engine import DiskInput, DiskSink, DiskSource, Image, Pool, PoolConfig
from tests.kit import disk_images
from tests.kit.disk_images import needs_qemu

pytestmark = needs_qemu

CLUSTER = 1 << 16
FORMATS = ["raw", "qcow2"]
DISK = b"/disks/vda"


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    config = PoolConfig(chunk_min=1024, chunk_avg=4096, chunk_max=16384, pack_bytes=1 << 20)
    (tmp_path / "pool").mkdir()
    return Pool.create(str(tmp_path / "pool"), bytes(range(32)), config, 0)


def stored(pool: Pool, disk: Path, ranges: list[tuple[int, int, int]] | None = None) -> Image:
    size = disk.stat().st_size
    whole = [(0, size, 1)] if size else []
    source = DiskSource.file(str(disk))
    return pool.backup_machine(
        files={"machine.json": b"{}"},
        disks=[DiskInput("vda", size, whole if ranges is None else ranges, source, 5)],
        source="machine:test",
        host="web",
        started_ns=10**18,
    ).result()


def a_disk(path: Path, size: int, data: list[tuple[int, int]], seed: int = 1) -> Path:
    noise = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size)
        for offset, length in data:
            file.seek(offset)
            file.write(noise.randbytes(length))
    return path


def assert_same(disk: Path, image_format: str, made: Path) -> None:
    if image_format != "raw":
        said = subprocess.run(
            ["qemu-img", "check", "--output=json", "-f", image_format, made],
            check=True,
            capture_output=True,
        ).stdout
        told = json.loads(said)
        assert told["check-errors"] == 0
        assert told.get("leaks", 0) == told.get("corruptions", 0) == 0
    disk_images.run("qemu-img", "compare", "-f", "raw", "-F", image_format, disk, made)


SHAPES = {
    "of one sector": (512, [(0, 512)]),
    "all empty": (3 << 30, []),
    "with pieces within clusters": (
        (1 << 30) + 512,
        [(4096, 100), (CLUSTER, 1), (5 * CLUSTER - 1, 2), (700 << 20, 9 * CLUSTER + 5)],
    ),
    "up to its last byte": ((512 << 20) + 70_000, [(0, 70_000), ((512 << 20), 70_000)]),
    "with more clusters than one block counts": (2100 << 20, [(0, 1), (2 << 30, 3 << 20)]),
}


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_restored_is_sound_and_the_same_and_no_larger(
    pool: Pool, tmp_path: Path, image_format: str, shape: str
) -> None:
    size, data = SHAPES[shape]
    size = size // 512 * 512
    data = [(offset, min(length, size - offset)) for offset, length in data]
    disk = a_disk(tmp_path / "disk.raw", size, data)
    known = []
    at = 0
    for offset, length in data:
        begin, end = offset // 4096 * 4096, min(-(-(offset + length) // 4096) * 4096, size)
        known += [(at, begin - at, 0)] if begin > at else []
        known.append((max(begin, at), end - max(begin, at), 1))
        at = end
    known += [(at, size - at, 0)] if at < size else []
    image = stored(pool, disk, known)
    made = tmp_path / "made"
    disk_images.create(made, image_format, size)
    sink = DiskSink.image(str(made), image_format, size=size)
    done = pool.restore_disk(image.id, DISK, sink, verify=True).result()
    assert (done.files, done.verified_files) == (1, 1)
    assert sink.kept_until == size
    sink.close()
    assert_same(disk, image_format, made)
    assert made.stat().st_blocks * 512 < 2 * sum(one for _, one in data) + (2 << 20)


@pytest.mark.parametrize("image_format", FORMATS)
def test_whatever_the_file_holds_goes_with_a_restore_from_the_beginning(
    pool: Pool, tmp_path: Path, image_format: str
) -> None:
    disk = a_disk(tmp_path / "disk.raw", 9 << 20, [(3 << 20, 300_000)])
    image = stored(pool, disk)
    made = tmp_path / "made"
    made.write_bytes(os.urandom(11 << 20))
    sink = DiskSink.image(str(made), image_format, size=9 << 20)
    pool.restore_disk(image.id, DISK, sink).result()
    assert_same(disk, image_format, made)


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_file_is_gone_on_with_and_nothing_behind_is_believed(
    pool: Pool, tmp_path: Path, image_format: str
) -> None:
    size = 20 << 20
    data = [(0, 5 << 20), ((6 << 20) + 70_000, 200_000), (9 << 20, 8 << 20), (size - 4096, 4096)]
    disk = a_disk(tmp_path / "disk.raw", size, data)
    image = stored(pool, disk)
    made = tmp_path / "made"
    sink = DiskSink.image(str(made), image_format, size=size)
    pool.restore_disk(image.id, DISK, sink).result()
    # As after a loss of power: what was written behind that, and not flushed, may be anything.
    begin = 10 << 20
    # Of a qcow2 file in clusters that there are: no other is ever taken.
    torn = [(begin, 7 << 20), (size - 8192, 8192)]
    torn += [(17 << 20, 1 << 20)] if image_format == "raw" else []
    words = [word for at, count in torn for word in ("-c", f"write -P 7 {at} {count}")]
    disk_images.run("qemu-io", "-f", image_format, *words, made)
    sink = DiskSink.image(str(made), image_format, size=size, begin=begin)
    assert sink.kept_until == begin
    done = pool.restore_disk(image.id, DISK, sink, verify=True).result()
    assert done.verified_files == 1
    assert_same(disk, image_format, made)


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_file_that_was_not_begun_so_is_not_gone_on_with(
    pool: Pool, tmp_path: Path, image_format: str
) -> None:
    size = 8 << 20
    image = stored(pool, a_disk(tmp_path / "disk.raw", size, [(0, 1 << 20)]))
    made = disk_images.create(tmp_path / "made", image_format, size + CLUSTER)
    if image_format == "qcow2":
        other = stored(pool, a_disk(tmp_path / "other.raw", size, [(1 << 20, 1 << 20)]))
        sink = DiskSink.image(str(made), image_format, size=size)
        pool.restore_disk(other.id, DISK, sink).result()
    before = made.read_bytes()
    sink = DiskSink.image(str(made), image_format, size=size, begin=1 << 20)
    with pytest.raises(IntegrityError, match="began it"):
        pool.restore_disk(image.id, DISK, sink).result()
    assert made.read_bytes() == before


def test_another_format_or_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="vmdk"):
        DiskSink.image(str(tmp_path / "new"), "vmdk", size=512)
    assert not (tmp_path / "new").exists()
    with pytest.raises(HoldfastError, match="opening the disk"):
        DiskSink.image(str(tmp_path), "qcow2", size=512)
