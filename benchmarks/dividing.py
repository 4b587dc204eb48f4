"""Measure how well like directories divide: ``python benchmarks/dividing.py [--directories N]``.

Makes so many directories beside each other, with files of about the same size in each, in memory,
and divides them into four streams, by names and by how names begin. Prints the largest stream's
part of what it would be if all were alike, how many things streams take, and how long it took.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from holdfast.movers.streams import divide_path  # noqa: E402 - the path comes first
from holdfast.wire.dividing import DivideOrder  # noqa: E402

MEMORY = Path("/dev/shm")
STREAMS = 4


def main(words: list[str] | None = None) -> int:
    """Measure, and print."""
    options = argparse.ArgumentParser(description="Measure how like directories divide.")
    options.add_argument("--directories", type=int, default=10_000)
    given = options.parse_args(words)
    chance = random.Random(7)
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        for number in range(given.directories):
            home = Path(made) / "home" / f"user{number:06}"
            home.mkdir(parents=True)
            (home / "data").write_bytes(bytes(chance.randint(4_000, 12_000)))
        for by_prefix in (False, True):
            began_s = time.perf_counter()
            order = DivideOrder(made, (), False, STREAMS, by_prefix=by_prefix)
            report = divide_path(order)
            took_s = time.perf_counter() - began_s
            largest = max(report.sizes) * STREAMS / sum(report.sizes)
            taken = sum(map(len, report.taken))
            how = "by how names begin" if by_prefix else "by names"
            print(
                f"{how:20} largest stream {largest:.2f} of a share, {taken} taken, {took_s:.2f} s"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
