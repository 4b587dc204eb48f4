"""A disk made from a seed, changed, and put into pools: what measurements of disks share.

Must not decide what is measured. Invariant: what is timed is told at once, and every time that was
taken is in `Bench.figures`.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import statistics
import subprocess
import time
from typing import TYPE_CHECKING

from holdfast.engine import DiskInput, DiskSource, Image, Pool, PoolConfig
from holdfast.sources.machines.provider import SnapshotOrder
from holdfast.sources.machines.providers import open_provider
from holdfast.sources.nbd import client, qemu_nbd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holdfast.sources.machines.provider import Provider

Figures = dict[str, dict[str, list[float]]]
"""What was taken, by what was measured: every number of each unit, in order."""

KEY = bytes(range(32))
MIB = 1 << 20
GRAIN = 1 << 16
HOLE, DATA, SAME = 0, 1, 2


def make_disk(path: Path, size: int) -> None:
    """Write the disk, a stretch of each sort after the other."""
    made = random.Random(1)
    words = [made.randbytes(made.randrange(3, 12)) for _ in range(4000)]
    text = b" ".join(made.choices(words, k=3 * MIB // 8))
    with path.open("wb") as file:
        file.truncate(size)
        for at in range(0, size, 6 * MIB):
            shift = made.randrange(len(text) - 2 * MIB)
            file.seek(at)
            file.write(text[shift : shift + 2 * MIB][: size - at])
            file.seek(at + 2 * MIB)
            file.write(made.randbytes(max(0, min(2 * MIB, size - at - 2 * MIB))))


def clone(path: Path, size: int, to: int) -> None:
    """Make the disk larger by the same data again, as disks have it that were cloned.

    Chunks of it are known, lists of them are not.
    """
    os.truncate(path, to)
    with path.open("r+b") as file:
        for at in range(size, to, 16 * MIB):
            file.seek(at % size)
            piece = file.read(16 * MIB)
            file.seek(at)
            file.write(piece[: to - at])


def change(path: Path, size: int, pieces: int, seed: int) -> list[tuple[int, int, int]]:
    """Change so many pieces of 64 KiB, which lie anywhere on the disk; the ranges of it."""
    made = random.Random(seed)
    grains = sorted(made.sample(range(size // GRAIN), pieces))
    ranges, at = [], 0
    with path.open("r+b") as file:
        for grain in grains:
            file.seek(grain * GRAIN)
            file.write(made.randbytes(GRAIN))
            if grain * GRAIN > at:
                ranges.append((at, grain * GRAIN - at, SAME))
            ranges.append((grain * GRAIN, GRAIN, DATA))
            at = (grain + 1) * GRAIN
    if at < size:
        ranges.append((at, size - at, SAME))
    return ranges


def processor_s() -> float:
    """What this process and programs that it ran have used, to the microsecond."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Bench:
    """One disk, and the pools it goes into."""

    def __init__(self, work: Path, size: int, rounds: int, figures: Figures | None = None) -> None:
        self.work, self.size, self.rounds = work, size, rounds
        self.disk = work / "disk.raw"
        self.figures: Figures = {} if figures is None else figures

    def one_round(self) -> Bench:
        """The same, for what takes turns."""
        return Bench(self.work, self.size, 1, self.figures)

    def note(self, name: str, **taken: float) -> None:
        """Keep what was taken, a number of each unit."""
        kept = self.figures.setdefault(name, {})
        for unit, value in taken.items():
            kept.setdefault(unit, []).append(round(value, 4))

    def best(self, name: str, act: Callable[[], object], prepare: Callable[[], object]) -> float:
        """The shortest time of `act`, told."""
        times = []
        for _ in range(self.rounds):
            prepare()
            started, before = time.perf_counter(), processor_s()
            act()
            times.append((time.perf_counter() - started, processor_s() - before))
            self.note(name, seconds=times[-1][0], processors_s=times[-1][1])
        took, worked = min(times)
        speed = f"{self.size / took / 1e6:6.0f} MB/s"
        print(f"{name:<44} {took:6.2f} s {worked:6.2f} s of processors {speed}", flush=True)
        return took

    def new_pool(self) -> Pool:
        """An empty pool."""
        shutil.rmtree(self.work / "pool", ignore_errors=True)
        (self.work / "pool").mkdir()
        return Pool.create(str(self.work / "pool"), KEY, PoolConfig(), 0)

    def back_up(
        self,
        pool: Pool,
        source: DiskSource,
        ranges: list[tuple[int, int, int]] | None = None,
        parent: Image | None = None,
    ) -> Image:
        """An image of the disk."""
        whole = [(0, self.size, DATA)]
        return pool.backup_machine(
            files={"machine.json": b"{}"},
            disks=[DiskInput("vda", self.size, ranges or whole, source, 0)],
            source="machine:bench",
            host="bench",
            started_ns=1,
            parent=parent.id if parent else None,
        ).result()

    def run(self, *command: object) -> None:
        """Run a program."""
        subprocess.run([str(one) for one in command], check=True, stdout=subprocess.DEVNULL)

    def back_up_machine(self, pool: Pool, provider: Provider) -> Image:
        """An image of the only machine that somebody has: frozen, looked at, read whole."""
        (machine,) = provider.machines()
        order = SnapshotOrder(machine.uuid, None, False, False, self.work, "bench")
        with provider.snapshot(order) as frozen:
            ranges = [(one.offset, one.length, int(one.kind)) for one in frozen.disks[0].ranges()]
            return self.back_up(pool, frozen.disks[0].source(), ranges)

    def back_up_file(self, pool: Pool, path: Path) -> Image:
        """An image of a disk file, as a directory of them is backed up: opened, looked at, read."""
        return self.back_up_machine(pool, open_provider("diskfiles", str(path.parent)))

    @contextlib.contextmanager
    def served(self, path: Path, image_format: str = "raw") -> Iterator[DiskSource]:
        """The disk as qemu-nbd has it."""
        with (
            qemu_nbd.serving(qemu_nbd.image_node(path, image_format), "bench") as served,
            client.sockets(served.address, count=4) as sockets,
        ):
            export = sockets.export
            yield DiskSource.nbd(sockets.fds, size=export.size, structured=export.structured)


def middle_and_spread(found: list[float]) -> str:
    """The median of ratios, the least and the most."""
    middle, least, most = statistics.median(found), min(found), max(found)
    return f"{middle:.0%} ({least:.0%} to {most:.0%})"
