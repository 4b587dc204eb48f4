"""The book of jobs: what is to be done, who does it, and what came of it.

Must not decide who may begin (broker), what may follow on what (life), or what is due
(schedule). Invariants: every call is one transaction, durable on return, so that a process
killed at any moment leaves each job in one state of its life and its parent with it; one
occurrence of a schedule is one job; nothing that an older fence says is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.clock import to_ns
from holdfast.base.errors import WorkerLost, WrongState
from holdfast.control.jobs import enqueue, history, life, queue, sequence, store
from holdfast.control.jobs.job import OF_CLIENTS, JobKind, JobState, Outcome, Remark, Severity
from holdfast.control.jobs.life import Retrying
from holdfast.control.jobs.questions import JobQuestions
from holdfast.control.jobs.queue import AT_WORK
from holdfast.control.jobs.schema import jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from holdfast.base.clock import Clock
    from holdfast.base.ids import ClientName, JobId
    from holdfast.control.database import Database
    from holdfast.control.jobs.enqueue import Enqueued, NewJob
    from holdfast.control.jobs.job import Asked, Job
    from holdfast.control.jobs.life import Result, Step

LEASE = timedelta(minutes=2)
"""A worker may be silent for so long."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A job that has begun, and what its worker is to be told; its fence is in the job."""

    job: Job
    work: dict[str, Any]


