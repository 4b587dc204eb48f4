"""How fast a disk is read over NBD: from qemu-nbd, and from Holdfast as a file and in an image.

Run it with the interpreter of the environment: ``python benchmarks/nbd.py --mib 1500``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.engine import DiskInput, DiskSource, Pool, PoolConfig
from holdfast.sources.nbd import client
from holdfast.sources.nbd.qemu_nbd import image_node, serving
from holdfast.sources.nbd.server import shown
from holdfast.sources.nbd.wire import Address

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.engine import FileReader

MIB = 1024 * 1024
SMALL = 40_000


class RawFile:
    """A file, all of it data, as the server wants it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._fd).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def data_extents(self, offset: int, length: int) -> list[tuple[int, int]]:
        return [(offset, length)]


def read_by_engine(address: Address, size: int) -> None:
    with client.sockets(address, count=2) as given:
        source = DiskSource.nbd(given.fds, size=size, structured=given.export.structured)
        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(lambda at: source.read_at(at, 4 * MIB), range(0, size, 4 * MIB)):
                pass


def measure(address: Address, size: int) -> dict[str, float]:
    """Bytes a second of the engine and of nbdcopy; small requests a second of qemu."""
    url = f"nbd+unix:///?socket={address.path}"
    small = ["qemu-img", "bench", "-f", "raw", "-c", str(SMALL), "-d", "8", "-s", "4096"]
    found = {}
    kinds: dict[str, Callable[[], None]] = {
        "engine": lambda: read_by_engine(address, size),
        "nbdcopy": lambda: run("nbdcopy", "--connections=4", url, "null:"),
        "small": lambda: run(*small, "-S", str(MIB), url),
    }
    for name, work in kinds.items():
        begun = time.monotonic()
        work()
        spent = time.monotonic() - begun
        found[name] = SMALL / spent if name == "small" else size / spent
    return found


def in_an_image(work: Path, disk: Path) -> FileReader:
    """The disk in an image, whose clients the engine answers; a pool that keeps 256 MiB."""
    shutil.rmtree(work / "pool", ignore_errors=True)
    (work / "pool").mkdir()
    pool = Pool.create(str(work / "pool"), bytes(32), PoolConfig(), 0)
    pool.keep_blocks(256 * MIB)
    size = disk.stat().st_size
    image = pool.backup_machine(
        files={"machine.json": b"{}"},
        disks=[DiskInput("vda", size, [(0, size, 1)], DiskSource.file(str(disk)), 0)],
        source="machine:bench",
        host="bench",
        started_ns=1,
    ).result()
    return pool.open_file(image.id, b"/disks/vda")


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Measure, and write the figures to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1500, help="size of the disk")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--work", type=Path, default=Path("/dev/shm"), help="where the disk is")
    given = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory(dir=given.work) as name:
        disk, socket = Path(name, "disk.raw"), Path(name, "socket")
        with disk.open("wb") as file:
            for _ in range(given.mib):
                file.write(os.urandom(MIB))
        size = disk.stat().st_size
        for _ in range(given.rounds):
            load = os.getloadavg()[0]
            with serving(image_node(disk, "raw"), "the disk") as served:
                qemu = measure(served.address, size)
            with shown({"": RawFile(disk)}, Address(str(socket))) as address:
                own = measure(address, size)
            stored = in_an_image(Path(name), disk)
            with shown({"": stored}, Address(str(socket))) as address:
                image = measure(address, size)
            rounds.append({"load": load, "qemu-nbd": qemu, "holdfast": own, "image": image})
    json.dump({"bytes": size, "rounds": rounds}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
