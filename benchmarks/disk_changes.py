"""Incrementals of a disk: what they cost by how much changed, and by how large the disk is.

Must not time anything else: disks and pools are `disk_bench`'s. Invariant: each incremental follows
the one before it on its disk, as those of a machine do, and the last one is restored and compared.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.disk_bench import (
    GRAIN,
    MIB,
    SAME,
    Bench,
    change,
    clone,
    make_disk,
    middle_and_spread,
    processor_s,
)
from holdfast.engine import DiskSink, DiskSource

if TYPE_CHECKING:
    from holdfast.engine import Image, Pool

SHARES = (0.5, 1.0, 2.0, 4.0)
"""Per cent of the disk that change."""

PLAIN = 1.0
"""What the others are held against."""

TIMES = 4
"""How often as large the other disk is, on which as much changes as `PLAIN` of the first."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one incremental took."""

    seconds: float
    processors_s: float
    read_bytes: int


@dataclass(slots=True)
class Chain:
    """A disk, and the image that the next incremental follows."""

    bench: Bench
    pool: Pool
    image: Image
    turns: int = 0

    @classmethod
    def begin(cls, bench: Bench, made: int) -> Chain:
        """Back a disk up: made so large, and then cloned to the size that it has here."""
        make_disk(bench.disk, made)
        clone(bench.disk, made, bench.size)
        pool = bench.new_pool()
        return cls(bench, pool, bench.back_up(pool, DiskSource.file(str(bench.disk))))

    def next(self, pieces: int) -> Taken:
        """Change so many pieces of 64 KiB anywhere, and back up what changed."""
        self.turns += 1
        ranges = change(self.bench.disk, self.bench.size, pieces, self.turns)
        source = DiskSource.file(str(self.bench.disk))
        os.sync()
        before, started = processor_s(), time.perf_counter()
        self.image = self.bench.back_up(self.pool, source, ranges, self.image)
        took = time.perf_counter() - started
        return Taken(took, processor_s() - before, self.image.stats["bytes_read"])

    def compare(self) -> None:
        """Make sure that the last image holds what is on the disk."""
        copy = self.bench.work / "copy"
        sink = DiskSink.file(str(copy), self.bench.size)
        self.pool.restore_disk(self.image.id, b"/disks/vda", sink).result()
        self.bench.run("cmp", self.bench.disk, copy)
        copy.unlink()


def measure_incrementals(bench: Bench) -> None:
    """Several amounts of change on one disk, and one of them on a larger disk, in turns."""
    print(f"disk of {bench.size // MIB} MiB; load before: {os.getloadavg()[0]:.2f}")
    large = bench.work / "large"
    large.mkdir()
    first = Chain.begin(bench, bench.size)
    other = Chain.begin(Bench(large, bench.size * TIMES, 1), bench.size)
    grains = bench.size // GRAIN
    cases = [(first, one, max(1, int(grains * one / 100))) for one in SHARES]
    cases.append((other, PLAIN / TIMES, max(1, int(grains * PLAIN / 100))))
    for chain in (first, other):
        # what is made once in the life of a process is no part of any amount
        chain.next(1)
    found: dict[str, list[Taken]] = {}
    pieces_of: dict[str, int] = {}
    for _ in range(bench.rounds):
        for chain, share, pieces in cases:
            name = f"{share:g} % of {chain.bench.size // MIB} MiB"
            taken = chain.next(pieces)
            found.setdefault(name, []).append(taken)
            pieces_of[name] = pieces
            bench.note(
                f"incremental, {name}",
                changed_bytes=pieces * GRAIN,
                read_bytes=taken.read_bytes,
                seconds=taken.seconds,
                processors_s=taken.processors_s,
            )
    first.compare()
    other.compare()
    show(found, pieces_of, f"{PLAIN:g} % of {bench.size // MIB} MiB")


def show(found: dict[str, list[Taken]], pieces_of: dict[str, int], plain: str) -> None:
    """Tell of all, and of each beside the plain one of its turn.

    Args:
        found: What was taken, by what changed.
        pieces_of: How many pieces that were.
        plain: The one that the others are held against.
    """
    head = f"{'changed':<20} {'MiB':>7} {'read':>6} {'s':>7} {'proc. s':>8}"
    print(f"{head}  beside {plain}: changed; s; processor s")
    for name, taken in found.items():
        changed = pieces_of[name] * GRAIN
        read = statistics.median(one.read_bytes for one in taken) / changed
        took = statistics.median(one.seconds for one in taken)
        worked = statistics.median(one.processors_s for one in taken)
        turns = list(zip(taken, found[plain], strict=True))
        times = middle_and_spread([one.seconds / other.seconds for one, other in turns])
        work = middle_and_spread([one.processors_s / other.processors_s for one, other in turns])
        much = pieces_of[name] / pieces_of[plain]
        print(
            f"{name:<20} {changed / MIB:7.1f} {read:5.2f}x {took:7.3f} {worked:8.3f}"
            f"  {much:.0%}; {times}; {work}",
            flush=True,
        )


def measure_growth(bench: Bench) -> None:
    """The same few changes on a disk and on one eight times as large."""
    for times in (1, 8):
        size = bench.size * times
        large = Bench(bench.work, size, bench.rounds, bench.figures)
        make_disk(large.disk, bench.size)
        clone(large.disk, bench.size, size)
        pool = large.new_pool()
        image = large.back_up(pool, DiskSource.file(str(large.disk)))
        took, read = [], 0
        part = bench.size // 16
        for number in range(max(5, bench.rounds)):
            few = change(large.disk, part, int(part // GRAIN * 0.05), number)
            ranges = [*few, (part, size - part, SAME)]
            source = DiskSource.file(str(large.disk))
            before = processor_s()
            started = time.perf_counter()
            image = large.back_up(pool, source, ranges, image)
            took.append((time.perf_counter() - started, processor_s() - before))
            read = image.stats["bytes_read"]
            large.note(
                f"few changes, {size // MIB} MiB",
                read_bytes=read,
                seconds=took[-1][0],
                processors_s=took[-1][1],
            )
        middle = sorted(took)[len(took) // 2]
        print(
            f"incremental of a disk of {size // MIB} MiB: {middle[0] * 1e3:.0f} ms,"
            f" {middle[1] * 1e3:.0f} ms of processors, {read >> 10} KiB read",
            flush=True,
        )
