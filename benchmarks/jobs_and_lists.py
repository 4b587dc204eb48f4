"""Measure the book of jobs: lists and numbers over a long history, and how fast jobs go through.

    python benchmarks/jobs_and_lists.py [--jobs 100000] [--queued 2000] [--rounds 40]
        [--through 2000] [--url postgresql://…] [--json FILE]

The history is made from a seed. SQLite is measured in a temporary directory on this disk;
PostgreSQL on a server that is started for it, where Debian's package is installed, or on the one
of ``--url``, whose database must be empty. Both write as durably as they do in a site. Prints a
table of times in milliseconds, and JSON with the same figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.clock import SystemClock
from holdfast.base.ids import ClientName, ImageId, JobId, PolicyName, SourceName
from holdfast.control.broker import Broker, Kind, Need, Request, Resource
from holdfast.control.database import Database
from holdfast.control.jobs import (
    Job,
    JobBook,
    JobError,
    JobKind,
    JobState,
    NewJob,
    Outcome,
    Result,
    Severity,
    Sort,
    Wanted,
    lists,
)
from holdfast.control.jobs.job import Event, counted
from holdfast.control.jobs.rows import values_of, values_of_event
from holdfast.control.jobs.schema import job_events, job_work, jobs
from tests.kit import postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEED = 20261121
CLIENTS = 500
POLICIES = 50
DAYS = 90
END = datetime(2026, 11, 21, tzinfo=UTC)
EVENTS = 10_000
AT_ONCE = 5000
UNIT = Resource(Kind.STORAGE_UNIT_SLOTS, "default")
SLOTS = 16
OUTCOMES = [
    (Outcome.COMPLETED, 80),
    (Outcome.COMPLETED_WITH_WARNINGS, 8),
    (Outcome.COMPLETED_WITH_ERRORS, 6),
    (Outcome.FAILED, 3),
    (Outcome.CANCELLED, 1),
    (Outcome.MISSED, 2),
]


@dataclass(frozen=True)
class Figure:
    name: str
    p50_ms: float
    p95_ms: float


class History:
    """Jobs of a site that has run for some months."""

    def __init__(self, ended: int, queued: int) -> None:
        self.rng = random.Random(SEED)
        self.ended = ended
        self.queued = queued

    def rows(self) -> Iterator[Job]:
        begin = END - timedelta(days=DAYS)
        step = timedelta(days=DAYS) / self.ended
        outcomes, weights = zip(*OUTCOMES, strict=True)
        for number in range(self.ended):
            job = self._job(number, begin + step * number)
            outcome = self.rng.choices(outcomes, weights)[0]
            took = timedelta(seconds=self.rng.randrange(2, 9000))
            begun = outcome is not Outcome.MISSED
            failed = outcome is Outcome.FAILED
            yield replace(
                job,
                state=JobState.ENDED,
                outcome=outcome,
                started_at=job.queued_at + timedelta(seconds=30) if begun else None,
                ended_at=job.queued_at + timedelta(seconds=30) + took,
                attempt=int(begun),
                fence=int(begun),
                image_id=ImageId(f"{number:032x}") if begun and not failed else None,
                error=JobError("io", f"can't read /dev/sd{number % 26}") if failed else None,
                counters=counted({name: self.rng.randrange(10**9) for name in counted()}),
                events=self.rng.randrange(5),
            )
        for number in range(self.queued):
            waits = f"storage unit 'unit{number % 5}'"
            job = self._job(number, END + timedelta(seconds=number))
            yield replace(job, waits_on=waits, waits_for=f"{waits} has 4 of 4 slots in use")

    def _job(self, number: int, at: datetime) -> Job:
        client = f"client{self.rng.randrange(CLIENTS):04d}"
        return Job(
            id=JobId(0),
            kind=JobKind.BACKUP if number % 20 else JobKind.RESTORE,
            priority=50,
            queued_at=at,
            policy=PolicyName(f"policy{self.rng.randrange(POLICIES):02d}"),
            schedule=self.rng.choice(["daily", "weekly", "monthly"]),
            client=ClientName(client),
            source=SourceName(f"{client}:{self.rng.choice(['/etc', '/home', '/srv/data'])}"),
            backup_kind=self.rng.choice(["full", "differential"]),
            storage_unit=f"unit{number % 5}",
            due_at=at,
        )


def fill(database: Database, history: History) -> float:
    """Write the history; seconds that took."""
    begun = time.perf_counter()
    work = json.dumps({"paths": ["/srv/data"], "exclude": ["*.tmp"] * 10, "compression": 2})
    rows = [values_of(job) for job in history.rows()]
    for at in range(0, len(rows), AT_ONCE):
        with database.write() as connection:
            connection.execute(sa.insert(jobs), rows[at : at + AT_ONCE])
    with database.write() as connection:
        connection.execute(
            sa.insert(job_work).from_select(
                ["job_id", "work"], sa.select(jobs.c.id, sa.literal(work))
            )
        )
        newest = JobId(connection.scalar(sa.select(sa.func.max(jobs.c.id))) or 0)
        connection.execute(
            sa.insert(job_events),
            [
                values_of_event(
                    Event(
                        newest, seq, END, list(Severity)[seq % 3], b"/srv/data/%d" % seq,
                        "no permission", "the user that runs this job has no permission", False,
                    )
                )
                for seq in range(1, EVENTS + 1)
            ],
        )  # fmt: skip
    if database.file is None:
        with database.session() as connection:
            connection.execute(sa.text("VACUUM ANALYZE"))
    return time.perf_counter() - begun


def questions(book: JobBook, rng: random.Random) -> dict[str, Callable[[], object]]:
    """Every list and every number that a person looks at, with arguments made anew each time."""

    def client() -> str:
        return f"client{rng.randrange(CLIENTS):04d}"

    def policy() -> str:
        return f"policy{rng.randrange(POLICIES):02d}"

    def days(count: int) -> dict[str, Any]:
        since = END - timedelta(days=rng.randrange(count, DAYS))
        return {"since": since, "until": since + timedelta(days=count)}

    def begun(sort: str, **wanted: Any) -> list[Job]:
        order = Sort(sort, descending=rng.random() < 0.5)
        return book.page(Wanted(begun=True, leaves=True, **wanted), order)

    def of_a_day(sort: str) -> list[Job]:
        return begun(sort, **days(1))

    def deep() -> list[Job]:
        order = Sort("started_at")
        middle = book.page(Wanted(since=days(1)["since"]), order, 1)
        return book.page(None, order, after=lists.place(middle[0], order))

    (newest,) = book.page(limit=1)
    found: dict[str, Callable[[], object]] = {
        "jobs, newest first": book.page,
        "jobs, a page in the middle": deep,
        "jobs that run": lambda: book.page(Wanted(states=(JobState.ACTIVE, JobState.ENDING))),
        "jobs that wait, by priority": lambda: book.page(
            Wanted(states=(JobState.QUEUED,)), Sort("priority", descending=True)
        ),
        "jobs that failed in a week": lambda: begun(
            "started_at", outcomes=(Outcome.FAILED,), **days(7)
        ),
        "jobs of an outcome that is rare, by client": lambda: begun(
            "client", outcomes=(Outcome.CANCELLED,)
        ),
        "jobs of a client": lambda: begun("id", clients=(client(),)),
        "jobs of a client nobody knows, by size": lambda: begun("size_bytes", clients=("nobody",)),
        "jobs of a policy in a month, by duration": lambda: begun(
            "duration", policies=(policy(),), **days(30)
        ),
        "jobs of a set, by end": lambda: begun("ended_at", sources=(f"{client()}:/etc",)),
        "restores, by start": lambda: begun("started_at", kinds=(JobKind.RESTORE,)),
        "count of all": book.count,
        "count of a policy in a week": lambda: book.count(Wanted(policies=(policy(),), **days(7))),
        "dashboard of a day": lambda: book.numbers(*days(1).values()),
        "dashboard of a quarter": lambda: book.numbers(END - timedelta(days=DAYS), END),
        "one job": lambda: book.job(JobId(rng.randrange(1, newest.id))),
        "events of a job, a page by path": lambda: book.events(
            newest.id, None, Sort("path", descending=rng.random() < 0.5)
        ),
        "ready jobs, numbers only": book.ready_ids,
        "ready jobs, all for the broker": book.ready,
    }
    quarter = {"since": END - timedelta(days=DAYS)}
    for sort in lists.SORTS:
        found[f"activity, by {sort}"] = partial(begun, sort)
    for sort in ("client", "files", "duration", "outcome"):
        found[f"activity of a day, by {sort}"] = partial(of_a_day, sort)
        found[f"activity of a quarter, by {sort}"] = partial(begun, sort, **quarter)
    return found


def measured(name: str, ask: Callable[[], object], rounds: int) -> Figure:
    ask()
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        ask()
        times.append((time.perf_counter() - begun) * 1000)
    return Figure(name, statistics.median(times), statistics.quantiles(times, n=20)[-1])


def through(book: JobBook, count: int) -> float:
    """Jobs a second from queue to end, each told of singly by a mover that does nothing."""
    new = [
        NewJob(
            kind=JobKind.BACKUP,
            work={"paths": ["/"]},
            policy=PolicyName("bench"),
            client=ClientName(f"c{number}"),
            storage_unit="default",
        )
        for number in range(count)
    ]
    broker = Broker()
    broker.set_limit(UNIT, SLOTS)
    begun = time.perf_counter()
    added = {one.id for one in book.enqueue(new)}
    for one in book.ready(added):
        needs = (
            Need(UNIT),
            Need(Resource(Kind.CLIENT_STREAMS, str(one.client))),
            Need(Resource(Kind.POLICY_JOBS, str(one.policy))),
        )
        broker.submit(Request(one.id, needs, one.priority, one.queued_at))
    done: SimpleQueue[JobId] = SimpleQueue()

    def work(job: Job) -> None:
        book.end(job.id, job.fence, Result(Outcome.COMPLETED, counters={"files": 1}))
        done.put(job.id)

    with ThreadPoolExecutor(SLOTS) as movers:
        for _ in range(count):
            for granted in book.grant(broker.round(SystemClock().now())):
                movers.submit(work, granted.job)
            broker.release(done.get())
    return count / (time.perf_counter() - begun)


@contextlib.contextmanager
def servers(url: str | None) -> Iterator[dict[str, Path | str]]:
    """Places for databases, by the names of their kinds."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        places: dict[str, Path | str] = {"SQLite": Path(directory) / "control.db"}
        binaries = postgres.programs()
        if url is not None:
            places["PostgreSQL"] = url
        elif binaries is not None:
            # unlike in tests, what is committed is on disk
            durable = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB"}
            postgres._OPTIONS.update(durable)  # noqa: SLF001 - nobody else needs another server
            server = stack.enter_context(postgres.server(binaries))
            places["PostgreSQL"] = server.database()[1]
        yield places


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000, help="ended jobs in the history")
    parser.add_argument("--queued", type=int, default=2_000, help="jobs that wait")
    parser.add_argument("--rounds", type=int, default=40, help="times that each question is asked")
    parser.add_argument("--through", type=int, default=2_000, help="jobs that go through")
    parser.add_argument("--url", help="an empty PostgreSQL database")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    figures: dict[str, dict[str, Any]] = {}
    with servers(given.url) as places:
        for kind, place in places.items():
            database = Database(place)
            database.migrate()
            filled_s = fill(database, History(given.jobs, given.queued))
            book = JobBook(database, SystemClock())
            asked = questions(book, random.Random(SEED))
            found = [measured(name, ask, given.rounds) for name, ask in asked.items()]
            rate = through(book, given.through)
            database.close()
            print(f"\n{kind}: {given.jobs:,} ended jobs and {given.queued:,} that wait")
            print(f"{'question':<46}{'p50 ms':>10}{'p95 ms':>10}")
            for one in found:
                mark = "  over 100 ms" if one.p95_ms > 100 else ""
                print(f"{one.name:<46}{one.p50_ms:>10.1f}{one.p95_ms:>10.1f}{mark}")
            print(f"{'jobs a second, enqueued, granted and ended':<46}{rate:>10.0f}")
            figures[kind] = {
                "filled_s": round(filled_s, 1),
                "jobs_a_second": round(rate),
                "questions": {
                    one.name: {"p50_ms": round(one.p50_ms, 2), "p95_ms": round(one.p95_ms, 2)}
                    for one in found
                },
            }
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    else:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
