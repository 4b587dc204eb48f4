"""Measure the file catalog on trees made from a seed: feeding, asking, expiring, rebuilding.

    python benchmarks/catalog_files.py [--sources 4] [--files 200000] [--images 6] [--json FILE]
    python benchmarks/catalog_files.py --postgresql postgresql://user@host/empty

In files of SQLite, or in an empty database on a PostgreSQL server. All sources have the same tree;
it stands in for the engine, ready as batches before the clock starts, so the figures are those of
the catalog alone. Prints a table, and JSON with the same figures.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
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
from holdfast.control.catalog import Catalog, ChangeRow, Feeder, Manifest
from holdfast.control.database import Database

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
    source: str
    place: int
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
        # enough for a first feed to be given a processor of its own
        return {"files": 10**6}


class MadePool:
    """Images of some sources; each after the first changes the same number of files."""

    id = bytes(16)

    def __init__(
        self, sources: int, files: int, changes: int, images: int, name: str = "bench"
    ) -> None:
        self._rng = random.Random(SEED)
        self._words = ["".join(self._letters(self._rng.randint(3, 9))) for _ in range(3000)]
        self._images: dict[str, Image] = {}
        full = list(self._full(files))
        # what is the parent of an image's tree, and then what changes
        self.feeds = [full, *([self._changed(full, changes)] for _ in range(1, images))]
        self.names = [f"{name}{number}:/" for number in range(sources)]
        for place in range(images):
            for source in self.names:
                self._add(source, place)

    def images(self) -> list[Manifest]:
        return list(self._images.values())

    def image(self, id: str, /) -> Manifest:  # noqa: A002
        if id not in self._images:
            raise ImageMissing(f"no image {id}")
        return self._images[id]

    def changes(self, old: str | None, new: str | None, /) -> Iterator[Batch]:
        assert new is not None
        place = self._images[new].place
        assert (old is None) == (place == 0)
        return iter(self.feeds[place])

    def expire(self, image: str) -> None:
        del self._images[image]

    def of_place(self, place: int) -> list[ImageId]:
        return [ImageId(one.id) for one in self._images.values() if one.place == place]

    def keep(self, source: str) -> None:
        """Be a pool of one source."""
        self._images = {one.id: one for one in self._images.values() if one.source == source}

    def _add(self, source: str, place: int) -> None:
        number = len(self._images) + 1
        identity = hashlib.blake2b(f"{source} {number}".encode(), digest_size=16).hexdigest()
        self._images[identity] = Image(identity, number, source, place, started_ns=number * 10**9)

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


def times_ms(act: Callable[[], object], times: int = 60) -> list[float]:
    act()
    return sorted(timed(act)[0] * 1000 for _ in range(times))


def processor_s() -> float:
    """Seconds of this process and of those that have ended; a database's server has its own."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


