"""Storage units: places for images, each a pool of its own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from fastapi import Path
from pydantic import Field

from holdfast.base.ids import ClientName
from holdfast.control.access import Principal, Verb
from holdfast.control.storage import DEFAULT_SLOTS, MOST_SLOTS
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, TheNote, make_router, may
from holdfast.faces.api.image_models import ID
from holdfast.faces.api.images import seen
from holdfast.faces.api.models import Model
from holdfast.faces.api.pool import UNIT, Queued
from holdfast.site import running, storage_units
from holdfast.site.replication_jobs import replication_job
from holdfast.site.storage_units import UnitFacts

router = make_router("Pool")

Named = Annotated[
    str, Path(alias="name", pattern=UNIT, description="Name of a unit.", examples=["branch"])
]
Configurer = Annotated[Principal, may(Verb.CONFIGURE)]


class StorageUnit(Model):
    """A storage unit. The one of the name `default` is the pool that the site began with."""

    name: str = Field(description="What policies name it by.", examples=["branch"])
    pool_id: str = Field(examples=["9c01" * 8])
    place: str = Field(
        description="Where it lies: a directory or URL.", examples=["s3://backups/branch"]
    )
    server: str | None = Field(
        description="The media server that owns it, on a disk there; null for one that the master "
        "and its media servers reach.",
        examples=["media2"],
    )
    connected: bool | None = Field(
        description="Whether that media server serves it now; null if it is nobody's own."
    )
    problem: str | None = Field(
        default=None,
        description="What that media server says is wrong with it, such as a disk that is gone.",
    )
    slots: int = Field(description="How many jobs it takes at once.", examples=[DEFAULT_SLOTS])
    images: int = Field(description="How many images have a copy there.")
    created_at: datetime | None = Field(description="Null for the site's own pool.")

    @classmethod
    def of(cls, found: UnitFacts) -> Self:
        """As the site has it."""
        unit = found.unit
        return cls(
            name=unit.name,
            pool_id=unit.pool,
            place=unit.place,
            server=unit.server,
            connected=found.reachable,
            problem=found.problem,
            slots=unit.slots,
            images=found.images,
            created_at=unit.created_at,
        )


class StorageUnits(Model):
    """All storage units, the site's own pool first."""

    items: list[StorageUnit]


class NewStorageUnit(Model):
    """A storage unit that is to be made, with a new pool."""

    name: str = Field(pattern=UNIT, description="Not `default`.", examples=["branch"])
    place: str = Field(
        min_length=1,
        max_length=4096,
        pattern=r"^(/|[a-z0-9]+://)[^\x00]*$",
        description="A directory, or the URL of an object store. With `server` an absolute "
        "directory there, which is empty or missing.",
        examples=["/srv/pool"],
    )
    server: str | None = Field(
        default=None,
        max_length=63,
        description="The media server that is to own it.",
        examples=["media2"],
    )
    slots: int = Field(
        default=DEFAULT_SLOTS, ge=1, le=MOST_SLOTS, description="How many jobs it takes at once."
    )


class StorageUnitChange(Model):
    """What is to be another one."""

    slots: int = Field(ge=1, le=MOST_SLOTS, description="How many jobs it takes at once.")


@router.get("/storage-units")
def list_storage_units(
    who: Annotated[Principal, may(Verb.SEE)],  # noqa: ARG001 - it is who may
    master: TheMaster,
) -> StorageUnits:
    """All storage units."""
    return StorageUnits(items=[StorageUnit.of(one) for one in storage_units.overview(master)])


@router.post(
    "/storage-units",
    status_code=201,
    responses={404: document.response(404), 409: document.response(409)},
)
def create_storage_unit(
    who: Configurer,  # noqa: ARG001 - it is who may
    master: TheMaster,
    body: NewStorageUnit,
) -> StorageUnit:
    """Make a storage unit, with a pool that shares chunks' names with the site's other ones.

    Only the site has its key: print its recovery kit, `holdfast pool recovery-kit --unit NAME`.
    """
    if body.server is None:
        storage_units.create_shared(master, body.name, body.place, body.slots)
    else:
        server = ClientName(body.server)
        storage_units.create_owned(master, body.name, server, body.place, body.slots)
    return _shown(master, body.name)


@router.patch(
    "/storage-units/{name}",
    responses={404: document.response(404), 409: document.response(409)},
)
def change_storage_unit(
    who: Configurer,  # noqa: ARG001 - it is who may
    master: TheMaster,
    name: Named,
    body: StorageUnitChange,
) -> StorageUnit:
    """Have a storage unit take another number of jobs at once."""
    storage_units.set_slots(master, name, body.slots)
    return _shown(master, name)


@router.delete(
    "/storage-units/{name}",
    status_code=204,
    responses={404: document.response(404), 409: document.response(409)},
)
def remove_storage_unit(
    who: Configurer,  # noqa: ARG001 - it is who may
    master: TheMaster,
    name: Named,
) -> None:
    """Forget a storage unit that holds no image and that nothing names. Its pool stays."""
    storage_units.remove(master, name)


class NewReplication(Model):
    """Images that are to be in another storage unit as well."""

    images: list[Annotated[str, Field(pattern=f"^{ID}$", examples=["3f2a" * 8])]] = Field(
        min_length=1, max_length=10_000, description="Ids."
    )
    unit: str = Field(pattern=UNIT, description="Where to.", examples=["branch"])


@router.post("/replications", status_code=202, responses={404: document.response(404)})
def replicate_images(
    who: Configurer, master: TheMaster, body: NewReplication, note: TheNote
) -> Queued:
    """Bring images into another storage unit, as a job. What is there already does not travel.

    An image keeps its id, and is read from whichever unit can be reached. Images of several sources
    that the unit knows go side by side: the job has parts, as many as the unit has slots at most.
    """
    storage_units.named(master, body.unit)
    images = tuple(seen(who, master, one) for one in dict.fromkeys(body.images))
    job = running.enqueue(master, replication_job(master, images, body.unit))
    note.details["job"] = job
    return Queued(job=job)


def _shown(master: TheMaster, name: str) -> StorageUnit:
    found = {one.unit.name: one for one in storage_units.overview(master)}
    return StorageUnit.of(found[name])
