"""The life of a job: what may follow on what, and what comes of it.

::

    queued ──grant──> active ──ending──> ending ──end──> ended
      │  ^              │                  │               ^
      │  └──try again, suspend, requeue────┘               │
      └──────────────cancel, miss──────────────────────────┘

Must not ask a clock, nor remember anything. Each function takes a job as it is and hands back
the job as it becomes, with a remark for its event log; what may not be raises and changes
nothing.

Invariants: what has ended stays as it is; a job is at work if and only if a worker has a lease
on it; at most one worker may write, the one whose fence is the job's; whatever is asked or lost,
a job that was cancelled is never begun again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    DatabaseLost,
    Fenced,
    InternalError,
    Invalid,
    Retry,
    WorkerLost,
    WrongState,
)
from holdfast.control.jobs.job import (
    Asked,
    Job,
    JobError,
    JobKind,
    JobState,
    Outcome,
    Remark,
    Severity,
    counted,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.base.ids import ImageId

_GUEST_ATTEMPTS = 1000
_GUEST_FIRST = timedelta(seconds=1)
_GUEST_MOST = timedelta(seconds=10)

_NOT_THE_WORK = frozenset({WorkerLost.code, DatabaseLost.code})
"""What an attempt fails of without its own doing, and can't begin again before it is over."""

_GOLDEN = 0x9E3779B1
"""Numbers in a row, multiplied by this modulo 2^32, lie far apart (D. Knuth, TAOCP 3, 6.4)."""


@dataclass(frozen=True, slots=True)
class Retrying:
    """How often, and after how long, failed work is tried again.

    Attributes:
        attempts: So often it is begun in all.
        first: Before the second attempt; each wait after that is twice the one before.
        most: No wait is longer, but for the spread.
        spread: Waits are longer by up to this part, so that not all come back at once.
        other_target: Whether there is another target for what this one can't do.
    """

    attempts: int = 3
    first: timedelta = timedelta(minutes=1)
    most: timedelta = timedelta(hours=1)
    spread: float = 0.25
    other_target: bool = False

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first < timedelta() or self.spread < 0:
            raise Invalid("work is begun at least once, and is not tried again before it failed")

    def allows(self, error: JobError | None, attempt: int) -> bool:
        """Whether an attempt that failed of this is followed by another."""
        if error is None or attempt >= self.attempts:
            return False
        if error.retry is Retry.OTHER_TARGET:
            return self.other_target
        return error.retry is Retry.SAME_TARGET

    @property
    def longest(self) -> timedelta:
        """No job waits longer."""
        return self.most * (1 + self.spread)

    def wait(self, job: int, attempt: int, error: JobError) -> timedelta:
        """How long a job waits after an attempt that failed of something; always as long.

        Whose worker or control database was lost, not its work, goes on at once: that the machine
        or the database is back is waited for anyhow. Not a second time, as the work may be what
        they died of.
        """
        if error.code in _NOT_THE_WORK and attempt <= 1:
            return timedelta()
        doublings = min(max(attempt - 1, 0), 30)
        wait = min(self.first * (1 << doublings), self.most)
        return wait * (1 + self.spread * (job * _GOLDEN % 2**32) / 2**32)


