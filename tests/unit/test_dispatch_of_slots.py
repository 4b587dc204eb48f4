"""What is free is given out, once, and never more of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import pytest

from holdfast.base.errors import NoSpace
from holdfast.base.ids import ClientName, JobId
from holdfast.control.dispatch import dispatcher
from holdfast.control.jobs import (
    JobError,
    JobState,
    Outcome,
    Result,
)
from holdfast.control.policies import Limits, Selection
from tests.kit.clock import FakeClock
from tests.kit.dispatching import EVENING, HOUR, MINUTE, Stage, backup, daily
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


def test_slots_are_never_exceeded_and_a_freed_one_is_given_at_once(stage: Stage) -> None:
    clients = tuple(ClientName(f"web{n}") for n in range(5))
    stage.put(policy(clients=clients, schedules=(daily(),)))
    stage.step()
    first = stage.pass_time(HOUR)
    assert len(first) == 2
    waiting = [one for one in stage.all_jobs() if one.state is JobState.QUEUED]
    assert len(waiting) == 3
    assert all("has 2 of 2 slots in use" in (one.waits_for or "") for one in waiting)
    assert all(one.waits_on == "storage unit 'default'" for one in waiting)
    stage.finish(first[0])
    assert stage.dispatcher.wake.is_set()
    (next_one,) = stage.step()
    stage.finish(first[1])
    stage.finish(next_one)
    assert len(stage.step()) == 2


def test_a_turn_gives_what_is_free_and_looks_at_the_rest_when_it_is_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "LOOK_S", 1e9)
    stage.slots = 1
    stage.restart()
    clients = tuple(ClientName(f"web{number}") for number in range(4))
    stage.put(policy(clients=clients, schedules=(daily(),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    # A slot that frees is given again by a turn, and so is one of a cancelled job.
    stage.finish(offer)
    (offer,) = stage.dispatcher.turn()
    queued = [one for one in stage.all_jobs() if one.state is JobState.QUEUED]
    stage.jobs.cancel(queued[0].id)
    stage.finish(offer)
    # What was cancelled since the last look does not begin; it is found when that is next.
    assert stage.dispatcher.turn() == []
    stage.dispatcher.ask()
    (offer,) = stage.dispatcher.turn()
    assert offer.job_id == queued[1].id


def test_no_turn_begins_a_job_after_its_window(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "LOOK_S", 1e9)
    stage.slots = 1
    stage.restart()
    clients = (ClientName("web1"), ClientName("web2"))
    stage.put(policy(clients=clients, schedules=(daily(),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    stage.clock.move(8 * HOUR)
    stage.finish(offer)
    assert stage.dispatcher.turn() == []
    stage.clock.move(16 * HOUR)
    assert len(stage.dispatcher.turn()) == 1


def test_jobs_that_could_not_be_granted_begin_when_that_is_possible_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.slots = 1
    stage.restart()
    clients = (ClientName("web1"), ClientName("web2"))
    stage.put(policy(clients=clients, schedules=(daily(),)))
    stage.step()

    with monkeypatch.context() as patched:
        patched.setattr(stage.jobs, "grant", _fail)
        for _ in range(3):
            with pytest.raises(NoSpace):
                stage.pass_time(HOUR)
    (offer,) = stage.step()
    stage.finish(offer)
    (other,) = stage.step()
    assert other.job_id != offer.job_id


def test_what_began_is_told_to_its_worker_though_nothing_more_can_be_written(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = tuple(ClientName(f"web{number}") for number in range(3))
    stage.put(policy(clients=clients, schedules=(daily(),)))
    stage.step()
    with monkeypatch.context() as patched:
        patched.setattr(stage.jobs, "waits", _fail)
        assert len(stage.pass_time(HOUR)) == stage.slots
    stage.step()
    (queued,) = [one for one in stage.all_jobs() if one.state is JobState.QUEUED]
    assert queued.waits_for is not None


def test_a_worker_that_was_given_up_unheard_of_keeps_no_slot(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.slots = 1
    stage.restart()
    stage.put(policy(schedules=(daily(),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    expire = stage.jobs.expire

    def expire_and_fail() -> NoReturn:
        expire()
        _fail()

    with monkeypatch.context() as patched:
        patched.setattr(stage.jobs, "expire", expire_and_fail)
        with pytest.raises(NoSpace):
            stage.pass_time(5 * MINUTE)
    (again,) = stage.pass_time(5 * MINUTE)
    assert (again.job_id, again.fence > offer.fence) == (offer.job_id, True)


def test_the_late_end_of_a_worker_frees_nothing_of_the_next_one(stage: Stage) -> None:
    stage.slots = 1
    stage.restart()
    clients = (ClientName("web1"), ClientName("web2"))
    stage.put(policy(clients=clients, schedules=(daily(),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    job = JobId(offer.job_id)
    queue = stage.dispatcher.queue
    # Between the end in the book and the slot being freed, the job begins again.
    stage.jobs.requeue(job)
    ended = Result(Outcome.CANCELLED, error=JobError("cancelled", "told to stop"))
    stage.jobs.end(job, offer.fence, ended)
    (again,) = stage.step()
    assert (again.job_id, again.fence > offer.fence) == (offer.job_id, True)
    queue.let_go(job, offer.fence)
    assert stage.step() == []
    stage.finish(again)
    assert len(stage.step()) == 1


def _fail(*_: object) -> NoReturn:
    raise NoSpace("the disk is full")


def test_a_policys_own_limits_hold(stage: Stage) -> None:
    stage.slots = 10
    stage.restart()
    selections = tuple(Selection(f"s{n}", (f"/srv/{n}",)) for n in range(4))
    stage.put(
        policy(
            clients=(ClientName("web1"), ClientName("web2")),
            selections=selections,
            schedules=(daily(),),
            limits=Limits(jobs=3, streams_per_client=2),
        )
    )
    stage.step()
    offers = stage.pass_time(HOUR)
    assert len(offers) == 3
    per_client = [backup(one).client for one in offers]
    assert max(per_client.count(one) for one in per_client) == 2
