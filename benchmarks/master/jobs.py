"""Lists and numbers over a long history of jobs, made from a seed, as a person looks at them."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from benchmarks.master.figures import Figure, list_figures
from benchmarks.master.places import settle
from holdfast.base.clock import SystemClock
from holdfast.base.ids import ClientName, ImageId, JobId, PolicyName, SourceName
from holdfast.control.jobs import (
    Job,
    JobBook,
    JobError,
    JobKind,
    JobState,
    Outcome,
    Severity,
    Sort,
    Wanted,
    lists,
)
from holdfast.control.jobs.job import Event, counted
from holdfast.control.jobs.rows import values_of, values_of_event
from holdfast.control.jobs.schema import job_events, job_work, jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.control.database import Database

SEED = 20261121
CLIENTS = 500
POLICIES = 50
DAYS = 90
END = datetime(2026, 11, 21, tzinfo=UTC)
EVENTS = 10_000
AT_ONCE = 5000
QUEUED = 2_000
OUTCOMES = [
    (Outcome.COMPLETED, 80),
    (Outcome.COMPLETED_WITH_WARNINGS, 8),
    (Outcome.COMPLETED_WITH_ERRORS, 6),
    (Outcome.FAILED, 3),
    (Outcome.CANCELLED, 1),
    (Outcome.MISSED, 2),
]


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


def fill(database: Database, history: History) -> None:
    """Write the history."""
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
    }
    quarter = {"since": END - timedelta(days=DAYS)}
    for sort in lists.SORTS:
        found[f"activity, by {sort}"] = partial(begun, sort)
    for sort in ("client", "files", "duration", "outcome"):
        found[f"activity of a day, by {sort}"] = partial(of_a_day, sort)
        found[f"activity of a quarter, by {sort}"] = partial(begun, sort, **quarter)
    return found


def figures(kind: str, database: Database, ended: int, rounds: int) -> list[Figure]:
    """Ask everything of a site with so many jobs that have ended."""
    fill(database, History(ended, QUEUED))
    settle(database)
    book = JobBook(database, SystemClock())
    part = f"{kind}: lists over {ended:,} ended jobs and {QUEUED:,} that wait"
    return list_figures(part, questions(book, random.Random(SEED)), rounds)
