"""Measure how fast the files inside of machines' images are listed, indexed and read.

    python benchmarks/files_in_machines.py [--files 50000] [--kinds ext4,ntfs]
        [--large-mib 256] [--json FILE]

Makes a file system of each kind with so many small files and a large one, puts it into a pool
as the disk of a machine, and times: the walk of the raw disk, the indexing from the pool (walk and
index image), the feeding of the catalog, and the large file out of the image. Needs root, to mount.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from holdfast.base.clock import SystemClock  # noqa: E402 - the path comes first
from holdfast.base.ids import pool_id  # noqa: E402
from holdfast.control.catalog import Catalog  # noqa: E402
from holdfast.engine import Pool, PoolConfig  # noqa: E402
from holdfast.movers.machines.inside import Inside  # noqa: E402
from holdfast.site.machine_indexes import index_machine  # noqa: E402
from tests.kit.disks import MIB, FileDisk, blank, mounted, run  # noqa: E402
from tests.kit.machine_images import back_up  # noqa: E402

GOAL_S = 10.0
"""For 50,000 files of ext4 or NTFS, from the pool to an index."""

IN_A_DIRECTORY = 500

_MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-N", "200000"],
    "ntfs": ["mkfs.ntfs", "-q", "-Q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}


@dataclass(frozen=True)
class Measured:
    """What was measured of one file system."""

    kind: str
    names: int
    walk_s: float
    index_s: float
    feed_s: float
    read_mb_per_s: float


def make(kind: str, directory: Path, files: int, large: int) -> Path:
    """A disk with so many files."""
    path = blank(directory / kind, 2048 * MIB)
    run(*_MAKE[kind], path)
    with mounted(path, directory / "mnt", *(["ntfs-3g"] if kind == "ntfs" else [])) as at:
        for number in range(files):
            below = at / f"directory-{number // IN_A_DIRECTORY:04d}"
            if number % IN_A_DIRECTORY == 0:
                below.mkdir()
            (below / f"file-{number:06d}.txt").write_bytes(b"%d" % number * (number % 50))
        (at / "large").write_bytes(os.urandom(large))
    return path


def measure(kind: str, files: int, directory: Path, large: int) -> Measured:
    """Make one, and measure."""
    disk = make(kind, directory, files, large)
    with FileDisk(disk) as raw, Inside({"vda": raw}) as inside:
        began = time.monotonic()
        names = sum(len(one.entries) for one in inside.walk(inside.volumes[0]))
        walk_s = time.monotonic() - began
    place = directory / f"pool-{kind}"
    place.mkdir()
    pool = Pool.create(str(place), bytes(32), PoolConfig(), 0)
    image = back_up(pool, {"vda": disk})
    with Catalog.open(directory / f"catalog-{kind}", SystemClock()) as catalog:
        catalog.record_image(pool.image(image), pool_id(pool.id))
        began = time.monotonic()
        indexed = index_machine(catalog, pool, image)
        index_s = time.monotonic() - began
        began = time.monotonic()
        for one in catalog.pending():
            catalog.ingest(pool, one)
        feed_s = time.monotonic() - began
    if indexed != names:
        raise SystemExit(f"{indexed} names were indexed, and {names} walked")
    with Inside.of_image(pool, image) as inside:
        entry = inside.entry(b"/vda/fs/large")
        if entry.volume is None or entry.found is None:
            raise SystemExit("the large file is gone")
        began = time.monotonic()
        got = sum(
            len(data) for _, data in inside.files(entry.volume).read(entry.found, entry.place)
        )
        read_s = time.monotonic() - began
    if got != large:
        raise SystemExit(f"{got} bytes came back of {large}")
    disk.unlink()
    return Measured(kind, names, walk_s, index_s, feed_s, large / 1e6 / read_s)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--kinds", default="ext4,ntfs")
    parser.add_argument("--large-mib", type=int, default=256)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as directory:
        kinds = asked.kinds.split(",")
        found = [
            measure(kind, asked.files, Path(directory), asked.large_mib * MIB) for kind in kinds
        ]
    print(f"{'':6}  {'names':>8}  {'walk s':>7}  {'index s':>8}  {'feed s':>7}  {'read MB/s':>9}")
    for one in found:
        print(
            f"{one.kind:6}  {one.names:8,}  {one.walk_s:7.2f}  {one.index_s:8.2f}  "
            f"{one.feed_s:7.2f}  {one.read_mb_per_s:9.0f}"
        )
    cpu = subprocess.run(["nproc"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"load {load:.1f} at the beginning, {cpu} processors, {platform.release()}")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
