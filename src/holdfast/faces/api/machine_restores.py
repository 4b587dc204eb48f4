"""Virtual machines made of images, on a hypervisor or as files in a directory."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from holdfast.base.ids import ClientName
from holdfast.control.access import Principal, Verb
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, TheNote, make_router, may
from holdfast.faces.api.image_models import NamedImage
from holdfast.faces.api.images import seen
from holdfast.faces.api.models import Model
from holdfast.faces.api.restores import PathText, Restore
from holdfast.site import machine_restores, running
from holdfast.site.machine_restores import MachineRestore
from holdfast.sources.machines.providers import KINDS

router = make_router("Images")

Word = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]+$")]


class NewMachine(Model):
    """What a machine is to be like that is made of its image."""

    name: Word | None = Field(
        default=None, description="What it is to be called; if left out, what it was."
    )
    keep_identity: bool = Field(
        default=True, description="With the uuid and MAC addresses that it had; else new ones."
    )
    networks: list[Word] | None = Field(
        default=None,
        max_length=100,
        description="What its cards are connected to; null: as they were, empty: to nothing.",
    )
    storage: Word | None = Field(
        default=None, description="Where the hypervisor puts its disks; null: its usual place."
    )
    beside_original: bool = Field(
        default=False, description="Also where the original runs and the identity is kept."
    )

    def wanted(self, **more: Any) -> MachineRestore:
        """As the site takes it, with what else is asked for."""
        return MachineRestore(
            name=self.name,
            keep_identity=self.keep_identity,
            networks=None if self.networks is None else tuple(self.networks),
            storage=self.storage,
            beside_original=self.beside_original,
            **more,
        )


class NewMachineRestore(NewMachine):
    """What is to be made of an image of a virtual machine: on a hypervisor, or in a directory."""

    hypervisor: str | None = Field(
        default=None, max_length=63, description="Where it is to be made.", examples=["kvm1"]
    )
    to_dir: PathText | None = Field(
        default=None,
        description="An absolute directory for its disks and definitions, made if it is missing.",
        examples=["/srv/restored"],
    )
    client: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="With `to_dir`: the machine that has the directory, which has joined the "
        "site; the one that serves the site, if left out.",
    )
    format: Literal["qcow2", "raw", "vmdk", "vhdx", "vdi"] | None = Field(
        default=None,
        description="Of its disks. Each kind of hypervisor takes, its usual one first: "
        + "; ".join(
            f"`{kind.name}`: {', '.join(f'`{one}`' for one in kind.disk_formats)}"
            for kind in KINDS.values()
        )
        + ". A directory takes what `diskfiles` does. Null: the usual one; `raw` in a directory.",
    )
    start: bool = Field(default=False, description="Start it when it is whole.")
    disks: list[Word] = Field(
        default=[], max_length=1000, description="Names of disks; all of them, if left out."
    )
    verify: bool = Field(
        default=False, description="Read everything back and compare it with the image."
    )
    unfinished: Literal["continue", "restart", "discard"] = Field(
        default="continue",
        description="What becomes of a restore of the same that was interrupted: it is gone on "
        "with, or begun anew; or thrown away, and nothing is restored.",
    )


@router.post(
    "/images/{id}/machine-restores",
    status_code=202,
    responses={404: document.response(404), 409: document.response(409)},
)
def restore_machine(
    who: Annotated[Principal, may(Verb.RESTORE)],
    master: TheMaster,
    image: NamedImage,
    body: NewMachineRestore,
    note: TheNote,
) -> Restore:
    """Make a virtual machine of an image, as a job; it is made off, unless it is to be started.

    You need to be allowed for the client that the image is of, as well as for the name that the new
    machine has, or for the machine that has the directory. A machine that runs is not doubled with
    its identity unless `beside_original` says so. A format that the target can't have is refused.
    """
    row = master.catalog.image(seen(who, master, image))
    wanted = body.wanted(
        hypervisor=body.hypervisor,
        to_dir=body.to_dir,
        client=None if body.client is None else ClientName(body.client),
        format=body.format,
        start=body.start,
        disks=tuple(body.disks),
        verify=body.verify,
        unfinished=body.unfinished,
    )
    job = running.enqueue(master, machine_restores.restore_job(master, who, row, wanted))
    note.details["job"] = job
    return Restore(job=job)
