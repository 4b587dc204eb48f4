"""Disks in memory that an NBD server shows."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from holdfast.engine import DiskInput, DiskSource, Pool, PoolConfig

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.engine import FileReader


class MemoryDisk:
    """Bytes, with holes of whole pages; it may refuse a range, or wait to be let go on."""

    def __init__(self, content: bytes, page: int = 4096) -> None:
        self.content = content
        self.size = len(content)
        self.bad: range = range(0)
        self.reads: list[tuple[int, int]] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self._page = page

    def read_at(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        self.may_go.wait(60)
        if range(max(offset, self.bad.start), min(offset + length, self.bad.stop)):
            raise OSError(5, "a bad sector")
        return self.content[offset : offset + length]

    def data_extents(self, offset: int, length: int) -> list[tuple[int, int]]:
        page, found = self._page, []
        for at in range(offset // page * page, min(offset + length, self.size), page):
            if any(self.content[at : at + page]):
                found.append((at, min(page, self.size - at)))
        return found


def spotted(size: int) -> bytes:
    """Data at some places, zeroes at others."""
    content = bytearray(size)
    for number, at in enumerate(range(0, size - 70_000, 300_000)):
        content[at + 1000 : at + 70_000] = bytes([1 + number % 255]) * 69_000
    return bytes(content)


def stored_disk(at: Path, content: bytes) -> FileReader:
    """A disk of an image, in a pool of its own below a directory."""
    raw, pool_path = at / "disk.raw", at / "pool"
    raw.write_bytes(content)
    pool_path.mkdir()
    pool = Pool.create(str(pool_path), bytes(32), PoolConfig(), 0)
    whole = [(0, len(content), 1)]
    image = pool.backup_machine(
        files={"machine.json": b"{}"},
        disks=[DiskInput("vda", len(content), whole, DiskSource.file(str(raw)), 0)],
        source="machine:shown",
        host="here",
        started_ns=1,
    ).result()
    return pool.open_file(image.id, b"/disks/vda")
