"""Bandwidth rules: how much machines may move, by network and by time of day."""

from __future__ import annotations

from typing import Annotated, Self

from fastapi import Path
from pydantic import Field

from holdfast.control.access import Principal, Verb
from holdfast.control.bandwidth.rules import (
    LEAST_BYTES_PER_S,
    MOST_NETWORKS,
    MOST_WINDOWS,
    BandwidthRule,
    read_network,
)
from holdfast.control.policies.texts import read_window, write_window
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, make_router, may
from holdfast.faces.api.models import Model

router = make_router("Machines")

Named = Annotated[
    str,
    Path(
        alias="name",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="Name of a rule.",
        examples=["office-hours"],
    ),
]
Configurer = Annotated[Principal, may(Verb.CONFIGURE)]


_HEX = "[0-9A-Fa-f]{1,4}"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"({_BYTE}\.){{3}}{_BYTE}(/([0-9]|[12][0-9]|3[0-2]))?"
_IPV6 = (
    rf"(({_HEX}:){{7}}{_HEX}|({_HEX}:){{1,6}}:({_HEX})?|::({_HEX})?)"
    "(/([0-9]|[1-9][0-9]|1[01][0-9]|12[0-8]))?"
)
_DAY = "(Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]"
_DAYS = f"{_DAY}(-{_DAY})?(,{_DAY}(-{_DAY})?)*"

NETWORK = rf"^({_IPV4}|{_IPV6})$"
WINDOW = rf"^({_DAYS} )?{_CLOCK}-({_CLOCK}|24:00)$"

NetworkText = Annotated[str, Field(pattern=NETWORK, max_length=64)]
WindowText = Annotated[str, Field(pattern=WINDOW, max_length=80)]


class NewRule(Model):
    """What a bandwidth rule says."""

    bytes_per_s: int = Field(
        ge=LEAST_BYTES_PER_S,
        le=2**53,
        description="What all machines that it is for may move together.",
        examples=[2_500_000],
    )
    networks: list[NetworkText] = Field(
        default=[],
        max_length=MOST_NETWORKS,
        description="Whose machines; all, if left out.",
        examples=[["10.1.0.0/16"]],
    )
    windows: list[WindowText] = Field(
        default=[],
        max_length=MOST_WINDOWS,
        description="When, in the site's zone; always, if left out.",
        examples=[["Mon-Fri 08:00-18:00"]],
    )


class Rule(NewRule):
    """A bandwidth rule."""

    name: str = Field(examples=["office-hours"])

    @classmethod
    def of(cls, rule: BandwidthRule) -> Self:
        """As the book has it."""
        return cls(
            name=rule.name,
            bytes_per_s=rule.bytes_per_s,
            networks=[str(one) for one in rule.networks],
            windows=[write_window(one) for one in rule.windows],
        )


class Rules(Model):
    """All bandwidth rules, by name."""

    items: list[Rule]


@router.get("/bandwidth-rules")
def list_bandwidth_rules(
    who: Annotated[Principal, may(Verb.SEE)],  # noqa: ARG001 - it is who may
    master: TheMaster,
) -> Rules:
    """All bandwidth rules. Of several that hold for a machine the one that leaves least counts."""
    return Rules(items=[Rule.of(one) for one in master.bandwidth.rules()])


@router.put("/bandwidth-rules/{name}")
def put_bandwidth_rule(
    who: Configurer,  # noqa: ARG001 - it is who may
    master: TheMaster,
    name: Named,
    body: NewRule,
) -> Rule:
    """Make a rule, or another one of its name. Machines at work keep to it within seconds."""
    rule = BandwidthRule(
        name,
        body.bytes_per_s,
        tuple(read_network(one) for one in body.networks),
        tuple(read_window(one) for one in body.windows),
    )
    master.bandwidth.put(rule)
    return Rule.of(rule)


@router.delete("/bandwidth-rules/{name}", status_code=204, responses={404: document.response(404)})
def remove_bandwidth_rule(
    who: Configurer,  # noqa: ARG001 - it is who may
    master: TheMaster,
    name: Named,
) -> None:
    """Forget a rule."""
    master.bandwidth.remove(name)
