"""Forgetting what ended long ago.

Must not open transactions, nor touch what has not ended. Invariant: a family goes as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast.base.clock import to_ns
from holdfast.control.jobs.job import JobState
from holdfast.control.jobs.queue import chunks
from holdfast.control.jobs.schema import job_events, job_work, jobs

if TYPE_CHECKING:
    from datetime import datetime


def forget(connection: sa.Connection, before: datetime, at_most: int) -> int:
    """Forget jobs that ended before a moment, with their events and work; count those that went.

    Args:
        connection: In a write transaction.
        before: The moment.
        at_most: So many at once, the parts of families not counted.
    """
    going = list(
        connection.scalars(
            sa.select(jobs.c.id)
            .where(
                jobs.c.state == str(JobState.ENDED),
                jobs.c.ended_ns < to_ns(before),
                jobs.c.parent_id.is_(None),
            )
            .order_by(jobs.c.id)
            .limit(at_most)
        )
    )
    count = 0
    for chunk in chunks(going):
        parts = list(connection.scalars(sa.select(jobs.c.id).where(jobs.c.parent_id.in_(chunk))))
        for some in (*chunks(parts), chunk):
            connection.execute(
                sa.update(jobs).where(jobs.c.restart_of.in_(some)).values(restart_of=None)
            )
            for table in (job_events, job_work):
                connection.execute(sa.delete(table).where(table.c.job_id.in_(some)))
            connection.execute(sa.delete(jobs).where(jobs.c.id.in_(some)))
            count += len(some)
    return count
