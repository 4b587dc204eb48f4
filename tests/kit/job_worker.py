"""A process that does things to a book of jobs, and kills itself at a given step.

``python -m tests.kit.job_worker PLACE`` reads lines ``ROUND STEP`` and forks a process for each,
which does what the round's seed says until the database has been asked STEP things. What a call
has answered is printed, a JSON object a line, before the next; the end of a round is the line
``{"round": …, "killed": true|false}``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import event

from holdfast.base.errors import HoldfastError, WrongState
from holdfast.base.ids import ClientName, JobId, PolicyName, SourceName
from holdfast.control.database import Database
from holdfast.control.jobs import (
    Job,
    JobBook,
    JobError,
    JobKind,
    JobState,
    NewJob,
    Outcome,
    Remark,
    Result,
    Retrying,
    Severity,
    Wanted,
)
from tests.kit.clock import FakeClock

ACTS_OF_A_ROUND = 12
START = datetime(2026, 3, 1, tzinfo=UTC)
RETRYING = Retrying(attempts=3)
RESULTS = [
    Result(Outcome.COMPLETED, counters={"files": 1}),
    Result(Outcome.COMPLETED_WITH_ERRORS, counters={"files": 2}),
    Result(Outcome.FAILED, error=JobError("io", "a disk failed")),
    Result(Outcome.FAILED, error=JobError("no-permission", "may not")),
    Result(Outcome.CANCELLED),
]
REMARKS = [
    Remark(Severity.ERROR, "no permission", "may not", matters=True, path=b"/\xff"),
    Remark(Severity.WARNING, "vanished", "it went"),
]


def occurrence(number: int, client: str, path: str, parts: tuple[NewJob, ...] = ()) -> NewJob:
    """A job of the occurrence of this number."""
    return NewJob(
        kind=JobKind.BACKUP,
        work={} if parts else {"path": path},
        policy=PolicyName("nightly"),
        schedule="daily",
        client=ClientName(client),
        source=None if parts else SourceName(f"{client}:{path}"),
        due_at=START + timedelta(minutes=number),
        parts=parts,
    )


def new_jobs(number: int) -> list[NewJob]:
    """Some jobs and a family, the same for the same number."""
    rng = random.Random(number)
    parts = tuple(occurrence(number, "big", f"/{one}") for one in range(rng.randrange(1, 4)))
    alone = [occurrence(number, f"c{one}", "/") for one in range(rng.randrange(3))]
    return [*alone, occurrence(number, "big", "", parts)]


class Round:
    """What one process does until it is killed."""

    def __init__(self, place: Path | str, number: int, kill_at: int) -> None:
        self.number = number
        self.rng = random.Random(number)
        self.clock = FakeClock(START + timedelta(hours=number))
        self.steps_left = kill_at
        database = Database(place)
        for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
            event.listen(database._engine, name, self.step)
        if isinstance(place, Path):
            # pages of unfinished transactions reach the log
            event.listen(database._engine, "connect", small_cache)
        self.book = JobBook(database, self.clock, RETRYING)
        self.mine: dict[JobId, int] = {}

    def say(self, **facts: Any) -> None:
        """Tell what was answered; or be killed when it was done and nobody knows yet."""
        self.step()
        write_line(facts)

    def step(self, *_: object) -> None:
        self.steps_left -= 1
        if self.steps_left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def run(self) -> None:
        self.book.recover()
        for place in range(ACTS_OF_A_ROUND):
            act = self.rng.choice(
                [self.enqueue, self.grant, self.grant, self.progress, *[self.end] * 4, self.ask]
            )
            act(self.number * 100 + place)
            self.clock.move(timedelta(seconds=self.rng.choice([1, 60, 600])))
            self.book.expire()

    def enqueue(self, number: int) -> None:
        new = new_jobs(number)
        ids = [one.id for one in self.book.enqueue(new)]
        self.say(enqueued={str(number): ids})
        assert [one.id for one in self.book.enqueue(new)] == ids

    def grant(self, _: int) -> None:
        ready = sorted(self.book.ready_ids())
        for granted in self.book.grant(ready[: self.rng.randrange(1, 5)]):
            assert granted.work
            self.mine[granted.job.id] = granted.job.fence

    def progress(self, _: int) -> None:
        for job, fence in self.held():
            self.book.progress(job, fence, {"files": 1}, remarks=REMARKS)

    def end(self, _: int) -> None:
        for job, fence in self.held()[:2]:
            result = self.rng.choice(RESULTS)
            self.tell(self.book.end(job, fence, result, REMARKS))
            del self.mine[job]

    def ask(self, _: int) -> None:
        some = self.book.page(limit=20)
        act = self.rng.choice([self.book.cancel, self.book.suspend, self.book.resume])
        for job in self.rng.sample(some, min(2, len(some))):
            try:
                self.tell(act(job.id))
            except WrongState:
                continue
        ended = self.book.page(Wanted(states=(JobState.ENDED,)), limit=20)
        for job in self.rng.sample(ended, min(1, len(ended))):
            try:
                self.say(restarted=self.book.restart(job.id))
            except WrongState:
                continue

    def held(self) -> list[tuple[JobId, int]]:
        """The jobs that this process still has."""
        held = {one.id: one.fence for one in self.book.at_work()}
        return [(job, fence) for job, fence in self.mine.items() if held.get(job) == fence]

    def tell(self, job: Job) -> None:
        if job.state is JobState.ENDED:
            self.say(ended=job.id, outcome=job.outcome)


def write_line(facts: dict[str, Any]) -> None:
    os.write(1, json.dumps(facts).encode() + b"\n")


def small_cache(connection: Any, _: object) -> None:
    connection.execute("PRAGMA cache_size=4")


def main(place: Path | str) -> None:
    """Fork a process for each line."""
    for line in sys.stdin:
        number, kill_at = map(int, line.split())
        child = os.fork()
        if child == 0:
            status = 1
            try:
                Round(place, number, kill_at).run()
                status = 0
            except (HoldfastError, AssertionError):
                traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not killed and status != 0:
            raise SystemExit(f"round {number} ended with {status}")
        write_line({"round": number, "killed": killed})


if __name__ == "__main__":
    given = sys.argv[1]
    main(given if given.startswith("postgresql://") else Path(given))
