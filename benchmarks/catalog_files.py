"""Measure the file catalog against its goals, on trees made from a seed.

    python benchmarks/catalog_files.py [--database sqlite] [--versions 1000000] [--json FILE]
    python benchmarks/catalog_files.py --database postgresql [--url postgresql://user@host/empty]

Three quarters of the versions come with first images, the rest with later ones. Sources have the
same tree of at most `FILES_OF_A_SOURCE` files; it stands in for the engine, ready as batches before
the clock starts, so the figures are those of the catalog alone. SQLite is measured in a temporary
directory, PostgreSQL on a server that is started for it and writes as durably as one of a site, or
on that of ``--url``. Prints a table with the goals; times are medians, and beside them stands what
they took of a processor, which others on the machine disturb less.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import random
import resource
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from benchmarks.made_trees import (  # noqa: E402 - the path comes first
    FILES_IN_A_DIRECTORY,
    RARE,
    SEED,
    Image,
    MadePool,
    Tree,
)
from holdfast.base.clock import SystemClock  # noqa: E402
from holdfast.base.ids import ImageId  # noqa: E402
from holdfast.control.catalog import Catalog, Feeder  # noqa: E402
from holdfast.control.database import Database  # noqa: E402
from tests.kit import postgres  # noqa: E402

FILES_OF_A_SOURCE = 1_200_000
TREE = 200_000
CHANGES = 1560
INCREMENTALS = 7
LATER_IMAGES = 5


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    Attributes:
        work: What was done.
        value: What was measured.
        unit: Of the value.
        cpu: What it took of processors: seconds or ms for times, per second of one for rates.
        goal: The value to reach, if there is one; of times and sizes, not to be above.
    """

    work: str
    value: float
    unit: str
    cpu: float | None = None
    goal: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.unit.endswith("/s") else self.value <= self.goal

    def line(self) -> str:
        """As a line of the table."""
        cpu = "" if self.cpu is None else shown(self.cpu)
        goal = "" if self.goal is None else shown(self.goal)
        met = {None: "", True: "yes", False: "no"}[self.met]
        return f"{self.work:46}{shown(self.value):>12} {self.unit:6}{cpu:>10}{goal:>10}  {met}"


HEAD = f"{'':46}{'median':>12} {'':6}{'CPU':>10}{'goal':>10}  met"


