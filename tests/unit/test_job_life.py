"""What may follow on what in the life of a job."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import Fenced, InternalError, Invalid, WrongState
from holdfast.base.ids import ImageId, JobId
from holdfast.control.jobs import family, life
from holdfast.control.jobs.family import Parts
from holdfast.control.jobs.job import (
    Asked,
    Job,
    JobError,
    JobKind,
    JobState,
    Outcome,
    Severity,
    counted,
)
from holdfast.control.jobs.life import Result, Retrying

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)
LEASE = timedelta(minutes=2)
RETRYING = Retrying(attempts=3)
IO = JobError("io", "can't read /dev/sda")
QUEUED = Job(id=JobId(7), kind=JobKind.BACKUP, priority=50, queued_at=NOW)


def begun(job: Job = QUEUED) -> Job:
    return life.grant(job, NOW, LEASE).job


def ended(job: Job, outcome: Outcome, error: JobError | None = None) -> life.Step:
    result = Result(outcome, error=error)
    return life.end(job, job.fence, NOW + LEASE, result, RETRYING)


def test_a_job_begins_goes_on_and_ends() -> None:
    job = begun()
    assert (job.state, job.attempt, job.fence) == (JobState.ACTIVE, 1, 1)
    assert job.lease_until == NOW + LEASE
    job = life.progress(job, 1, NOW + LEASE, LEASE, {"files": 3}).job
    assert job.lease_until == NOW + 2 * LEASE
    job = life.progress(job, 1, NOW + LEASE, LEASE, ending=True).job
    assert (job.state, job.counters) == (JobState.ENDING, counted({"files": 3}))
    result = Result(Outcome.COMPLETED, ImageId("0" * 32), {"files": 4})
    step = life.end(job, 1, NOW + 2 * LEASE, result, RETRYING)
    assert step.remark is None
    assert step.job.status == "completed"
    assert step.job.image_id == "0" * 32
    assert step.job.counters == counted({"files": 4})
    assert step.job.duration == 2 * LEASE
    assert step.job.lease_until is None
    # told once more, as the answer was lost
    assert life.end(step.job, 1, NOW + 3 * LEASE, result, RETRYING).job == step.job


def test_an_older_fence_is_refused_everywhere() -> None:
    job = begun(replace(QUEUED, fence=4))
    assert job.fence == 5
    acts: list[Callable[[], life.Step]] = [
        lambda: life.progress(job, 4, NOW, LEASE),
        lambda: life.end(job, 4, NOW, Result(Outcome.COMPLETED), RETRYING),
    ]
    for act in acts:
        with pytest.raises(Fenced, match="with fence 5, not 4"):
            act()


def test_an_ended_job_says_another_end_is_fenced() -> None:
    done = ended(begun(), Outcome.COMPLETED).job
    with pytest.raises(Fenced):
        life.end(done, done.fence, NOW, Result(Outcome.FAILED, error=IO), RETRYING)


def test_what_may_pass_is_tried_again_later_and_later_and_then_fails() -> None:
    step = ended(begun(), Outcome.FAILED, IO)
    assert step.job.state is JobState.QUEUED
    assert step.remark is not None
    assert step.remark.message == "attempt 1 of 3 failed: can't read /dev/sda"
    assert step.job.not_before is not None
    first = step.job.not_before - (NOW + LEASE)
    assert timedelta(minutes=1) <= first <= timedelta(minutes=1.25)
    with pytest.raises(WrongState, match="not begin before"):
        life.grant(step.job, NOW + LEASE, LEASE)
    second = ended(life.grant(step.job, step.job.not_before, LEASE).job, Outcome.FAILED, IO).job
    assert second.not_before is not None
    assert second.not_before == NOW + LEASE + RETRYING.wait(7, 2, IO)
    last = ended(life.grant(second, second.not_before, LEASE).job, Outcome.FAILED, IO)
    assert last.job.outcome is Outcome.FAILED
    assert last.job.error == IO
    assert last.remark is not None
    assert (last.remark.severity, last.remark.matters) == (Severity.ERROR, True)


@pytest.mark.parametrize(
    ("code", "again", "again_elsewhere"),
    [
        ("io", True, True),
        ("no-space", False, True),
        ("no-permission", False, False),
        ("a-code-of-tomorrow", False, False),
    ],
)
def test_the_class_of_an_error_says_whether_to_try_again(
    code: str, again: bool, again_elsewhere: bool
) -> None:
    error = JobError(code, "it failed")
    assert RETRYING.allows(error, 1) is again
    assert replace(RETRYING, other_target=True).allows(error, 1) is again_elsewhere
    assert not RETRYING.allows(None, 1)


def test_waits_double_to_an_hour_and_are_spread_over_jobs_without_chance() -> None:
    waits = [RETRYING.wait(7, attempt, IO) for attempt in range(1, 20)]
    assert waits == [RETRYING.wait(7, attempt, IO) for attempt in range(1, 20)]
    assert waits == sorted(waits)
    assert timedelta(hours=1) <= waits[-1] <= timedelta(hours=1.25)
    many = {RETRYING.wait(job, 1, IO) for job in range(1000)}
    assert len(many) == 1000
    tenths = {int((wait - timedelta(minutes=1)) / timedelta(seconds=1.5)) for wait in many}
    assert tenths == set(range(10))
    assert RETRYING.wait(1, 10**6, IO) <= timedelta(hours=1.25)


def test_a_worker_that_is_lost_is_shut_out_and_the_job_goes_on_without_it() -> None:
    job = begun()
    assert not life.is_lost(job, NOW + LEASE)
    assert life.is_lost(job, NOW + LEASE + timedelta(microseconds=1))
    lost = life.lose(job, NOW + 2 * LEASE, "silent for 4 minutes", RETRYING).job
    assert lost.state is JobState.QUEUED
    assert lost.error is not None
    assert (lost.error.code, lost.error.message) == ("worker-lost", "silent for 4 minutes")
    with pytest.raises(Fenced):
        life.end(lost, job.fence, NOW, Result(Outcome.COMPLETED), RETRYING)
    again = life.grant(lost, NOW + timedelta(hours=1), LEASE).job
    with pytest.raises(Fenced):
        life.progress(again, job.fence, NOW, LEASE)
    with pytest.raises(WrongState, match="no worker"):
        life.lose(lost, NOW, "", RETRYING)


def test_lost_with_the_master_it_waits_for_nothing() -> None:
    lost = life.lose(begun(), NOW + LEASE, "the master ended", RETRYING, at_once=True).job
    assert life.grant(lost, NOW + LEASE, LEASE).job.attempt == 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("worker-lost", "machine 'web1' was started anew while job 7 was at work"),
        ("database-lost", "database postgresql://db/site can't be reached"),
    ],
)
def test_what_lost_its_worker_or_the_database_goes_on_at_once_but_not_twice(
    code: str, message: str
) -> None:
    lost = JobError(code, message)
    first = ended(begun(), Outcome.FAILED, lost).job
    assert first.not_before == NOW + LEASE
    again = ended(life.grant(first, NOW + LEASE, LEASE).job, Outcome.FAILED, lost).job
    assert again.not_before == NOW + LEASE + RETRYING.wait(7, 2, lost)
    assert RETRYING.wait(7, 2, lost) >= timedelta(minutes=2)


def test_a_worker_that_is_lost_too_often_fails_the_job() -> None:
    job = begun(replace(QUEUED, attempt=2))
    step = life.lose(job, NOW, "silent", RETRYING)
    assert step.job.outcome is Outcome.FAILED


def test_a_queued_job_is_cancelled_at_once_and_one_at_work_when_its_worker_stopped() -> None:
    assert life.cancel(QUEUED, NOW).job.outcome is Outcome.CANCELLED
    job = life.cancel(begun(), NOW).job
    assert (job.state, job.asked) == (JobState.ACTIVE, Asked.CANCEL)
    assert life.cancel(job, NOW).job == job
    assert ended(job, Outcome.CANCELLED).job.outcome is Outcome.CANCELLED
    assert ended(job, Outcome.COMPLETED).job.outcome is Outcome.COMPLETED
    assert ended(job, Outcome.FAILED, IO).job.outcome is Outcome.FAILED
    assert life.lose(job, NOW, "silent", RETRYING).job.outcome is Outcome.CANCELLED


def test_a_job_at_work_is_suspended_without_using_up_an_attempt() -> None:
    job = life.suspend(begun()).job
    assert (job.state, job.asked) == (JobState.ACTIVE, Asked.SUSPEND)
    stopped = ended(job, Outcome.CANCELLED).job
    assert (stopped.state, stopped.suspended, stopped.attempt) == (JobState.QUEUED, True, 0)
    assert stopped.status == "suspended"
    with pytest.raises(WrongState, match="suspended"):
        life.grant(stopped, NOW, LEASE)
    resumed = life.resume(stopped).job
    assert life.grant(resumed, NOW, LEASE).job.attempt == 1


def test_one_that_is_resumed_before_its_worker_stopped_goes_back_to_the_queue() -> None:
    job = life.resume(life.suspend(begun()).job).job
    assert job.asked is Asked.REQUEUE
    back = ended(job, Outcome.CANCELLED).job
    assert (back.state, back.suspended, back.attempt) == (JobState.QUEUED, False, 0)


def test_one_that_fails_while_it_is_to_be_suspended_is_suspended() -> None:
    back = ended(life.suspend(begun()).job, Outcome.FAILED, IO).job
    assert (back.state, back.suspended, back.attempt) == (JobState.QUEUED, True, 1)


def test_a_queued_job_is_suspended_resumed_and_missed() -> None:
    suspended = life.suspend(QUEUED).job
    assert life.suspend(suspended).job == suspended
    assert life.resume(suspended).job == QUEUED
    step = life.miss(suspended, NOW, "its window closed at 06:00")
    assert step.job.status == "missed"
    assert step.job.duration is None
    assert step.remark is not None
    assert step.remark.message == "its window closed at 06:00"


def test_requeued_work_stops_and_is_queued() -> None:
    job = life.requeue(begun()).job
    assert life.requeue(job).job == job
    assert ended(job, Outcome.CANCELLED).job == replace(QUEUED, started_at=NOW, fence=1)


def test_a_worker_that_stops_unasked_has_cancelled_the_job() -> None:
    assert ended(begun(), Outcome.CANCELLED).job.outcome is Outcome.CANCELLED


def test_what_has_ended_is_left_alone() -> None:
    done = ended(begun(), Outcome.COMPLETED).job
    acts: list[Callable[[], life.Step]] = [
        lambda: life.cancel(done, NOW),
        lambda: life.suspend(done),
        lambda: life.resume(done),
        lambda: life.requeue(done),
        lambda: life.miss(done, NOW, "late"),
        lambda: life.grant(done, NOW, LEASE),
    ]
    for act in acts:
        with pytest.raises(WrongState, match="completed"):
            act()
    cancelled = life.cancel(QUEUED, NOW).job
    assert life.cancel(cancelled, NOW).job == cancelled


def test_what_can_not_be_is_refused() -> None:
    with pytest.raises(WrongState, match="being cancelled"):
        life.suspend(life.cancel(begun(), NOW).job)
    with pytest.raises(WrongState, match="not queued"):
        life.grant(begun(), NOW, LEASE)
    with pytest.raises(WrongState, match="parts"):
        life.grant(replace(QUEUED, children=2), NOW, LEASE)
    with pytest.raises(InternalError):
        life.cancel(replace(QUEUED, children=2), NOW)
    with pytest.raises(Invalid):
        ended(begun(), Outcome.MISSED)
    with pytest.raises(Invalid):
        Retrying(attempts=0)


def test_a_failure_without_a_reason_is_a_defect_and_not_tried_again() -> None:
    step = ended(begun(), Outcome.FAILED)
    assert step.job.error is not None
    assert step.job.error.code == "internal"
    assert step.job.state is JobState.ENDED


def test_a_clock_that_is_put_back_makes_no_negative_duration() -> None:
    job = begun()
    early = life.end(job, 1, NOW - LEASE, Result(Outcome.COMPLETED), RETRYING).job
    assert early.duration == timedelta()


PARENT = replace(QUEUED, children=3)


def parts(
    *ended: Outcome, at_work: int = 0, queued: int = 0, suspended: int = 0, begun: bool = True
) -> Parts:
    counts = {outcome: ended.count(outcome) for outcome in ended}
    return Parts(counts, at_work, queued, suspended, NOW if begun else None, NOW, {"files": 3})


def test_a_parent_is_where_its_parts_are() -> None:
    assert family.follow(PARENT, parts(queued=3, begun=False)).job.state is JobState.QUEUED
    active = family.follow(PARENT, parts(Outcome.COMPLETED, at_work=1, queued=1)).job
    assert (active.state, active.waits_for) == (JobState.ACTIVE, "1 of its 3 parts")
    assert family.follow(PARENT, parts(Outcome.COMPLETED, queued=2)).job.state is JobState.ACTIVE
    assert family.follow(PARENT, parts(suspended=3, begun=False)).job.status == "suspended"
    assert not family.follow(PARENT, parts(suspended=2, at_work=1)).job.suspended
    with pytest.raises(InternalError, match="3 parts, not 2"):
        family.follow(PARENT, parts(queued=2))


@pytest.mark.parametrize("worst", list(Outcome))
def test_a_parent_ends_as_the_worst_of_its_parts(worst: Outcome) -> None:
    outcomes = [one for one in Outcome if one.badness <= worst.badness]
    some = [worst, outcomes[0], outcomes[len(outcomes) // 2]]
    step = family.follow(PARENT, parts(*some))
    assert step.job.outcome is worst
    assert step.job.ended_at == NOW
    assert (step.remark is None) == (worst is Outcome.COMPLETED)
    if step.remark is not None:
        assert worst.words in step.remark.message
    assert family.follow(step.job, parts(*some)).job == step.job
