"""From a policy to an image: what is due becomes one job, which is given out once."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base import labels
from holdfast.base.ids import ClientName, JobId
from holdfast.control.jobs import (
    JobKind,
    JobState,
    NewJob,
    Outcome,
    Wanted,
)
from holdfast.control.policies import ALL_LOCAL_DRIVES, Limits, Selection
from holdfast.control.schedule import BackupKind, Schedule
from holdfast.wire.messages import Answer, SiteWork, WorkError
from tests.kit.clock import FakeClock
from tests.kit.dispatching import DAY, EVENING, HOUR, MINUTE, NIGHT, Stage, backup, daily
from tests.kit.policies import policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.control.database import Database


@pytest.fixture
def stage(database: Database, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(database, tmp_path, FakeClock(EVENING))
    yield made
    made.close()


def test_a_policy_becomes_a_job_in_its_window_and_an_image_with_its_name(stage: Stage) -> None:
    stage.put(policy(schedules=(daily(),)))
    assert stage.step() == []
    (offer,) = stage.pass_time(HOUR)
    assert backup(offer).source == "web1:/etc,/srv"
    assert stage.step() == []
    assert stage.alive(offer) is Answer.GO_ON
    assert stage.finish(offer) is Answer.GO_ON
    (job,) = stage.all_jobs()
    assert (job.state, job.outcome) == (JobState.ENDED, Outcome.COMPLETED)
    assert (job.counters["size_bytes"], job.counters["online_bytes"]) == (10, 4)
    (image,) = stage.catalog.images()
    assert image.id == job.image_id
    assert (image.policy, image.schedule) == ("servers", "nightly")
    assert image.backup_kind == "differential"
    assert image.job == f"{stage.dispatcher.site_id}/{job.id}/{job.fence}"
    # Not again in this night, and once in the next.
    assert stage.pass_time(2 * HOUR) == []
    assert len(stage.pass_time(24 * HOUR)) == 1


def test_a_master_that_is_killed_at_any_moment_runs_an_occurrence_once(stage: Stage) -> None:
    stage.put(policy(schedules=(daily(),)))
    stage.step()
    stage.clock.move(HOUR)
    # Killed after the jobs are in the book and before the history is.
    stage.dispatcher.agenda.refresh(stage.clock.now())
    stage.dispatcher.agenda._histories = Forgetful(stage)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        stage.dispatcher.agenda.hand_out(stage.clock.now())
    assert len(stage.all_jobs()) == 1
    stage.restart()
    (offer,) = stage.step()
    # Killed while it is at work.
    stage.restart()
    (again,) = stage.pass_time(timedelta())
    assert (again.job_id, again.fence > offer.fence) == (offer.job_id, True)
    assert stage.finish(offer) is Answer.FENCED
    # Killed after the image is in the pool and before the job has ended.
    stage.image(again)
    (job,) = stage.restart()
    assert (job.id, job.outcome) == (again.job_id, Outcome.COMPLETED)
    assert stage.pass_time(HOUR) == []
    (job,) = stage.all_jobs()
    assert job.image_id is not None


def test_occurrences_that_could_not_be_written_down_are_handed_out_again(stage: Stage) -> None:
    stage.put(policy(schedules=(daily(),)))
    stage.step()
    stage.clock.move(HOUR)
    agenda = stage.dispatcher.agenda
    sound = agenda._histories
    agenda._histories = Forgetful(stage)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        agenda.hand_out(stage.clock.now())
    agenda._histories = sound
    (offer,) = stage.step()
    stage.finish(offer)
    assert stage.pass_time(HOUR) == []
    assert len(stage.all_jobs()) == 1


class Forgetful:
    """Histories of a process that ends before it has written them."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def handled(self, *_args: object) -> None:
        raise KeyboardInterrupt


def test_what_begins_together_is_one_family(stage: Stage) -> None:
    selections = tuple(Selection(f"s{n}", (f"/srv/{n}",)) for n in range(2))
    stage.put(
        policy(selections=selections, schedules=(daily(),), limits=Limits(streams_per_client=2))
    )
    stage.step()
    offers = stage.pass_time(HOUR)
    (parent,) = stage.jobs.page(Wanted(tops=True))
    assert parent.children == 2
    for one in offers:
        stage.finish(one)
    assert stage.jobs.job(parent.id).outcome is Outcome.COMPLETED


