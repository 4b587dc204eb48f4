"""Jobs and their events as the API has them, and which of them a list may ask for.

Must not query.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Depends, Path, Query
from pydantic import Field

from holdfast.base.errors import JobMissing
from holdfast.base.ids import JobId
from holdfast.control import jobs
from holdfast.control.access import Principal, Verb
from holdfast.control.jobs import JobKind, JobState, Outcome, Severity, Sort, Wanted
from holdfast.control.jobs.activity import path_words
from holdfast.control.jobs.lists import SORTS
from holdfast.faces.api.door import may
from holdfast.faces.api.models import Model, Moment
from holdfast.site.master import Master

LAST_ID = 2**63 - 1

Viewer = Annotated[Principal, may(Verb.SEE)]
Controller = Annotated[Principal, may(Verb.CONTROL_JOBS)]
NamedJob = Annotated[
    int, Path(alias="id", ge=1, le=LAST_ID, description="Number of a job.", examples=[4711])
]
Text = Annotated[str, Field(pattern=r"^[^\x00]+$", max_length=1000)]
Size = Annotated[int, Field(description="In bytes.")]
Order = Annotated[
    Literal["ascending", "descending"], Query(description="Whether what is largest comes last.")
]


class Failure(Model):
    """Why a job failed, or its last attempt did."""

    code: str = Field(description="The stable code of the error.", examples=["io"])
    message: str = Field(examples=["can't read /dev/sda: the device failed"])
    hint: str | None


class Job(Model):
    """One job. Counters are those of its last attempt; a parent's are the sums over its parts."""

    id: int = Field(examples=[4711])
    parent_id: int | None = Field(description="The job that this is a part of.")
    children: int = Field(description="How many parts it has; with any, it does no work itself.")
    restart_of: int | None = Field(description="The ended job that this one runs again.")
    kind: JobKind
    policy: str | None = Field(examples=["nightly"])
    schedule: str | None = Field(examples=["daily"])
    client: str | None = Field(examples=["web1"])
    source: str | None = Field(description="Client and backup selection.", examples=["web1:/srv"])
    backup_kind: str | None = Field(examples=["differential"])
    storage_unit: str | None = Field(examples=["default"])
    priority: int = Field(description="0 to 100, higher goes first.")
    state: JobState
    suspended: bool = Field(description="Queued, until somebody resumes it.")
    asked: str | None = Field(description="What was asked of it while it is at work.")
    outcome: Outcome | None
    status: str = Field(description="State or outcome in words.", examples=["completed"])
    due_at: datetime | None = Field(description="Which occurrence of its schedule it is.")
    queued_at: datetime
    not_before: datetime | None
    started_at: datetime | None = Field(description="When its last attempt began.")
    ended_at: datetime | None
    duration_s: float | None
    attempt: int = Field(description="How often it was begun.")
    image_id: str | None = Field(examples=["0123456789abcdef0123456789abcdef"])
    counters: dict[str, int] = Field(examples=[{"files": 1234, "online_bytes": 5_000_000}])
    waits_on: str | None = Field(examples=["storage unit 'default'"])
    waits_for: str | None = Field(
        examples=["storage unit 'default' has 2 of 2 slots in use: jobs 12, 15"]
    )
    error: Failure | None
    events: int = Field(description="How many events are kept.")
    events_left_out: int = Field(description="How many more there were.")

    @classmethod
    def of(cls, job: jobs.Job) -> Job:
        """As the book has it."""
        error = job.error
        return cls(
            id=job.id,
            parent_id=job.parent_id,
            children=job.children,
            restart_of=job.restart_of,
            kind=job.kind,
            policy=job.policy,
            schedule=job.schedule,
            client=job.client,
            source=job.source,
            backup_kind=job.backup_kind,
            storage_unit=job.storage_unit,
            priority=job.priority,
            state=job.state,
            suspended=job.suspended,
            asked=job.asked,
            outcome=job.outcome,
            status=job.status,
            due_at=job.due_at,
            queued_at=job.queued_at,
            not_before=job.not_before,
            started_at=job.started_at,
            ended_at=job.ended_at,
            duration_s=None if job.duration is None else job.duration.total_seconds(),
            attempt=job.attempt,
            image_id=job.image_id,
            counters=dict(job.counters),
            waits_on=job.waits_on,
            waits_for=job.waits_for,
            error=None
            if error is None
            else Failure(code=error.code, message=error.message, hint=error.hint),
            events=job.events,
            events_left_out=job.events_left_out,
        )


class Event(Model):
    """Something that happened to a job, or to one of its files."""

    seq: int = Field(description="Counts from 1 within the job.")
    at: datetime
    severity: Severity
    path: str | None = Field(
        description="The file; bytes that are not UTF-8 are escaped.", examples=["/srv/a.txt"]
    )
    path_hex: str | None = Field(
        description="The file as its bytes.", examples=["2f7372762f612e747874"]
    )
    cause: str = Field(examples=["no permission"])
    message: str
    matters: bool = Field(description="Whether somebody has to do something about it.")

    @classmethod
    def of(cls, event: jobs.Event) -> Event:
        """As the book has it."""
        return cls(
            seq=event.seq,
            at=event.at,
            severity=event.severity,
            path=path_words(event.path),
            path_hex=None if event.path is None else event.path.hex(),
            cause=event.cause,
            message=event.message,
            matters=event.matters,
        )


def _wanted(
    who: Viewer,
    client: Annotated[list[Text] | None, Query(description="Of one of these.")] = None,
    policy: Annotated[list[Text] | None, Query(description="Of one of these.")] = None,
    source: Annotated[list[Text] | None, Query(description="Of one of these sets.")] = None,
    kind: Annotated[list[JobKind] | None, Query(description="One of these.")] = None,
    outcome: Annotated[list[Outcome] | None, Query(description="One of these.")] = None,
    since: Annotated[
        Moment | None, Query(description="Began not before; else, was queued.")
    ] = None,
    until: Annotated[Moment | None, Query(description="Began before; else, was queued.")] = None,
) -> Wanted:
    return Wanted(
        since=since,
        until=until,
        clients=tuple(client or ()),
        policies=tuple(policy or ()),
        sources=tuple(source or ()),
        kinds=tuple(kind or ()),
        outcomes=tuple(outcome or ()),
        visible=None if who.sees_all_clients else who.condition,
    )


Asked = Annotated[Wanted, Depends(_wanted)]
"""What lists of jobs can be filtered by."""


def sort_of(by: str, order: str) -> Sort:
    """What a list is sorted by."""
    return Sort(by, descending=order == "descending")


def sorting(names: tuple[str, ...] = tuple(SORTS)) -> object:
    """The parameter that says what a list is sorted by; a book refuses what is not among them."""
    return Query(description="What to sort by.", json_schema_extra={"enum": [*names]})


def visible_job(master: Master, who: Principal, job: int) -> jobs.Job:
    """One job, if whoever asks may see it.

    Raises:
        JobMissing: There is none of this number, or none for this one.
    """
    found = master.jobs.job(JobId(job))
    if not who.sees(found.client or ""):
        raise JobMissing(f"there is no job {job}")
    return found
