"""A clock that is put back or ahead: nothing runs twice, nothing stays silent."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base.ids import ClientName
from holdfast.wire.messages import Answer, WorkError
from tests.kit.clock import FakeClock
from tests.kit.dispatching import DAY, EVENING, HOUR, MINUTE, Stage, backup, daily
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


def test_a_clock_that_is_put_back_makes_nothing_due_twice(stage: Stage) -> None:
    stage.put(policy(schedules=(daily(),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    stage.finish(offer)
    for by in (-2 * HOUR, HOUR, HOUR):
        stage.clock.set_by(by)
        assert stage.step() == []
        stage.restart()
        assert stage.step() == []


def test_a_clock_that_was_a_year_ahead_leaves_no_schedule_silent(stage: Stage) -> None:
    stage.put(policy(schedules=(daily(),)))
    stage.step()
    for restarts in (False, True):
        stage.clock.set_by(365 * DAY)
        (offer,) = stage.pass_time(DAY if restarts else HOUR)
        stage.finish(offer)
        stage.clock.set_by(-365 * DAY)
        if restarts:
            stage.restart()
        assert stage.step() == []
        # What was due when the clock was ahead has run; from then on all is as ever.
        for offer in stage.pass_time(DAY):
            stage.finish(offer)
        for _ in range(2):
            (offer,) = stage.pass_time(DAY)
            stage.finish(offer)


def test_what_ran_before_the_clock_was_put_back_keeps_nothing_from_running(stage: Stage) -> None:
    both = (ClientName("web1"),)
    stage.put(policy(clients=both, schedules=(daily(),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    stage.finish(offer)
    # The same occurrence is due once more; beside it there is now one that never ran.
    stage.clock.set_by(-3 * HOUR)
    stage.put(policy(clients=(*both, ClientName("web2")), schedules=(daily(),)))
    stage.step()
    found = [backup(offer).client for offer in stage.pass_time(3 * HOUR)]
    assert found == ["web2"]
    offers = stage.pass_time(DAY)
    assert "web1" in [backup(offer).client for offer in offers]


@pytest.mark.parametrize("by", [365 * DAY, -365 * DAY])
def test_a_clock_that_was_set_gives_no_live_worker_up(stage: Stage, by: timedelta) -> None:
    stage.put(policy(schedules=(daily(),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    stage.clock.set_by(by)
    stage.step()
    assert stage.alive(offer) is Answer.GO_ON
    # A silent one is given up as soon as ever.
    stage.pass_time(5 * MINUTE)
    stage.pass_time(5 * MINUTE)
    assert stage.alive(offer) is Answer.FENCED


def test_what_failed_before_the_clock_was_put_back_is_tried_again_soon(stage: Stage) -> None:
    stage.put(policy(schedules=(daily(),)))
    stage.step()
    (offer,) = stage.pass_time(HOUR)
    stage.finish(offer, WorkError("io", "the disk said no", None))
    stage.clock.set_by(-365 * DAY)
    assert stage.step() == []
    assert [one.job_id for one in stage.pass_time(2 * HOUR)] == [offer.job_id]
