"""Runs: a policy at once, because somebody asked for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import Field

from holdfast.base.ids import ClientName, PolicyName
from holdfast.control.access import Principal, Verb
from holdfast.control.schedule import BackupKind
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, TheNote, make_router, may
from holdfast.faces.api.models import Model
from holdfast.site import running

router = make_router("Policies")

Named = Annotated[
    str,
    Path(
        alias="name",
        pattern=r"^[^\x00]+$",
        description="Name of a policy.",
        examples=["servers"],
    ),
]


class NewRun(Model):
    """What is to be run."""

    schedule: str | None = Field(
        default=None,
        max_length=63,
        description="As this schedule of the policy would; its windows do not count.",
        examples=["weekly"],
    )
    kind: BackupKind | None = Field(
        default=None,
        description="How; the schedule's kind, or differential, if left out.",
        examples=["full"],
    )
    clients: list[Annotated[str, Field(max_length=255)]] = Field(
        default=[],
        max_length=1000,
        description="Of these only; of all that the policy is for, if left out.",
        examples=[["web1"]],
    )


class Run(Model):
    """What was queued."""

    job: int = Field(description="Id of the job; of several sources, of the whole.", examples=[7])
    parts: int = Field(description="How many sources it has, if more than one.", examples=[0])


@router.post("/policies/{name}/runs", status_code=202, responses={404: document.response(404)})
def run_policy(
    who: Annotated[Principal, may(Verb.RUN_POLICIES)],
    master: TheMaster,
    name: Named,
    body: NewRun,
    note: TheNote,
) -> Run:
    """Queue a backup of what a policy says. A master that is served begins it."""
    job = running.job_of(
        master,
        PolicyName(name),
        body.schedule,
        body.kind,
        [ClientName(one) for one in body.clients],
    )
    who.require_clients(running.clients_of(job))
    queued = running.enqueue(master, job)
    note.details["job"] = queued
    return Run(job=queued, parts=len(job.parts))
