"""Jobs: listed, looked at, followed while they run, stopped and begun again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Query, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from holdfast.base.ids import JobId
from holdfast.control.jobs import JobState, Severity, WantedEvents, events, lists
from holdfast.control.jobs.export import Format
from holdfast.faces.api import downloads
from holdfast.faces.api.door import TheMaster, make_router
from holdfast.faces.api.job_models import (
    LAST_ID,
    Asked,
    Controller,
    Event,
    Job,
    NamedJob,
    Order,
    Text,
    Viewer,
    sort_of,
    sorting,
    visible_job,
)
from holdfast.faces.api.models import Page
from holdfast.faces.api.paging import Pages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from holdfast.control import jobs
    from holdfast.control.access import Principal
    from holdfast.site.master import Master

router = make_router("Jobs")

LONGEST_STREAM_S = 3600.0
"""Whoever follows a job for longer asks again, and is let in again."""

QUIET_S = 15.0
"""At least so often something is sent, so that nothing between here and there gives up."""

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events `job`, each a Job, whenever it has changed; the last when it ended.",
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "required": ["event", "data"],
                    "properties": {
                        "event": {"const": "job"},
                        "data": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": {"$ref": "#/components/schemas/Job"},
                        },
                    },
                }
            }
        },
    }
}

JobSort = Annotated[str, sorting()]
EventSort = Annotated[str, sorting(tuple(events.SORTS))]
About = Annotated[bool | None, Query(description="About a file, or about the job itself.")]
Matters = Annotated[bool | None, Query(description="Whether they matter.")]
Severities = Annotated[list[Severity] | None, Query(description="One of these.")]
Causes = Annotated[list[Text] | None, Query(description="One of these, in words.")]


@router.get("/jobs")
def list_jobs(
    wanted: Asked,
    _: Viewer,
    master: TheMaster,
    pages: Pages,
    state: Annotated[list[JobState] | None, Query(description="One of these.")] = None,
    parent: Annotated[int | None, Query(ge=1, le=LAST_ID, description="Parts of this job.")] = None,
    tops: Annotated[bool, Query(description="Only what is no part of another.")] = False,
    leaves: Annotated[bool, Query(description="Only what has no parts.")] = False,
    sort: JobSort = "id",
    order: Order = "descending",
) -> Page[Job]:
    """Jobs, those of history too."""
    chosen = replace(
        wanted,
        states=tuple(state or ()),
        parent=None if parent is None else JobId(parent),
        tops=tops,
        leaves=leaves,
    )
    by = sort_of(sort, order)
    after = pages.after(*lists.kinds(by))
    found = master.jobs.page(chosen, by, pages.fetch, lists.after(after))
    return pages.page(found, key=lambda job: lists.place(job, by), show=Job.of)


@router.get("/jobs/{id}")
def read_job(who: Viewer, master: TheMaster, job: NamedJob) -> Job:
    """One job."""
    return Job.of(visible_job(master, who, job))


@router.post("/jobs/{id}/cancel")
def cancel_job(who: Controller, master: TheMaster, job: NamedJob) -> Job:
    """End a job, or its parts that have not ended; one at work ends when its worker stopped."""
    return _act(master, who, job, master.jobs.cancel)


@router.post("/jobs/{id}/suspend")
def suspend_job(who: Controller, master: TheMaster, job: NamedJob) -> Job:
    """Keep a job from beginning; one at work stops, and goes back to the queue."""
    return _act(master, who, job, master.jobs.suspend)


@router.post("/jobs/{id}/resume")
def resume_job(who: Controller, master: TheMaster, job: NamedJob) -> Job:
    """Let a suspended job begin again."""
    return _act(master, who, job, master.jobs.resume)


@router.post("/jobs/{id}/restart", status_code=201)
def restart_job(who: Controller, master: TheMaster, job: NamedJob, response: Response) -> Job:
    """Run an ended job again, as a new one; of one with parts, those that were not completed."""
    visible_job(master, who, job)
    made = master.jobs.restart(JobId(job), by=who.name)
    response.headers["Location"] = f"/api/v1/jobs/{made}"
    return Job.of(master.jobs.job(made))


@router.get("/jobs/{id}/progress", responses=_STREAM, response_class=StreamingResponse)
def follow_job(
    who: Viewer,
    master: TheMaster,
    job: NamedJob,
    interval_s: Annotated[
        float, Query(ge=0.1, le=60, description="How often to look, in seconds.")
    ] = 1.0,
) -> StreamingResponse:
    """Follow a job until it has ended, as server-sent events."""
    visible_job(master, who, job)
    stream = _followed(master, JobId(job), interval_s)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


@router.get("/jobs/{id}/events")
def list_events(
    who: Viewer,
    master: TheMaster,
    pages: Pages,
    job: NamedJob,
    severity: Severities = None,
    cause: Causes = None,
    matters: Matters = None,
    files: About = None,
    sort: EventSort = "seq",
    order: Order = "ascending",
) -> Page[Event]:
    """What happened to a job and to its files. How many were left out, the job tells."""
    visible_job(master, who, job)
    wanted = WantedEvents(tuple(severity or ()), tuple(cause or ()), matters, files)
    by = sort_of(sort, order)
    after = pages.after(*events.kinds(by))
    found = master.jobs.events(JobId(job), wanted, by, pages.fetch, lists.after(after))
    return pages.page(found, key=lambda event: events.place(event, by), show=Event.of)


@router.get(
    "/jobs/{id}/events/export", response_class=StreamingResponse, responses=downloads.RESPONSES
)
def export_events(
    who: Viewer,
    master: TheMaster,
    job: NamedJob,
    format: downloads.Wanted = Format.CSV,  # noqa: A002 - as it is called in the API
    zone: downloads.Zone = "UTC",
    severity: Severities = None,
    cause: Causes = None,
    matters: Matters = None,
    files: About = None,
    sort: EventSort = "seq",
    order: Order = "ascending",
) -> StreamingResponse:
    """All events of a job, as a file."""
    visible_job(master, who, job)
    wanted = WantedEvents(tuple(severity or ()), tuple(cause or ()), matters, files)
    found = master.jobs.each_event(JobId(job), wanted, sort_of(sort, order))
    return downloads.events(format, found, zone, f"events-{job}")


def _act(master: Master, who: Principal, job: int, act: Callable[[JobId, str], jobs.Job]) -> Job:
    visible_job(master, who, job)
    return Job.of(act(JobId(job), who.name))


async def _followed(master: Master, job: JobId, interval_s: float) -> AsyncIterator[bytes]:
    told: Job | None = None
    quiet_s = lasted_s = 0.0
    while lasted_s < LONGEST_STREAM_S:
        now = Job.of(await run_in_threadpool(master.jobs.job, job))
        if now != told:
            yield b"event: job\ndata: " + now.model_dump_json().encode() + b"\n\n"
            told, quiet_s = now, 0.0
        elif quiet_s >= QUIET_S:
            yield b": still so\n\n"
            quiet_s = 0.0
        if now.state is JobState.ENDED:
            return
        await asyncio.sleep(interval_s)
        quiet_s += interval_s
        lasted_s += interval_s
