"""Virtual machines that run from their images: begun, shown, moved, thrown away."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import Path
from pydantic import Field

from holdfast.base.errors import NotFound
from holdfast.control.access import Principal, Verb
from holdfast.control.hypervisors import client_of_name
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, TheNote, make_router, may
from holdfast.faces.api.image_models import NamedImage
from holdfast.faces.api.images import seen
from holdfast.faces.api.machine_restores import NewMachine
from holdfast.faces.api.models import Model
from holdfast.site import instant
from holdfast.site.instant import InstantFacts
from holdfast.site.master import Master

router = make_router("Virtual machines")

Viewer = Annotated[Principal, may(Verb.SEE)]
Restorer = Annotated[Principal, may(Verb.RESTORE)]
Number = Annotated[
    int, Path(alias="id", ge=1, lt=1 << 31, description="Of the instant recovery.", examples=[3])
]
_CHANGES: dict[int | str, dict[str, Any]] = {
    404: document.response(404),
    409: document.response(409),
}


class NewInstantRecovery(NewMachine):
    """A machine that is to run from its image."""

    hypervisor: str = Field(max_length=63, description="Where.", examples=["kvm1"])
    format: Literal["qcow2", "raw"] = Field(
        default="qcow2", description="Of its disks, when it needs its image no more."
    )


class InstantRecovery(Model):
    """A virtual machine that runs, or ran, from its image."""

    id: int = Field(examples=[3])
    image: str = Field(description="The image, which is held until this has ended.")
    hypervisor: str = Field(examples=["kvm1"])
    machine: str = Field(description="The uuid of the machine.")
    name: str = Field(description="What it is called.", examples=["web1"])
    state: instant.InstantState = Field(description="How it is with it.", examples=["running"])
    words: str = Field(description="What that means, for what it writes and reads too.")
    error: str | None = Field(description="What went wrong last; null for nothing.")
    begun_at: datetime
    begun_by: str = Field(examples=["ann"])
    ended_at: datetime | None = Field(
        description="When it needed its image no more, or was gone; null if it still runs from it."
    )
    format: str = Field(description="Of its disks, in the end.", examples=["qcow2"])
    storage: str | None = Field(description="Where its disks are; null: the usual place.")
    disks_needed: int | None = Field(
        description="How many of its disks still read from the image; null where that is not known."
    )
    moved_bytes: int | None = Field(description="How much of the image was moved, while it is.")
    moved_of_bytes: int | None = Field(description="How much of it there is to be moved.")
    serve_job: int | None = Field(description="The job that serves the image.")
    migrate_job: int | None = Field(description="The newest job that is to move it.")
    discard_job: int | None = Field(description="The newest job that is to throw it away.")

    @classmethod
    def of(cls, known: InstantFacts) -> Self:
        """As the site has it."""
        one, new = known.recovery, known.recovery.new
        return cls(
            id=one.id,
            image=new.image,
            hypervisor=new.hypervisor,
            machine=new.machine,
            name=new.name,
            state=known.state,
            words=known.words,
            error=known.error,
            begun_at=one.begun_at,
            begun_by=new.begun_by,
            ended_at=one.ended_at,
            format=new.format,
            storage=new.storage,
            disks_needed=known.disks_needed,
            moved_bytes=known.moved_bytes,
            moved_of_bytes=known.moved_of_bytes,
            serve_job=one.serve_job,
            migrate_job=one.migrate_job,
            discard_job=one.discard_job,
        )


class InstantRecoveries(Model):
    """Those that somebody sees, the newest first."""

    items: list[InstantRecovery]


@router.post("/images/{id}/instant-recoveries", status_code=202, responses=_CHANGES)
def begin_instant_recovery(
    who: Restorer, master: TheMaster, image: NamedImage, body: NewInstantRecovery, note: TheNote
) -> InstantRecovery:
    """Have a machine run straight from its image, in seconds, by whoever reaches the hypervisor.

    Its disks are read from the image; what it writes goes to the hypervisor's storage. You need to
    be allowed for the client that the image is of, as well as for the name that the machine has.
    The image is held until the machine is moved or thrown away.
    """
    row = master.catalog.image(seen(who, master, image))
    wanted = body.wanted(hypervisor=body.hypervisor, format=body.format)
    made = instant.begin(master, who, row, wanted)
    note.details["instant_recovery"] = made.id
    note.details["job"] = made.serve_job
    return InstantRecovery.of(instant.look(master, made))


@router.get("/instant-recoveries")
def list_instant_recoveries(
    who: Viewer, master: TheMaster, ended: bool = True
) -> InstantRecoveries:
    """Machines that run from their images, and those that did, the newest first."""
    found = [one for one in master.instants.all(ended=ended) if _sees(who, one.new.name)]
    return InstantRecoveries(items=[InstantRecovery.of(instant.look(master, one)) for one in found])


@router.get("/instant-recoveries/{id}", responses={404: document.response(404)})
def read_instant_recovery(who: Viewer, master: TheMaster, number: Number) -> InstantRecovery:
    """How it is with one."""
    return _shown(who, master, number)


@router.post("/instant-recoveries/{id}/migrate", status_code=202, responses=_CHANGES)
def migrate_instant_recovery(
    who: Restorer, master: TheMaster, number: Number, note: TheNote
) -> InstantRecovery:
    """Move a machine onto disks of its own, while it runs; then it needs its image no more."""
    _shown(who, master, number)
    note.details["job"] = instant.migrate(master, who, number).migrate_job
    return _shown(who, master, number)


@router.post("/instant-recoveries/{id}/resume", status_code=202, responses=_CHANGES)
def resume_instant_recovery(
    who: Restorer, master: TheMaster, number: Number, note: TheNote
) -> InstantRecovery:
    """Have the image of a machine be served again, after somebody cancelled the job that did."""
    _shown(who, master, number)
    note.details["job"] = instant.resume(master, who, number).serve_job
    return _shown(who, master, number)


@router.post("/instant-recoveries/{id}/discard", status_code=202, responses=_CHANGES)
def discard_instant_recovery(
    who: Restorer, master: TheMaster, number: Number, note: TheNote
) -> InstantRecovery:
    """Stop a machine and take it away, with all that it wrote."""
    _shown(who, master, number)
    note.details["job"] = instant.discard(master, who, number).discard_job
    return _shown(who, master, number)


def _sees(who: Principal, name: str) -> bool:
    return who.sees(client_of_name(name))


def _shown(who: Principal, master: Master, number: int) -> InstantRecovery:
    one = master.instants.get(number)
    if not _sees(who, one.new.name):
        raise NotFound(f"there is no instant recovery {number}")
    return InstantRecovery.of(instant.look(master, one))