@dataclass(frozen=True, slots=True)
class Result:
    """What a worker says at the end of its work.

    Attributes:
        outcome: Not `Outcome.MISSED`; cancelled if it stopped because it was told to.
        error: Why it failed.
    """

    outcome: Outcome
    image_id: ImageId | None = None
    counters: Mapping[str, int] | None = None
    error: JobError | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A job as it has become, and what its event log is to say of that."""

    job: Job
    remark: Remark | None = None


# -- a worker's turn --------------------------------------------------------------------------


def grant(job: Job, now: datetime, lease: timedelta) -> Step:
    """Let a queued job begin.

    Args:
        job: Queued.
        now: The moment.
        lease: How long its worker may be silent.

    Raises:
        WrongState: It may not begin.
    """
    if job.state is not JobState.QUEUED:
        raise WrongState(f"job {job.id} is not queued: it is {job.status}")
    if job.suspended:
        raise WrongState(f"job {job.id} is suspended")
    if job.children:
        raise WrongState(f"job {job.id} begins with its parts, of which it has {job.children}")
    if job.held is not None:
        raise WrongState(f"job {job.id} is held: it waits for {job.waits_for}")
    if job.not_before is not None and job.not_before > now:
        raise WrongState(f"job {job.id} may not begin before {job.not_before:%Y-%m-%d %H:%M:%S}")
    return Step(
        replace(
            job,
            state=JobState.ACTIVE,
            started_at=now,
            attempt=job.attempt + 1,
            fence=job.fence + 1,
            lease_until=now + lease,
            not_before=None,
            counters=counted(),
            waits_on=None,
            waits_for=None,
        )
    )


def progress(
    job: Job,
    fence: int,
    now: datetime,
    lease: timedelta,
    counters: Mapping[str, int] | None = None,
    *,
    ending: bool = False,
) -> Step:
    """Hear of a job's worker: its lease is renewed.

    Args:
        job: At work.
        fence: The worker's.
        now: The moment.
        lease: How long it may be silent from now on.
        counters: What it has counted so far; None for no news.
        ending: The data is through, and what is left is short.

    Raises:
        Fenced: The job is not this worker's any more.
    """
    _require_held(job, fence)
    return Step(
        replace(
            job,
            state=JobState.ENDING if ending else job.state,
            lease_until=now + lease,
            counters=job.counters if counters is None else counted(counters),
        )
    )


def end(job: Job, fence: int, now: datetime, result: Result, retrying: Retrying) -> Step:
    """Hear of the end of a job's work. Told twice, the second time changes nothing.

    What failed for a reason that may pass is queued again. What stopped because somebody asked
    for that is cancelled, suspended or queued, as was asked. What was completed is completed,
    whatever was asked meanwhile.

    Raises:
        Fenced: The job is not this worker's any more.
        Invalid: No worker can end like that.
    """
    if result.outcome is Outcome.MISSED:
        raise Invalid(f"job {job.id} was begun: it can't end as missed")
    if job.state is JobState.ENDED and job.fence == fence and job.outcome is result.outcome:
        return Step(job)
    _require_held(job, fence)
    told = replace(
        job,
        image_id=result.image_id or job.image_id,
        counters=job.counters if result.counters is None else counted(result.counters),
    )
    if result.outcome is Outcome.FAILED:
        error = result.error or JobError("internal", "the work failed, and did not say why")
        if error.code == WorkerLost.code and job.asked is not None:
            # Nobody is there any more to do as was asked: so it is done.
            return _stopped(told, now)
        return _failed(told, now, error, retrying)
    if result.outcome is Outcome.CANCELLED:
        return _stopped(told, now)
    return Step(_ended(told, now, result.outcome))


def lose(job: Job, now: datetime, why: str, retrying: Retrying, *, at_once: bool = False) -> Step:
    """Give up on a job's worker: it may write nothing any more, and the job goes on without it.

    Args:
        job: At work.
        now: The moment.
        why: In a sentence, for the event log.
        retrying: How often it may be begun.
        at_once: Do not wait before the next attempt.

    Raises:
        WrongState: No worker has it.
    """
    if not job.is_at_work or job.children:
        raise WrongState(f"job {job.id} has no worker: it is {job.status}")
    if at_once:
        retrying = replace(retrying, first=timedelta())
    shut_out = replace(job, fence=job.fence + 1)
    if job.asked is not None:
        return _stopped(shut_out, now)
    return _failed(shut_out, now, JobError.of(WorkerLost(why)), retrying)


def is_lost(job: Job, now: datetime) -> bool:
    """Whether nothing was heard of a job's worker for longer than its lease."""
    return job.is_at_work and job.lease_until is not None and job.lease_until < now


