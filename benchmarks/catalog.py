"""Measure the catalog on trees made from a seed: feeding, asking, expiring, rebuilding.

    python benchmarks/catalog.py [--files 500000] [--changes 1560] [--images 5] [--json FILE]

The trees stand in for the engine, ready as batches before the clock starts, so the figures are
those of the catalog alone. Prints a table, and JSON with the same figures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import shutil
import sqlite3
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base.clock import SystemClock
from holdfast.base.errors import ImageMissing
from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog, ChangeRow, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEED = 20240229
FILES_IN_A_DIRECTORY = 12
BATCH_ROWS = 50_000
ENDINGS = (".py", ".txt", ".JPG", ".c", ".h", ".html", ".o", ".json", ".pdf", "")


@dataclass(frozen=True, slots=True)
class Batch:
    dirs: list[bytes]
    rows: list[ChangeRow]


@dataclass(frozen=True, slots=True)
class Image:
    id: str
    number: int
    source: str = "bench:/"
    host: str = "bench"
    started_ns: int = 0
    finished_ns: int = 0
    parent: str | None = None
    status: str = "completed"
    findings_total: int = 0
    software: str = "benchmark"
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def stats(self) -> dict[str, int]:
        return {}


class MadePool:
    """Images of one source; each after the first changes the same number of files."""

    id = bytes(16)

    def __init__(self, files: int, changes: int, images: int) -> None:
        self._rng = random.Random(SEED)
        self._words = ["".join(self._letters(self._rng.randint(3, 9))) for _ in range(3000)]
        self._feeds: dict[str, list[Batch]] = {}
        self._images: dict[str, Image] = {}
        full = list(self._full(files))
        self._add(full)
        for _ in range(1, images):
            self._add([self._changed(full, changes)])

    def images(self) -> list[Manifest]:
        return list(self._images.values())

    def image(self, id: str, /) -> Manifest:  # noqa: A002
        if id not in self._images:
            raise ImageMissing(f"no image {id}")
        return self._images[id]

    def changes(self, old: str | None, new: str | None, /) -> Iterator[Batch]:
        assert new is not None
        before = self._images[new].number - 1
        assert (old is None) == (before == 0)
        return iter(self._feeds[new])

    def expire(self, image: str) -> None:
        del self._images[image]

    def _add(self, feed: list[Batch]) -> None:
        number = len(self._images) + 1
        identity = hashlib.blake2b(b"%d" % number, digest_size=16).hexdigest()
        self._images[identity] = Image(identity, number, started_ns=number * 10**9)
        self._feeds[identity] = feed

    def _letters(self, count: int) -> list[str]:
        return self._rng.choices("abcdefghijklmnopqrstuvwxyz", k=count)

    def _name(self) -> bytes:
        rng, words = self._rng, self._words
        ending = rng.choice(ENDINGS)
        if rng.random() < 0.4:
            return f"{rng.choice(words)}{ending}".encode()
        return (
            f"{rng.choice(words)}_{rng.choice(words).title()}{rng.randrange(9999)}{ending}".encode()
        )

    def _row(self, slot: int, name: bytes, change: int) -> ChangeRow:
        rng = self._rng
        mtime_ns = 1_700_000_000_000_000_000 + rng.randrange(10**15)
        return (slot, name, change, 0, rng.randrange(10**6), mtime_ns, 0o644, 1000, 1000,
                rng.randrange(10**8))  # fmt: skip

    def _full(self, files: int) -> Iterator[Batch]:
        left, number = files, 0
        dirs: list[bytes] = [b"/"]
        rows: list[ChangeRow] = []
        pending = [b"/"]
        while left > 0:
            parent = pending[number // 20]
            name = f"{self._words[number % len(self._words)]}{number}".encode()
            path = (b"" if parent == b"/" else parent) + b"/" + name
            pending.append(path)
            number += 1
            slot = len(dirs)
            dirs += [parent, path]
            rows.append((slot, name, 1, 1, 0, 1_700_000_000_000_000_000, 0o755, 1000, 1000, number))
            names = sorted({self._name() for _ in range(min(FILES_IN_A_DIRECTORY, left))})
            rows += [self._row(slot + 1, name, 1) for name in names]
            left -= len(names)
            if len(rows) >= BATCH_ROWS:
                yield Batch(dirs, rows)
                dirs, rows = [b"/"], []
        yield Batch(dirs, rows)

    def _changed(self, full: list[Batch], changes: int) -> Batch:
        dirs: list[bytes] = []
        rows: list[ChangeRow] = []
        seen: set[tuple[bytes, bytes]] = set()
        while len(rows) < changes:
            batch = self._rng.choice(full)
            slot, name, _, kind, *_ = self._rng.choice(batch.rows)
            if kind == 0 and (batch.dirs[slot], name) not in seen:
                seen.add((batch.dirs[slot], name))
                dirs.append(batch.dirs[slot])
                rows.append(self._row(len(dirs) - 1, name, 3))
        return Batch(dirs, rows)


def timed(act: Callable[[], object]) -> tuple[float, object]:
    begin = time.perf_counter()
    result = act()
    return time.perf_counter() - begin, result


def median_ms(act: Callable[[], object], times: int = 50) -> float:
    return statistics.median(timed(act)[0] for _ in range(times)) * 1000


def measure(directory: Path, files: int, changes: int, images: int) -> dict[str, float]:
    pool = MadePool(files, changes, images)
    rng = random.Random(SEED)
    figures: dict[str, float] = {}
    with Catalog.open(directory, SystemClock()) as catalog:
        ids = [ImageId(one.id) for one in pool.images()]
        for one in pool.images():
            catalog.record_image(one, pool.id.hex())
        cpu = time.process_time()
        seconds, rows = timed(lambda: catalog.ingest(pool, ids[0]))
        assert isinstance(rows, int)
        cpu = time.process_time() - cpu
        figures["full: rows"] = rows
        figures["full: seconds"] = seconds
        figures["full: CPU seconds"] = cpu
        figures["full: rows/s"] = rows / seconds
        figures["full: rows/CPU second"] = rows / cpu
        stored = sum(file.stat().st_size for file in (directory / "files").iterdir())
        figures["full: bytes/version"] = stored / rows
        cpu = time.process_time()
        later = [timed(partial(catalog.ingest, pool, image))[0] for image in ids[1:]]
        figures["incremental: changes"] = changes
        figures["incremental: ms"] = statistics.median(later) * 1000
        figures["incremental: CPU ms"] = (time.process_time() - cpu) / len(later) * 1000

        paths = [row.path for row in catalog.find("7", limit=2000) if row.kind == "dir"]
        figures["list a directory: ms"] = median_ms(
            lambda: catalog.list_directory(ids[0], rng.choice(paths))
        )
        some = [row.path for row in catalog.find("*.json", limit=200) if row.kind == "file"]
        figures["versions of a path: ms"] = median_ms(
            lambda: catalog.versions("bench:/", rng.choice(some))
        )
        terms = [
            row.path.rpartition(b"/")[2][2:9].decode() for row in catalog.find("*_*", limit=50)
        ]
        figures["search, first 100: ms"] = median_ms(
            lambda: list(catalog.find(rng.choice(terms), limit=100))
        )
        figures["search *.json, first 100: ms"] = median_ms(
            lambda: list(catalog.find("*.json", limit=100))
        )
        figures["search 2 letters, first 100: ms"] = median_ms(
            lambda: list(catalog.find("qz", limit=100)), 5
        )
        seconds, found = timed(lambda: sum(1 for _ in catalog.find("*")))
        assert isinstance(found, int)
        figures["stream everything: rows/s"] = found / seconds

        if images > 2:
            pool.expire(ids[1])
            figures["expire one image: ms"] = timed(lambda: catalog.expire(ids[1]))[0] * 1000
    with tempfile.TemporaryDirectory(dir=directory) as other:
        again = MadePool(files, changes, images)
        with Catalog.open(Path(other), SystemClock()) as catalog:
            cpu = time.process_time()
            seconds, _ = timed(lambda: catalog.rebuild(again))
            cpu = time.process_time() - cpu
        rows = figures["full: rows"] + (images - 1) * changes
        figures["rebuild: rows/s"] = rows / seconds
        figures["rebuild: rows/CPU second"] = rows / cpu
    # not the trees: those are in memory here, and in the engine elsewhere
    figures["peak memory with the trees: MiB"] = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--files", type=int, default=500_000)
    parser.add_argument("--changes", type=int, default=1560)
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--directory", type=Path, help="measure on this disk")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="catalog-", dir=options.directory))
    try:
        figures = measure(directory, options.files, options.changes, options.images)
    finally:
        shutil.rmtree(directory)
    print(f"catalog of {options.files:,} files, SQLite {sqlite3.sqlite_version}\n")
    for name, value in figures.items():
        print(f"{name:36} {value:>14,.2f}" if value < 1000 else f"{name:36} {value:>14,.0f}")
    report = {"files": options.files, "sqlite": sqlite3.sqlite_version, "figures": figures}
    print("\n" + json.dumps(report))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
