"""New jobs into the queue: each occurrence of a schedule once, whole families at once.

Must not open transactions, nor look inside the work. Invariant: an occurrence that is there
already, even if its job has ended, is left alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.clock import to_ns
from holdfast.base.errors import Invalid
from holdfast.base.ids import JobId
from holdfast.control.jobs import family, sequence
from holdfast.control.jobs.job import COMMANDS, Held, Job, JobKind
from holdfast.control.jobs.rows import values_of
from holdfast.control.jobs.schema import job_work, jobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from holdfast.base.ids import ClientName, PolicyName, SourceName

Occurrence = tuple[str, str, str, str, int]

PRIORITIES = range(101)

_AT_ONCE = 500
"""Occurrences looked for by one statement: a statement has a limited number of parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job as it is asked for. See `Job`.

    Attributes:
        work: The wire message, ready for JSON; of a job that has parts, nothing.
        due_at: Which occurrence of its schedule it is; None for what a person asked for.
        parts: Jobs that do the work; this one only follows them.
        missed: Why it can't begin in time any more: it is written down, and ends as missed.
        divided: It is one of several streams of a path, so that commands around it are jobs.
        held: What part of its family it has to wait for.
    """

    kind: JobKind
    work: Mapping[str, Any] = field(default_factory=dict)
    policy: PolicyName | None = None
    schedule: str | None = None
    client: ClientName | None = None
    source: SourceName | None = None
    backup_kind: str | None = None
    storage_unit: str | None = None
    priority: int = 50
    due_at: datetime | None = None
    not_before: datetime | None = None
    restart_of: JobId | None = None
    parts: tuple[NewJob, ...] = ()
    missed: str | None = None
    worker: ClientName | None = None
    divided: bool = False
    held: Held | None = None

    def __post_init__(self) -> None:
        if self.priority not in PRIORITIES:
            raise Invalid(
                f"there is no priority {self.priority}",
                f"a priority is {PRIORITIES[0]} to {PRIORITIES[-1]}, higher goes first",
            )
        if any(part.parts for part in self.parts):
            raise Invalid("a part of a job can't have parts of its own")

    @property
    def occurrence(self) -> Occurrence | None:
        """What there is one job of; None if there may be many."""
        if self.due_at is None:
            return None
        names = (self.policy, self.schedule, self.client, self.source)
        policy, schedule, client, source = (name or "" for name in names)
        return policy, schedule, client, source, to_ns(self.due_at)


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The job that answers to a `NewJob`.

    Attributes:
        is_new: False if its occurrence was there already.
        is_whole: Whether it is new, and so are all its parts.
    """

    id: JobId
    is_new: bool
    is_whole: bool = True


def enqueue(connection: sa.Connection, new: Sequence[NewJob], now: datetime) -> list[Enqueued]:
    """Write jobs down.

    Args:
        connection: In a write transaction.
        new: What is asked for; of a family, what is there already is left out.
        now: Since when they wait.

    Returns:
        One for each that was asked for, in the same order. Of a family that is there already,
        its first part.
    """
    known = _known(connection, _occurrences(new))
    were_there = frozenset(known)
    wanted: list[tuple[NewJob, tuple[NewJob, ...]]] = []
    answers: list[JobId | int] = []
    for one in new:
        there, parts = _still_to_do(one, known)
        if there is None:
            # Until it has its id, it is known by its place among those that are wanted.
            there = -len(wanted) - 1
            wanted.append((one, parts))
            for occurrence in _occurrences([one]):
                known.setdefault(occurrence, there)
        answers.append(there)
    ids = _insert(connection, [_row(one, now, len(parts)) for one, parts in wanted])
    held = sequence.in_line(connection, [part for _, parts in wanted for part in parts])
    children = [
        (part, _row(part, now, 0, parent))
        for parent, (_, parts) in zip(ids, wanted, strict=True)
        for part in parts
    ]
    for at, by in held.items():
        children[at][1].update(held=str(by), waits_for=sequence.WORDS[by])
    part_ids = _insert(connection, [row for _, row in children])
    workers = [(job, one) for job, (one, parts) in zip(ids, wanted, strict=True) if not parts] + [
        (job, part) for job, (part, _) in zip(part_ids, children, strict=True)
    ]
    if workers:
        connection.execute(
            sa.insert(job_work),
            [{"job_id": job, "work": json.dumps(dict(one.work))} for job, one in workers],
        )
    first_of: set[int] = set()
    found = []
    for one, answer in zip(new, answers, strict=True):
        if answer > 0:
            found.append(Enqueued(JobId(answer), is_new=False, is_whole=False))
        else:
            is_new = answer not in first_of
            is_whole = is_new and were_there.isdisjoint(_occurrences([one]))
            found.append(Enqueued(ids[-answer - 1], is_new, is_whole))
            first_of.add(answer)
    return found