class JobBook(JobQuestions):
    """All jobs of a site, to be worked on. Thread-safe; several processes may have it open."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        retrying: Retrying | None = None,
        lease: timedelta = LEASE,
    ) -> None:
        """Use a database of the newest schema.

        Args:
            database: Where jobs are kept.
            clock: Says when things happen.
            retrying: How often, and after how long, failed work is tried again.
            lease: How long a worker may be silent.
        """
        super().__init__(database, clock)
        self._commits = database.together
        self._retrying = retrying or Retrying()
        self._lease = lease

    # -- into the queue -------------------------------------------------------------------

    def enqueue(self, new: Sequence[NewJob]) -> list[Enqueued]:
        """Queue jobs, all or none; an occurrence that is there already is left alone.

        Returns:
            The job of each, in the same order.
        """
        if not new:
            return []
        now = self._clock.now()

        def act(connection: sa.Connection) -> list[Enqueued]:
            found = enqueue.enqueue(connection, new, now)
            for one, answer in zip(new, found, strict=True):
                if one.missed is not None and answer.is_new:
                    _ask(connection, answer.id, now, _missing(one.missed, now))
            return found

        return self._commits.write(act)

    def restart(self, job: JobId, by: str | None = None) -> JobId:
        """Run an ended job again, as a new job; of a family, the parts that were not completed.

        Args:
            job: Ended.
            by: Who asked for it.

        Raises:
            JobMissing: There is no such job.
            WrongState: It has not ended, or runs again already.
        """
        now = self._clock.now()
        remark = _said(Remark(Severity.INFO, "restarted", f"job {job} was restarted"), by)

        def act(connection: sa.Connection) -> JobId:
            new = queue.restarted(connection, store.load(connection, job))
            (answer,) = enqueue.enqueue(connection, [new], now)
            added = store.load(connection, answer.id)
            store.take_step(connection, added, life.Step(added, remark), now)
            return answer.id

        return self._commits.write(act)

    # -- the queue ------------------------------------------------------------------------

    def waits(self, reasons: Mapping[JobId, tuple[str | None, str]]) -> None:
        """Note what queued jobs wait for: the resource, and a sentence."""
        if reasons:
            self._commits.write(lambda connection: queue.note_waits(connection, reasons))

    def assign(self, job: JobId, worker: ClientName) -> None:
        """Have another do a queued job; one that has begun is left to who has it."""
        queued = jobs.c.id == job, jobs.c.state == str(JobState.QUEUED)
        change = sa.update(jobs).where(*queued).values(worker=worker)
        self._commits.write(lambda connection: connection.execute(change))

    # -- a worker's turn ------------------------------------------------------------------

    def grant(self, some: Sequence[JobId]) -> list[Granted]:
        """Let queued jobs begin: each has a new fence, and a lease, at once.

        Returns:
            Those that began, oldest first. One that may not begin any more, since somebody
            cancelled or suspended it, is not among them.
        """
        if not some:
            return []
        now = self._clock.now()

        def act(connection: sa.Connection) -> list[Granted]:
            granted: list[Job] = []
            for chunk in queue.chunks(sorted(some)):
                for job in store.load_some(connection, jobs.c.id.in_(chunk)):
                    try:
                        step = life.grant(job, now, self._lease)
                    except WrongState:
                        continue
                    granted.append(store.take_step(connection, job, step, now))
            store.follow(connection, granted, now)
            work = queue.work_of(connection, [one.id for one in granted])
            return [Granted(one, work[one.id]) for one in granted]

        return self._commits.write(act)

    def progress(
        self,
        job: JobId,
        fence: int,
        counters: Mapping[str, int] | None = None,
        *,
        ending: bool = False,
        remarks: Sequence[Remark] = (),
        left_out: int = 0,
    ) -> Asked | None:
        """Hear of a worker: its lease is renewed.

        Args:
            job: At work.
            fence: The worker's.
            counters: All it has counted so far; None for no news.
            ending: The data is through, and what is left is short.
            remarks: What happened to files since.
            left_out: How much more there was to say of them.

        Returns:
            What was asked of the job; if anything, the worker is to stop.

        Raises:
            JobMissing: There is no such job.
            Fenced: The job is not this worker's any more.
        """
        now = self._clock.now()

        def act(connection: sa.Connection) -> Asked | None:
            before = store.load(connection, job)
            step = life.progress(before, fence, now, self._lease, counters, ending=ending)
            after = store.take_step(connection, before, step, now, remarks, left_out)
            store.follow(connection, [after], now)
            return after.asked

        return self._commits.write(act)

    def end(
        self,
        job: JobId,
        fence: int,
        result: Result,
        remarks: Sequence[Remark] = (),
        left_out: int = 0,
    ) -> Job:
        """Hear of the end of a job's work. Safe to repeat, if the answer was lost.

        Args:
            job: At work.
            fence: The worker's.
            result: What came of it.
            remarks: What happened to files since the last progress.
            left_out: How much more there was to say of them.

        Returns:
            The job as it has become: ended, or queued once more.

        Raises:
            JobMissing: There is no such job.
            Fenced: The job is not this worker's any more.
        """
        now = self._clock.now()

        def act(connection: sa.Connection) -> Job:
            before = store.load(connection, job)
            step = life.end(before, fence, now, result, self._retrying)
            if step.job is before:
                return before
            sequence.owe(connection, before, owed=not _has_tidied_up(result))
            after = store.take_step(connection, before, step, now, remarks, left_out)
            store.follow(connection, [after], now)
            return after

        return self._commits.write(act)

    def record(
        self,
        new: NewJob,
        started_at: datetime,
        ended_at: datetime,
        result: Result,
        remarks: Sequence[Remark] = (),
        left_out: int = 0,
    ) -> JobId:
        """Write down a job that ran without this book, once.

        Args:
            new: What it was; its occurrence, `NewJob.due_at`, tells it from others.
            started_at: When it began.
            ended_at: When it ended.
            result: What came of it. What failed is not tried again.
            remarks: What happened to files.
            left_out: How much more there was to say of them.
        """

        def act(connection: sa.Connection) -> JobId:
            (answer,) = enqueue.enqueue(connection, [new], started_at)
            if answer.is_new:
                job = store.load(connection, answer.id)
                step = life.grant(job, started_at, self._lease)
                begun = store.take_step(connection, job, step, started_at)
                once = replace(self._retrying, attempts=1)
                step = life.end(begun, begun.fence, ended_at, result, once)
                store.take_step(connection, begun, step, ended_at, remarks, left_out)
            return answer.id

        return self._commits.write(act)

    def expire(self) -> list[Job]:
        """Give up on workers that were silent for longer than their lease; to be called often.

        Returns:
            The jobs as they have become: queued once more, or ended.
        """
        now = self._clock.now()
        late = jobs.c.lease_until_ns < to_ns(now)
        why = "nothing was heard of its worker since {heard:%Y-%m-%d %H:%M:%S} UTC"
        return self._lose(now, why, late, at_once=False)

    def recover(self, elsewhere: Collection[ClientName] = ()) -> list[Job]:
        """Give up on every worker that ended with the master that was before this one.

        Args:
            elsewhere: Clients whose backups, and what they do with hypervisors, are done by
                machines of their own, which did not.

        Returns:
            The jobs as they have become: queued once more, or ended.
        """
        why = "the master server ended while it was at work"
        theirs = [str(one) for one in OF_CLIENTS if one is not JobKind.RESTORE]
        worker = sa.case((jobs.c.worker != "", jobs.c.worker), else_=jobs.c.client)
        here = sa.not_(sa.and_(jobs.c.kind.in_(theirs), worker.in_(sorted(elsewhere))))
        return self._lose(self._clock.now(), why, here, at_once=True)

    def clock_was_set(self) -> None:
        """Judge nobody by what the clock said before it was set.

        Workers get a new lease, and nothing waits longer to be tried again than it ever would.
        """
        now = self._clock.now()
        lease_until, at_latest = to_ns(now + self._lease), to_ns(now + self._retrying.longest)

        def act(connection: sa.Connection) -> None:
            connection.execute(sa.update(jobs).where(*AT_WORK).values(lease_until_ns=lease_until))
            queued = (
                jobs.c.state == str(JobState.QUEUED),
                jobs.c.not_before_ns > at_latest,
                jobs.c.attempt > 0,
            )
            connection.execute(sa.update(jobs).where(*queued).values(not_before_ns=at_latest))

        self._commits.write(act)

    # -- what people ask for --------------------------------------------------------------

    def cancel(self, job: JobId, by: str | None = None) -> Job:
        """End a job, or all of a family that have not ended, without its work being done.

        One at work ends when its worker has stopped. A command that undoes what was begun runs all
        the same, unless it is named itself, or the last of its family.

        Raises:
            JobMissing: There is no such job.
            WrongState: It has ended otherwise.
        """
        now = self._clock.now()
        return self._asked(job, now, lambda one: life.cancel(one, now), by, but_after=True)

    def suspend(self, job: JobId, by: str | None = None) -> Job:
        """Keep a job, or a family, from beginning; one at work goes back to the queue.

        Raises:
            JobMissing: There is no such job.
            WrongState: It has ended, or is being cancelled.
        """
        return self._asked(job, self._clock.now(), life.suspend, by)

    def resume(self, job: JobId, by: str | None = None) -> Job:
        """Let a suspended job, or family, begin again.

        Raises:
            JobMissing: There is no such job.
            WrongState: It is not suspended.
        """
        return self._asked(job, self._clock.now(), life.resume, by)

    def requeue(self, job: JobId) -> Job:
        """Have a job at work stop and go back to the queue, as the master wants to end.

        Raises:
            JobMissing: There is no such job.
            WrongState: It is not at work.
        """
        return self._asked(job, self._clock.now(), life.requeue, None)

    def miss(self, job: JobId, why: str) -> Job:
        """End a queued job that can't begin in time any more.

        Raises:
            JobMissing: There is no such job.
            WrongState: It is not queued.
        """
        now = self._clock.now()
        return self._asked(job, now, _missing(why, now), None)

    # -- keeping house ---------------------------------------------------------------------

    def forget(self, before: datetime, at_most: int = queue.AT_ONCE) -> int:
        """Forget jobs that ended long ago, with their events; families only as a whole.

        Args:
            before: What ended before this goes.
            at_most: So many in one transaction; call again until there are none.

        Returns:
            How many went.
        """
        return self._commits.write(lambda one: history.forget(one, before, at_most))

    # -- inside ---------------------------------------------------------------------------

    def _asked(
        self,
        job: JobId,
        now: datetime,
        act: Callable[[Job], Step],
        by: str | None,
        *,
        but_after: bool = False,
    ) -> Job:
        return self._commits.write(
            lambda connection: _ask(connection, job, now, act, by, but_after=but_after)
        )

    def _lose(
        self, now: datetime, why: str, *conditions: sa.ColumnElement[bool], at_once: bool
    ) -> list[Job]:
        with self._database.read() as connection:
            # Most often there is none, and a look does not keep others from writing.
            query = sa.select(jobs.c.id).where(*AT_WORK, *conditions).limit(1)
            if connection.scalar(query) is None:
                return []

        def act(connection: sa.Connection) -> list[Job]:
            lost = []
            for one in store.load_some(connection, *AT_WORK, *conditions):
                heard = (one.lease_until or now) - self._lease
                told = why.format(heard=heard)
                step = life.lose(one, now, told, self._retrying, at_once=at_once)
                sequence.owe(connection, one, owed=True)
                lost.append(store.take_step(connection, one, step, now))
            store.follow(connection, lost, now)
            return lost

        return self._commits.write(act)


def _ask(
    connection: sa.Connection,
    job: JobId,
    now: datetime,
    act: Callable[[Job], Step],
    by: str | None = None,
    *,
    but_after: bool = False,
) -> Job:
    """Do something to a job, or to all of a family that have not ended.

    Args:
        connection: In a write transaction.
        job: Which.
        now: The moment.
        act: What.
        by: Who asked for it.
        but_after: Not to the commands that undo what others of the family have begun.
    """
    asked = store.load(connection, job)
    members = [asked]
    if asked.children:
        unended = (jobs.c.parent_id == job, jobs.c.state != str(JobState.ENDED))
        # What can't be done to one that has ended is said in the same words of a family.
        members = store.load_some(connection, *unended) or [replace(asked, children=0)]
        if but_after:
            after = JobKind.COMMAND_AFTER
            members = [one for one in members if one.kind is not after] or members
    written, refused = [], None
    for one in members:
        try:
            step = act(one)
        except WrongState as error:
            refused = error
            continue
        told = step.remark and _said(step.remark, by)
        written.append(store.take_step(connection, one, life.Step(step.job, told), now))
    if not written and refused is not None:
        raise refused
    store.follow(connection, written, now)
    return store.load(connection, job)


def _has_tidied_up(result: Result) -> bool:
    """Whether a command before that ended so left nothing to undo."""
    lost = result.error is not None and result.error.code == WorkerLost.code
    return result.outcome in {Outcome.FAILED, Outcome.CANCELLED} and not lost


def _missing(why: str, now: datetime) -> Callable[[Job], Step]:
    return lambda job: life.miss(job, now, why)


def _said(remark: Remark, by: str | None) -> Remark:
    if by is None:
        return remark
    return replace(remark, message=f"{remark.message}, as {by} asked")
