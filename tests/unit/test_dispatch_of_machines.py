"""Jobs of machines that have joined: they wait for their machine, and stay its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from holdfast.base.errors import HoldfastError, Unreachable, Unsupported
from holdfast.base.ids import ClientName
from holdfast.control.dispatch import Presence
from holdfast.control.jobs import JobState, Outcome
from holdfast.control.machines import Standing
from holdfast.control.storage import StorageBook
from holdfast.site.probing import Remote, SiteProbe
from holdfast.site.remote_work import RemoteWork
from holdfast.site.whose_drives import drives_of
from holdfast.wire.looking import LookOrder, LookReport
from holdfast.wire.messages import Answer, SiteWork, WorkOffer
from tests.kit.clock import FakeClock
from tests.kit.dispatching import Stage
from tests.kit.policies import policy
from tests.kit.served import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.control.database import Database

NIGHT = datetime(2026, 3, 2, 22, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
WEB1, DB1 = ClientName("web1"), ClientName("db1")
AWAY = Presence(frozenset({WEB1}))
THERE = Presence(frozenset({WEB1}), frozenset({WEB1}))


@pytest.fixture
def stage(database: Database, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(database, tmp_path, FakeClock(NIGHT))
    yield made
    made.close()


def test_a_job_waits_for_its_machine_and_says_so(stage: Stage) -> None:
    stage.presence = AWAY
    stage.put(policy(clients=(WEB1, DB1)))
    offers = stage.step()
    assert [getattr(one.work, "client", None) for one in offers] == ["db1"]
    waits = {str(one.client): one.waits_for for one in stage.all_jobs()}
    assert waits["web1"] == "machine 'web1' to connect"
    stage.presence = THERE
    (offer,) = stage.step()
    assert getattr(offer.work, "client", None) == "web1"
    assert stage.finish(offer) is Answer.GO_ON


def test_a_job_of_a_revoked_machine_says_so(stage: Stage) -> None:
    stage.presence = AWAY
    stage.put(policy(clients=(WEB1,)))
    stage.step()
    stage.presence = Presence(frozenset({WEB1}), revoked=frozenset({WEB1}))
    stage.pass_time(MINUTE)
    (job,) = stage.all_jobs()
    assert job.waits_for == "machine 'web1' to join anew, as its certificate was revoked"
    stage.presence = AWAY
    stage.pass_time(MINUTE)
    assert stage.all_jobs()[0].waits_for == "machine 'web1' to connect"


def test_a_machine_that_is_away_keeps_nothing_from_others(stage: Stage) -> None:
    stage.slots = 1
    stage.restart()
    stage.presence = AWAY
    stage.put(policy(clients=(WEB1,)))
    assert stage.step() == []
    # Long enough that things would be kept for it, if it could have all it needs.
    stage.clock.move(timedelta(hours=3))
    stage.put(policy(clients=(WEB1,)), policy("other", clients=(DB1,)))
    (offer,) = stage.step()
    assert getattr(offer.work, "client", None) == "db1"


def test_who_joins_while_a_job_waits_is_waited_for(stage: Stage) -> None:
    stage.slots = 1
    stage.restart()
    stage.put(policy(clients=(DB1,)), policy("second", clients=(WEB1,)))
    first = stage.step()
    assert len(first) == 1
    waiting = ({"web1", "db1"} - {getattr(first[0].work, "client", None)}).pop()
    name = ClientName(str(waiting))
    stage.presence = Presence(frozenset({name}))
    stage.finish(first[0])
    assert stage.step() == []
    stage.presence = Presence(frozenset({name}), frozenset({name}))
    assert len(stage.step()) == 1


def test_a_machines_job_stays_its_own_when_the_master_starts_anew(stage: Stage) -> None:
    stage.presence = THERE
    stage.put(policy(clients=(WEB1, DB1)))
    offers = {getattr(one.work, "client", None): one for one in stage.step()}
    (lost,) = stage.restart()
    assert (lost.client, lost.state) == ("db1", JobState.QUEUED)
    assert stage.alive(offers["web1"]) is Answer.GO_ON
    assert stage.alive(offers["db1"]) is Answer.FENCED
    # It holds what it needs: one slot of two is left.
    (again,) = stage.step()
    assert getattr(again.work, "client", None) == "db1"
    assert stage.finish(offers["web1"]) is Answer.GO_ON
    assert {str(one.client): one.outcome for one in stage.all_jobs()}["web1"] is Outcome.COMPLETED
    assert stage.step() == []


def test_a_lost_machines_job_goes_back_to_the_queue_when_its_lease_ends(stage: Stage) -> None:
    stage.presence = THERE
    stage.put(policy(clients=(WEB1,)))
    (offer,) = stage.step()
    stage.presence = AWAY
    assert stage.pass_time(MINUTE) == []
    assert stage.all_jobs()[0].state is JobState.ACTIVE
    assert stage.pass_time(2 * MINUTE) == []
    (job,) = stage.all_jobs()
    assert job.state is JobState.QUEUED
    assert stage.alive(offer) is Answer.FENCED
    assert stage.pass_time(5 * MINUTE) == []
    stage.presence = THERE
    (again,) = stage.pass_time(MINUTE)
    assert again.fence > offer.fence


# -- handing over -------------------------------------------------------------------------


class FakeMachines:
    """Machines that take an offer, or do not."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.offered: list[WorkOffer] = []
        self.standing = Standing({}, frozenset({WEB1}), {})
        self.sessions = SimpleNamespace(names=frozenset({WEB1}))
        self.served_pools = frozenset

    def offer(self, _client: ClientName, offer: WorkOffer) -> None:
        if self.error is not None:
            raise self.error
        self.offered.append(offer)


