"""Virtual machines: what was found on hypervisors, and what protects each."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from fastapi import Path, Query
from pydantic import Field

from holdfast.control.access import Principal, Verb
from holdfast.control.hypervisors import parse
from holdfast.control.hypervisors.query import LONGEST
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, make_router, may
from holdfast.faces.api.models import Model, Page
from holdfast.faces.api.paging import Pages
from holdfast.site import virtual_machines
from holdfast.site.virtual_machines import MachineFacts

router = make_router("Virtual machines")

Viewer = Annotated[Principal, may(Verb.SEE)]
Where = Annotated[
    str | None,
    Query(
        max_length=LONGEST,
        description="Only those that a query holds for, as policies have it.",
        examples=["tag=prod and not name=*-test"],
    ),
]


class VirtualDisk(Model):
    """A disk of a virtual machine."""

    name: str = Field(examples=["vda"])
    size_bytes: int
    format: str = Field(examples=["qcow2"])
    place: str = Field(description="Where it lies.", examples=["/var/lib/libvirt/images/a.qcow2"])
    left_out: str | None = Field(description="Why no image holds it, in words.")


class NetworkCard(Model):
    """A network card of a virtual machine."""

    mac: str = Field(examples=["52:54:00:12:34:56"])
    network: str = Field(examples=["default"])


class VirtualMachine(Model):
    """A virtual machine as its hypervisor said last."""

    uuid: str = Field(description="What it is followed by, wherever it goes.")
    name: str = Field(examples=["web1"])
    client: str = Field(description="What its images are listed under.", examples=["web1"])
    source: str = Field(description="Under which its images follow each other.")
    hypervisor: str = Field(examples=["kvm1"])
    host: str = Field(description="Which host runs it, or would.", examples=["kvm1"])
    state: str = Field(examples=["running"])
    folder: str
    tags: list[str]
    guest: str = Field(examples=["Debian GNU/Linux 12"])
    size_bytes: int = Field(description="Of its disks together.")
    memory_bytes: int
    cpus: int
    datastores: list[str]
    disks: list[VirtualDisk]
    networks: list[NetworkCard]
    present: bool = Field(description="Whether it was there when last looked.")
    first_seen_at: datetime
    last_seen_at: datetime
    also_on: list[str] = Field(description="Other hypervisors with a machine of this uuid.")
    policies: list[str] = Field(description="Active policies that select it.")
    image: str | None = Field(description="Its newest image.")
    backed_up_at: datetime | None = Field(description="When that was begun.")

    @classmethod
    def of(cls, facts: MachineFacts) -> Self:
        """As the site has it."""
        found, machine = facts.found, facts.found.machine
        return cls(
            uuid=machine.uuid,
            name=machine.name,
            client=found.client,
            source=found.source,
            hypervisor=found.hypervisor,
            host=machine.host,
            state=machine.state,
            folder=machine.folder,
            tags=list(machine.tags),
            guest=machine.guest,
            size_bytes=machine.size,
            memory_bytes=machine.memory,
            cpus=machine.cpus,
            datastores=list(machine.datastores),
            disks=[
                VirtualDisk(
                    name=one.name,
                    size_bytes=one.size,
                    format=one.format,
                    place=one.place,
                    left_out=one.left_out,
                )
                for one in machine.disks
            ],
            networks=[NetworkCard(mac=one.mac, network=one.network) for one in machine.networks],
            present=found.is_there,
            first_seen_at=found.first_seen_at,
            last_seen_at=found.last_seen_at,
            also_on=list(facts.elsewhere),
            policies=list(facts.policies),
            image=facts.image,
            backed_up_at=facts.backed_up_at,
        )


@router.get("/virtual-machines")
def list_virtual_machines(
    who: Viewer,
    master: TheMaster,
    pages: Pages,
    where: Where = None,
    hypervisor: Annotated[
        str | None, Query(max_length=63, description="Only those of this hypervisor.")
    ] = None,
    unprotected: Annotated[
        bool | None, Query(description="Only those that no active policy selects.")
    ] = None,
) -> Page[VirtualMachine]:
    """The virtual machines that are there and that you see, by name."""
    query = None if where is None else parse(where)
    some = () if hypervisor is None else (hypervisor,)
    found = virtual_machines.select(master, who, query, some, unprotected=bool(unprotected))
    after = pages.after(str, str)
    if after is not None:
        found = [one for one in found if (one.machine.name.casefold(), one.machine.uuid) > after]
    rows = virtual_machines.facts(master, found[: pages.fetch])
    return pages.page(
        rows,
        key=lambda row: (row.found.machine.name.casefold(), row.found.machine.uuid),
        show=VirtualMachine.of,
    )


@router.get("/virtual-machines/{machine}", responses={404: document.response(404)})
def read_virtual_machine(
    who: Viewer,
    master: TheMaster,
    machine: Annotated[
        str, Path(pattern=r"^[^\x00]+$", description="Its uuid, or its name.", examples=["web1"])
    ],
) -> VirtualMachine:
    """One virtual machine, also one that is gone."""
    found = virtual_machines.named(master, who, machine)
    return VirtualMachine.of(virtual_machines.facts(master, [found])[0])
