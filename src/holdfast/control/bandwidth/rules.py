"""Bandwidth rules, and what they leave to each machine at a moment. Pure.

Invariant: those machines that a rule is for and that have something to move never have more
together than it allows, and each has the least of what the rules that are for it leave.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, TypeAlias

from holdfast.base.errors import Invalid
from holdfast.base.units import KIB, format_rate
from holdfast.control.schedule.openings import Openings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from holdfast.base.ids import ClientName
    from holdfast.control.schedule import Window

LEAST_BYTES_PER_S = 64 * KIB
"""With less, what is on its way takes so long that it counts as lost."""

MOST_NETWORKS = 100
MOST_WINDOWS = 50

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class BandwidthRule:
    """How much the machines of some networks may move together, at some times.

    Attributes:
        name: To speak of it.
        bytes_per_s: Of all these machines together.
        networks: Whose machines; none: all.
        windows: When, in the site's zone; none: always.

    Raises:
        Invalid: It can't be one.
    """

    name: str
    bytes_per_s: int
    networks: tuple[Network, ...] = ()
    windows: tuple[Window, ...] = ()

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise Invalid(
                f"'{self.name[:80]}' can't be the name of a bandwidth rule",
                "1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-', a letter or digit first",
            )
        if self.bytes_per_s < LEAST_BYTES_PER_S:
            raise Invalid(
                f"{format_rate(self.bytes_per_s)} is too little for a bandwidth rule",
                f"allow at least {format_rate(LEAST_BYTES_PER_S)}; when nothing is to move, leave "
                "that time out of the windows of policies",
            )
        if len(self.networks) > MOST_NETWORKS or len(self.windows) > MOST_WINDOWS:
            raise Invalid(
                f"a bandwidth rule has up to {MOST_NETWORKS} networks and {MOST_WINDOWS} windows"
            )

    def is_for(self, addresses: Iterable[str]) -> bool:
        """Whether a machine of these addresses is one that it is for."""
        if not self.networks:
            return True
        return any(
            found.version == network.version and found in network
            for found in _addresses(addresses)
            for network in self.networks
        )

    def holds(self, local: datetime) -> bool:
        """Whether it holds at a moment, in local time."""
        if not self.windows:
            return True
        return Openings(self.windows, UTC).hold(local.replace(tzinfo=None))


def read_network(text: str) -> Network:
    """Read ``10.1.0.0/16``, an address, or the like of IPv6; any address of a network names it.

    Raises:
        Invalid: It is no network.
    """
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise Invalid(
            f"'{text[:80]}' is not a network", "write for example 10.1.0.0/16 or 2001:db8::/32"
        ) from error


def rates(
    rules: Collection[BandwidthRule],
    machines: Mapping[ClientName, Collection[str]],
    busy: Collection[ClientName],
    local: datetime,
) -> dict[ClientName, int]:
    """What is left to each machine.

    Args:
        rules: All of them.
        machines: The addresses of each.
        busy: Those that have something to move. Another one is left what would be its part if it
            had, too, so that it knows before it begins.
        local: The moment, in the site's zone.

    Returns:
        Bytes a second, of those whom a rule is for.
    """
    left: dict[ClientName, int] = {}
    for rule in rules:
        if not rule.holds(local):
            continue
        theirs = {name for name, addresses in machines.items() if rule.is_for(addresses)}
        at_work = len(theirs.intersection(busy))
        for name in theirs:
            share = rule.bytes_per_s // (at_work + (name not in busy))
            left[name] = min(left.get(name, share), share)
    return left


def _addresses(texts: Iterable[str]) -> Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    for text in texts:
        try:
            yield ipaddress.ip_address(text)
        except ValueError:
            # What a machine says of itself need not be one.
            continue
