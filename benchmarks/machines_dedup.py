"""Eight machines that share an operating system, and ten days of change, by the machines' own way.

    python benchmarks/machines_dedup.py [--machines 8] [--days 10] [--os /usr/bin] [--own-mib 48]

Each machine is a raw disk with ext4, made by `mke2fs` of a directory of this machine (`--os`, as
often as given) and of files of its own from a seed; `debugfs` changes files day by day. The disks
are backed up as machines are, from the second day on with the ranges of 64 KiB that changed. Beside
them the same disks in pieces of 4 MiB, each different one compressed by itself with zstd 2, and in
restic and kopia where these are installed. Prints sizes and ratios against the bytes that the raw
files have allocated. On a day more the disks are read whole, as when nobody knows what changed:
what of the chunks is known then is what others call cache hits. `--into` keeps the figures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard

from holdfast.engine import DiskInput, DiskSource, Pool, PoolConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.engine import Image

MIB, GRAIN, CELL = 1 << 20, 1 << 16, 4 << 20
DATA, SAME = 1, 2


def run(*command: object, env: dict[str, str] | None = None) -> None:
    """Run a program without a word."""
    subprocess.run([str(one) for one in command], check=True, env=env, capture_output=True)


def own_file(made: random.Random, size: int) -> bytes:
    """Half of it words, half of it noise."""
    words = [made.randbytes(made.randrange(3, 10)) for _ in range(500)]
    text = b" ".join(made.choices(words, k=size // 12))
    return (text + made.randbytes(size))[:size]


class Machine:
    """A disk, and what of it is not backed up yet."""

    def __init__(self, work: Path, number: int, system: list[Path], own_mib: int) -> None:
        self.name, self.disk = f"web{number}", work / f"web{number}.raw"
        self.random = random.Random(number)
        self.image: Image | None = None
        self._before = work / f"web{number}.before"
        self._given = work / "given"
        tree = work / "tree"
        for part in system:
            shutil.copytree(part, tree / part.name, symlinks=True, ignore_dangling_symlinks=True)
        (tree / "own").mkdir()
        for at in range(own_mib * 2):
            (tree / "own" / f"{at}").write_bytes(own_file(self.random, MIB // 2))
        self.files = own_mib * 2
        used = int(subprocess.check_output(["du", "-sm", tree]).split()[0])
        size = f"{used * 5 // 4 + 128}M"
        run("mke2fs", "-q", "-t", "ext4", "-d", tree, self.disk, size)
        shutil.rmtree(tree)

    @property
    def allocated(self) -> int:
        """Bytes that the raw file takes."""
        return self.disk.stat().st_blocks * 512

    def live_a_day(self) -> None:
        """Change some files, write some new ones, and take some away."""
        run("cp", "--sparse=always", self.disk, self._before)
        said = []
        for number in range(6):
            given = self._given.with_suffix(f".{number}")
            given.write_bytes(own_file(self.random, MIB // 2))
            at = self.random.randrange(self.files)
            said += [f"rm /own/{at}", f"write {given} /own/{at}"]
        orders = self._given.with_suffix(".orders")
        orders.write_text("\n".join(said) + "\n")
        run("debugfs", "-w", "-f", orders, self.disk)

    def ranges(self, *, whole: bool = False) -> list[tuple[int, int, int]]:
        """What changed, as a hypervisor's bitmap tells it."""
        size = self.disk.stat().st_size
        if whole or self.image is None:
            return [(0, size, DATA)]
        found: list[tuple[int, int, int]] = []
        with self.disk.open("rb") as now, self._before.open("rb") as before:
            for at in range(0, size, GRAIN):
                kind = SAME if now.read(GRAIN) == before.read(GRAIN) else DATA
                length = min(GRAIN, size - at)
                if found and found[-1][2] == kind:
                    found[-1] = (found[-1][0], found[-1][1] + length, kind)
                else:
                    found.append((at, length, kind))
        return found

    def back_up(self, pool: Pool, *, whole: bool = False) -> None:
        """Make an image."""
        size, source = self.disk.stat().st_size, DiskSource.file(str(self.disk))
        self.image = pool.backup_machine(
            files={"machine.json": b"{}"},
            disks=[DiskInput("vda", size, self.ranges(whole=whole), source, 0)],
            source=f"machine:{self.name}",
            host="bench",
            started_ns=1,
            parent=self.image.id if self.image else None,
        ).result()


