"""How many jobs a master grants and finishes in a second, with workers that do nothing.

One policy makes a job due for each of its clients. Each offer is answered at once by a worker that
does nothing; if it is to make images it gives a sign of life first, and says that it made one,
which the catalog notes. What is measured is the whole way: what is due becomes jobs, the broker
grants, the worker is heard, a slot frees and is given to the next. Every commit is synced.
"""

from __future__ import annotations

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from benchmarks.master.figures import Figure, p95
from holdfast.base.clock import SystemClock
from holdfast.base.ids import ClientName, PolicyName
from holdfast.control.catalog import Catalog
from holdfast.control.database import facts
from holdfast.control.dispatch import Agenda, Dispatcher, HistoryBook, Queue
from holdfast.control.jobs import LEASE, JobBook
from holdfast.control.policies import Policy, PolicyBook, Selection
from holdfast.control.retention import Rules
from holdfast.control.schedule import BackupKind, Schedule
from holdfast.wire.messages import BackupWork, ImageNote, WorkEnded, WorkOffer, WorkProgress

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.control.database import Database

PAUSE_S = 1.0
SLOTS = 8
RATE_GOAL = 200.0
LATENCY_GOAL_MS = 1000.0


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


def figures(
    kind: str, database: Database, directory: Path, jobs: int, *, images: bool
) -> list[Figure]:
    """Have jobs become due, begin and end."""
    clock = SystemClock()
    policies, book = PolicyBook(database, clock), JobBook(database, clock)
    with Catalog.open(directory, clock, database) as catalog:
        agenda = Agenda(policies, book, HistoryBook(database), catalog, UTC, lambda _client: ["/"])
        dispatcher = Dispatcher(
            site_id=facts.site_id(database),
            pool_of=lambda _: "0" * 32,
            clock=clock,
            jobs=book,
            catalog=catalog,
            agenda=agenda,
            queue=Queue(book, UTC, lambda: {"default": SLOTS}),
            lease_s=LEASE.total_seconds(),
        )
        policies.apply(policies.plan([policy(jobs)]), "benchmark")
        workers = Workers(dispatcher, SLOTS, images=images)
        begun_s, processor_s = time.perf_counter(), time.process_time()
        while workers.done < jobs:
            workers.take(dispatcher.turn())
            dispatcher.wake.wait(PAUSE_S)
        elapsed_s = time.perf_counter() - begun_s
        processor_ms = (time.process_time() - processor_s) * 1000 / jobs
        workers.close()
    waits_ms = [1000 * one for one in workers.waits_s]
    part = f"{kind}: {jobs:,} jobs through {SLOTS} slots" + (", each with an image" * images)
    # The goal is that of a worker that does nothing, and says no more than that.
    goal = None if images else RATE_GOAL
    return [
        Figure(part, "from due to ended, jobs", jobs / elapsed_s, "1/s", at_least=goal),
        Figure(part, "processor time a job", processor_ms, "ms"),
        Figure(
            part,
            "a freed slot is given again after",
            p95(waits_ms),
            "ms",
            statistics.median(waits_ms),
            at_most=LATENCY_GOAL_MS,
        ),
    ]
