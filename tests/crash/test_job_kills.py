"""A process that works on the book of jobs is killed at any step; what is left is consistent.

Each kill happens between two things that the database is asked, the commit included. What a call
had answered before stays; what was in the making is there whole, or not at all.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from holdfast.control.database import Database
from holdfast.control.jobs import (
    Job,
    JobBook,
    JobState,
    Outcome,
    Result,
    Wanted,
    family,
    store,
)
from holdfast.control.jobs.schema import job_events, job_work
from tests.kit import quick_disk
from tests.kit.clock import FakeClock
from tests.kit.job_worker import RETRYING, START, new_jobs

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
KILLS = 50
"""Of one site; there are four on SQLite and one on PostgreSQL."""

MOST_STEPS = 300


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Path | str]:
    """An empty database: SQLite in memory, or PostgreSQL, where commits do not wait for a disk."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        yield url
        return
    with quick_disk.directory() as made:
        yield made / "control.db"


@contextmanager
def workers(place: Path | str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kit.job_worker", str(place)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def answers_of(process: subprocess.Popen[str], number: int, kill_at: int) -> list[dict[str, Any]]:
    """What a round was answered; the last one says whether it was killed."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{number} {kill_at}\n")
    process.stdin.flush()
    found: list[dict[str, Any]] = []
    while not found or "round" not in found[-1]:
        line = process.stdout.readline()
        assert line, "a round failed for another reason"
        found.append(json.loads(line))
    return found


class Site:
    """What is known from outside, and what must be true of the database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = FakeClock(START + timedelta(days=10_000))
        self.book = JobBook(database, self.clock, RETRYING)
        self.enqueued: dict[int, list[int]] = {}
        self.restarted: set[int] = set()
        self.ended: dict[int, str] = {}

    def hear(self, answers: list[dict[str, Any]]) -> None:
        for one in answers:
            self.enqueued |= {int(number): ids for number, ids in one.get("enqueued", {}).items()}
            if "restarted" in one:
                self.restarted.add(one["restarted"])
            if "ended" in one:
                self.ended[one["ended"]] = one["outcome"]

    def check(self) -> dict[int, Job]:
        with self.database.read() as connection:
            jobs = {int(job.id): job for job in store.load_some(connection)}
            parts = {
                number: store._parts(connection, job.id)
                for number, job in jobs.items()
                if job.children
            }
            works = set(connection.scalars(sa.select(job_work.c.job_id)))
            events = {
                row.job_id: (row.count_, row.last)
                for row in connection.execute(
                    sa.select(
                        job_events.c.job_id,
                        sa.func.count().label("count_"),
                        sa.func.max(job_events.c.seq).label("last"),
                    ).group_by(job_events.c.job_id)
                )
            }
        for number, job in jobs.items():
            sound(job)
            assert events.get(number, (0, 0)) == (job.events, job.events)
            assert (number in works) == (not job.children)
            if job.children:
                assert family.follow(job, parts[number]).job == job
        assert {one for ids in self.enqueued.values() for one in ids} <= jobs.keys()
        assert self.restarted <= jobs.keys()
        assert {number: jobs[number].outcome for number in self.ended} == self.ended
        return jobs

    def finish(self) -> None:
        """Let everything come to its end: nothing may be stuck."""
        self.book.recover()
        for job in self.book.each():
            if job.suspended and not job.children:
                self.book.resume(job.id)
        for _ in range(2 * RETRYING.attempts):
            self.clock.move(timedelta(hours=2))
            for granted in self.book.grant(sorted(self.book.ready_ids())):
                job = granted.job
                self.book.end(job.id, job.fence, Result(Outcome.COMPLETED))
        assert self.book.count(Wanted(states=(JobState.ENDED,))) == self.book.count()


def sound(job: Job) -> None:
    assert job.is_at_work or job.asked is None
    assert (job.outcome is not None) == (job.ended_at is not None) == (job.state is JobState.ENDED)
    assert job.attempt <= RETRYING.attempts
    if not job.children:
        assert (job.lease_until is not None) == job.is_at_work
        assert not job.suspended or job.state is JobState.QUEUED
        assert job.fence >= job.attempt


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "seed"),
    [*(("sqlite", seed) for seed in range(4)), ("postgresql", 4)],
    indirect=["place"],
)
def test_fifty_kills_lose_duplicate_and_stick_nothing(place: Path | str, seed: int) -> None:
    database = Database(place)
    database.migrate()
    site = Site(database)
    rng = random.Random(seed)
    kills, number = 0, seed * 1000
    with workers(place) as process:
        while kills < KILLS:
            number += 1
            answers = answers_of(process, number, rng.randrange(1, MOST_STEPS))
            kills += answers[-1]["killed"]
            site.hear(answers)
            site.check()
    assert number < seed * 1000 + 2 * KILLS
    for one, ids in site.enqueued.items():
        answer = site.book.enqueue(new_jobs(one))
        assert [(found.id, found.is_new) for found in answer] == [(there, False) for there in ids]
    site.finish()
    jobs = site.check()
    seen = [
        (job.policy, job.schedule, job.client, job.source, job.due_at)
        for job in jobs.values()
        if job.due_at is not None
    ]
    assert len(seen) == len(set(seen))
    database.close()
