"""Which parts of a family wait for others: commands that a policy wants run once around backups.

Of one client, the command before begins, then the backups, and when all of those have ended the
command after. Must not open transactions, nor run anything. Invariants: no backup begins before the
command before it has ended well; the command after runs if and only if there is something to
undo: backups have begun, or the command before has and nobody heard that it tidied up; of two
families of one policy on one client the command before the second waits for that after the first.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.control.jobs import life
from holdfast.control.jobs.events import add
from holdfast.control.jobs.job import COMMANDS, Held, JobKind, JobState, Outcome
from holdfast.control.jobs.rows import changed, job_of
from holdfast.control.jobs.schema import job_work, jobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from holdfast.base.ids import JobId
    from holdfast.control.jobs.enqueue import NewJob
    from holdfast.control.jobs.job import Job
    from holdfast.control.jobs.life import Step

WORDS = {
    Held.BY_FAMILY_BEFORE: "the command after the backups before it",
    Held.BY_COMMAND: "the command before it",
    Held.BY_BACKUPS: "its backups to end",
    Held.BY_BACKUPS_OWED: "its backups to end",
}
"""What a job waits for that is held."""

_UNENDED = [str(one) for one in JobState if one is not JobState.ENDED]
_UNWELL = {Outcome.MISSED, Outcome.CANCELLED, Outcome.FAILED}
_AFTER_HELD = {Held.BY_BACKUPS, Held.BY_BACKUPS_OWED}


def with_commands(parts: tuple[NewJob, ...], *, there: bool) -> tuple[NewJob, ...]:
    """The parts of a family that are to be done, of which some may be there already.

    Args:
        parts: Some; commands of clients of which no backup is among them have nothing to do.
        there: Whether other parts are there: then the command before is no occurrence, of which
            there can be one only.
    """
    clients = {one.client for one in parts if one.kind not in COMMANDS}
    if not clients:
        return () if there else parts
    return tuple(
        replace(one, due_at=None) if there and one.kind in COMMANDS else one
        for one in parts
        if one.kind not in COMMANDS or one.client in clients
    )


def to_restart(parts: Sequence[Job], undone: Sequence[Job]) -> list[Job]:
    """The parts of an ended family that are to be done again: with backups, what is around them.

    Args:
        parts: All.
        undone: Those that were not completed.
    """
    clients = {one.client for one in undone if one.kind not in COMMANDS}
    return [
        one for one in parts if (one.kind in COMMANDS and one.client in clients) or one in undone
    ]


def in_order(parts: Sequence[NewJob]) -> tuple[NewJob, ...]:
    """Parts of a family that begin anew, each waiting for what it has to."""
    before = {one.client for one in parts if one.kind is JobKind.COMMAND_BEFORE}
    backed_up = {one.client for one in parts if one.kind not in COMMANDS}

    def held(one: NewJob) -> Held | None:
        if one.kind is JobKind.COMMAND_AFTER and one.client in backed_up | before:
            return Held.BY_BACKUPS
        return Held.BY_COMMAND if one.kind not in COMMANDS and one.client in before else None

    return tuple(replace(one, held=held(one)) for one in parts)


def with_own_commands(connection: sa.Connection, part: Job, work: dict[str, Any]) -> dict[str, Any]:
    """The work of a part that is done again alone: it runs the commands itself.

    Args:
        connection: In a transaction.
        part: Of a family, or not.
        work: What it is told to do.
    """
    if part.parent_id is None or part.kind in COMMANDS:
        return work
    query = sa.select(job_work.c.work).join(jobs, jobs.c.id == job_work.c.job_id)
    rows = connection.execute(
        query.where(
            jobs.c.parent_id == part.parent_id,
            jobs.c.client == (part.client or ""),
            jobs.c.kind.in_([str(one) for one in COMMANDS]),
        )
    )
    found = dict(work)
    for row in rows:
        told = json.loads(row.work)
        found.update({name: told[name] for name in ("pre_command", "post_command") if told[name]})
    return found


def in_line(connection: sa.Connection, new: Iterable[NewJob]) -> dict[int, Held]:
    """Which commands have to wait for those of older families, by their place among all.

    Args:
        connection: In a write transaction, before these are written.
        new: Parts of families, in the order in which they are to be written.
    """
    places = [(at, one) for at, one in enumerate(new) if one.kind in COMMANDS]
    if not places:
        return {}
    query = sa.select(jobs.c.policy, jobs.c.client).where(
        jobs.c.state.in_(_UNENDED), jobs.c.kind == str(JobKind.COMMAND_AFTER)
    )
    busy = {(row.policy, row.client) for row in connection.execute(query)}
    found = {}
    for at, one in places:
        key = one.policy or "", one.client or ""
        if one.kind is JobKind.COMMAND_AFTER:
            busy.add(key)
        elif key in busy:
            found[at] = Held.BY_FAMILY_BEFORE
    return found


def owe(connection: sa.Connection, before: Job, *, owed: bool) -> None:
    """Note whether a command before has left something to undo.

    Args:
        connection: In a write transaction.
        before: Any job; of one that is no such command nothing is noted.
        owed: It has ended well, or nothing was heard of it; not if its worker said how it failed,
            as that has tidied up.
    """
    if before.kind is not JobKind.COMMAND_BEFORE or before.parent_id is None:
        return
    held = Held.BY_BACKUPS_OWED if owed else Held.BY_BACKUPS
    connection.execute(
        sa.update(jobs)
        .where(
            jobs.c.parent_id == before.parent_id,
            jobs.c.client == (before.client or ""),
            jobs.c.kind == str(JobKind.COMMAND_AFTER),
            jobs.c.held.in_([str(one) for one in _AFTER_HELD]),
        )
        .values(held=str(held))
    )


def advance(connection: sa.Connection, written: Iterable[Job], now: datetime) -> None:
    """Let begin, or end, what waited for jobs that have ended.

    Args:
        connection: In the write transaction in which they were written.
        written: Any jobs, as they have become.
        now: The moment.
    """
    ended = [one for one in written if one.state is JobState.ENDED and one.parent_id is not None]
    groups = {(one.parent_id, one.client) for one in ended}
    for parent, client in sorted(groups, key=str):
        if _has_commands(connection, parent, client or ""):
            _advance(connection, parent, client or "", now)
    for one in ended:
        if one.kind is JobKind.COMMAND_AFTER:
            _let_next(connection, one.policy or "", one.client or "", now)


def _has_commands(connection: sa.Connection, parent: JobId | None, client: str) -> bool:
    query = sa.select(jobs.c.id).where(
        jobs.c.parent_id == parent,
        jobs.c.client == client,
        jobs.c.kind.in_([str(one) for one in COMMANDS]),
    )
    return connection.execute(query.limit(1)).first() is not None


def _advance(connection: sa.Connection, parent: JobId | None, client: str, now: datetime) -> None:
    query = sa.select(jobs).where(jobs.c.parent_id == parent, jobs.c.client == client)
    members = [job_of(row) for row in connection.execute(query.order_by(jobs.c.id))]
    before = next((one for one in members if one.kind is JobKind.COMMAND_BEFORE), None)
    after = next((one for one in members if one.kind is JobKind.COMMAND_AFTER), None)
    backups = [one for one in members if one.kind not in COMMANDS]
    if before is not None and before.state is JobState.ENDED:
        went_well = before.outcome not in _UNWELL
        for at, one in enumerate(backups):
            if one.held is Held.BY_COMMAND:
                step = life.release(one) if went_well else life.drop(one, now, before)
                backups[at] = _write(connection, one, step, now)
    if after is None or after.held not in _AFTER_HELD:
        return
    others = backups if before is None else [before, *backups]
    if any(one.state is not JobState.ENDED for one in others):
        return
    # Whoever began to work has a fence.
    owed = after.held is Held.BY_BACKUPS_OWED or any(one.fence > 0 for one in backups)
    if owed:
        _tell(connection, after, failed=any(one.outcome in _UNWELL for one in others))
    ended = _write(connection, after, life.release(after) if owed else life.spare(after, now), now)
    if ended.state is JobState.ENDED:
        _let_next(connection, after.policy or "", client, now)


def _tell(connection: sa.Connection, after: Job, *, failed: bool) -> None:
    """Have a command know how its backups ended."""
    query = sa.select(job_work.c.work).where(job_work.c.job_id == after.id)
    work = json.loads(connection.execute(query).scalar_one())
    told = json.dumps({**work, "failed": failed})
    connection.execute(sa.update(job_work).where(job_work.c.job_id == after.id).values(work=told))


def _let_next(connection: sa.Connection, policy: str, client: str, now: datetime) -> None:
    """Let the oldest command begin that waited for those of a family before its own."""
    same = jobs.c.policy == policy, jobs.c.client == client, jobs.c.state.in_(_UNENDED)
    waiting = sa.select(jobs).where(*same, jobs.c.held == str(Held.BY_FAMILY_BEFORE))
    row = connection.execute(waiting.order_by(jobs.c.id).limit(1)).first()
    if row is None:
        return
    first = job_of(row)
    older = sa.select(jobs.c.id).where(
        *same, jobs.c.kind == str(JobKind.COMMAND_AFTER), jobs.c.id < first.id
    )
    if connection.execute(older.limit(1)).first() is None:
        _write(connection, first, life.release(first), now)


def _write(connection: sa.Connection, before: Job, step: Step, now: datetime) -> Job:
    after = step.job
    if step.remark is not None:
        after = add(connection, after, [step.remark], now, bounded=False)
    values = changed(before, after)
    connection.execute(sa.update(jobs).where(jobs.c.id == before.id).values(**values))
    return after
