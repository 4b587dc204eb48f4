"""What waits: jobs that may begin, what they wait for, and jobs that are to be run again.

Must not open transactions, nor decide who begins: see broker.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.clock import from_ns, to_ns
from holdfast.base.errors import WrongState
from holdfast.base.ids import ClientName, JobId, PolicyName, SourceName
from holdfast.control.jobs import sequence, store
from holdfast.control.jobs.enqueue import NewJob
from holdfast.control.jobs.events import plain
from holdfast.control.jobs.job import JobKind, JobState, Outcome
from holdfast.control.jobs.schema import job_work, jobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from holdfast.control.jobs.job import Job

AT_ONCE = 1000
"""So many jobs are named by one statement."""

AT_WORK = (
    jobs.c.state.in_([str(JobState.ACTIVE), str(JobState.ENDING)]),
    jobs.c.children == 0,
)
"""What jobs are that workers have."""

_DONE = {Outcome.COMPLETED, Outcome.COMPLETED_WITH_WARNINGS}


@dataclass(frozen=True, slots=True)
class Ready:
    """A queued job that may begin as soon as it has what it needs.

    Attributes:
        due_at: Which occurrence of its schedule it is; None for what a person asked for.
    """

    id: JobId
    kind: JobKind
    policy: PolicyName | None
    schedule: str | None
    client: ClientName | None
    source: SourceName | None
    storage_unit: str | None
    priority: int
    queued_at: datetime
    due_at: datetime | None = None
    worker: ClientName | None = None
    backup_kind: str | None = None

    @property
    def done_by(self) -> ClientName | None:
        """As `Job.done_by`."""
        return self.worker or self.client


def ready_ids(connection: sa.Connection, now: datetime) -> set[JobId]:
    """The queued jobs that may begin as soon as they have what they need."""
    query = sa.select(jobs.c.id).where(*_may_begin(now))
    return {JobId(job) for job in connection.scalars(query)}


def scheduled_sources(connection: sa.Connection) -> set[tuple[PolicyName, SourceName]]:
    """Policies and sources of which a backup that a schedule made has not ended."""
    unended = [str(one) for one in JobState if one is not JobState.ENDED]
    query = sa.select(jobs.c.policy, jobs.c.source).where(
        jobs.c.kind == str(JobKind.BACKUP), jobs.c.state.in_(unended), jobs.c.due_ns > 0
    )
    return {
        (PolicyName(row.policy), SourceName(row.source))
        for row in connection.execute(query)
        if row.policy is not None and row.source is not None
    }


def ready(connection: sa.Connection, now: datetime, some: Iterable[JobId] | None) -> list[Ready]:
    """What the broker has to know of queued jobs that may begin, oldest first; of some, or all."""
    query = sa.select(
        jobs.c.id,
        jobs.c.kind,
        jobs.c.policy,
        jobs.c.schedule,
        jobs.c.client,
        jobs.c.source,
        jobs.c.storage_unit,
        jobs.c.priority,
        jobs.c.queued_ns,
        jobs.c.due_ns,
        jobs.c.worker,
        jobs.c.backup_kind,
    ).where(*_may_begin(now))
    if some is None:
        found: Iterable[Any] = connection.execute(query)
    else:
        found = (
            row
            for chunk in chunks(sorted(some))
            for row in connection.execute(query.where(jobs.c.id.in_(chunk)))
        )
    return sorted(
        (
            Ready(
                id=JobId(row.id),
                kind=JobKind(row.kind),
                policy=PolicyName(row.policy) if row.policy else None,
                schedule=row.schedule or None,
                client=ClientName(row.client) if row.client else None,
                source=SourceName(row.source) if row.source else None,
                storage_unit=row.storage_unit or None,
                priority=row.priority,
                queued_at=from_ns(row.queued_ns),
                due_at=from_ns(row.due_ns) if row.due_ns else None,
                worker=ClientName(row.worker) if row.worker else None,
                backup_kind=row.backup_kind or None,
            )
            for row in found
        ),
        key=lambda one: one.id,
    )


def note_waits(connection: sa.Connection, reasons: Mapping[JobId, tuple[str | None, str]]) -> None:
    """Note what queued jobs wait for; see `JobBook.waits`."""
    grouped: dict[tuple[str, str], list[JobId]] = {}
    for job, (on, words) in reasons.items():
        grouped.setdefault((on or "", plain(words)), []).append(job)
    for (on, words), some in grouped.items():
        for chunk in chunks(some):
            connection.execute(
                sa.update(jobs)
                .where(
                    jobs.c.id.in_(chunk),
                    jobs.c.state == str(JobState.QUEUED),
                    jobs.c.suspended.is_(False),
                    jobs.c.waits_for != words,
                )
                .values(waits_on=on, waits_for=words)
            )


def work_of(connection: sa.Connection, some: Sequence[JobId]) -> dict[JobId, dict[str, Any]]:
    """What jobs are told to do; those that have parts are not among them."""
    found: dict[JobId, dict[str, Any]] = {}
    for chunk in chunks(some):
        query = sa.select(job_work).where(job_work.c.job_id.in_(chunk))
        found |= {JobId(row.job_id): json.loads(row.work) for row in connection.execute(query)}
    return found


def restarted(connection: sa.Connection, old: Job) -> NewJob:
    """What an ended job was asked for; of a family, the parts that were not completed.

    Raises:
        WrongState: It has not ended, or runs again already.
    """
    if old.state is not JobState.ENDED:
        raise WrongState(
            f"job {old.id} has not ended: it is {old.status}",
            f"to end it first: holdfast jobs cancel {old.id}",
        )
    again = store.load_some(
        connection, jobs.c.restart_of == old.id, jobs.c.state != str(JobState.ENDED)
    )
    if again:
        raise WrongState(f"job {old.id} runs again already, as job {again[0].id}")
    parts = store.load_some(connection, jobs.c.parent_id == old.id)
    undone = [part for part in parts if part.outcome not in _DONE]
    chosen = sequence.to_restart(parts, undone) if undone else parts
    work = work_of(connection, [one.id for one in (chosen or [old])])
    if not chosen:
        work = {old.id: sequence.with_own_commands(connection, old, work.get(old.id, {}))}
    parts_anew = sequence.in_order([_anew(part, work) for part in chosen])
    return replace(_anew(old, work), restart_of=old.id, parts=parts_anew)


def chunks(some: Sequence[JobId]) -> Iterator[Sequence[JobId]]:
    """Jobs, as many at a time as one statement may name."""
    for begin in range(0, len(some), AT_ONCE):
        yield some[begin : begin + AT_ONCE]


def _may_begin(now: datetime) -> list[sa.ColumnElement[bool]]:
    return [
        jobs.c.state == str(JobState.QUEUED),
        jobs.c.suspended.is_(False),
        jobs.c.children == 0,
        jobs.c.held == "",
        jobs.c.not_before_ns <= to_ns(now),
    ]


def _anew(old: Job, work: Mapping[JobId, dict[str, Any]]) -> NewJob:
    """No more an occurrence of its schedule: that there is one job of."""
    return NewJob(
        kind=old.kind,
        work=work.get(old.id, {}),
        policy=old.policy,
        schedule=old.schedule,
        client=old.client,
        source=old.source,
        backup_kind=old.backup_kind,
        storage_unit=old.storage_unit,
        priority=old.priority,
        worker=old.worker,
    )