def remote(stage: Stage, error: Exception | None = None) -> tuple[RemoteWork, FakeMachines]:
    machines = FakeMachines(error)
    master = SimpleNamespace(jobs=stage.jobs, units=StorageBook(stage.database))
    return RemoteWork(cast("Any", master), cast("Any", machines)), machines


def test_a_machine_gets_what_is_its_own(stage: Stage) -> None:
    work, machines = remote(stage)
    stage.presence = work.presence()
    stage.put(policy(clients=(WEB1, DB1)))
    for offer in stage.step():
        if work.takes(offer):
            work.hand_over(stage.dispatcher, offer)
    until(lambda: machines.offered, "the offer", 10)
    assert [getattr(one.work, "client", None) for one in machines.offered] == ["web1"]
    assert not work.takes(WorkOffer(1, 1, 1.0, SiteWork("gc")))


def test_what_a_machine_does_not_take_is_queued_again_and_costs_no_attempt(stage: Stage) -> None:
    work, _ = remote(stage, Unreachable("it is gone"))
    stage.presence = THERE
    stage.put(policy(clients=(WEB1,)))
    (offer,) = stage.step()
    work.hand_over(stage.dispatcher, offer)
    until(lambda: stage.all_jobs()[0].state is JobState.QUEUED, "the job to be queued", 10)
    (job,) = stage.all_jobs()
    assert job.attempt == 0
    (again,) = stage.step()
    assert again.fence > offer.fence


@pytest.mark.parametrize("error", [Unsupported("no place"), ValueError("a defect")])
def test_what_can_not_be_given_out_ends_with_the_reason(stage: Stage, error: Exception) -> None:
    work, _ = remote(stage, error)
    stage.presence = THERE
    stage.put(policy(clients=(WEB1,)))
    (offer,) = stage.step()
    work.hand_over(stage.dispatcher, offer)
    until(lambda: stage.all_jobs()[0].state is JobState.ENDED, "the job to end", 10)
    (job,) = stage.all_jobs()
    assert job.outcome is Outcome.FAILED
    assert job.error is not None
    assert job.error.code == ("unsupported" if isinstance(error, HoldfastError) else "internal")


def test_without_a_door_machines_are_away(stage: Stage) -> None:
    standing = Standing({}, frozenset({WEB1}), {})
    machines = SimpleNamespace(standing=lambda: standing)
    units = StorageBook(stage.database)
    master = SimpleNamespace(jobs=stage.jobs, machines=machines, units=units)
    work = RemoteWork(cast("Any", master), None)
    assert work.presence() == AWAY
    stage.presence = work.presence()
    stage.put(policy(clients=(WEB1,)))
    assert stage.step() == []


# -- looking ------------------------------------------------------------------------------


def test_a_machine_that_has_joined_is_asked_to_look() -> None:
    orders: list[tuple[str, LookOrder]] = []

    def look(client: ClientName, order: LookOrder) -> LookReport:
        orders.append((client, order))
        return LookReport("root", names=3)

    probe = SiteProbe(cast("Any", None), remote=Remote(frozenset({WEB1}), look))
    assert probe.look(WEB1, LookOrder(("/etc",))).names == 3
    assert [(client, order.paths) for client, order in orders] == [("web1", ("/etc",))]
    with pytest.raises(Unreachable, match="is not this machine"):
        probe.look(DB1, LookOrder(("/etc",)))


def test_a_machine_that_is_away_is_a_warning_and_no_more() -> None:
    def look(client: ClientName, _order: LookOrder) -> LookReport:
        raise Unreachable(f"machine '{client}' is not connected")

    for way in (look, None):
        probe = SiteProbe(cast("Any", None), remote=Remote(frozenset({WEB1}), way))
        report = probe.look(WEB1, LookOrder(("/etc",)))
        (trouble,) = report.troubles
        assert (trouble.severity, trouble.cause) == ("warning", "not-connected")
        assert not report.is_complete


def test_drives_are_those_of_the_machine_itself() -> None:
    standing = Standing({}, frozenset({WEB1, DB1}), {WEB1: ("/", "/srv")})
    drives = drives_of(lambda: standing)
    assert drives(WEB1) == ("/", "/srv")
    assert drives(DB1) == ()
    assert "/" in drives(ClientName("another"))
