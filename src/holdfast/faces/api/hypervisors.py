"""Hypervisors: what runs virtual machines, who reaches it, and how much it may be asked for."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import Path
from pydantic import Field, SecretStr

from holdfast.base.ids import ClientName
from holdfast.control import hypervisors as book
from holdfast.control.access import Principal, Verb
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, make_router, may
from holdfast.faces.api.models import Model
from holdfast.site import hypervisors
from holdfast.sources.machines.providers import KINDS

router = make_router("Virtual machines")

NAME = "^[a-z0-9][a-z0-9._-]{0,62}$"

Named = Annotated[
    str, Path(alias="name", pattern=NAME, description="Name of a hypervisor.", examples=["kvm1"])
]
Configurer = Annotated[Principal, may(Verb.CONFIGURE)]
Url = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00\s]+$")]
AtOnce = Annotated[int, Field(ge=1, le=book.MOST_AT_ONCE)]
Proxy = Annotated[str, Field(min_length=1, max_length=63)]


class Hypervisor(Model):
    """What runs virtual machines: one host, or a manager of many."""

    name: str = Field(description="What policies name it by.", examples=["kvm1"])
    kind: str = Field(description="What it is.", examples=["libvirt"])
    url: str = Field(examples=["qemu:///system"])
    proxy: str | None = Field(
        description="The client whose agent reaches it and does its backups; null for the master "
        "server itself.",
        examples=["proxy1"],
    )
    has_credentials: bool = Field(description="Whether it lets in by a user, kept sealed.")
    per_host: int = Field(description="How many backups run on one of its hosts at once.")
    per_datastore: int = Field(description="How many read one of its datastores at once.")
    virtual_machines: int = Field(description="How many were there when it was looked at last.")
    looked_at: datetime | None = Field(description="When it told its machines last.")
    tried_at: datetime | None = Field(description="When it was asked last.")
    problem: str | None = Field(
        description="Why it did not answer then: what is known is as of `looked_at`."
    )
    created_at: datetime | None

    @classmethod
    def of(cls, one: book.Hypervisor, estate: book.Estate) -> Self:
        """As the book has it."""
        return cls(
            name=one.name,
            kind=one.kind,
            url=one.url,
            proxy=one.proxy,
            has_credentials=one.has_credentials,
            per_host=one.per_host,
            per_datastore=one.per_datastore,
            virtual_machines=len(estate.select(None, (one.name,))),
            looked_at=one.looked_at,
            tried_at=one.tried_at,
            problem=one.problem,
            created_at=one.created_at,
        )


class Hypervisors(Model):
    """All hypervisors, by name."""

    items: list[Hypervisor]


class Credentials(Model):
    """What a hypervisor lets in by. None of it is ever told again."""

    user: str = Field(default="", max_length=255, examples=["backup"])
    password: SecretStr = Field(default=SecretStr(""), max_length=1024)
    certificate: str = Field(
        default="",
        max_length=8000,
        description="PEM of the authority that its certificate is to be of.",
    )

    def plain(self) -> dict[str, str]:
        """What there is, by name."""
        given = {
            "user": self.user,
            "password": self.password.get_secret_value(),
            "certificate": self.certificate,
        }
        return {name: value for name, value in given.items() if value}


class NewHypervisor(Model):
    """A hypervisor that is to be known."""

    name: str = Field(pattern=NAME, examples=["kvm1"])
    kind: str = Field(
        min_length=1,
        max_length=63,
        examples=["libvirt"],
        json_schema_extra={"enum": [*sorted(KINDS)]},
    )
    url: Url = Field(description="As that kind writes it.", examples=["qemu:///system"])
    proxy: Proxy | None = Field(default=None, examples=["proxy1"])
    credentials: Credentials | None = Field(default=None)
    per_host: AtOnce = Field(default=book.DEFAULT_PER_HOST)
    per_datastore: AtOnce = Field(default=book.DEFAULT_PER_DATASTORE)


class HypervisorChange(Model):
    """What is to be another one; what is left out stays."""

    url: Url | None = Field(default=None, examples=["qemu+ssh://root@kvm1/system"])
    proxy: Proxy | None = Field(
        default=None, description="The client whose agent is to reach it; `-`: none."
    )
    credentials: Credentials | None = Field(
        default=None, description="Others; empty ones: it needs none."
    )
    per_host: AtOnce | None = Field(default=None)
    per_datastore: AtOnce | None = Field(default=None)


@router.get("/hypervisors")
def list_hypervisors(
    who: Annotated[Principal, may(Verb.SEE)],  # noqa: ARG001 - it is who may
    master: TheMaster,
) -> Hypervisors:
    """All hypervisors, by name."""
    estate = master.hypervisors.estate()
    return Hypervisors(items=[Hypervisor.of(one, estate) for one in estate.hypervisors.values()])


@router.get("/hypervisors/{name}")
def read_hypervisor(
    who: Annotated[Principal, may(Verb.SEE)],  # noqa: ARG001 - it is who may
    master: TheMaster,
    name: Named,
) -> Hypervisor:
    """One hypervisor."""
    return _shown(master, name)


@router.post(
    "/hypervisors",
    status_code=201,
    responses={404: document.response(404), 409: document.response(409)},
)
def add_hypervisor(
    who: Configurer,  # noqa: ARG001 - it is who may
    master: TheMaster,
    body: NewHypervisor,
) -> Hypervisor:
    """Make a hypervisor known. It is asked for its machines by `discover`, and from then on daily.

    Its credentials are sealed with the key of the site's pool, and opened for its proxy alone.
    """
    new = book.Hypervisor(
        name=body.name,
        kind=body.kind,
        url=body.url,
        proxy=None if body.proxy is None else ClientName(body.proxy),
        per_host=body.per_host,
        per_datastore=body.per_datastore,
    )
    given = {} if body.credentials is None else body.credentials.plain()
    hypervisors.add(master, new, given)
    return _shown(master, body.name)


@router.patch("/hypervisors/{name}", responses={404: document.response(404)})
def change_hypervisor(
    who: Configurer,  # noqa: ARG001 - it is who may
    master: TheMaster,
    name: Named,
    body: HypervisorChange,
) -> Hypervisor:
    """Have a hypervisor be reached in another way, or asked for more or less at once.

    Jobs that wait go to the new proxy; those that run go on where they are.
    """
    new = master.hypervisors.hypervisor(name)
    changes: dict[str, Any] = {
        key: value
        for key in ("url", "per_host", "per_datastore")
        if (value := getattr(body, key)) is not None
    }
    if body.proxy is not None:
        changes["proxy"] = None if body.proxy == "-" else ClientName(body.proxy)
    credentials = None if body.credentials is None else body.credentials.plain()
    hypervisors.change(master, replace(new, **changes), credentials)
    return _shown(master, name)


@router.delete(
    "/hypervisors/{name}",
    status_code=204,
    responses={404: document.response(404), 409: document.response(409)},
)
def remove_hypervisor(
    who: Configurer,  # noqa: ARG001 - it is who may
    master: TheMaster,
    name: Named,
) -> None:
    """Forget a hypervisor that no policy names, and the machines there. Their images stay."""
    hypervisors.remove(master, name)


@router.post(
    "/hypervisors/{name}/discover",
    responses={404: document.response(404), 501: document.response(501)},
)
def discover_hypervisor(
    who: Annotated[Principal, may(Verb.RUN_POLICIES)],  # noqa: ARG001 - it is who may
    master: TheMaster,
    name: Named,
) -> Hypervisor:
    """Ask a hypervisor for its machines now. If it does not answer, what is known is kept."""
    hypervisors.discover(master, name)
    return _shown(master, name)


def _shown(master: TheMaster, name: str) -> Hypervisor:
    return Hypervisor.of(master.hypervisors.hypervisor(name), master.hypervisors.estate())
