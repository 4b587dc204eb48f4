"""The book of jobs keeps its promises on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import Fenced, Invalid, JobMissing, WrongState
from holdfast.base.ids import ClientName, JobId, PolicyName, SourceName
from holdfast.control.jobs import (
    LEASE,
    Asked,
    Enqueued,
    Job,
    JobBook,
    JobKind,
    JobState,
    Outcome,
    Remark,
    Result,
    Retrying,
    Severity,
)
from holdfast.control.jobs.job import counted
from tests.kit.booked_jobs import COMPLETED, DUE, IO, add, backup, begin, family, parts_of, remark
from tests.kit.clock import FakeClock

if TYPE_CHECKING:
    from holdfast.control.database import Database


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def book(database: Database, clock: FakeClock) -> JobBook:
    return JobBook(database, clock, Retrying(attempts=2))


# -- into the queue -----------------------------------------------------------------------


def test_a_job_comes_back_as_it_was_asked_for(book: JobBook, clock: FakeClock) -> None:
    late = clock.now() + timedelta(hours=1)
    new = backup(priority=70, due_at=DUE, not_before=late)
    (answer,) = book.enqueue([new])
    assert answer.is_new
    assert book.job(answer.id) == Job(
        id=answer.id,
        kind=JobKind.BACKUP,
        priority=70,
        queued_at=clock.now(),
        policy=PolicyName("nightly"),
        schedule="daily",
        client=ClientName("web1"),
        source=SourceName("web1:/etc"),
        backup_kind="differential",
        storage_unit="default",
        due_at=DUE,
        not_before=late,
    )
    assert book.work(answer.id) == {"paths": ["/etc"], "client": "web1"}
    assert book.ready_ids() == set()
    clock.move(timedelta(hours=1))
    (ready,) = book.ready()
    assert (ready.id, ready.priority, ready.storage_unit) == (answer.id, 70, "default")


def test_numbers_of_jobs_go_up_and_are_never_given_twice(book: JobBook, clock: FakeClock) -> None:
    first = add(book, backup(), backup(), backup())
    assert first == sorted(first)
    book.cancel(first[-1])
    clock.move(timedelta(days=9))
    assert book.forget(clock.now()) == 1
    assert add(book, backup())[0] > first[-1]


def test_one_occurrence_is_one_job_even_when_it_has_ended(book: JobBook) -> None:
    (job,) = add(book, backup(due_at=DUE))
    assert book.enqueue([backup(due_at=DUE)]) == [Enqueued(job, is_new=False, is_whole=False)]
    book.cancel(job)
    again, other_time, other_paths = book.enqueue(
        [
            backup(due_at=DUE),
            backup(due_at=DUE + timedelta(days=1)),
            backup(paths="/home", due_at=DUE),
        ]
    )
    assert again == Enqueued(job, is_new=False, is_whole=False)
    assert other_time.is_new
    assert other_paths.is_new
    assert book.count() == 3


def test_an_occurrence_named_twice_at_once_is_one_job(book: JobBook) -> None:
    first, second = book.enqueue([backup(due_at=DUE), backup(due_at=DUE)])
    assert first.id == second.id
    assert (first.is_new, second.is_new) == (True, False)
    assert book.count() == 1


def test_what_people_ask_for_may_be_asked_for_often(book: JobBook) -> None:
    assert len({*add(book, backup(), backup()), *add(book, backup())}) == 3


def test_a_family_is_a_parent_and_its_parts(book: JobBook) -> None:
    (parent,) = add(book, family(due_at=DUE))
    parts = parts_of(book, parent)
    assert [one.source for one in parts] == ["web1:/etc", "web1:/home", "web1:/srv"]
    assert book.job(parent).children == 3
    assert book.work(parent) == {}
    assert book.work(parts[1].id)["paths"] == ["/home"]
    assert book.ready_ids() == {one.id for one in parts}
    assert book.enqueue([family(due_at=DUE)]) == [Enqueued(parent, is_new=False, is_whole=False)]
    assert book.count() == 4


def test_of_a_family_only_what_is_not_there_is_added(book: JobBook) -> None:
    (alone,) = add(book, backup(paths="/home", due_at=DUE))
    (parent,) = add(book, family("web1", "/etc", "/home", due_at=DUE))
    assert [one.source for one in parts_of(book, parent)] == ["web1:/etc"]
    unnamed = replace(family("web1", "/home", due_at=DUE), due_at=None)
    assert book.enqueue([unnamed]) == [Enqueued(alone, is_new=False, is_whole=False)]


def test_families_of_two_clients_are_two(book: JobBook) -> None:
    first, second = add(book, family("web1", due_at=DUE), family("web2", due_at=DUE))
    assert first != second
    assert len(parts_of(book, second)) == 3


def test_an_occurrence_that_was_missed_is_written_down(book: JobBook) -> None:
    (job,) = add(book, backup(due_at=DUE, missed="the site was down from 02:10 to 06:00"))
    assert book.job(job).outcome is Outcome.MISSED
    (event,) = book.events(job)
    assert event.message == "the site was down from 02:10 to 06:00"
    (parent,) = add(book, family(due_at=DUE + timedelta(days=1), missed="likewise"))
    assert book.job(parent).outcome is Outcome.MISSED


def test_many_jobs_are_enqueued_at_once(book: JobBook) -> None:
    new = [backup(f"c{number}", due_at=DUE) for number in range(2500)]
    found = book.enqueue(new)
    assert [one.id for one in found] == sorted(one.id for one in found)
    assert book.job(found[1717].id).client == "c1717"
    assert book.work(found[1717].id)["client"] == "c1717"
    assert not any(one.is_new for one in book.enqueue(new))
    assert len(book.ready()) == len(book.ready_ids()) == 2500
    assert [one.id for one in book.ready([found[7].id, found[3].id])] == [found[3].id, found[7].id]


def test_bad_input_is_refused(book: JobBook) -> None:
    with pytest.raises(Invalid, match="priority 101"):
        backup(priority=101)
    with pytest.raises(Invalid, match="parts"):
        backup(parts=(family(),))
    for act in (book.job, book.work, book.cancel, book.suspend, book.restart, book.events):
        with pytest.raises(JobMissing, match="no job 99"):
            act(JobId(99))
    with pytest.raises(JobMissing):
        book.progress(JobId(99), 1)
    with pytest.raises(JobMissing):
        book.end(JobId(99), 1, COMPLETED)
    assert book.grant([JobId(99)]) == []


# -- a worker's turn ----------------------------------------------------------------------


def test_a_job_is_granted_works_and_ends(book: JobBook, clock: FakeClock) -> None:
    (job,) = add(book, backup())
    (granted,) = book.grant([job])
    assert granted.work == {"paths": ["/etc"], "client": "web1"}
    assert granted.job.lease_until == clock.now() + LEASE
    assert book.at_work() == [granted.job]
    assert book.ready_ids() == set()
    clock.move(LEASE)
    assert book.progress(job, 1, {"files": 2, "stage_read": 7}) is None
    seen = book.job(job)
    assert seen.counters == counted({"files": 2, "stage_read": 7})
    assert seen.lease_until == clock.now() + LEASE
    book.progress(job, 1, ending=True)
    assert book.job(job).state is JobState.ENDING
    ended = book.end(job, 1, COMPLETED)
    assert ended == book.job(job)
    assert (ended.outcome, ended.image_id) == (Outcome.COMPLETED, "ab" * 16)
    assert ended.duration == LEASE
    assert ended.counters == counted({"files": 3, "online_bytes": 10})
    assert book.end(job, 1, COMPLETED) == ended
    assert book.at_work() == []


def test_a_job_is_granted_once(book: JobBook) -> None:
    first, second = add(book, backup(), backup())
    assert [one.job.id for one in book.grant([second, first])] == [first, second]
    assert book.grant([first, second]) == []


def test_what_was_cancelled_or_suspended_meanwhile_is_not_granted(book: JobBook) -> None:
    jobs = add(book, backup(), backup(), backup(), family())
    book.cancel(jobs[0])
    book.suspend(jobs[1])
    assert [one.job.id for one in book.grant(jobs)] == [jobs[2]]
    assert book.ready_ids() == {one.id for one in parts_of(book, jobs[3])}


def test_an_older_fence_writes_nothing(book: JobBook, clock: FakeClock) -> None:
    (job,) = add(book, backup())
    old = begin(book, job)
    clock.move(LEASE + timedelta(seconds=1))
    (lost,) = book.expire()
    assert lost.state is JobState.QUEUED
    clock.move(timedelta(hours=1))
    new = begin(book, job)
    before = book.job(job)
    remark = Remark(Severity.ERROR, "no permission", "no", path=b"/etc/shadow")
    for fence in (old, new + 1, 0, -1):
        with pytest.raises(Fenced, match=f"job {job} "):
            book.progress(job, fence, {"files": 9}, remarks=[remark])
        with pytest.raises(Fenced):
            book.end(job, fence, COMPLETED, [remark])
    assert book.job(job) == before
    assert book.end(job, new, COMPLETED).outcome is Outcome.COMPLETED


def test_a_silent_worker_is_given_up_and_the_job_tried_again_and_then_failed(
    book: JobBook, clock: FakeClock
) -> None:
    (job,) = add(book, backup())
    begin(book, job)
    clock.move(LEASE)
    assert book.expire() == []
    clock.move(timedelta(seconds=1))
    (lost,) = book.expire()
    assert lost == book.job(job)
    assert lost.not_before is not None
    # The work did not fail: it goes on as soon as somebody is there to do it.
    assert lost.not_before == clock.now()
    assert book.ready_ids() == {job}
    clock.move(timedelta(hours=1))
    begin(book, job)
    clock.move(2 * LEASE)
    (failed,) = book.expire()
    assert failed.outcome is Outcome.FAILED
    assert failed.error is not None
    assert failed.error.message == "nothing was heard of its worker since 2026-01-02 04:06:06 UTC"
    assert [one.cause for one in book.events(job)] == ["tried again", "failed"]


def test_what_failed_for_a_reason_that_may_pass_waits_and_is_tried_again(
    book: JobBook, clock: FakeClock
) -> None:
    (job,) = add(book, backup())
    back = book.end(job, begin(book, job), Result(Outcome.FAILED, error=IO))
    assert back == book.job(job)
    assert (back.state, back.error) == (JobState.QUEUED, IO)
    assert book.grant([job]) == []
    clock.move(timedelta(hours=1))
    last = book.end(job, begin(book, job), Result(Outcome.FAILED, error=IO))
    assert (last.outcome, last.error, last.attempt) == (Outcome.FAILED, IO, 2)


def test_after_a_crash_of_the_master_all_that_was_at_work_is_queued_at_once(
    book: JobBook, clock: FakeClock
) -> None:
    first, second, queued, parent = add(book, backup(), backup(), backup(), family())
    part = parts_of(book, parent)[0].id
    fences = {job: begin(book, job) for job in (first, second, part)}
    book.progress(second, fences[second], ending=True)
    book.cancel(second)
    recovered = book.recover()
    assert [one.id for one in recovered] == [first, second, part]
    assert book.job(second).outcome is Outcome.CANCELLED
    assert {first, queued, part} <= book.ready_ids()
    assert book.job(parent).state is JobState.ACTIVE
    with pytest.raises(Fenced):
        book.end(first, fences[first], COMPLETED)
    assert book.recover() == []


# -- families -----------------------------------------------------------------------------


def test_a_parent_begins_with_its_first_part_and_ends_with_its_last(
    book: JobBook, clock: FakeClock
) -> None:
    (parent,) = add(book, family())
    parts = [one.id for one in parts_of(book, parent)]
    assert book.job(parent).state is JobState.QUEUED
    clock.move(timedelta(minutes=1))
    begun = clock.now()
    fences = [begin(book, one) for one in parts]
    assert book.job(parent).state is JobState.ACTIVE
    results = [COMPLETED, Result(Outcome.COMPLETED_WITH_ERRORS, None, {"files": 4}), COMPLETED]
    for part, fence, result in zip(parts, fences, results, strict=True):
        assert book.job(parent).outcome is None
        clock.move(timedelta(minutes=1))
        book.end(part, fence, result)
    ended = book.job(parent)
    assert ended.outcome is Outcome.COMPLETED_WITH_ERRORS
    assert ended.counters == counted({"files": 10, "online_bytes": 20})
    assert (ended.started_at, ended.ended_at) == (begun, clock.now())
    (event,) = book.events(parent)
    assert event.message == "of 3 parts: 1 completed with errors, 2 completed"


def test_what_is_asked_of_a_family_is_asked_of_its_parts(book: JobBook) -> None:
    (parent,) = add(book, family())
    first, second, third = (one.id for one in parts_of(book, parent))
    fence = begin(book, first)
    book.end(second, begin(book, second), COMPLETED)
    assert book.suspend(parent).state is JobState.ACTIVE
    assert book.progress(first, fence) is Asked.SUSPEND
    assert book.job(third).suspended
    book.end(first, fence, Result(Outcome.CANCELLED))
    assert book.job(parent).status == "suspended"
    book.resume(parent)
    assert book.ready_ids() == {first, third}
    cancelled = book.cancel(parent, by="alice")
    assert cancelled.outcome is Outcome.CANCELLED
    assert book.cancel(parent) == cancelled
    assert book.job(second).outcome is Outcome.COMPLETED
    assert book.events(third)[-1].message == "it was cancelled, as alice asked"
    with pytest.raises(WrongState, match="has ended"):
        book.suspend(parent)


def test_a_part_alone_can_be_cancelled(book: JobBook) -> None:
    (parent,) = add(book, family("web1", "/etc", "/home"))
    first, second = (one.id for one in parts_of(book, parent))
    book.cancel(first)
    assert book.job(parent).state is JobState.ACTIVE
    book.end(second, begin(book, second), COMPLETED)
    assert book.job(parent).outcome is Outcome.CANCELLED


# -- what people ask for ------------------------------------------------------------------


def test_a_job_at_work_is_told_to_stop_with_its_next_progress(book: JobBook) -> None:
    (job,) = add(book, backup())
    fence = begin(book, job)
    assert book.cancel(job, by="alice").asked is Asked.CANCEL
    assert book.progress(job, fence) is Asked.CANCEL
    assert book.end(job, fence, Result(Outcome.CANCELLED)).outcome is Outcome.CANCELLED
    assert [one.message for one in book.events(job)] == [
        "its worker was told to stop, as alice asked",
        "its work stopped",
    ]


def test_a_suspended_job_begins_when_it_is_resumed(book: JobBook) -> None:
    (job,) = add(book, backup())
    assert book.suspend(job).suspended
    assert book.ready_ids() == set()
    book.resume(job)
    assert book.ready_ids() == {job}
    fence = begin(book, job)
    book.requeue(job)
    assert book.progress(job, fence) is Asked.REQUEUE
    book.end(job, fence, Result(Outcome.CANCELLED))
    assert book.ready_ids() == {job}
    assert book.job(job).attempt == 0


def test_an_ended_job_runs_again_as_a_new_one(book: JobBook) -> None:
    (job,) = add(book, backup(due_at=DUE))
    with pytest.raises(WrongState, match="has not ended"):
        book.restart(job)
    book.cancel(job)
    again = book.restart(job, by="alice")
    new = book.job(again)
    assert (new.restart_of, new.due_at, new.source) == (job, None, "web1:/etc")
    assert book.work(again) == book.work(job)
    assert book.events(again)[0].message == f"job {job} was restarted, as alice asked"
    with pytest.raises(WrongState, match=f"already, as job {again}"):
        book.restart(job)
    book.cancel(again)
    assert book.restart(job) > again


def test_of_a_family_that_is_restarted_what_was_completed_is_left_alone(book: JobBook) -> None:
    (parent,) = add(book, family(due_at=DUE))
    first, second, third = (one.id for one in parts_of(book, parent))
    book.end(first, begin(book, first), COMPLETED)
    book.end(second, begin(book, second), Result(Outcome.COMPLETED_WITH_ERRORS))
    book.cancel(third)
    again = parts_of(book, book.restart(parent))
    assert [one.source for one in again] == ["web1:/home", "web1:/srv"]
    assert book.work(again[1].id)["paths"] == ["/srv"]
    (whole,) = add(book, family("web2", "/a", "/b"))
    for part in parts_of(book, whole):
        book.end(part.id, begin(book, part.id), COMPLETED)
    assert len(parts_of(book, book.restart(whole))) == 2


def test_a_job_is_missed(book: JobBook) -> None:
    (job,) = add(book, backup())
    assert book.miss(job, "its window closed at 06:00").outcome is Outcome.MISSED
    with pytest.raises(WrongState):
        book.miss(job, "again")


# -- waiting ------------------------------------------------------------------------------


def test_what_jobs_wait_for_is_noted_shown_and_counted(book: JobBook, clock: FakeClock) -> None:
    jobs = add(book, *(backup() for _ in range(5)))
    words = "storage unit 'default' has 2 of 2 slots in use: jobs 12, 15"
    unit = "storage unit 'default'"
    book.waits(dict.fromkeys(jobs[:3], (unit, words)) | {jobs[3]: (None, "its turn")})
    assert book.job(jobs[0]).waits_for == words
    assert book.job(jobs[0]).waits_on == unit
    since = clock.now()
    clock.move(timedelta(minutes=1))
    book.suspend(jobs[2])
    begin(book, jobs[3])
    book.waits({jobs[3]: (unit, words), jobs[2]: (unit, words), jobs[4]: (unit, words)})
    assert book.job(jobs[3]).waits_for is None
    assert book.job(jobs[2]).waits_for == "suspended until it is resumed"
    numbers = book.numbers(since, clock.now() + timedelta(minutes=1))
    assert numbers.states == {JobState.QUEUED: 4, JobState.ACTIVE: 1}
    assert numbers.suspended == 1
    assert [(one.waits_on, one.jobs, one.since) for one in numbers.queue] == [(unit, 3, since)]


def test_outcomes_are_counted_over_a_time(book: JobBook, clock: FakeClock) -> None:
    start = clock.now()
    (parent,) = add(book, family("web1", "/etc", "/home"))
    for part in parts_of(book, parent):
        book.end(part.id, begin(book, part.id), COMPLETED)
    clock.move(timedelta(days=1))
    (job,) = add(book, backup())
    book.cancel(job)
    day = timedelta(days=1)
    assert book.numbers(start, start + day).outcomes == {Outcome.COMPLETED: 2}
    assert book.numbers(start + day, start + 2 * day).outcomes == {Outcome.CANCELLED: 1}
    assert book.numbers(start, start + 2 * day).queue == ()


# -- forgetting ---------------------------------------------------------------------------


def test_only_what_ended_long_ago_is_forgotten_and_families_as_a_whole(
    book: JobBook, clock: FakeClock
) -> None:
    ended, parent, half, queued = add(book, backup(), family(), family("web2"), backup())
    book.end(ended, begin(book, ended), COMPLETED, [remark(1)])
    book.cancel(parent)
    book.cancel(parts_of(book, half)[0].id)
    again = book.restart(parts_of(book, parent)[1].id)
    clock.move(timedelta(days=30))
    (late,) = add(book, backup())
    book.cancel(late)
    assert book.forget(clock.now(), at_most=1) == 1
    assert book.forget(clock.now()) == 4
    assert book.forget(clock.now()) == 0
    left = {job.id for job in book.each()}
    assert left == {half, *(one.id for one in parts_of(book, half)), queued, late, again}
    assert book.job(again).restart_of is None
