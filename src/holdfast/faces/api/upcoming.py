"""What is going to start, as things stand."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import islice
from typing import Annotated

from fastapi import Query
from pydantic import Field

from holdfast.base.ids import PolicyName
from holdfast.control.access import Principal, Verb
from holdfast.control.schedule import BackupKind
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, make_router, may
from holdfast.faces.api.models import Model
from holdfast.faces.api.runs import Named
from holdfast.site import forecasting

router = make_router("Schedule")

MAX_HOURS = 24 * 400

Hours = Annotated[
    float,
    Query(gt=0, le=MAX_HOURS, description="How far to look ahead, in hours.", examples=[24]),
]
Most = Annotated[int, Query(ge=1, le=10_000, description="How many at most.", examples=[100])]


class Upcoming(Model):
    """A backup that is expected."""

    policy: str = Field(examples=["servers"])
    schedule: str = Field(examples=["nightly"])
    client: str = Field(examples=["web1"])
    source: str = Field(examples=["web1:/etc,/srv"])
    kind: BackupKind
    due_at: datetime = Field(description="Which occurrence of the schedule it is.")
    queued_at: datetime = Field(description="When it will be queued.")
    starts_at: datetime | None = Field(
        description="When it will start; null if it would still wait at the end, or be missed."
    )
    ends_at: datetime | None = Field(description="If it takes as long as the last one.")
    waits_for: list[str] = Field(
        description="What it will find in use.", examples=[["storage unit 'default'"]]
    )
    missed: bool = Field(description="Its window will close before it can start.")

    @classmethod
    def of(cls, one: forecasting.Upcoming) -> Upcoming:
        """As it was played."""
        expected, due = one.expected, one.expected.due
        return cls(
            policy=due.policy,
            schedule=due.schedule,
            client=one.client,
            source=due.source,
            kind=due.kind,
            due_at=due.due_at,
            queued_at=expected.queued_at,
            starts_at=expected.starts_at,
            ends_at=expected.ends_at,
            waits_for=list(expected.waits_for),
            missed=expected.missed or due.missed,
        )


class Forecast(Model):
    """What is expected, the first of it first."""

    since: datetime
    until: datetime
    items: list[Upcoming]
    more: bool = Field(description="There is more than was asked for.")


@router.get("/schedule")
def list_upcoming(
    who: Annotated[Principal, may(Verb.SEE)],
    master: TheMaster,
    hours: Hours = 24.0,
    limit: Most = 1000,
) -> Forecast:
    """What all policies will start, in what order, and what it will wait for."""
    return _forecast(who, master, hours, limit)


@router.get("/policies/{name}/forecast", responses={404: document.response(404)})
def forecast_policy(
    who: Annotated[Principal, may(Verb.SEE)],
    master: TheMaster,
    name: Named,
    hours: Hours = 24.0 * 30,
    limit: Most = 1000,
) -> Forecast:
    """What a policy will start, with all others in its way."""
    return _forecast(who, master, hours, limit, PolicyName(name))


def _forecast(
    who: Principal,
    master: TheMaster,
    hours: float,
    limit: int,
    only: PolicyName | None = None,
) -> Forecast:
    since = master.clock.now()
    until = since + timedelta(hours=hours)
    seen = (
        Upcoming.of(one)
        for one in forecasting.upcoming(master, since, until, only)
        if who.sees(one.client)
    )
    items = list(islice(seen, limit + 1))
    return Forecast(since=since, until=until, items=items[:limit], more=len(items) > limit)
