"""Numbers of jobs for dashboards.

Must not open transactions. Jobs that have parts are not counted: their parts are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast.base.clock import from_ns
from holdfast.control.jobs.job import JobState, Outcome
from holdfast.control.jobs.lists import bounded_ns
from holdfast.control.jobs.schema import jobs

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast.control.jobs.lists import Visible

MOST_REASONS = 20
"""So many things that jobs wait for are told apart."""


@dataclass(frozen=True, slots=True)
class Depth:
    """Queued jobs that wait for the same.

    Attributes:
        waits_on: Such as ``storage unit 'default'``; None for what nothing was noted of.
        jobs: How many wait for it.
        since: Since when the first of them does.
    """

    waits_on: str | None
    jobs: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Numbers:
    """Attributes: see `numbers`."""

    states: dict[JobState, int]
    suspended: int
    outcomes: dict[Outcome, int]
    queue: tuple[Depth, ...]


def numbers(
    connection: sa.Connection,
    since: datetime,
    until: datetime,
    visible: Visible | None = None,
) -> Numbers:
    """Count jobs.

    Args:
        connection: In a transaction.
        since: Outcomes are of jobs that began at or after this,
        until: and before this; of one that never began, it counts when it was queued.
        visible: What of the column of clients may be seen by whoever asks.

    Returns:
        Jobs by state as they are now, ended ones left out; how many of the queued are suspended;
        outcomes over the time; and what queued jobs wait for, most first.
    """
    works = jobs.c.children == 0
    if visible is not None:
        works = sa.and_(works, visible(connection, jobs.c.client))
    now = connection.execute(
        sa.select(jobs.c.state, jobs.c.suspended, sa.func.count().label("jobs"))
        .where(works, jobs.c.state.in_([str(one) for one in JobState if one is not JobState.ENDED]))
        .group_by(jobs.c.state, jobs.c.suspended)
    ).all()
    over = connection.execute(
        sa.select(jobs.c.outcome, sa.func.count().label("jobs"))
        .where(
            works,
            jobs.c.at_ns >= bounded_ns(since),
            jobs.c.at_ns < bounded_ns(until),
            jobs.c.state == str(JobState.ENDED),
        )
        .group_by(jobs.c.outcome)
    ).all()
    waiting = sa.func.count().label("jobs")
    depth = connection.execute(
        sa.select(jobs.c.waits_on, waiting, sa.func.min(jobs.c.queued_ns).label("since"))
        .where(works, jobs.c.state == str(JobState.QUEUED), jobs.c.suspended.is_(False))
        .group_by(jobs.c.waits_on)
        .order_by(waiting.desc(), jobs.c.waits_on)
        .limit(MOST_REASONS)
    ).all()
    states: dict[JobState, int] = {}
    for row in now:
        state = JobState(row.state)
        states[state] = states.get(state, 0) + row.jobs
    return Numbers(
        states=states,
        suspended=sum(row.jobs for row in now if row.suspended),
        outcomes={Outcome(row.outcome): row.jobs for row in over},
        queue=tuple(Depth(row.waits_on or None, row.jobs, from_ns(row.since)) for row in depth),
    )
