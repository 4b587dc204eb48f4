"""One job read, and written as it has become; its parent follows.

Must not open transactions, nor decide what may become of a job: see life and family.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast.base.clock import from_ns
from holdfast.base.errors import JobMissing
from holdfast.control.jobs import events, family, sequence
from holdfast.control.jobs.family import Parts
from holdfast.control.jobs.job import COUNTER_NAMES, JobState, Outcome
from holdfast.control.jobs.rows import changed, job_of
from holdfast.control.jobs.schema import jobs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from holdfast.base.ids import JobId
    from holdfast.control.jobs.job import Job, Remark
    from holdfast.control.jobs.life import Step


def load(connection: sa.Connection, job: JobId) -> Job:
    """One job.

    Raises:
        JobMissing: There is none of this number.
    """
    row = connection.execute(sa.select(jobs).where(jobs.c.id == job)).one_or_none()
    if row is None:
        raise JobMissing(f"there is no job {job}")
    return job_of(row)


def load_some(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[Job]:
    """Every job for which all conditions hold, oldest first."""
    query = sa.select(jobs).where(*conditions).order_by(jobs.c.id)
    return [job_of(row) for row in connection.execute(query)]


def take_step(
    connection: sa.Connection,
    before: Job,
    step: Step,
    now: datetime,
    remarks: Iterable[Remark] = (),
    left_out: int = 0,
) -> Job:
    """Write a job as it has become, with its events; its parent must be made to follow.

    Args:
        connection: In the write transaction in which `before` was read.
        before: As it is in the database.
        step: What became of it.
        now: The moment.
        remarks: What its worker says of its files.
        left_out: How much more it had to say.
    """
    after = events.add(connection, step.job, remarks, now, bounded=True)
    if left_out:
        after = replace(after, events_left_out=after.events_left_out + left_out)
    if step.remark is not None:
        after = events.add(connection, after, [step.remark], now, bounded=False)
    values = changed(before, after)
    if values:
        connection.execute(sa.update(jobs).where(jobs.c.id == before.id).values(**values))
    return after


def follow(connection: sa.Connection, some: Iterable[Job], now: datetime) -> None:
    """Take the parents of jobs that were written to where their parts are now.

    Parts that waited for those go on first.
    """
    some = list(some)
    sequence.advance(connection, some, now)
    for parent_id in sorted({one.parent_id for one in some if one.parent_id is not None}):
        parent = load(connection, parent_id)
        step = family.follow(parent, _parts(connection, parent_id))
        take_step(connection, parent, step, now)


def _parts(connection: sa.Connection, parent: JobId) -> Parts:
    started = sa.func.min(sa.func.nullif(jobs.c.started_ns, 0)).label("started_ns")
    query = (
        sa.select(
            jobs.c.state,
            jobs.c.outcome,
            jobs.c.suspended,
            sa.func.count().label("jobs"),
            started,
            sa.func.max(jobs.c.ended_ns).label("ended_ns"),
            *(sa.func.sum(jobs.c[name]).label(name) for name in COUNTER_NAMES),
        )
        .where(jobs.c.parent_id == parent)
        .group_by(jobs.c.state, jobs.c.outcome, jobs.c.suspended)
    )
    found = connection.execute(query).all()
    ended = {Outcome(row.outcome): row.jobs for row in found if row.state == JobState.ENDED}
    queued = [row for row in found if row.state == JobState.QUEUED]
    begun = [row.started_ns for row in found if row.started_ns]
    last = max((row.ended_ns for row in found), default=0)
    return Parts(
        ended=ended,
        at_work=sum(row.jobs for row in found if row.state in {JobState.ACTIVE, JobState.ENDING}),
        queued=sum(row.jobs for row in queued if not row.suspended),
        suspended=sum(row.jobs for row in queued if row.suspended),
        started_at=from_ns(min(begun)) if begun else None,
        ended_at=from_ns(last) if last else None,
        counters={name: int(sum(getattr(row, name) for row in found)) for name in COUNTER_NAMES},
    )