class Bench:
    """One run, against files or tables."""

    def __init__(self, directory: Path, url: str | None, pool: MadePool) -> None:
        self.directory = directory
        self.pool = pool
        self.rng = random.Random(SEED)
        self.figures: dict[str, float] = {}
        self.database = Database(url or directory / "control.db")
        self.database.migrate()
        self.catalog = Catalog.open(directory, SystemClock(), self.database)

    def close(self) -> None:
        self.catalog.close()
        self.database.close()

    def note(self, name: str, value: float) -> None:
        self.figures[name] = value
        shown = f"{value:>14,.2f}" if value < 1000 else f"{value:>14,.0f}"
        print(f"{name:40} {shown}", flush=True)

    def note_times(self, name: str, act: Callable[[], object], times: int = 60) -> None:
        found = times_ms(act, times)
        self.note(f"{name}: median ms", statistics.median(found))
        self.note(f"{name}: least ms", found[0])

    def stored_bytes(self) -> int:
        # their logs are played in when nobody has the files open
        self.catalog.close()
        self.catalog = Catalog.open(self.directory, SystemClock(), self.database)
        if self.database.file is not None:
            return sum(file.stat().st_size for file in (self.directory / "files").iterdir())
        with self.database.read() as connection:
            return int(
                connection.exec_driver_sql(
                    "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c "
                    "WHERE relnamespace = 'file_rows'::regnamespace AND relkind = 'r'"
                ).scalar_one()
            )

    def feed(self, changes: int) -> None:
        for image in self.pool.of_place(0):
            self.catalog.record_image(self.pool.image(image), self.pool.id.hex())
        feeder = Feeder(self.catalog, lambda _: self.pool)
        cpu = processor_s()
        begin = time.perf_counter()
        feeder.start()
        assert feeder.wait_idle()
        seconds = time.perf_counter() - begin
        # their time counts when they have ended
        feeder.stop()
        cpu = processor_s() - cpu
        rows = sum(len(batch.rows) for batch in self.pool.feeds[0]) * len(self.pool.names)
        assert feeder.state().fed == len(self.pool.names)
        self.note("full, all workers: rows", rows)
        self.note("full, all workers: rows/s", rows / seconds)
        self.note("full: rows/CPU second, without server", rows / cpu)
        self.note("full: bytes/version", self.stored_bytes() / rows)
        for one in self.pool.images():
            self.catalog.record_image(one, self.pool.id.hex())
        cpu = processor_s()
        spent = [
            timed(partial(self.catalog.ingest, self.pool, image))[0] * 1000
            for image in self.catalog.pending()
        ]
        if spent:
            self.note("incremental: median ms", statistics.median(spent))
            self.note("incremental: least ms", min(spent))
            self.note(
                "incremental: CPU ms, without server", (processor_s() - cpu) * 1000 / len(spent)
            )
            rows += changes * len(spent)
        self.note("versions", rows)
        self.note("bytes/version", self.stored_bytes() / rows)

    def ask(self) -> None:
        catalog, rng = self.catalog, self.rng
        if self.database.file is None:
            # as the server does by itself, some time after so much has changed
            with self.database.session() as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")
        firsts = self.pool.of_place(0)
        paths = [row.path for row in catalog.find("7", limit=4000) if row.kind == "dir"]
        self.note_times(
            "list a directory",
            lambda: catalog.list_directory(rng.choice(firsts), rng.choice(paths)),
            300,
        )
        some = [row.path for row in catalog.find("*.json", limit=200) if row.kind == "file"]
        self.note_times(
            "versions of a path",
            lambda: catalog.versions(rng.choice(self.pool.names), rng.choice(some)),
        )
        found = [row.path.rpartition(b"/")[2] for row in catalog.find("*_*", limit=400)]
        terms = [name[2:9].decode() for name in found]
        self.note_times(
            "search, first 100", lambda: list(catalog.find(rng.choice(terms), limit=100))
        )
        self.note_times("search *.json, first 100", lambda: list(catalog.find("*.json", limit=100)))
        self.note_times("search for nothing", lambda: list(catalog.find("qqxxzz", limit=100)))
        self.note_times(
            "search 2 letters, first 100", lambda: list(catalog.find("qz", limit=100)), 5
        )

    def stream(self, entries: int) -> None:
        small = MadePool(1, entries, 1, 1, name="tree")
        (image,) = small.of_place(0)
        gc.collect()
        gc.freeze()
        self.catalog.record_image(small.image(image), small.id.hex())
        self.catalog.ingest(small, image)
        rows = sum(len(batch.rows) for batch in self.catalog.tree(image))
        found = times_ms(lambda: sum(len(batch.rows) for batch in self.catalog.tree(image)), 7)
        self.note("stream a tree: entries", rows)
        self.note(
            f"stream {entries:,} entries: median ms", statistics.median(found) * entries / rows
        )

    def calibrate(self, when: str) -> None:
        """How quick this machine is just now: others at work on it slow everything alike."""
        connection = sqlite3.connect(":memory:")
        begin = time.process_time()
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)")
        rows = ((number, b"%d" % (number * 7919)) for number in range(300_000))
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
        self.note(f"300,000 rows into memory, {when}: CPU ms", (time.process_time() - begin) * 1000)
        connection.close()

    def expire(self) -> None:
        image = self.pool.of_place(1)[0]
        self.pool.expire(image)
        self.note("expire one image: ms", timed(lambda: self.catalog.expire(image))[0] * 1000)

    def rebuild(self, changes: int) -> None:
        """Of one source, by one thread; its images that expired stay away."""
        self.pool.keep(self.pool.names[-1])
        rows = sum(len(batch.rows) for batch in self.pool.feeds[0])
        rows += changes * (len(self.pool.feeds) - 1)
        cpu = processor_s()
        # others' images are not in this pool: only sources of it are made anew
        with tempfile.TemporaryDirectory(dir=self.directory) as other:
            again = Catalog.open(Path(other), SystemClock()) if self.database.file else self.catalog
            seconds = timed(lambda: again.rebuild(self.pool))[0]
            if again is not self.catalog:
                again.close()
        self.note("rebuild: rows/s", rows / seconds)
        self.note("rebuild: rows/CPU second, without server", rows / (processor_s() - cpu))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--files", type=int, default=200_000, help="of each source")
    parser.add_argument("--changes", type=int, default=1560, help="from image to image")
    parser.add_argument("--images", type=int, default=6, help="of each source")
    parser.add_argument("--tree", type=int, default=200_000, help="entries of a tree to stream")
    parser.add_argument("--postgresql", metavar="URL", help="an empty database")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--directory", type=Path, help="measure on this disk")
    options = parser.parse_args()
    pool = MadePool(options.sources, options.files, options.changes, options.images)
    # what stands in for the engine is not to be looked through for garbage
    gc.collect()
    gc.freeze()
    place = "PostgreSQL" if options.postgresql else f"SQLite {sqlite3.sqlite_version}"
    print(f"{options.sources} sources of {options.files:,} files, {place}")
    print(f"processors {len(os.sched_getaffinity(0))}, load before {os.getloadavg()[0]:.1f}\n")
    directory = Path(tempfile.mkdtemp(prefix="catalog-", dir=options.directory))
    try:
        bench = Bench(directory, options.postgresql, pool)
        bench.calibrate("before")
        bench.feed(options.changes)
        bench.calibrate("between")
        bench.ask()
        bench.stream(options.tree)
        if options.images > 2:
            bench.expire()
        if not options.postgresql:
            bench.rebuild(options.changes)
        bench.calibrate("after")
        bench.close()
    finally:
        shutil.rmtree(directory)
    report = {"place": place, **bench.figures}
    print("\n" + json.dumps(report))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