def test_each_local_drive_is_a_source_of_its_own(stage: Stage) -> None:
    stage.put(
        policy(
            selections=(Selection("all", ALL_LOCAL_DRIVES),),
            schedules=(daily(),),
            limits=Limits(streams_per_client=2),
        )
    )
    stage.step()
    offers = stage.pass_time(HOUR)
    assert sorted(backup(one).paths for one in offers) == [("/",), ("/srv",)]
    assert all(backup(one).one_file_system for one in offers)


def test_a_job_that_waited_until_its_window_closed_goes_on_in_the_next(stage: Stage) -> None:
    stage.slots = 1
    stage.restart()
    clients = (ClientName("web1"), ClientName("web2"))
    stage.put(policy(clients=clients, schedules=(daily(),)))
    stage.step()
    (first,) = stage.pass_time(HOUR)
    stage.clock.move(8 * HOUR)
    stage.alive(first)
    stage.step()
    (waiting,) = [one for one in stage.all_jobs() if one.state is JobState.QUEUED]
    assert waiting.waits_for == "the window of schedule 'nightly' opens at 22:00"
    stage.finish(first)
    assert stage.step() == []
    offers = stage.pass_time(16 * HOUR)
    assert waiting.id in {one.job_id for one in offers}


def test_a_job_that_is_not_to_run_later_is_missed_with_the_reason(stage: Stage) -> None:
    stage.slots = 1
    stage.restart()
    clients = (ClientName("web1"), ClientName("web2"))
    stage.put(policy(clients=clients, schedules=(daily(run_missed=False),)))
    stage.step()
    (first,) = stage.pass_time(HOUR)
    stage.clock.move(8 * HOUR)
    stage.alive(first)
    stage.step()
    (missed,) = [one for one in stage.all_jobs() if one.id != first.job_id]
    assert missed.outcome is Outcome.MISSED
    said = stage.jobs.events(missed.id)[-1].message
    assert "its window closed before it could begin" in said
    assert "storage unit 'default' has 1 of 1 slots in use" in said


def test_nights_without_a_master_are_one_missed_job(stage: Stage) -> None:
    stage.put(policy(schedules=(daily(run_missed=False),)))
    stage.step()
    stage.clock.move(timedelta(days=3, hours=15))
    stage.restart()
    stage.step()
    (missed,) = stage.all_jobs()
    assert missed.outcome is Outcome.MISSED
    said = [one.message for one in stage.jobs.events(missed.id)]
    assert any("could not begin in time, nor" in one for one in said)


def test_a_backup_is_told_what_it_is_compared_with(stage: Stage) -> None:
    stage.put(policy(schedules=(daily(),)))
    stage.step()
    (first,) = stage.pass_time(HOUR)
    assert backup(first).parent is None
    stage.finish(first)
    for _ in range(2):
        newest = stage.catalog.images()[-1].id
        (offer,) = stage.pass_time(DAY)
        assert backup(offer).parent == newest
        stage.finish(offer)


def test_a_cumulative_backup_is_compared_with_the_last_full(stage: Stage) -> None:
    rule = Schedule("week", BackupKind.FULL, every=timedelta(days=7), windows=(NIGHT,))
    stage.put(policy(schedules=(rule, daily(BackupKind.CUMULATIVE))))
    stage.step()
    (full,) = stage.pass_time(HOUR)
    assert (backup(full).read_all, backup(full).parent) == (True, None)
    stage.finish(full)
    (whole,) = stage.catalog.images()
    for _ in range(2):
        (cumulative,) = stage.pass_time(timedelta(days=1))
        assert (backup(cumulative).read_all, backup(cumulative).parent) == (False, whole.id)
        stage.finish(cumulative)


def test_the_first_cumulative_backup_reads_everything(stage: Stage) -> None:
    stage.put(policy(schedules=(daily(BackupKind.CUMULATIVE),)))
    stage.step()
    (first,) = stage.pass_time(HOUR)
    assert backup(first).read_all


