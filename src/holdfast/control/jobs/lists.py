"""Jobs in lists: filtered, sorted, a page at a time.

Must not open transactions: every function runs on the caller's connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.clock import to_ns
from holdfast.base.errors import Invalid
from holdfast.control.jobs import rows
from holdfast.control.jobs.job import JobState
from holdfast.control.jobs.paging import Order
from holdfast.control.jobs.schema import jobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from holdfast.base.ids import JobId
    from holdfast.control.jobs.job import Job, JobKind, Outcome
    from holdfast.control.jobs.paging import After, Sort

SORTS: dict[str, sa.Column[Any]] = {
    "id": jobs.c.id,
    "queued_at": jobs.c.queued_ns,
    "due_at": jobs.c.due_ns,
    # what never began stands where it was queued
    "started_at": jobs.c.at_ns,
    "ended_at": jobs.c.ended_ns,
    "duration": jobs.c.duration_ns,
    "kind": jobs.c.kind,
    "policy": jobs.c.policy,
    "schedule": jobs.c.schedule,
    "client": jobs.c.client,
    "source": jobs.c.source,
    "backup_kind": jobs.c.backup_kind,
    "storage_unit": jobs.c.storage_unit,
    "priority": jobs.c.priority,
    "state": jobs.c.state,
    "outcome": jobs.c.outcome,
    "attempt": jobs.c.attempt,
    "files": jobs.c.files,
    "size_bytes": jobs.c.size_bytes,
    "online_bytes": jobs.c.online_bytes,
    "new_bytes": jobs.c.new_bytes,
    "transmitted_bytes": jobs.c.transmitted_bytes,
    "findings": jobs.c.findings,
}
"""What lists of jobs can be sorted by."""

_AT_ONCE = 1000
_LAST_NS = 2**63 - 1

Visible = Callable[[sa.Connection, sa.ColumnElement[str]], sa.ColumnElement[bool]]
"""Which clients somebody may see, as a condition on the column that has their names."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs a list has: those for which every condition holds that is set.

    Attributes:
        since: Began at or after this; one that has not begun counts as of when it was queued.
        until: Likewise, before this.
        clients: One of these; so with all that are tuples.
        parent: Parts of this job.
        tops: Only those that are no part of another.
        leaves: Only those that do work of their own, and have no parts.
        begun: True for those that have begun or ended, False for those that wait.
        visible: What of the column of clients may be seen by whoever asks.
    """

    since: datetime | None = None
    until: datetime | None = None
    clients: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    states: tuple[JobState, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    kinds: tuple[JobKind, ...] = ()
    parent: JobId | None = None
    tops: bool = False
    leaves: bool = False
    begun: bool | None = None
    visible: Visible | None = None

    def conditions(self, connection: sa.Connection) -> list[sa.ColumnElement[bool]]:
        """What a row of ``jobs`` must fulfil, for the database of a connection to judge."""
        found: list[sa.ColumnElement[bool]] = []
        if self.visible is not None:
            found.append(self.visible(connection, jobs.c.client))
        if self.since is not None:
            found.append(jobs.c.at_ns >= bounded_ns(self.since))
        if self.until is not None:
            found.append(jobs.c.at_ns < bounded_ns(self.until))
        choices: list[tuple[sa.Column[Any], Iterable[str]]] = [
            (jobs.c.client, self.clients),
            (jobs.c.policy, self.policies),
            (jobs.c.source, self.sources),
            (jobs.c.state, self.states),
            (jobs.c.outcome, self.outcomes),
            (jobs.c.kind, self.kinds),
        ]
        found.extend(column.in_([*map(str, some)]) for column, some in choices if some)
        if self.parent is not None:
            found.append(jobs.c.parent_id == self.parent)
        if self.tops:
            found.append(jobs.c.parent_id.is_(None))
        if self.leaves:
            found.append(jobs.c.children == 0)
        if self.begun is not None:
            waits = jobs.c.state == str(JobState.QUEUED)
            found.append(sa.not_(waits) if self.begun else waits)
        return found


def bounded_ns(moment: datetime) -> int:
    """Nanoseconds since 1970 as far as a column reaches, which is from 1677 to 2262."""
    return max(min(to_ns(moment), _LAST_NS), -_LAST_NS)


def page(
    connection: sa.Connection, wanted: Wanted, sort: Sort, limit: int, after: After | None
) -> list[Job]:
    """The jobs that are wanted, in order, from a place on.

    Raises:
        Invalid: Nothing can be sorted by that, or there is no such place.
    """
    # Sorting numbers of jobs is several times as quick as sorting jobs.
    query = sa.select(jobs.c.id).where(*wanted.conditions(connection))
    ids = [row.id for row in Order(SORTS, jobs.c.id, sort).rows(connection, query, limit, after)]
    found: dict[int, sa.Row[Any]] = {}
    for begin in range(0, len(ids), _AT_ONCE):
        some = sa.select(jobs).where(jobs.c.id.in_(ids[begin : begin + _AT_ONCE]))
        found |= {row.id: row for row in connection.execute(some)}
    return [rows.job_of(found[one]) for one in ids]


def kinds(sort: Sort) -> tuple[type[int | str], type[int | str]]:
    """Of what types the parts of a place in a list of this order are."""
    return Order(SORTS, jobs.c.id, sort).kinds


def place(job: Job, sort: Sort) -> After:
    """Where the page after a job begins."""
    values = rows.values_of(job) | {"id": job.id}
    return Order(SORTS, jobs.c.id, sort).place(values)


def after(key: Sequence[int | str | None] | None) -> After | None:
    """The place that whoever pages has kept.

    Raises:
        Invalid: It is none.
    """
    if key is None:
        return None
    value, number = key
    if value is None or not isinstance(number, int):
        raise Invalid("no row of this list has such a place")
    return value, number


def count(connection: sa.Connection, wanted: Wanted) -> int:
    """How many jobs are wanted."""
    query = sa.select(sa.func.count()).select_from(jobs).where(*wanted.conditions(connection))
    return connection.scalar(query) or 0
