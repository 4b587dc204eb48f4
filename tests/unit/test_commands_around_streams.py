"""What a policy wants run before and after runs once around all streams of a client."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.control.jobs import JobKind, JobState, Outcome
from holdfast.control.policies import Limits, Selection, Split
from holdfast.wire.messages import BackupWork, CommandWork, WorkError
from tests.kit.clock import FakeClock
from tests.kit.dispatching import Stage
from tests.kit.policies import policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.control.database import Database
    from holdfast.control.jobs import Job
    from holdfast.wire.messages import WorkOffer

MINUTE = timedelta(minutes=1)
PRE, POST = ("/bin/freeze",), ("/bin/thaw",)
BROKEN = WorkError("command-failed", "pre-command: '/bin/freeze' ended with exit status 1", None)
STOPPED = WorkError("cancelled", "it was told to stop", None)
REFUSED = WorkError("no-permission", "no", None)


@pytest.fixture
def stage(database: Database, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(database, tmp_path, FakeClock(), slots=9)
    made.splits = lambda _key: Split(1, (("a",), ("b",)))
    made.restart()
    wide(made)
    yield made
    made.close()


def wide(stage: Stage, every: timedelta = timedelta(days=1), **changes: object) -> None:
    schedule = replace(policy().schedules[0], windows=(), every=every)
    one = policy(
        selections=(Selection("all", ("/data",)),),
        streams=3,
        schedules=(schedule,),
        limits=Limits(streams_per_client=4),
    )
    stage.put(replace(one, **{"pre_command": PRE, "post_command": POST, **changes}))  # type: ignore[arg-type]


def command(offers: list[WorkOffer]) -> WorkOffer:
    (offer,) = offers
    assert isinstance(offer.work, CommandWork), offer.work
    return offer


def streams(offers: list[WorkOffer]) -> list[WorkOffer]:
    assert len(offers) == 3
    for one in offers:
        assert isinstance(one.work, BackupWork)
        assert (one.work.pre_command, one.work.post_command) == ((), ())
    return offers


def whole(stage: Stage) -> Job:
    return stage.jobs.job(next(one.parent_id for one in stage.all_jobs() if one.parent_id))


def of_kind(stage: Stage, kind: JobKind) -> list[Job]:
    return [one for one in stage.all_jobs() if one.kind is kind]


def test_they_run_once_before_the_first_and_after_the_last(stage: Stage) -> None:
    before = command(stage.step())
    assert isinstance(before.work, CommandWork)
    assert (before.work.pre_command, before.work.client) == (PRE, "web1")
    # Nothing else begins, and what it waits for is told.
    assert stage.step() == []
    waits = {one.kind: one.waits_for for one in stage.all_jobs() if one.held}
    assert waits == {
        JobKind.BACKUP: "the command before it",
        JobKind.COMMAND_AFTER: "its backups to end",
    }
    stage.finish(before)
    offers = streams(stage.step())
    for one in offers:
        assert stage.step() == []
        stage.finish(one)
    after = command(stage.step())
    assert isinstance(after.work, CommandWork)
    assert (after.work.pre_command, after.work.post_command) == ((), POST)
    assert after.work.failed is False
    assert after.work.labels == before.work.labels
    stage.finish(after)
    assert stage.step() == []
    assert (whole(stage).state, whole(stage).outcome) == (JobState.ENDED, Outcome.COMPLETED)


def test_the_one_after_runs_where_a_stream_failed_and_knows_it(stage: Stage) -> None:
    stage.finish(command(stage.step()))
    first, second, third = streams(stage.step())
    stage.finish(first)
    stage.finish(second, REFUSED)
    assert stage.step() == []
    stage.finish(third)
    after = command(stage.step())
    assert isinstance(after.work, CommandWork)
    assert after.work.failed is True
    stage.finish(after)
    assert whole(stage).outcome is Outcome.FAILED


def test_a_stream_that_is_tried_again_is_waited_for_and_nothing_runs_twice(stage: Stage) -> None:
    stage.finish(command(stage.step()))
    first, second, third = streams(stage.step())
    stage.finish(first)
    stage.finish(second)
    # Its worker is heard of no more.
    assert isinstance(third.work, BackupWork)
    (again,) = stage.pass_time(3 * MINUTE)
    assert isinstance(again.work, BackupWork)
    assert again.work.source == third.work.source
    stage.finish(again)
    after = command(stage.step())
    assert isinstance(after.work, CommandWork)
    assert after.work.failed is False


def test_a_command_before_that_fails_keeps_all_streams_from_beginning(stage: Stage) -> None:
    for _ in range(3):
        stage.finish(command(stage.step()), BROKEN)
        stage.clock.move(timedelta(hours=2))
    assert stage.step() == []
    assert {one.outcome for one in of_kind(stage, JobKind.BACKUP)} == {Outcome.FAILED}
    assert {one.error.code for one in of_kind(stage, JobKind.BACKUP) if one.error} == {
        "command-failed"
    }
    # It has tidied up itself.
    (after,) = of_kind(stage, JobKind.COMMAND_AFTER)
    assert (after.outcome, after.fence) == (Outcome.CANCELLED, 0)
    assert whole(stage).outcome is Outcome.FAILED


def test_the_one_after_runs_where_the_one_before_was_never_heard_of_again(stage: Stage) -> None:
    for _ in range(3):
        # Its worker is given up, and then it waits for another attempt.
        command(stage.step() or stage.pass_time(timedelta(hours=2)))
        stage.clock.move(timedelta(hours=2))
    after = command(stage.step())
    assert isinstance(after.work, CommandWork)
    assert (after.work.post_command, after.work.failed) == (POST, True)
    assert {one.outcome for one in of_kind(stage, JobKind.BACKUP)} == {Outcome.FAILED}


@pytest.mark.parametrize("begun", [True, False], ids=["while streams run", "before any"])
def test_cancelling_the_job_leaves_the_command_that_undoes(stage: Stage, begun: bool) -> None:
    before = command(stage.step())
    if not begun:
        stage.jobs.cancel(whole(stage).id)
        stage.finish(before, STOPPED)
        assert stage.step() == []
        assert {one.outcome for one in stage.all_jobs()} == {Outcome.CANCELLED}
        return
    stage.finish(before)
    offers = streams(stage.step())
    stage.finish(offers[0])
    stage.jobs.cancel(whole(stage).id)
    for one in offers[1:]:
        stage.finish(one, STOPPED)
    after = command(stage.step())
    assert isinstance(after.work, CommandWork)
    assert after.work.failed is True
    stage.finish(after)
    assert whole(stage).outcome is Outcome.CANCELLED


def test_a_cancelled_job_whose_one_before_was_lost_is_undone(stage: Stage) -> None:
    command(stage.step())
    stage.jobs.cancel(whole(stage).id)
    after = command(stage.pass_time(3 * MINUTE))
    assert isinstance(after.work, CommandWork)
    assert after.work.post_command == POST


def test_one_that_a_machine_knows_nothing_of_after_it_started_again_is_undone(
    stage: Stage,
) -> None:
    before = command(stage.step())
    stage.jobs.cancel(whole(stage).id)
    stage.finish(before, WorkError("worker-lost", "the machine started again", None))
    after = command(stage.step())
    assert isinstance(after.work, CommandWork)
    assert after.work.post_command == POST
    assert of_kind(stage, JobKind.COMMAND_BEFORE)[0].outcome is Outcome.CANCELLED


def test_a_job_that_never_began_has_nothing_to_undo(stage: Stage) -> None:
    stage.slots = 0
    wide(stage, pre_command=())
    stage.step()
    stage.jobs.cancel(whole(stage).id)
    assert stage.step() == []
    assert {one.outcome for one in stage.all_jobs()} == {Outcome.CANCELLED}


def test_only_one_after_runs_after_all(stage: Stage) -> None:
    wide(stage, pre_command=())
    offers = streams(stage.step())
    for one in offers:
        stage.finish(one)
    assert isinstance(command(stage.step()).work, CommandWork)


def test_only_one_before_holds_streams_alone(stage: Stage) -> None:
    wide(stage, post_command=())
    stage.finish(command(stage.step()))
    for one in streams(stage.step()):
        stage.finish(one)
    assert stage.step() == []
    assert whole(stage).outcome is Outcome.COMPLETED


def test_the_next_job_waits_until_the_one_before_it_is_undone(stage: Stage) -> None:
    wide(stage, every=timedelta(minutes=5))
    stage.finish(command(stage.step()))
    offers = streams(stage.step())
    for one in offers[:2]:
        stage.finish(one)
    stage.alive(offers[2])
    stage.clock.move(MINUTE)
    stage.alive(offers[2])
    stage.clock.move(MINUTE)
    stage.alive(offers[2])
    for _ in range(3):
        stage.clock.move(MINUTE)
        stage.alive(offers[2])
    # Two of the sources are due once more.
    assert stage.step() == []
    befores = of_kind(stage, JobKind.COMMAND_BEFORE)
    assert [one.waits_for for one in befores] == [None, "the command after the backups before it"]
    stage.finish(offers[2])
    after = command(stage.step())
    assert isinstance(after.work, CommandWork)
    assert after.work.post_command == POST
    assert after.work.pre_command == ()
    stage.finish(after)
    again = command(stage.step())
    assert isinstance(again.work, CommandWork)
    assert again.work.pre_command == PRE


def test_a_master_that_is_killed_at_any_time_goes_on_where_it_was(stage: Stage) -> None:
    stage.finish(command(stage.step()))
    for one in streams(stage.step())[:2]:
        stage.finish(one)
    stage.restart()
    (last,) = stage.step()
    assert isinstance(last.work, BackupWork)
    stage.restart()
    (last,) = stage.step()
    stage.finish(last)
    stage.restart()
    after = command(stage.step())
    stage.finish(after)
    stage.restart()
    assert stage.step() == []
    assert whole(stage).outcome is Outcome.COMPLETED


def test_what_is_restarted_has_its_commands(stage: Stage) -> None:
    stage.finish(command(stage.step()))
    first, second, third = streams(stage.step())
    stage.finish(first)
    stage.finish(second, REFUSED)
    stage.finish(third)
    stage.finish(command(stage.step()))
    again = stage.jobs.restart(whole(stage).id)
    stage.finish(command(stage.step()))
    (offer,) = stage.step()
    assert isinstance(offer.work, BackupWork)
    stage.finish(offer)
    stage.finish(command(stage.step()))
    assert stage.jobs.job(again).outcome is Outcome.COMPLETED
    # A stream alone runs them itself.
    stage.jobs.restart(next(one.id for one in stage.all_jobs() if one.id == second.job_id))
    (offer,) = stage.step()
    assert isinstance(offer.work, BackupWork)
    assert (offer.work.pre_command, offer.work.post_command) == (PRE, POST)


def test_one_source_that_is_not_divided_runs_its_commands_itself(stage: Stage) -> None:
    stage.put(policy(schedules=(replace(policy().schedules[0], windows=()),), pre_command=PRE))
    (offer,) = stage.step()
    assert isinstance(offer.work, BackupWork)
    assert offer.work.pre_command == PRE