def stored(directory: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


class Pieces:
    """Pieces of a fixed length, each stored once and compressed by itself."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()
        self._compressor = zstandard.ZstdCompressor(level=2)
        self.bytes = 0

    def take(self, disk: Path) -> None:
        """Store what is new."""
        for piece in pieces_of(disk):
            name = hashlib.blake2b(piece, digest_size=16).digest()
            if name not in self._known:
                self._known.add(name)
                self.bytes += len(self._compressor.compress(piece))


def pieces_of(disk: Path) -> Iterator[bytes]:
    """All that are not nothing but zeroes."""
    with disk.open("rb") as file:
        while piece := file.read(CELL):
            if piece.strip(b"\0"):
                yield piece


class Peer:
    """Another program that is installed."""

    def __init__(self, program: str, work: Path) -> None:
        self.program, self.place = program, work / program
        self._env = {
            **os.environ,
            "RESTIC_PASSWORD": "bench",
            "KOPIA_PASSWORD": "bench",
            "KOPIA_CONFIG_PATH": str(work / "kopia.config"),
            "KOPIA_CHECK_FOR_UPDATES": "false",
        }
        self.place.mkdir()
        if program == "restic":
            self._run("init", "--quiet", "--repo", self.place)
        else:
            self._run("repository", "create", "filesystem", "--path", self.place)
            self._run("policy", "set", "--global", "--compression", "zstd")

    def take(self, disk: Path) -> None:
        """Back up a disk."""
        if self.program == "restic":
            self._run("backup", "--quiet", "--repo", self.place, disk)
        else:
            self._run("snapshot", "create", disk)

    def _run(self, *arguments: object) -> None:
        run(self.program, *arguments, env=self._env)


def measure(work: Path, given: argparse.Namespace) -> None:
    """All days."""
    system = given.os or [Path("/usr/bin")]
    machines = [Machine(work, at, system, given.own_mib) for at in range(given.machines)]
    (work / "pool").mkdir()
    pool = Pool.create(str(work / "pool"), bytes(32), PoolConfig(), 0)
    pieces = Pieces()
    peers = [Peer(name, work) for name in ("restic", "kopia") if shutil.which(name)]
    figures: dict[str, float] = {}
    raw = new = 0
    for day in range(1, given.days + 1):
        for machine in machines:
            if day > 1:
                machine.live_a_day()
            machine.back_up(pool)
            assert machine.image is not None
            raw += machine.allocated
            new += machine.image.stats["bytes_new"]
            pieces.take(machine.disk)
            for peer in peers:
                peer.take(machine.disk)
        if day == 1:
            first = (raw, new)
        if day not in {1, given.days}:
            continue
        own = stored(work / "pool")
        figures |= {f"day {day}: allocated, MiB": raw / MIB, f"day {day}: pool, MiB": own / MIB}
        figures |= {f"day {day}: deduplication alone": raw / new}
        figures |= {f"day {day}: with compression": raw / own}
        others = [("pieces of 4 MiB", pieces.bytes)]
        others += [(peer.program, stored(peer.place)) for peer in peers]
        figures |= {f"day {day}: {name}, times the pool": size / own for name, size in others}
    if given.days > 1:
        known = 1 - (new - first[1]) / (raw - first[0])
        figures["later days: known of the bytes that are allocated, %"] = 100 * known
    looked_up = hit = 0
    for machine in machines:
        machine.live_a_day()
        machine.back_up(pool, whole=True)
        assert machine.image is not None
        looked_up += machine.image.stats["chunks_looked_up"]
        hit += machine.image.stats["chunks_hit"]
    figures["a day more, read whole: known of the chunks looked up, %"] = 100 * hit / looked_up
    for name, value in figures.items():
        print(f"{name}: {value:.2f}")
    if given.into:
        told = {"machines": given.machines, "days": given.days, "figures": figures}
        given.into.write_text(json.dumps(told, indent=2) + "\n")


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=8)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--os", type=Path, action="append", help="directory that all share")
    parser.add_argument("--own-mib", type=int, default=24)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--into", type=Path, default=None, help="file for the figures, as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        measure(Path(work), given)


if __name__ == "__main__":
    main()
