"""Jobs and events as rows, both ways.

Must not run statements. Invariant: a job that was written and read is the same job.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from holdfast.base.clock import from_ns, to_ns
from holdfast.base.ids import ClientName, ImageId, JobId, PolicyName, SourceName
from holdfast.control.jobs.job import (
    COUNTER_NAMES,
    Asked,
    Event,
    Held,
    Job,
    JobError,
    JobKind,
    JobState,
    Outcome,
    Severity,
)

if TYPE_CHECKING:
    from datetime import datetime

    import sqlalchemy as sa

Values = dict[str, Any]


def values_of(job: Job) -> Values:
    """Every column of a job but its id."""
    error = job.error
    more = {name: count for name, count in job.counters.items() if name not in COUNTER_NAMES}
    duration = job.duration
    return {
        "parent_id": job.parent_id,
        "restart_of": job.restart_of,
        "children": job.children,
        "kind": str(job.kind),
        "policy": job.policy or "",
        "schedule": job.schedule or "",
        "client": job.client or "",
        "source": job.source or "",
        "backup_kind": job.backup_kind or "",
        "storage_unit": job.storage_unit or "",
        "priority": job.priority,
        "state": str(job.state),
        "suspended": job.suspended,
        "asked": str(job.asked or ""),
        "outcome": str(job.outcome or ""),
        "due_ns": _ns(job.due_at),
        "queued_ns": to_ns(job.queued_at),
        "at_ns": _ns(job.started_at) or to_ns(job.queued_at),
        "not_before_ns": _ns(job.not_before),
        "started_ns": _ns(job.started_at),
        "ended_ns": _ns(job.ended_at),
        "duration_ns": 0 if duration is None else _duration_ns(job),
        "attempt": job.attempt,
        "fence": job.fence,
        "lease_until_ns": _ns(job.lease_until),
        "image_id": job.image_id or "",
        **{name: job.counters.get(name, 0) for name in COUNTER_NAMES},
        "more_counters": json.dumps(more, sort_keys=True) if more else "",
        "waits_on": job.waits_on or "",
        "waits_for": job.waits_for or "",
        "error_code": "" if error is None else error.code,
        "error_message": "" if error is None else error.message,
        "error_hint": "" if error is None else error.hint or "",
        "events": job.events,
        "events_left_out": job.events_left_out,
        "worker": job.worker or "",
        "held": str(job.held or ""),
    }


def job_of(row: sa.Row[Any]) -> Job:
    """The job of a row that has every column."""
    counters = {name: getattr(row, name) for name in COUNTER_NAMES}
    if row.more_counters:
        counters |= json.loads(row.more_counters)
    error = None
    if row.error_code:
        error = JobError(row.error_code, row.error_message, row.error_hint or None)
    return Job(
        id=JobId(row.id),
        kind=JobKind(row.kind),
        priority=row.priority,
        queued_at=from_ns(row.queued_ns),
        parent_id=None if row.parent_id is None else JobId(row.parent_id),
        children=row.children,
        restart_of=None if row.restart_of is None else JobId(row.restart_of),
        policy=PolicyName(row.policy) if row.policy else None,
        schedule=row.schedule or None,
        client=ClientName(row.client) if row.client else None,
        source=SourceName(row.source) if row.source else None,
        backup_kind=row.backup_kind or None,
        storage_unit=row.storage_unit or None,
        state=JobState(row.state),
        suspended=row.suspended,
        asked=Asked(row.asked) if row.asked else None,
        outcome=Outcome(row.outcome) if row.outcome else None,
        due_at=moment(row.due_ns),
        not_before=moment(row.not_before_ns),
        started_at=moment(row.started_ns),
        ended_at=moment(row.ended_ns),
        attempt=row.attempt,
        fence=row.fence,
        lease_until=moment(row.lease_until_ns),
        image_id=ImageId(row.image_id) if row.image_id else None,
        counters=counters,
        waits_on=row.waits_on or None,
        waits_for=row.waits_for or None,
        error=error,
        events=row.events,
        events_left_out=row.events_left_out,
        worker=ClientName(row.worker) if row.worker else None,
        held=Held(row.held) if row.held else None,
    )


def event_of(row: sa.Row[Any]) -> Event:
    """The event of a row."""
    return Event(
        job_id=JobId(row.job_id),
        seq=row.seq,
        at=from_ns(row.at_ns),
        severity=Severity(row.severity),
        path=row.path or None,
        cause=row.cause,
        message=row.message,
        matters=row.matters,
    )


def values_of_event(event: Event) -> Values:
    """Every column of an event."""
    return {
        "job_id": event.job_id,
        "seq": event.seq,
        "at_ns": to_ns(event.at),
        "severity": str(event.severity),
        "cause": event.cause,
        "message": event.message,
        "matters": event.matters,
        "path": event.path or b"",
    }


def changed(before: Job, after: Job) -> Values:
    """The columns by which two states of one job differ."""
    old, new = values_of(before), values_of(after)
    return {name: value for name, value in new.items() if value != old[name]}


def moment(ns: int) -> datetime | None:
    """The moment of a column in which 0 is none."""
    return from_ns(ns) if ns else None


def _ns(at: datetime | None) -> int:
    return 0 if at is None else to_ns(at)


def _duration_ns(job: Job) -> int:
    return max(_ns(job.ended_at) - _ns(job.started_at), 0)
