"""How many jobs a master grants and finishes in a second, with workers that do nothing.

    .venv/bin/python benchmarks/dispatch.py [--jobs 2000] [--slots 8] [--images]
        [--url postgresql://…]

One policy makes a job due for each of its clients. Each offer is answered at once by a worker that
does nothing; with --images it gives a sign of life first, and says that it made an image, which
the catalog notes. What is measured is the whole way: what is due becomes jobs, the broker grants,
the worker is heard, a slot frees and is given to the next. The database is on the disk of the
directory for temporary files, every commit synced.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta
from pathlib import Path

from holdfast.base.clock import SystemClock
from holdfast.base.ids import ClientName, PolicyName
from holdfast.control.catalog import Catalog
from holdfast.control.database import Database, facts
from holdfast.control.dispatch import Agenda, Dispatcher, HistoryBook, Queue
from holdfast.control.jobs import LEASE, JobBook
from holdfast.control.policies import Policy, PolicyBook, Selection
from holdfast.control.retention import Rules
from holdfast.control.schedule import BackupKind, Schedule
from holdfast.wire.messages import BackupWork, ImageNote, WorkEnded, WorkOffer, WorkProgress

PAUSE_S = 1.0


def policy(clients: int) -> Policy:
    return Policy(
        name=PolicyName("many"),
        clients=tuple(ClientName(f"client{n}") for n in range(clients)),
        selections=(Selection("data", ("/srv",)),),
        schedules=(Schedule("once", BackupKind.DIFFERENTIAL, every=timedelta(days=1)),),
        retention=Rules(last=1),
    )


class Workers:
    """They do nothing, and say that it went well."""

    def __init__(self, dispatcher: Dispatcher, count: int, *, images: bool) -> None:
        self._dispatcher = dispatcher
        self._images = images
        self._threads = ThreadPoolExecutor(count)
        self._number = 0
        self._lock = threading.Lock()
        self._freed_s: list[float] = []
        self.waits_s: list[float] = []
        self.done = 0

    def take(self, offers: list[WorkOffer]) -> None:
        now_s = time.perf_counter()
        with self._lock:
            for _ in offers:
                if self._freed_s:
                    self.waits_s.append(now_s - self._freed_s.pop(0))
        for offer in offers:
            self._threads.submit(self._work, offer)

    def _work(self, offer: WorkOffer) -> None:
        note = None
        if self._images:
            self._dispatcher.hear(WorkProgress(offer.job_id, offer.fence, {"files": 1}))
            note = self._image(offer)
        self._dispatcher.hear(WorkEnded(offer.job_id, offer.fence, note, (), 0, {"files": 1}, None))
        with self._lock:
            self._freed_s.append(time.perf_counter())
            self.done += 1

    def _image(self, offer: WorkOffer) -> ImageNote:
        assert isinstance(offer.work, BackupWork)
        with self._lock:
            self._number += 1
            number = self._number
        now_ns = time.time_ns()
        return ImageNote(
            id=f"{number:032x}",
            number=number,
            source=offer.work.source,
            host=offer.work.client,
            started_ns=now_ns,
            finished_ns=now_ns,
            parent=None,
            status="completed",
            stats={"files": 1},
            findings_total=0,
            software="benchmark",
            labels=offer.work.labels,
        )

    def close(self) -> None:
        self._threads.shutdown()


def measure(database: Database, directory: Path, jobs: int, slots: int, *, images: bool) -> None:
    clock = SystemClock()
    policies, book = PolicyBook(database, clock), JobBook(database, clock)
    with Catalog.open(directory, clock, database) as catalog:
        agenda = Agenda(policies, book, HistoryBook(database), catalog, UTC, lambda _client: ["/"])
        dispatcher = Dispatcher(
            site_id=facts.site_id(database),
            pool_id="0" * 32,
            clock=clock,
            jobs=book,
            catalog=catalog,
            agenda=agenda,
            queue=Queue(book, UTC, {"default": slots}),
            lease_s=LEASE.total_seconds(),
        )
        policies.apply(policies.plan([policy(jobs)]), "benchmark")
        workers = Workers(dispatcher, slots, images=images)
        begun_s = time.perf_counter()
        first_s = None
        while workers.done < jobs:
            offers = dispatcher.turn()
            workers.take(offers)
            if offers and first_s is None:
                first_s = time.perf_counter() - begun_s
            dispatcher.wake.wait(PAUSE_S)
        elapsed_s = time.perf_counter() - begun_s
        workers.close()
    waits_ms = sorted(1000 * one for one in workers.waits_s)
    print(
        f"{jobs} jobs, {slots} slots: {jobs / elapsed_s:.0f} jobs/s; first after {first_s:.2f} s; "
        f"a freed slot is given again after {statistics.median(waits_ms):.1f} ms (median), "
        f"{waits_ms[int(0.95 * len(waits_ms))]:.1f} ms (95 %)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--images", action="store_true", help="each makes an image")
    parser.add_argument("--url", help="an empty PostgreSQL database; SQLite without it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        directory = Path(place)
        database = Database(given.url or directory / "control.db")
        stack.callback(database.close)
        database.migrate()
        measure(database, directory / "catalog", given.jobs, given.slots, images=given.images)


if __name__ == "__main__":
    main()