# -- what a person, or the master, asks for -----------------------------------------------------


def cancel(job: Job, now: datetime) -> Step:
    """End a job without its work being done; one at work ends when its worker has stopped.

    Raises:
        WrongState: It has ended otherwise.
    """
    if job.outcome is Outcome.CANCELLED:
        return Step(job)
    _require_not_ended(job, "cancelled")
    if job.state is JobState.QUEUED:
        return Step(_ended(job, now, Outcome.CANCELLED), _told("cancelled", "it was cancelled"))
    if job.asked is Asked.CANCEL:
        return Step(job)
    return Step(replace(job, asked=Asked.CANCEL), _told("cancelled", "its worker was told to stop"))


def suspend(job: Job) -> Step:
    """Keep a job from beginning; one at work goes back to the queue when its worker has stopped.

    Raises:
        WrongState: It has ended, or is being cancelled.
    """
    _require_not_ended(job, "suspended")
    if job.asked is Asked.CANCEL:
        raise WrongState(f"job {job.id} is being cancelled", "wait until it has ended")
    if job.suspended or job.asked is Asked.SUSPEND:
        return Step(job)
    if job.state is JobState.QUEUED:
        words = "suspended until it is resumed"
        suspended = replace(job, suspended=True, waits_on=None, waits_for=words)
        return Step(suspended, _told("suspended", "it was suspended"))
    return Step(
        replace(job, asked=Asked.SUSPEND), _told("suspended", "its worker was told to stop")
    )


def resume(job: Job) -> Step:
    """Let a suspended job begin again.

    Raises:
        WrongState: It is not suspended.
    """
    if job.asked is Asked.SUSPEND:
        # Its worker may have stopped already, and is then to find it in the queue.
        return Step(replace(job, asked=Asked.REQUEUE), _told("resumed", "it was resumed"))
    if job.suspended:
        resumed = replace(job, suspended=False, waits_for=None)
        return Step(resumed, _told("resumed", "it was resumed"))
    raise WrongState(f"job {job.id} is not suspended: it is {job.status}")


def requeue(job: Job) -> Step:
    """Have a job that is at work stop and go back to the queue; that is not held against it.

    Raises:
        WrongState: It is not at work.
    """
    if not job.is_at_work:
        raise WrongState(f"job {job.id} is not at work: it is {job.status}")
    if job.asked is not None:
        return Step(job)
    return Step(replace(job, asked=Asked.REQUEUE), _told("requeued", "its worker was told to stop"))


def miss(job: Job, now: datetime, why: str) -> Step:
    """End a queued job that can't begin in time any more.

    Args:
        job: Queued.
        now: The moment.
        why: In a sentence: ``its window closed at 06:00``.

    Raises:
        WrongState: It is not queued.
    """
    if job.state is not JobState.QUEUED:
        raise WrongState(f"job {job.id} is not queued: it is {job.status}")
    remark = Remark(Severity.ERROR, "missed", why, matters=True)
    return Step(_ended(job, now, Outcome.MISSED), remark)


def release(job: Job) -> Step:
    """Let a job that its family kept waiting begin."""
    waits_for = job.waits_for if job.suspended else None
    return Step(replace(job, held=None, waits_for=waits_for))


def drop(job: Job, now: datetime, like: Job) -> Step:
    """End a queued job that can't begin, as another of its family ended: in the same way.

    Args:
        job: Queued.
        now: The moment.
        like: The one that ended, and not well.
    """
    outcome = like.outcome or Outcome.CANCELLED
    error = like.error if outcome is Outcome.FAILED else None
    ended = replace(_ended(job, now, outcome), error=error)
    why = f"the command before it {_ENDED_SO.get(outcome, 'failed')}, as job {like.id}"
    return Step(ended, Remark(Severity.ERROR, "not begun", why, matters=True))