def shown(value: float) -> str:
    """A number with three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class Clocks:
    """Seconds gone by, and of processors: of this process, its children that ended, a server."""

    def __init__(self, server: Path | None) -> None:
        self._server = server

    def cpu_s(self) -> float:
        spent = [
            resource.getrusage(one) for one in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        return sum(one.ru_utime + one.ru_stime for one in spent) + self._server_s()

    def _server_s(self) -> float:
        if self._server is None:
            return 0.0
        master = (self._server / "data" / "postmaster.pid").read_text().split()[0]
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                pid, _, rest = stat.read_text().partition(" ")
                columns = rest.rpartition(") ")[2].split()
                if pid == master:
                    ticks += sum(map(int, columns[11:15]))
                elif columns[1] == master:
                    ticks += sum(map(int, columns[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def time(self, act: Callable[[], object]) -> tuple[float, float]:
        """Run something; seconds gone by, and of processors."""
        cpu, begin = self.cpu_s(), time.perf_counter()
        act()
        return time.perf_counter() - begin, self.cpu_s() - cpu


class Bench:
    """One run, against files or tables."""

    def __init__(
        self, directory: Path, place: Path | str, clocks: Clocks, pool: MadePool, tree: Tree
    ) -> None:
        self.directory = directory
        self.clocks = clocks
        self.pool = pool
        self.tree = tree
        self.rng = random.Random(SEED)
        self.figures: list[Figure] = []
        self.versions = 0
        self.database = Database(place)
        self.database.migrate()
        self.catalog = Catalog.open(directory, SystemClock(), self.database)

    def close(self) -> None:
        self.catalog.close()
        self.database.close()

    def note(self, figure: Figure) -> None:
        self.figures.append(figure)
        print(figure.line(), flush=True)

    def note_times(
        self, work: str, act: Callable[[], object], goal: float | None = None, times: int = 101
    ) -> None:
        act()
        before = self.clocks.cpu_s()
        found = [timed(act) for _ in range(times)]
        self.note_medians(work, found, goal, all_cpu_s=self.clocks.cpu_s() - before)

    def note_medians(
        self,
        work: str,
        found: list[tuple[float, float]],
        goal: float | None = None,
        all_cpu_s: float | None = None,
    ) -> None:
        wall, cpu = (statistics.median(one) * 1000 for one in zip(*found, strict=True))
        shown_cpu: float | None = cpu
        if self.database.file is None:
            # a server's processors are told in hundredths of a second: enough for a mean
            shown_cpu = None if all_cpu_s is None else all_cpu_s / len(found) * 1000
        self.note(Figure(work, wall, "ms", shown_cpu, goal))

    # -- feeding ----------------------------------------------------------------------------

    def feed(self, sources: Sequence[str], feed: int, workers: int) -> tuple[float, float]:
        """Feed an image of each source; rows a second, and a second of one processor."""
        for source in sources:
            self.record(self.pool.add(source, feed))
        feeder = Feeder(self.catalog, lambda _: self.pool, workers=workers)

        def run() -> None:
            feeder.start()
            assert feeder.wait_idle()

        cpu = self.clocks.cpu_s()
        seconds, _ = self.clocks.time(run)
        # processes count when they have ended
        feeder.stop()
        assert feeder.state().fed == len(sources)
        rows = sum(len(batch.rows) for batch in self.pool.feeds[feed]) * len(sources)
        self.versions += rows
        return rows / seconds, rows / (self.clocks.cpu_s() - cpu)

    def record(self, image: Image) -> ImageId:
        self.catalog.record_image(image, self.pool.id.hex())
        return ImageId(image.id)

    def incrementals(self, work: str, source: str, neighbours: int, goal: float | None) -> None:
        found = []
        for number in range(INCREMENTALS + 1):
            changed = self.tree.changed(CHANGES, neighbours)
            self.versions += sum(len(batch.rows) for batch in changed)
            self.pool.feeds.append(changed)
            image = self.record(self.pool.add(source, len(self.pool.feeds) - 1))
            took = timed(partial(self.catalog.ingest, self.pool, image))
            if number:
                found.append(took)
        self.note_medians(work, found, goal)

    def stored(self) -> None:
        # logs are played in when nobody has the files open
        self.catalog.close()
        self.catalog = Catalog.open(self.directory, SystemClock(), self.database)
        if self.database.file is not None:
            size = sum(file.stat().st_size for file in (self.directory / "files").iterdir())
        else:
            # as the server does by itself, some time after so much has changed
            with self.database.session() as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")
            with self.database.read() as connection:
                size = connection.exec_driver_sql(
                    "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c "
                    "WHERE relnamespace = 'file_rows'::regnamespace AND relkind = 'r'"
                ).scalar_one()
        self.note(Figure("versions", self.versions, ""))
        self.note(Figure("stored, all in, a version", int(size) / self.versions, "bytes", goal=115))

    # -- asking -----------------------------------------------------------------------------

    def ask(self, image: ImageId, source: str) -> None:
        catalog, rng = self.catalog, self.rng
        paths = [row.path for row in catalog.find("7", limit=4000) if row.kind == "dir"]
        self.note_times(
            "list a directory", lambda: catalog.list_directory(image, rng.choice(paths)), 0.3, 301
        )
        some = [row.path for row in catalog.find("*.json", limit=200) if row.kind == "file"]
        self.note_times("versions of a path", lambda: catalog.versions(source, rng.choice(some)))
        found = [row.path.rpartition(b"/")[2] for row in catalog.find("*_*", limit=2000)]
        terms = [name[2:9].decode() for name in found]
        self.note_times(
            "search everywhere, part of a name, 100",
            lambda: list(catalog.find(rng.choice(terms), limit=100)), 2,
        )  # fmt: skip
        self.note_times(
            "search everywhere, *.json, 100", lambda: list(catalog.find("*.json", limit=100)), 2
        )
        rare = RARE.decode().lower()[1:-4]
        self.note_times(
            "search everywhere, once in each source", lambda: list(catalog.find(rare, limit=100)), 2
        )
        self.note_times(
            "search everywhere, in none", lambda: list(catalog.find("qqxxzz", limit=100)), 2
        )
        self.note_times(
            "search everywhere, two letters, 100", lambda: list(catalog.find("qz", limit=100)),
            None, 11,
        )  # fmt: skip

    def stream(self) -> None:
        tree = Tree(TREE * FILES_IN_A_DIRECTORY // (FILES_IN_A_DIRECTORY + 1))
        small = MadePool([tree.whole])
        image = small.add("tree:/", 0)
        self.catalog.record_image(image, small.id.hex())
        self.catalog.ingest(small, ImageId(image.id))
        del tree
        gc.collect()
        gc.freeze()
        ask = self.catalog.tree
        entries = sum(len(batch.rows) for batch in ask(ImageId(image.id)))
        self.note_times(
            f"stream a tree of {entries:,} entries",
            lambda: sum(len(batch.rows) for batch in ask(ImageId(image.id))), 250, 9,
        )  # fmt: skip

    # -- the rest ---------------------------------------------------------------------------

    def calibrate(self, when: str) -> None:
        """How quick this machine is just now: others at work on it slow everything alike."""

        def fill() -> None:
            with contextlib.closing(sqlite3.connect(":memory:")) as connection:
                connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)")
                rows = ((number, b"%d" % (number * 7919)) for number in range(300_000))
                connection.executemany("INSERT INTO t VALUES (?, ?)", rows)

        self.note_medians(f"300,000 rows into memory, {when}", [timed(fill) for _ in range(3)])

    def expire(self, image: ImageId) -> None:
        self.pool.expire(image)
        self.note_medians(
            "expire one image of a source", [timed(partial(self.catalog.expire, image))]
        )

    def rebuild(self, source: str) -> None:
        """Of one source, on one core; in another catalog, beside which nothing else is there."""
        pool = self.pool.only(source)
        rows = sum(len(batch.rows) for one in pool.made() for batch in pool.feeds[one.feed])
        with tempfile.TemporaryDirectory(dir=self.directory) as other:
            again = Catalog.open(Path(other), SystemClock()) if self.database.file else self.catalog
            wall, cpu = self.clocks.time(lambda: again.rebuild(pool))
            if again is not self.catalog:
                again.close()
        self.note(Figure("rebuild, one core", rows / wall, "/s", rows / cpu, 80_000))
        self.note(Figure(f"rebuild of {rows:,} versions, all in", wall, "s", cpu))


def timed(act: Callable[[], object]) -> tuple[float, float]:
    """Run something; seconds gone by, and of processors in this process."""
    cpu, begin = time.process_time(), time.perf_counter()
    act()
    return time.perf_counter() - begin, time.process_time() - cpu


def measure(bench: Bench, sources: list[str], versions: int) -> None:
    """Everything, in an order in which nothing disturbs what follows."""
    pool, tree = bench.pool, bench.tree
    bench.calibrate("before")
    rate, of_cpu = bench.feed(sources[:1], 0, 1)
    bench.note(Figure("first image, one stream alone", rate, "/s", of_cpu))
    rate, of_cpu = bench.feed(sources[1:], 0, 2)
    bench.note(Figure("first images, two streams at a time", rate, "/s", of_cpu, 170_000))
    each = (versions - bench.versions) // (len(sources) * LATER_IMAGES)
    for _ in range(LATER_IMAGES):
        pool.feeds.append(tree.changed(each))
        rate, of_cpu = bench.feed(sources, len(pool.feeds) - 1, 2)
    work = f"later images of {each:,} changes, two streams"
    bench.note(Figure(work, rate, "/s", of_cpu))
    bench.incrementals(f"{CHANGES:,} changes, in as many directories", sources[0], 1, 35)
    bench.incrementals(f"{CHANGES:,} changes, a dozen in a directory", sources[-1], 12, 35)
    bench.calibrate("between")
    bench.stored()
    of_first = [one for one in pool.made() if one.source == sources[0]]
    bench.ask(ImageId(of_first[-1].id), sources[0])
    bench.stream()
    bench.expire(ImageId(of_first[1].id))
    bench.rebuild(sources[-1])
    if bench.database.file is not None:
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        bench.note(Figure("peak memory of a process that writes", peak, "MiB"))
    bench.calibrate("after")


@contextlib.contextmanager
def place_of(
    kind: str, url: str | None, directory: Path
) -> Iterator[tuple[Path | str, Path | None]]:
    """Where the control database is, and the server's directory if it was started for this."""
    if kind == "sqlite":
        yield directory / "control.db", None
    elif url is not None:
        yield url, None
    else:
        binaries = postgres.programs()
        if binaries is None:
            raise SystemExit("no PostgreSQL is installed here; say --url")
        # unlike in tests, what is committed is on disk
        durable = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "1GB",
                   "max_wal_size": "8GB", "maintenance_work_mem": "512MB"}  # fmt: skip
        with postgres.server(binaries, durable, on_disk=True) as server:
            yield server.database()[1], server.place


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--url", help="an empty PostgreSQL database")
    parser.add_argument("--versions", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--directory", type=Path, help="measure on this disk")
    given = parser.parse_args()
    in_firsts = given.versions * 3 // 4
    count = max(3, -(-in_firsts // FILES_OF_A_SOURCE))
    count += count % 2 == 0  # one alone, and then two at a time
    tree = Tree(in_firsts // count * FILES_IN_A_DIRECTORY // (FILES_IN_A_DIRECTORY + 1))
    sources = [f"bench{number}:/" for number in range(count)]
    # what stands in for the engine is not to be looked through for garbage
    gc.collect()
    gc.freeze()
    load = os.getloadavg()[0]
    where = f"SQLite {sqlite3.sqlite_version}" if given.database == "sqlite" else "PostgreSQL"
    print(
        f"{where}, {count} sources of {tree.entries:,} entries; Python {platform.python_version()}"
    )
    print(f"{len(os.sched_getaffinity(0))} processors, load before {load:.1f}\n\n{HEAD}")
    directory = Path(tempfile.mkdtemp(prefix="catalog-", dir=given.directory))
    try:
        with place_of(given.database, given.url, directory) as (place, server):
            bench = Bench(directory, place, Clocks(server), MadePool([tree.whole]), tree)
            measure(bench, sources, given.versions)
            bench.close()
    finally:
        shutil.rmtree(directory)
    load_after = os.getloadavg()[0]
    print(f"\nload after {load_after:.1f}; CPU of rates: rows for a second of one processor")
    if given.json is not None:
        report = {
            "place": where, "sources": count, "entries": tree.entries,
            "processors": len(os.sched_getaffinity(0)), "load": [load, load_after],
            "figures": [{**asdict(one), "met": one.met} for one in bench.figures],
        }  # fmt: skip
        given.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