def _occurrences(new: Iterable[NewJob]) -> list[Occurrence]:
    return [
        occurrence
        for one in new
        for member in (one, *one.parts)
        if (occurrence := member.occurrence) is not None
    ]


def _still_to_do(
    one: NewJob, known: Mapping[Occurrence, JobId | int]
) -> tuple[JobId | int | None, tuple[NewJob, ...]]:
    """The job that is there already for one, if there is; else the parts that are not."""
    there = None if one.occurrence is None else known.get(one.occurrence)
    if there is not None or not one.parts:
        return there, ()
    parts: dict[Occurrence | int, NewJob] = {}
    for place, part in enumerate(one.parts):
        if part.occurrence is None or part.kind in COMMANDS:
            parts[place] = part
        elif part.occurrence in known:
            there = there or known[part.occurrence]
        else:
            parts[part.occurrence] = part
    # The command before is there already where a master was killed as it handed out another split.
    known_commands = any(part.occurrence in known for part in one.parts if part.kind in COMMANDS)
    is_there = there is not None or known_commands
    kept = sequence.with_commands(tuple(parts.values()), there=is_there)
    return (None if kept else there), kept


def _known(
    connection: sa.Connection, occurrences: Sequence[Occurrence]
) -> dict[Occurrence, JobId | int]:
    """Which of these are there, and their jobs."""
    columns = (jobs.c.policy, jobs.c.schedule, jobs.c.client, jobs.c.source, jobs.c.due_ns)
    key = sa.tuple_(*columns)
    found: dict[Occurrence, JobId | int] = {}
    for begin in range(0, len(occurrences), _AT_ONCE):
        some = occurrences[begin : begin + _AT_ONCE]
        query = sa.select(jobs.c.id, *columns).where(key.in_(some), jobs.c.due_ns > 0)
        for job, policy, schedule, client, source, due_ns in connection.execute(query):
            found[policy, schedule, client, source, due_ns] = JobId(job)
    return found


def _row(one: NewJob, now: datetime, children: int, parent: JobId | None = None) -> dict[str, Any]:
    return values_of(
        Job(
            id=JobId(0),
            kind=one.kind,
            priority=one.priority,
            queued_at=now,
            parent_id=parent,
            children=children,
            restart_of=one.restart_of,
            policy=one.policy,
            schedule=one.schedule,
            client=one.client,
            source=one.source,
            backup_kind=one.backup_kind,
            storage_unit=one.storage_unit,
            due_at=one.due_at,
            not_before=one.not_before,
            worker=one.worker,
            held=one.held,
            waits_for=sequence.WORDS.get(one.held)
            if one.held
            else family.waits_for(children, children),
        )
    )


def _insert(connection: sa.Connection, rows: list[dict[str, Any]]) -> list[JobId]:
    if not rows:
        return []
    statement = sa.insert(jobs).returning(jobs.c.id, sort_by_parameter_order=True)
    return [JobId(row.id) for row in connection.execute(statement, rows)]
