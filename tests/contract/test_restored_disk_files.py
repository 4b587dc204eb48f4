"""Disks that the engine writes as files of a format itself: qemu finds in them what was there."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import HoldfastError, IntegrityError, Invalid
from holdfast.engine import DiskInput, DiskSink, DiskSource, Image, Pool, PoolConfig
from tests.kit import disk_images
from tests.kit.disk_images import needs_qemu

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_qemu

CLUSTER = 1 << 16
LAID_OUT = ["qcow2", "vmdk", "vhdx", "vdi"]
FORMATS = ["raw", *LAID_OUT]
DISK = b"/disks/vda"
LARGE = 600 << 20
MIB = 1 << 20


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
    size = disk.stat().st_size
    if size < LARGE:
        disk_images.run("qemu-img", "compare", "-f", "raw", "-F", image_format, disk, made)
        return
    # qemu reads every empty block of a VHDX, and takes its time: only MiBs at the ends of data.
    for at in sorted({near >> 20 for one in held(disk) for near in (one - MIB, one, one + MIB)}):
        if 0 <= at << 20 < size:
            window = f"driver=raw,offset={at << 20},size={min(MIB, size - (at << 20))}"
            ways = f"{window},file.filename={disk}", f"{window},{beneath(image_format)}={made}"
            disk_images.run("qemu-img", "compare", "--image-opts", *ways)


def beneath(image_format: str) -> str:
    """What qemu is told of a file of that format, beneath another node."""
    return (
        "file.filename"
        if image_format == "raw"
        else f"file.driver={image_format},file.file.filename"
    )


def held(disk: Path) -> Iterator[int]:
    """Where data begins in a sparse file, and where it ends."""
    with disk.open("rb") as file:
        at = 0
        while at < disk.stat().st_size:
            try:
                begin = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            at = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            yield from (begin, at - 1)


SHAPES = {
    "of one sector": (512, [(0, 512)]),
    "all empty": (200 << 20, []),
    "full": ((20 << 20) + 512, [(0, (20 << 20) + 512)]),
    "with pieces within clusters": (
        (1 << 30) + 512,
        [(4096, 100), (CLUSTER, 1), (5 * CLUSTER - 1, 2), (700 << 20, 9 * CLUSTER + 5)],
    ),
    "up to its last byte": ((512 << 20) + 70_000, [(0, 70_000), ((512 << 20), 70_000)]),
    "with more clusters than one table or chunk has": (
        (4100 << 20) + 1024,
        [(0, 1), (2 << 30, 3 << 20), ((4096 << 20) - 5, 10), ((4100 << 20) + 512, 512)],
    ),
}


def known_of(size: int, data: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """The ranges of a disk, as whoever has it tells them: in blocks of 4 KiB."""
    known: list[tuple[int, int, int]] = []
    at = 0
    for offset, length in data:
        begin, end = offset // 4096 * 4096, min(-(-(offset + length) // 4096) * 4096, size)
        known += [(at, begin - at, 0)] if begin > at else []
        known += [(max(begin, at), end - max(begin, at), 1)] if end > at else []
        at = max(at, end)
    return known + ([(at, size - at, 0)] if at < size else [])


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_restored_is_sound_and_the_same_and_no_larger(
    pool: Pool, tmp_path: Path, image_format: str, shape: str
) -> None:
    size, data = SHAPES[shape]
    size = size // 512 * 512
    data = [(offset, min(length, size - offset)) for offset, length in data]
    disk = a_disk(tmp_path / "disk.raw", size, data)
    image = stored(pool, disk, known_of(size, data))
    made = tmp_path / "made"
    disk_images.create(made, image_format, size)
    sink = DiskSink.image(str(made), image_format, size=size)
    done = pool.restore_disk(image.id, DISK, sink, verify=True).result()
    assert (done.files, done.verified_files) == (1, 1)
    assert sink.kept_until == size
    sink.close()
    assert_same(disk, image_format, made)
    assert made.stat().st_blocks * 512 < 2 * sum(one for _, one in data) + (2 << 20)


@pytest.mark.parametrize("image_format", LAID_OUT)
@pytest.mark.parametrize("seed", range(3))
def test_any_data_is_restored_to_any_format(
    pool: Pool, tmp_path: Path, image_format: str, seed: int
) -> None:
    chance = random.Random(seed)
    data: list[tuple[int, int]] = []
    at = 0
    for _ in range(chance.randrange(1, 60)):
        at += chance.choice([0, 1, 511, CLUSTER - 1, CLUSTER, 1 << 20, 9 << 20])
        length = chance.choice([1, 512, 4096, CLUSTER, CLUSTER + 1, chance.randrange(1, 1 << 20)])
        data.append((at, length))
        at += length
    # No whole sectors, too: what is missing of the last one reads as zero.
    size = at + chance.choice([0, 1, 300_000])
    disk = a_disk(tmp_path / "disk.raw", size, data, seed)
    image = stored(pool, disk, known_of(size, data))
    made = tmp_path / "made"
    sink = DiskSink.image(str(made), image_format, size=size)
    assert sink.size == -(-size // 512) * 512
    pool.restore_disk(image.id, DISK, sink, verify=True).result()
    assert_same(disk, image_format, made)


@pytest.mark.parametrize("image_format", LAID_OUT)
@pytest.mark.parametrize("size", [512, 100_000_256, (5 << 30) + 512, 150 << 30])
def test_qemu_tells_of_it_what_it_tells_of_its_own(
    pool: Pool, tmp_path: Path, image_format: str, size: int
) -> None:
    disk = a_disk(tmp_path / "disk.raw", size, [(0, 512)])
    image = stored(pool, disk, [(0, 512, 1)] + ([(512, size - 512, 0)] if size > 512 else []))
    told = []
    for directory in (tmp_path / "ours", tmp_path / "qemus"):
        directory.mkdir()
        made = directory / "made"
        disk_images.create(made, image_format, -(-size // 512) * 512)
        if directory.name == "ours":
            sink = DiskSink.image(str(made), image_format, size=size)
            pool.restore_disk(image.id, DISK, sink).result()
        said = disk_images.run("qemu-img", "info", "--output=json", "-f", image_format, made)
        told.append(without_chance(json.loads(said.replace(str(directory), ""))))
    assert told[0] == told[1]


def without_chance(told: dict[str, Any]) -> dict[str, Any]:
    """What is told of a file, but for what differs between any two."""
    gone = ("actual-size", "cid", "children")
    kept = {key: value for key, value in told.items() if key not in gone}
    for key in ("format-specific", "data"):
        if isinstance(kept.get(key), dict):
            kept[key] = without_chance(kept[key])
    return kept


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
    # Clusters lie in the order of the disk, so that is the rest of the file.
    begin = 10 << 20
    mark = disk.read_bytes()[begin : begin + 64]
    place = made.read_bytes().index(mark)
    assert place == begin or image_format != "raw"
    with made.open("r+b") as file:
        file.seek(place)
        file.write(os.urandom(made.stat().st_size - place))
    sink = DiskSink.image(str(made), image_format, size=size, begin=begin)
    assert sink.kept_until == begin
    done = pool.restore_disk(image.id, DISK, sink, verify=True).result()
    assert done.verified_files == 1
    assert_same(disk, image_format, made)
    # What was zeroed is a hole again, but for what a reader never sees: behind the disk's end.
    behind = -size % (8 << 20) if image_format == "vhdx" else 0
    held = sum(length for _, length in data)
    assert made.stat().st_blocks * 512 < held + behind + (2 << 20)


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_file_that_was_not_begun_so_is_not_gone_on_with(
    pool: Pool, tmp_path: Path, image_format: str
) -> None:
    size = 40 << 20
    image = stored(pool, a_disk(tmp_path / "disk.raw", size, [(0, 1 << 20)]))
    made = disk_images.create(tmp_path / "made", image_format, size + CLUSTER)
    if image_format in LAID_OUT:
        other = stored(pool, a_disk(tmp_path / "other.raw", size, [(17 << 20, 1 << 20)]))
        sink = DiskSink.image(str(made), image_format, size=size)
        pool.restore_disk(other.id, DISK, sink).result()
    assert_not_gone_on_with(pool, image, made, image_format, size)


@pytest.mark.parametrize(
    ("image_format", "head_bytes"),
    [("qcow2", 5 * CLUSTER), ("vmdk", CLUSTER), ("vhdx", 4 << 20), ("vdi", 1 << 20)],
)
def test_a_foreign_file_of_the_same_length_is_not_gone_on_with(
    pool: Pool, tmp_path: Path, image_format: str, head_bytes: int
) -> None:
    size = 40 << 20
    image = stored(pool, a_disk(tmp_path / "disk.raw", size, [(0, 1 << 20)]))
    made = tmp_path / "made"
    sink = DiskSink.image(str(made), image_format, size=size)
    pool.restore_disk(image.id, DISK, sink).result()
    # One bit anywhere in what readers find data by.
    last = len(made.read_bytes()[:head_bytes].rstrip(b"\0")) - 1
    for at in (0, last, head_bytes - 1):
        with made.open("r+b") as file:
            file.seek(at)
            before = file.read(1)
            file.seek(at)
            file.write(bytes([before[0] ^ 1]))
        assert_not_gone_on_with(pool, image, made, image_format, size)
        with made.open("r+b") as file:
            file.seek(at)
            file.write(before)
    sink = DiskSink.image(str(made), image_format, size=size, begin=1 << 20)
    pool.restore_disk(image.id, DISK, sink).result()


def assert_not_gone_on_with(
    pool: Pool, image: Image, made: Path, image_format: str, size: int
) -> None:
    before = made.read_bytes()
    sink = DiskSink.image(str(made), image_format, size=size, begin=1 << 20)
    with pytest.raises(IntegrityError, match="began it"):
        pool.restore_disk(image.id, DISK, sink).result()
    assert made.read_bytes() == before


def test_a_disk_that_its_format_can_t_hold_is_refused_in_words(pool: Pool, tmp_path: Path) -> None:
    empty = stored(pool, a_disk(tmp_path / "disk.raw", 0, []))
    for image_format, size, said in [
        ("vmdk", 0, "0 bytes can't be a VMDK file"),
        ("vhdx", 0, "0 bytes can't be a VHDX file"),
        ("vhdx", (64 << 40) + 512, "too large for a VHDX file"),
        ("vdi", 513 << 40, "too large for a VDI file"),
        ("vmdk", (1 << 50) + 512, "too large for a VMDK file"),
        ("qcow2", (2 << 50) + 512, "too large for a qcow2 file"),
    ]:
        sink = DiskSink.image(str(tmp_path / "made"), image_format, size=size)
        with pytest.raises(Invalid, match=said):
            pool.restore_disk(empty.id, DISK, sink).result()
        assert (tmp_path / "made").stat().st_size == 0


def test_another_format_or_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="vpc"):
        DiskSink.image(str(tmp_path / "new"), "vpc", size=512)
    assert not (tmp_path / "new").exists()
    with pytest.raises(HoldfastError, match="opening the disk"):
        DiskSink.image(str(tmp_path), "qcow2", size=512)
