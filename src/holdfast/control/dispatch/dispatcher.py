"""One step after another: what is due becomes jobs, jobs are given out, workers are heard.

Must not move data nor wait: whoever calls `step` does it again after a while, or when `wake` is
set. Everything that must not be lost is in the books before anything comes of it; what is kept
here in memory is made anew from them.

Invariants: a job is given out under one fence at a time; an occurrence becomes one job, whenever
the process is killed; a scheduled job begins in a window of its schedule or not at all.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from holdfast.base import labels
from holdfast.base.clock import set_by
from holdfast.base.errors import Fenced, HoldfastError, JobMissing
from holdfast.base.ids import ImageId, JobId
from holdfast.base.units import format_duration
from holdfast.control.dispatch import hearing
from holdfast.control.jobs import JobError, JobKind, JobState, Outcome, Result
from holdfast.wire.machine_work import MachineWork
from holdfast.wire.messages import (
    Answer,
    BackupWork,
    CommandWork,
    WorkOffer,
    WorkProgress,
    work_from_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from holdfast.base.clock import Clock
    from holdfast.control.catalog import Catalog
    from holdfast.control.dispatch.agenda import Agenda
    from holdfast.control.dispatch.queue import Queue
    from holdfast.control.jobs import Granted, Job, JobBook
    from holdfast.wire.messages import Work, WorkMessage

SET = timedelta(seconds=5)
"""A clock that went off by less between two steps was not set, or not so that it matters."""

LOOK_S = 1.0
"""What no other thread of this process told of is looked for so often."""

_LOG = logging.getLogger("holdfast.dispatch")


def _nothing_follows(_job: Job, _image: ImageId) -> None:
    return


def _as_it_is(_job: Job, work: Work) -> Work:
    return work


@dataclass
class Dispatcher:
    """The master's hand in the books. Thread-safe.

    Attributes:
        site_id: Of this site; part of what a job's image is labelled with.
        pool_of: The pool that a job's image goes into.
        clock: The clock by which all is judged.
        jobs: What is to be done.
        catalog: Where images are noted.
        agenda: What becomes due.
        queue: What may begin.
        lease_s: How long a worker may be silent, in seconds.
        complete: Adds to work what is known only when it is given out, such as credentials that
            are not written down with a job; raises `HoldfastError` if nobody can do it.
        committed: Told of a job's image that the catalog knows, before that job ends, and again
            after a crash: queues what follows on it.
        wake: Is set when there may be something to do at once.
    """

    site_id: str
    pool_of: Callable[[Job], str]
    clock: Clock
    jobs: JobBook
    catalog: Catalog
    agenda: Agenda
    queue: Queue
    lease_s: float
    complete: Callable[[Job, Work], Work] = _as_it_is
    committed: Callable[[Job, ImageId], None] = _nothing_follows
    wake: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._mark = self.clock.mark()
        self._news = threading.Event()
        self._looked_s = 0.0

    def start(self, committed: Callable[[set[str]], dict[str, ImageId]]) -> list[Job]:
        """Take up what a master before left, whose workers ended with it, but for machines' own.

        Jobs that machines are at work on stay theirs until their leases end.

        Args:
            committed: Has the catalog know the images that some jobs made, by label, and tells
                which they are.

        Returns:
            Jobs that were at work, as they have become: ended if their image is there, else
            queued once more.
        """
        at_work = {
            self._label(one.id, one.fence): one
            for one in self.jobs.at_work()
            if one.kind is JobKind.BACKUP
        }
        done = []
        for label, image in (committed(set(at_work)) if at_work else {}).items():
            job = at_work[label]
            self.committed(job, image)
            result = hearing.of_image(self.catalog.image(image))
            done.append(self.jobs.end(job.id, job.fence, result))
        presence = self.queue.presence
        lost = self.jobs.recover(presence.agents)
        for one in self.jobs.at_work():
            if presence.is_remote(one):
                self.queue.adopt(one)
        return done + lost

    def ask(self) -> None:
        """Have the next turn look at everything, at once: somebody asked for something."""
        self._news.set()
        self.wake.set()

    def turn(self) -> list[WorkOffer]:
        """A step, or where all that can have changed is that a slot is free, what gives it again.

        See `step`. What other processes ask for is seen within `LOOK_S`.
        """
        if not self._news.is_set() and time.monotonic() - self._looked_s < LOOK_S:
            self.wake.clear()
            with self._lock:
                now = self.clock.now()
                granted = None
                if self.agenda.is_known and not self.agenda.hand_out(now):
                    granted = self.queue.give_out_freed(now)
            if granted is not None:
                return self._offers(granted)
        return self.step()

    def step(self) -> list[WorkOffer]:
        """Do what is to be done now.

        Returns:
            What workers are to be told; each is its worker's as soon as this returns.
        """
        self.wake.clear()
        self._news.clear()
        self._looked_s = time.monotonic()
        with self._lock:
            self._mind_the_clock()
            now = self.clock.now()
            self.agenda.refresh(now)
            self.agenda.let_go_of_idle(now, self.queue.sources_at_work())
            self.agenda.hand_out(now)
            for job in self.jobs.expire():
                self._let_go(job)
            granted = self.queue.step(now, self.agenda.roster)
        return self._offers(granted)

    def next_moment(self) -> datetime | None:
        """When something is due if nothing else happens; None if nothing ever will be."""
        with self._lock:
            return self.agenda.next_moment()

    def hear(self, message: WorkMessage) -> Answer:
        """Take a message of a worker; see `wire.messages.Master`."""
        job, fence = JobId(message.job_id), message.fence
        try:
            if isinstance(message, WorkProgress):
                asked = self.jobs.progress(job, fence, hearing.counters(message.counters))
                return Answer.GO_ON if asked is None else Answer.STOP
            # The image is there, whoever made it, and whatever becomes of the job.
            if message.image is not None:
                known = self.jobs.job(job)
                self.catalog.record_image(message.image, self.pool_of(known))
                self.committed(known, ImageId(message.image.id))
            after = self.jobs.end(
                job,
                fence,
                hearing.result(message),
                hearing.remarks(message),
                hearing.left_out(message),
            )
        except (Fenced, JobMissing):
            return Answer.FENCED
        with self._lock:
            self._let_go(after, fence)
        self.wake.set()
        return Answer.GO_ON

    def _mind_the_clock(self) -> None:
        """Judge nothing by what the clock said before it was set."""
        before, self._mark = self._mark, self.clock.mark()
        by = set_by(before, self._mark) or timedelta()
        if abs(by) < SET:
            return
        way = "forward" if by > timedelta() else "back"
        told = format_duration(abs(by).total_seconds())
        _LOG.warning("the clock of this machine was put %s by %s", way, told)
        self.jobs.clock_was_set()
        if by < timedelta():
            self.agenda.clock_was_put_back()

    def _let_go(self, job: Job, fence: int | None = None) -> None:
        """Take back what a job had that works no longer; see `Queue.let_go`."""
        if job.state in {JobState.ACTIVE, JobState.ENDING}:
            return
        self.queue.let_go(job.id, fence)
        if job.state is JobState.ENDED:
            self.agenda.ended(job)

    def _offers(self, granted: Sequence[Granted]) -> list[WorkOffer]:
        return [offer for one in granted if (offer := self._offer(one)) is not None]

    def _offer(self, granted: Granted) -> WorkOffer | None:
        job = granted.job
        try:
            work = self.complete(job, work_from_json(granted.work))
        except HoldfastError as error:
            # Of a newer Holdfast, of a machine that is gone, or only written down: nobody can.
            result = Result(Outcome.FAILED, error=JobError.of(error))
            after = self.jobs.end(job.id, job.fence, result)
            with self._lock:
                self._let_go(after)
            return None
        if isinstance(work, BackupWork | MachineWork):
            named = {**work.labels, labels.JOB: self._label(job.id, job.fence)}
            work = replace(work, labels=named)
        elif isinstance(work, CommandWork) and job.parent_id is not None:
            # Both commands are told the same, however often each is tried.
            named = {**work.labels, labels.JOB: self._label(job.parent_id, 0)}
            work = replace(work, labels=named)
        return WorkOffer(job.id, job.fence, self.lease_s, work)

    def _label(self, job: JobId, fence: int) -> str:
        return labels.of_job(self.site_id, job, fence)
