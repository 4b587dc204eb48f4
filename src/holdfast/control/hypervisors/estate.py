"""The virtual machines of a site at one moment: where each is now, and what a query selects.

Pure. Invariant: of one uuid there is one machine, wherever it was found: where it runs, else where
it was seen last.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from holdfast.control.hypervisors import query as queries
from holdfast.sources.machines.machine import State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from holdfast.control.hypervisors.hypervisor import Hypervisor, VirtualMachine
    from holdfast.control.hypervisors.query import Query

_BEST_FIRST = (State.RUNNING, State.PAUSED, State.SUSPENDED, State.OFF, State.UNKNOWN)


class Estate:
    """Hypervisors and their machines. Immutable.

    Attributes:
        hypervisors: By name.
        machines: By uuid, those that are gone among them.
        elsewhere: Where else the same uuid is now, by uuid; most are nowhere else.
        version: Another one of another moment, if anything was changed between.
    """

    def __init__(
        self,
        hypervisors: Iterable[Hypervisor] = (),
        found: Iterable[VirtualMachine] = (),
        version: object = None,
    ) -> None:
        self.version = version
        self.hypervisors: Mapping[str, Hypervisor] = {one.name: one for one in hypervisors}
        places: dict[str, list[VirtualMachine]] = {}
        for one in found:
            places.setdefault(one.machine.uuid, []).append(one)
        for some in places.values():
            some.sort(key=_rank)
        self.machines: Mapping[str, VirtualMachine] = {
            uuid: some[0] for uuid, some in sorted(places.items())
        }
        self.elsewhere: Mapping[str, tuple[VirtualMachine, ...]] = {
            uuid: others
            for uuid, some in places.items()
            if (others := tuple(one for one in some[1:] if one.is_there))
        }

    def select(
        self, query: Query | None = None, hypervisors: Collection[str] = ()
    ) -> list[VirtualMachine]:
        """Machines that are there, by name.

        Args:
            query: Those that it holds for; None: all.
            hypervisors: Those of these alone; none: of all.
        """
        found = [
            one
            for one in self.machines.values()
            if one.is_there
            and (not hypervisors or one.hypervisor in hypervisors)
            and (query is None or query.matches(one))
        ]
        return sorted(found, key=_by_name)

    def named(self, text: str) -> list[VirtualMachine]:
        """The machines of a name or uuid, those that are gone last."""
        wanted = text.casefold()
        found = [
            one
            for one in self.machines.values()
            if wanted in (one.machine.uuid, one.machine.name.casefold(), one.client.casefold())
        ]
        return sorted(found, key=lambda one: (not one.is_there, _by_name(one)))


@lru_cache(maxsize=512)
def parsed(text: str) -> Query:
    """`query.parse`, remembered: policies are asked again and again.

    Raises:
        Invalid: It is no query.
    """
    return queries.parse(text)


def _rank(one: VirtualMachine) -> tuple[bool, int, float, str]:
    state = _BEST_FIRST.index(one.machine.state)
    return not one.is_there, state, -one.last_seen_at.timestamp(), one.hypervisor


def _by_name(one: VirtualMachine) -> tuple[str, ...]:
    return one.machine.name.casefold(), one.machine.uuid