_ENDED_SO = {Outcome.CANCELLED: "was cancelled", Outcome.MISSED: "could not begin in time"}


def spare(job: Job, now: datetime) -> Step:
    """End a queued command that has nothing to undo."""
    words = "it did not run, as nothing was begun that it would undo"
    return Step(_ended(job, now, Outcome.CANCELLED), _told("not needed", words))


# -- inside -----------------------------------------------------------------------------------


def _require_held(job: Job, fence: int) -> None:
    if not job.is_at_work or job.fence != fence or job.children:
        raise Fenced(
            f"job {job.id} is not this worker's any more: it is {job.status}, "
            f"with fence {job.fence}, not {fence}",
            "what it has done since counts for nothing; let it stop",
        )


def _require_not_ended(job: Job, verb: str) -> None:
    if job.state is JobState.ENDED:
        raise WrongState(
            f"job {job.id} has ended ({job.status}): it can't be {verb}",
            f"to run it again: holdfast jobs restart {job.id}",
        )
    if job.children:
        raise InternalError(f"job {job.id} has parts: what is asked of it is asked of them")


def _told(cause: str, message: str) -> Remark:
    return Remark(Severity.INFO, cause, message)


def _ended(job: Job, now: datetime, outcome: Outcome) -> Job:
    return replace(
        job,
        state=JobState.ENDED,
        outcome=outcome,
        ended_at=now,
        error=job.error if outcome is Outcome.FAILED else None,
        suspended=False,
        asked=None,
        lease_until=None,
        not_before=None,
        held=None,
        waits_on=None,
        waits_for=None,
    )


def _failed(job: Job, now: datetime, error: JobError, retrying: Retrying) -> Step:
    told = replace(job, error=error)
    if job.kind is JobKind.INSTANT:
        retrying = _for_guests(retrying, error)
    # Who asked for its end does not want it back.
    if job.asked is Asked.CANCEL or not retrying.allows(error, job.attempt):
        remark = Remark(Severity.ERROR, "failed", error.message, matters=True)
        return Step(_ended(told, now, Outcome.FAILED), remark)
    which = f"attempt {job.attempt} of {retrying.attempts}"
    again = now + retrying.wait(job.id, job.attempt, error)
    words = f"the next attempt, not before {again:%Y-%m-%d %H:%M:%S} UTC: {error.message}"
    suspended = job.asked is Asked.SUSPEND
    back = replace(_back(told, suspended=suspended), not_before=again)
    if not suspended:
        back = replace(back, waits_for=words)
    return Step(back, Remark(Severity.WARNING, "tried again", f"{which} failed: {error.message}"))


def _for_guests(retrying: Retrying, error: JobError) -> Retrying:
    """How work is tried again that a guest waits for: soon; as often as its worker is restarted."""
    attempts = _GUEST_ATTEMPTS if error.code == WorkerLost.code else retrying.attempts
    first = min(retrying.first, _GUEST_FIRST)
    return replace(retrying, attempts=attempts, first=first, most=_GUEST_MOST, spread=0)


def _stopped(job: Job, now: datetime) -> Step:
    if job.asked in {Asked.SUSPEND, Asked.REQUEUE}:
        suspended = job.asked is Asked.SUSPEND
        # What was not its fault must not use up its attempts.
        back = replace(_back(job, suspended=suspended), attempt=max(job.attempt - 1, 0))
        words = "its work stopped; it is suspended" if suspended else "its work stopped"
        return Step(back, _told("suspended" if suspended else "requeued", words))
    return Step(_ended(job, now, Outcome.CANCELLED), _told("cancelled", "its work stopped"))


def _back(job: Job, *, suspended: bool) -> Job:
    return replace(
        job,
        state=JobState.QUEUED,
        suspended=suspended,
        asked=None,
        lease_until=None,
        waits_on=None,
        waits_for="suspended until it is resumed" if suspended else None,
    )
