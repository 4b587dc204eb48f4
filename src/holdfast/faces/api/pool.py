"""The pool and the catalog: what they hold, and what is done for them as a whole."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from holdfast.control.access import Principal, Verb
from holdfast.control.jobs import JobKind
from holdfast.faces.api.door import TheMaster, TheNote, make_router, may
from holdfast.faces.api.models import Model
from holdfast.site import running, steward

router = make_router("Pool")

Watcher = Annotated[Principal, may(Verb.METRICS)]
Keeper = Annotated[Principal, may(Verb.CONFIGURE)]


class PoolStats(Model):
    """What the pool holds and what it costs."""

    pool_id: str = Field(examples=["9c01" * 8])
    images: int
    packs: int
    pack_bytes: int = Field(description="What is stored.")
    chunks: int
    chunk_bytes: int = Field(description="The same before compression.")
    index_segments: int
    index_bytes: int


class NewVerification(Model):
    """How the pool is to be verified."""

    read_data: bool = Field(
        default=False, description="Also read every chunk and compare its name."
    )


class Queued(Model):
    """What was queued. A master that is served begins it."""

    job: int = Field(description="Id of the job.", examples=[7])


@router.get("/pool")
def read_pool(_: Watcher, master: TheMaster) -> PoolStats:
    """What the pool holds."""
    found = master.site.pool.stats()
    return PoolStats(
        pool_id=master.site.config.pool_id,
        images=found.images,
        packs=found.packs,
        pack_bytes=found.pack_bytes,
        chunks=found.chunks,
        chunk_bytes=found.chunk_bytes,
        index_segments=found.index_segments,
        index_bytes=found.index_bytes,
    )


@router.post("/pool/collections", status_code=202)
def collect_garbage(_: Keeper, master: TheMaster, note: TheNote) -> Queued:
    """Give back the space of images that went. Backups may run meanwhile."""
    return _queue(master, note, JobKind.COLLECT, steward.COLLECT)


@router.post("/pool/verifications", status_code=202)
def verify_pool(_: Keeper, master: TheMaster, body: NewVerification, note: TheNote) -> Queued:
    """Follow all images down to their last chunk; what is wrong is among the job's events."""
    verb = steward.VERIFY_DATA if body.read_data else steward.VERIFY
    return _queue(master, note, JobKind.VERIFY, verb)


@router.post("/catalog/protection", status_code=202)
def protect_catalog(_: Keeper, master: TheMaster, note: TheNote) -> Queued:
    """Put the control database into the pool: policies, jobs, users, holds and locks."""
    return _queue(master, note, JobKind.CATALOG_BACKUP, steward.PROTECT)


def _queue(master: TheMaster, note: TheNote, kind: JobKind, verb: str) -> Queued:
    job = running.enqueue(master, running.site_job(kind, verb))
    note.details["job"] = job
    return Queued(job=job)