def test_failed_work_is_tried_again_and_gives_its_slot_back(stage: Stage) -> None:
    stage.put(policy(schedules=(daily(),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    stage.finish(offer, WorkError("io", "the disk said no", None))
    assert stage.step() == []
    (again,) = stage.pass_time(2 * MINUTE)
    assert (again.job_id, again.fence > offer.fence) == (offer.job_id, True)
    stage.finish(again, WorkError("path-missing", "there is no '/srv'", "check the spelling"))
    (job,) = stage.all_jobs()
    assert job.outcome is Outcome.FAILED
    assert job.error is not None
    assert job.error.hint == "check the spelling"


def test_a_silent_worker_is_given_up_and_can_change_nothing_later(stage: Stage) -> None:
    stage.put(policy(schedules=(daily(),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    # What lost its worker goes on at once, the first time.
    (again,) = stage.pass_time(5 * MINUTE)
    assert again.job_id == offer.job_id
    assert stage.alive(offer) is Answer.FENCED
    assert stage.finish(offer) is Answer.FENCED
    # What it committed is known all the same: an image is an image.
    assert len(stage.catalog.images()) == 1
    assert stage.finish(again) is Answer.GO_ON


def test_a_cancelled_job_stops_and_frees_its_slot(stage: Stage) -> None:
    stage.slots = 1
    stage.restart()
    clients = (ClientName("web1"), ClientName("web2"))
    stage.put(policy(clients=clients, schedules=(daily(),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    stage.jobs.cancel(JobId(offer.job_id))
    assert stage.alive(offer) is Answer.STOP
    assert stage.step() == []
    stage.finish(offer, WorkError("cancelled", "told to stop", None))
    assert stage.jobs.job(JobId(offer.job_id)).outcome is Outcome.CANCELLED
    (other,) = stage.step()
    stage.jobs.cancel(JobId(other.job_id))
    stage.finish(other)
    # Its work was done before it heard.
    assert stage.jobs.job(JobId(other.job_id)).state is JobState.ENDED


def test_a_queued_job_that_is_cancelled_or_suspended_never_begins(stage: Stage) -> None:
    stage.slots = 1
    stage.restart()
    clients = tuple(ClientName(f"web{n}") for n in range(3))
    stage.put(policy(clients=clients, schedules=(daily(),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    one, other = [job.id for job in stage.all_jobs() if job.id != offer.job_id]
    stage.jobs.cancel(one)
    stage.jobs.suspend(other)
    stage.finish(offer)
    assert stage.step() == []
    stage.jobs.resume(other)
    (resumed,) = stage.step()
    assert resumed.job_id == other


def again_in_days(stage: Stage, client: str | None, days: int = 3) -> bool:
    """Whether a client is backed up once more."""
    for _ in range(days * 24):
        for offer in stage.pass_time(HOUR):
            stage.finish(offer)
            if backup(offer).client == client:
                return True
    return False


@pytest.mark.parametrize("how", ["cancelled", "suspended first", "waiting for another attempt"])
def test_a_source_whose_job_was_cancelled_is_backed_up_again(stage: Stage, how: str) -> None:
    stage.slots = 1
    stage.restart()
    clients = (ClientName("web1"), ClientName("web2"))
    stage.put(policy(clients=clients, schedules=(daily(),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    (queued,) = [one for one in stage.all_jobs() if one.state is JobState.QUEUED]
    cancelled = queued
    if how == "suspended first":
        stage.jobs.suspend(queued.id)
        stage.step()
    elif how == "waiting for another attempt":
        cancelled = stage.jobs.job(JobId(offer.job_id))
        stage.finish(offer, WorkError("io", "the disk said no", None))
    stage.jobs.cancel(cancelled.id)
    for one in stage.step():
        stage.finish(one)
    if how != "waiting for another attempt":
        stage.finish(offer)
    assert again_in_days(stage, cancelled.client)


def test_a_source_whose_job_was_missed_is_backed_up_again(stage: Stage) -> None:
    stage.slots = 1
    stage.restart()
    clients = (ClientName("web1"), ClientName("web2"))
    stage.put(policy(clients=clients, schedules=(daily(run_missed=False),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    (queued,) = [one for one in stage.all_jobs() if one.state is JobState.QUEUED]
    for _ in range(600):
        stage.alive(offer)
        stage.pass_time(MINUTE)
    assert stage.jobs.job(queued.id).outcome is Outcome.MISSED
    stage.finish(offer)
    assert again_in_days(stage, queued.client)


def test_a_policy_that_changes_is_taken_over_and_one_that_goes_starts_nothing(
    stage: Stage,
) -> None:
    stage.put(policy(schedules=(daily(),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    stage.put(policy(schedules=(daily(),), clients=(ClientName("web1"), ClientName("web2"))))
    (new,) = stage.step()
    assert backup(new).client == "web2"
    stage.finish(offer)
    stage.finish(new)
    stage.put(policy(schedules=(daily(),), active=False))
    assert stage.pass_time(timedelta(days=2)) == []
    stage.put()
    assert stage.pass_time(timedelta(days=2)) == []
    # One of the same name begins anew: what it did not do while it was not there is not missed.
    stage.put(policy(schedules=(daily(run_missed=False),)))
    stage.pass_time(timedelta(days=1))
    assert [job.outcome for job in stage.all_jobs()].count(Outcome.MISSED) == 0


def test_a_source_has_one_backup_of_a_policy_at_a_time(stage: Stage) -> None:
    stage.put(policy(schedules=(Schedule("often", BackupKind.DIFFERENTIAL, every=HOUR),)))
    (offer,) = stage.step()
    for _ in range(3):
        stage.clock.move(HOUR)
        stage.alive(offer)
        assert stage.step() == []
    stage.finish(offer)
    assert len(stage.step()) == 1
    assert len(stage.all_jobs()) == 2


def test_a_run_by_hand_that_ends_lets_no_second_backup_of_a_schedule_begin(stage: Stage) -> None:
    often = Schedule("often", BackupKind.CONTINUOUS, every=MINUTE)
    stage.put(policy(schedules=(often,), limits=Limits(streams_per_client=4)))
    (scheduled,) = stage.step()
    made = stage.jobs.job(JobId(scheduled.job_id))
    work = backup(scheduled).to_json()
    stage.jobs.enqueue(
        [NewJob(kind=JobKind.BACKUP, work=work, policy=made.policy, source=made.source)]
    )
    (by_hand,) = stage.step()
    stage.finish(by_hand)
    assert stage.pass_time(MINUTE) == []
    stage.finish(scheduled)
    assert len(stage.step()) == 1


def test_work_for_the_site_takes_a_slot_too(stage: Stage) -> None:
    work = SiteWork("expire").to_json()
    stage.jobs.enqueue([NewJob(kind=JobKind.EXPIRE, work=work, storage_unit="default")])
    (offer,) = stage.step()
    assert offer.work == SiteWork("expire")
    stage.finish(offer)
    (job,) = stage.all_jobs()
    assert job.outcome is Outcome.COMPLETED


def test_an_image_with_errors_makes_a_job_with_errors(stage: Stage) -> None:
    stage.put(policy(schedules=(daily(),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    from holdfast.wire.messages import WorkEnded, WorkEvent

    note = stage.image(offer, "completed with errors")
    event = WorkEvent("error", "no-permission", "may not read it", b"/srv/\xff")
    stage.dispatcher.hear(
        WorkEnded(offer.job_id, offer.fence, note, (event,), 3, {"files": 1}, None)
    )
    (job,) = stage.all_jobs()
    assert job.outcome is Outcome.COMPLETED_WITH_ERRORS
    events = stage.jobs.events(job.id)
    assert (b"/srv/\xff", "no permission") in [(one.path, one.cause) for one in events]
    assert job.events_left_out == 2
    assert labels.JOB in backup(offer).labels


def test_work_that_nobody_knows_fails_and_is_in_nobodys_way(stage: Stage) -> None:
    stage.slots = 1
    stage.restart()
    stage.jobs.enqueue(
        [
            NewJob(kind=JobKind.BACKUP, work=work, storage_unit="default")
            for work in ({}, {"version": 99, "work": "backup"}, SiteWork("expire").to_json())
        ]
    )
    offers = [*stage.step(), *stage.step(), *stage.step()]
    assert [one.work for one in offers] == [SiteWork("expire")]
    first, second, _ = stage.all_jobs()
    assert {first.outcome, second.outcome} == {Outcome.FAILED}
    assert second.error is not None
    assert "version 99" in second.error.message
