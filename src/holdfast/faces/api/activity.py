"""The activity log and numbers for dashboards."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from fastapi import Query
from pydantic import Field
from starlette.responses import StreamingResponse

from holdfast.control import jobs
from holdfast.control.jobs import JobKind, JobState, Outcome, lists
from holdfast.control.jobs.export import Format
from holdfast.faces.api import downloads
from holdfast.faces.api.door import TheMaster, make_router
from holdfast.faces.api.job_models import Asked, Order, Size, Viewer, sort_of, sorting
from holdfast.faces.api.models import Model, Moment, Page
from holdfast.faces.api.paging import Pages

if TYPE_CHECKING:
    from holdfast.control.jobs import Wanted

router = make_router("Activity")

ActivitySort = Annotated[str, sorting()]


class Activity(Model):
    """What came of one backup set, or of other work."""

    job: int = Field(description="Number of the job.", examples=[4711])
    started_at: datetime | None
    ended_at: datetime | None
    duration_s: float | None
    files: int = Field(description="How many there are.")
    online_bytes: Size = Field(description="All files that changed, whole.")
    transmitted_bytes: Size = Field(description="What was sent of them: new chunks, compressed.")
    size_bytes: Size = Field(description="All files.")
    findings: int = Field(description="Problems with single files.")
    status: str = Field(description="State or outcome in words.", examples=["completed"])
    state: JobState
    outcome: Outcome | None
    kind: JobKind
    client: str | None = Field(examples=["web1"])
    policy: str | None = Field(examples=["nightly"])
    source: str | None = Field(description="The backup set.", examples=["web1:/srv"])
    image_id: str | None

    @classmethod
    def of(cls, job: jobs.Job) -> Activity:
        """As the book has it."""
        return cls(
            job=job.id,
            started_at=job.started_at,
            ended_at=job.ended_at,
            duration_s=None if job.duration is None else job.duration.total_seconds(),
            files=job.counters["files"],
            online_bytes=job.counters["online_bytes"],
            transmitted_bytes=job.counters["transmitted_bytes"],
            size_bytes=job.counters["size_bytes"],
            findings=job.counters["findings"],
            status=job.status,
            state=job.state,
            outcome=job.outcome,
            kind=job.kind,
            client=job.client,
            policy=job.policy,
            source=job.source,
            image_id=job.image_id,
        )


class Depth(Model):
    """Queued jobs that wait for the same."""

    waits_on: str | None = Field(
        description="Null for what has not been looked at yet.", examples=["storage unit 'default'"]
    )
    jobs: int
    since: datetime = Field(description="Since when the first of them waits.")


class Numbers(Model):
    """What a dashboard shows of jobs. Those that have parts are not counted: their parts are."""

    states: dict[JobState, int] = Field(
        description="Jobs that have not ended, by state now.", examples=[{"active": 3}]
    )
    suspended: int = Field(description="Of those that are queued.")
    outcomes: dict[Outcome, int] = Field(
        description="Jobs that ended, of those that began in the time.",
        examples=[{"completed": 120, "failed": 1}],
    )
    queue: list[Depth] = Field(description="What queued jobs wait for, most first.")


@router.get("/activity")
def list_activity(
    wanted: Asked,
    _: Viewer,
    master: TheMaster,
    pages: Pages,
    sort: ActivitySort = "started_at",
    order: Order = "descending",
) -> Page[Activity]:
    """The activity log: a row for each backup set, and other work, that began or ended."""
    by = sort_of(sort, order)
    after = pages.after(*lists.kinds(by))
    found = master.jobs.page(_begun(wanted), by, pages.fetch, lists.after(after))
    return pages.page(found, key=lambda job: lists.place(job, by), show=Activity.of)


@router.get("/activity/export", response_class=StreamingResponse, responses=downloads.RESPONSES)
def export_activity(
    wanted: Asked,
    _: Viewer,
    master: TheMaster,
    format: downloads.Wanted = Format.CSV,  # noqa: A002 - as it is called in the API
    zone: downloads.Zone = "UTC",
    sort: ActivitySort = "started_at",
    order: Order = "descending",
) -> StreamingResponse:
    """The activity log as a file, as long as it is."""
    found = master.jobs.each(_begun(wanted), sort_of(sort, order))
    return downloads.activity(format, found, zone, f"activity-{master.clock.now():%Y-%m-%d}")


@router.get("/activity/numbers")
def read_numbers(
    who: Viewer,
    master: TheMaster,
    since: Annotated[Moment | None, Query(description="Not before; a day ago if not said.")] = None,
    until: Annotated[Moment | None, Query(description="Before; now if not said.")] = None,
) -> Numbers:
    """Jobs by state now, outcomes over a time, and what queued jobs wait for."""
    end = until or master.clock.now() + timedelta(seconds=1)
    begin = since or master.clock.now() - timedelta(days=1)
    visible = None if who.sees_all_clients else who.condition
    found = master.jobs.numbers(begin, end, visible)
    return Numbers(
        states=found.states,
        suspended=found.suspended,
        outcomes=found.outcomes,
        queue=[Depth(waits_on=one.waits_on, jobs=one.jobs, since=one.since) for one in found.queue],
    )


def _begun(wanted: Wanted) -> Wanted:
    return replace(wanted, begun=True, leaves=True)
