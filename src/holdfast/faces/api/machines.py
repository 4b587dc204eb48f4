"""Machines that have joined the site, tokens with which others may, and letting them out."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Path
from pydantic import Field

from holdfast.base.errors import NotFound
from holdfast.base.ids import ClientName
from holdfast.control import machines
from holdfast.control.access import Principal, Verb
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, make_router, may
from holdfast.faces.api.models import Model, Page
from holdfast.faces.api.paging import Pages
from holdfast.wire.identity import MachineRole

if TYPE_CHECKING:
    from collections.abc import Collection

router = make_router("Machines")

MIN_VALID_S, MAX_VALID_S = 60, 30 * 86_400

Named = Annotated[
    str,
    Path(alias="name", pattern=r"^[^\x00]+$", description="Name of a machine.", examples=["web1"]),
]
Viewer = Annotated[Principal, may(Verb.SEE)]


class Machine(Model):
    """A host that has joined the site."""

    name: str = Field(description="That of the client it protects.", examples=["web1"])
    role: MachineRole = Field(description="What it is.", examples=["agent"])
    connected: bool = Field(description="Whether it holds a session with this master.")
    enrolled_at: datetime = Field(description="When it joined last.")
    enrollments: int = Field(description="How often a machine of this name has.", examples=[1])
    certificate_until: datetime | None = Field(
        description="Until when its newest certificate is good; null if it has none."
    )
    last_seen_at: datetime | None = Field(description="When it was heard of, to half a minute.")
    revoked_at: datetime | None = Field(description="Since when it is not let in.")
    addresses: list[str] = Field(description="Where it says to be.", examples=[["192.0.2.7"]])
    software: str = Field(description="What it says to run.", examples=["holdfast 0.1.0"])

    @classmethod
    def of(cls, machine: machines.Machine, connected: Collection[str]) -> Machine:
        """As the book has it."""
        return cls(
            name=machine.name,
            role=machine.role,
            connected=machine.name in connected,
            enrolled_at=machine.enrolled_at,
            enrollments=machine.enrollment,
            certificate_until=machine.certificate_until,
            last_seen_at=machine.last_seen_at,
            revoked_at=machine.revoked_at,
            addresses=list(machine.addresses),
            software=machine.software,
        )


class NewInvitation(Model):
    """A token for joining that is to be made."""

    role: Literal["agent", "media"] = Field(default="agent", description="As what.")
    name: str | None = Field(
        default=None,
        max_length=63,
        description="Under which name alone. Needed for a name that a machine has or had, or of "
        "which there are images.",
        examples=["web1"],
    )
    valid_s: int = Field(
        default=3600, ge=MIN_VALID_S, le=MAX_VALID_S, description="For how long, in seconds."
    )


class Invitation(Model):
    """A token for joining that was just made, which is told this once."""

    id: str = Field(description="To speak of it.", examples=["0c5bd1f5a2e9"])
    role: MachineRole = Field(examples=["agent"])
    name: str | None = Field(description="Null: any name that is nobody's.", examples=["web1"])
    expires_at: datetime
    token: str = Field(description="For `holdfast enroll`.", examples=["hfe1.…"])
    listen: str = Field(
        description="Where this master listens for machines.", examples=["0.0.0.0:8444"]
    )


@router.get("/machines")
def list_machines(who: Viewer, master: TheMaster, pages: Pages) -> Page[Machine]:
    """The machines that you see, by name."""
    given = pages.after(str)
    after = None if given is None else str(given[0])
    connected = master.machines.connected()
    rows: list[machines.Machine] = []
    while len(rows) < pages.fetch:
        some = master.machines.machines(limit=pages.fetch, after=after)
        if not some:
            break
        after = some[-1].name
        rows += [one for one in some if who.sees(one.name)]
    return pages.page(
        rows[: pages.fetch],
        key=lambda row: (row.name,),
        show=lambda row: Machine.of(row, connected),
    )


@router.get("/machines/{name}")
def read_machine(who: Viewer, master: TheMaster, name: Named) -> Machine:
    """One machine."""
    found = master.machines.machine(name)
    if not who.sees(found.name):
        raise NotFound(f"there is no machine '{name[:80]}' that you see")
    return Machine.of(found, master.machines.connected())


@router.post("/machine-tokens", status_code=201)
def invite_machine(
    who: Annotated[Principal, may(Verb.CONFIGURE, secret=True)],
    master: TheMaster,
    body: NewInvitation,
) -> Invitation:
    """Make a token that lets one machine join. It is in this answer and nowhere else."""
    made, token = master.machines.invite(
        MachineRole(body.role), timedelta(seconds=body.valid_s), who.name, body.name
    )
    return Invitation(
        id=made.id,
        role=made.role,
        name=made.name,
        expires_at=made.expires_at,
        token=token.text(),
        listen=master.settings.text("serve.machines"),
    )


@router.post("/machines/{name}/revoke", responses={404: document.response(404)})
def revoke_machine(
    who: Annotated[Principal, may(Verb.CONFIGURE)],  # noqa: ARG001 - it is who may
    master: TheMaster,
    name: Named,
) -> Machine:
    """Let a machine in no more: its session ends at once, and none of its certificates counts."""
    out = master.machines.revoke(ClientName(name))
    return Machine.of(out, master.machines.connected())
