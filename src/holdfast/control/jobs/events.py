"""The event log of a job: what happened to it and to its files.

Must not open transactions. Invariants: events of a job count from 1 without a gap; paths are
kept as their bytes; however much goes wrong, a job has a bounded number of events, says how many
were left out, and has room left for those that matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.control.jobs.job import Event
from holdfast.control.jobs.paging import Order
from holdfast.control.jobs.rows import event_of, values_of_event
from holdfast.control.jobs.schema import job_events

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from holdfast.base.ids import JobId
    from holdfast.control.jobs.job import Job, Remark, Severity
    from holdfast.control.jobs.paging import After, Sort

MOST = 10_000
"""A job keeps so many events of its worker."""

FOR_WHAT_MATTERS = 1_000
"""So many of them only for what matters, so that a flood of small things hides nothing."""

LONGEST = 4_000
"""Longer messages are cut, in characters."""

SORTS: dict[str, sa.Column[Any]] = {
    "seq": job_events.c.seq,
    "at": job_events.c.at_ns,
    "severity": job_events.c.severity,
    "cause": job_events.c.cause,
    "message": job_events.c.message,
    "matters": job_events.c.matters,
    "path": job_events.c.path,
}
"""What events can be sorted by."""


@dataclass(frozen=True, slots=True)
class WantedEvents:
    """Which events a list has.

    Attributes:
        severities: One of these.
        causes: One of these.
        matters: Only those that do, or that do not.
        files: Only those about a file, or about the job itself.
    """

    severities: tuple[Severity, ...] = ()
    causes: tuple[str, ...] = ()
    matters: bool | None = None
    files: bool | None = None


def add(
    connection: sa.Connection,
    job: Job,
    remarks: Iterable[Remark],
    now: datetime,
    *,
    bounded: bool,
) -> Job:
    """Write remarks down, as far as there is room.

    Args:
        connection: In a write transaction.
        job: As it is.
        remarks: In their order.
        now: When they were told.
        bounded: They come from a worker. What the master says of a job is always kept.

    Returns:
        The job with its counts of events; the caller writes it.
    """
    kept, left_out = job.events, 0
    rows = []
    for remark in remarks:
        most = MOST if remark.matters else MOST - FOR_WHAT_MATTERS
        if bounded and kept >= most:
            left_out += 1
            continue
        kept += 1
        rows.append(
            values_of_event(
                Event(
                    job_id=job.id,
                    seq=kept,
                    at=now,
                    severity=remark.severity,
                    path=remark.path,
                    cause=plain(remark.cause),
                    message=plain(remark.message),
                    matters=remark.matters,
                )
            )
        )
    if rows:
        connection.execute(sa.insert(job_events), rows)
    return replace(job, events=kept, events_left_out=job.events_left_out + left_out)


def page(
    connection: sa.Connection,
    job: JobId,
    wanted: WantedEvents,
    sort: Sort,
    limit: int,
    after: After | None,
) -> list[Event]:
    """The events of a job that are wanted, in order, from a place on.

    Raises:
        Invalid: Nothing can be sorted by that, or there is no such place.
    """
    query = sa.select(job_events).where(job_events.c.job_id == job)
    if wanted.severities:
        query = query.where(job_events.c.severity.in_([*map(str, wanted.severities)]))
    if wanted.causes:
        query = query.where(job_events.c.cause.in_(wanted.causes))
    if wanted.matters is not None:
        query = query.where(job_events.c.matters.is_(wanted.matters))
    if wanted.files is not None:
        about_job = job_events.c.path == b""
        query = query.where(sa.not_(about_job) if wanted.files else about_job)
    order = Order(SORTS, job_events.c.seq, sort)
    return [event_of(row) for row in order.rows(connection, query, limit, after)]


def kinds(sort: Sort) -> tuple[type[int | str], type[int | str]]:
    """Of what types the parts of a place in a list of this order are."""
    return Order(SORTS, job_events.c.seq, sort).kinds


def place(event: Event, sort: Sort) -> After:
    """Where the page after an event begins."""
    return Order(SORTS, job_events.c.seq, sort).place(values_of_event(event))


def plain(text: str) -> str:
    """Make any text one that every database takes: bad characters escaped, long ones cut."""
    shown = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
