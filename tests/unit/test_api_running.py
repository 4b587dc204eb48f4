"""A policy at once, and what policies will do by themselves, through the API."""

from __future__ import annotations

from datetime import time, timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base import errors
from holdfast.base.ids import ClientName, JobId
from holdfast.control.access import Role, Scope
from holdfast.control.jobs import Wanted
from holdfast.control.policies import Selection
from holdfast.control.schedule import BackupKind, Schedule, Window
from holdfast.wire.messages import BackupWork, work_from_json
from tests.kit.policies import policy

if TYPE_CHECKING:
    from holdfast.control.policies import Policy
    from tests.kit.api import Api

CLIENTS = (ClientName("web1"), ClientName("web2"), ClientName("db1"))
NIGHTLY = Schedule(
    "nightly",
    BackupKind.FULL,
    every=timedelta(days=1),
    windows=(Window(frozenset(range(7)), time(22), time(6)),),
    zone="UTC",
)


def put(api: Api, *policies: Policy) -> None:
    api.master.policies.apply(api.master.policies.plan(policies, prune=True), "a test")


@pytest.fixture
def servers(api: Api) -> None:
    put(api, policy(clients=CLIENTS, schedules=(NIGHTLY,)))


@pytest.mark.usefixtures("servers")
def test_a_run_is_queued_with_a_part_for_each_source(api: Api) -> None:
    queued = api.client().post("/policies/servers/runs", {})
    assert queued["parts"] == 3
    jobs = api.master.jobs.page(Wanted(leaves=True))
    assert {one.parent_id for one in jobs} == {queued["job"]}
    assert {one.client for one in jobs} == set(CLIENTS)
    assert {(one.schedule, one.backup_kind, one.due_at) for one in jobs} == {
        (None, "differential", None)
    }


@pytest.mark.usefixtures("servers")
def test_a_run_takes_the_kind_and_the_clients_that_are_asked_for(api: Api) -> None:
    client = api.client()
    body = {"schedule": "nightly", "clients": ["db1"]}
    queued = client.post("/policies/servers/runs", body)
    work = work_from_json(api.master.jobs.work(JobId(queued["job"])))
    assert isinstance(work, BackupWork)
    assert (queued["parts"], work.client, work.read_all) == (0, "db1", True)
    assert work.labels == {"policy": "servers", "kind": "full", "schedule": "nightly"}
    queued = client.post("/policies/servers/runs", {**body, "kind": "cumulative"})
    assert api.master.jobs.job(JobId(queued["job"])).backup_kind == "cumulative"


@pytest.mark.usefixtures("servers")
def test_what_can_not_be_run_is_refused_with_what_can(api: Api) -> None:
    client = api.client()
    with pytest.raises(errors.NotFound, match="nobody"):
        client.post("/policies/nobody/runs", {})
    with pytest.raises(errors.NotFound) as refused:
        client.post("/policies/servers/runs", {"schedule": "weekly"})
    assert refused.value.hint == "it has 'nightly'"
    with pytest.raises(errors.Invalid, match="not for client 'mail1'"):
        client.post("/policies/servers/runs", {"clients": ["mail1"]})
    put(api, policy("empty", clients=(), client_query="none*"))
    with pytest.raises(errors.Invalid, match="for no client that is known"):
        client.post("/policies/empty/runs", {})
    assert api.master.jobs.count() == 0


@pytest.mark.usefixtures("servers")
def test_who_is_bounded_to_clients_runs_and_sees_no_others(api: Api) -> None:
    bounded = api.client(api.token(Role.OPERATOR, Scope(("web*",))))
    with pytest.raises(errors.Forbidden):
        bounded.post("/policies/servers/runs", {})
    assert bounded.post("/policies/servers/runs", {"clients": ["web1"]})["job"]
    seen = bounded.get("/schedule", hours=48)["items"]
    assert {one["client"] for one in seen} == {"web1", "web2"}


@pytest.mark.usefixtures("servers")
def test_a_forecast_says_when_and_what_it_waits_for(api: Api) -> None:
    found = api.client().get("/policies/servers/forecast", hours=30)
    rows = found["items"]
    # The clock shows 3:04, in a window that is open.
    assert len(rows) == 6
    first = rows[:3]
    assert {one["waits_for"][0] if one["waits_for"] else None for one in first} == {
        None,
        "storage unit 'default'",
    }
    waiting = [one for one in first if one["waits_for"]]
    assert len(waiting) == 1
    assert waiting[0]["starts_at"] == first[0]["ends_at"]
    assert not found["more"]
    short = api.client().get("/schedule", hours=30, limit=2)
    assert (len(short["items"]), short["more"]) == (2, True)
    # Nothing was changed by looking.
    assert api.master.jobs.count() == 0


@pytest.mark.usefixtures("servers")
def test_a_policy_is_previewed_with_the_others_in_its_way(api: Api) -> None:
    put(
        api,
        policy(clients=CLIENTS, schedules=(NIGHTLY,), priority=90),
        policy(
            "late",
            clients=CLIENTS[:1],
            selections=(Selection("other", ("/opt",)),),
            schedules=(NIGHTLY,),
            priority=10,
        ),
    )
    rows = api.client().get("/policies/late/forecast", hours=12)["items"]
    assert {one["policy"] for one in rows} == {"late"}
    assert rows[0]["waits_for"] == ["storage unit 'default'"]
    with pytest.raises(errors.NotFound):
        api.client().get("/policies/nobody/forecast")
    for hours in (0, -1, 1e9):
        with pytest.raises(errors.Invalid):
            api.client().get("/schedule", hours=hours)
