"""Images of virtual machines: what a disk was read by makes no difference to what it holds."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import Invalid
from holdfast.engine import DiskInput, DiskSource, Image, Pool, PoolConfig

if TYPE_CHECKING:
    from pathlib import Path

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
