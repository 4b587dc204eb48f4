"""Virtual machines of a site, as people want to see them: where each is, and what protects it.

Must not ask a hypervisor. Invariant: a machine counts as protected only by a policy that starts
backups by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid, NotFound
from holdfast.control.policies import machines_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from holdfast.base.ids import ImageId, PolicyName
    from holdfast.control.access import Principal
    from holdfast.control.hypervisors import Query, VirtualMachine
    from holdfast.site.master import Master


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """A virtual machine, as people want to see it.

    Attributes:
        found: It.
        policies: Active policies that select it.
        elsewhere: Other hypervisors that have a machine of its uuid.
        image: Its newest image; None if there is none.
        backed_up_at: When that was begun.
    """

    found: VirtualMachine
    policies: tuple[PolicyName, ...]
    elsewhere: tuple[str, ...]
    image: ImageId | None = None
    backed_up_at: datetime | None = None


def select(
    master: Master,
    who: Principal,
    query: Query | None = None,
    hypervisors: Sequence[str] = (),
    *,
    unprotected: bool = False,
) -> list[VirtualMachine]:
    """Machines that are there and that somebody sees, by name.

    Args:
        master: Whose.
        who: Who asks.
        query: Those that it holds for; None: all.
        hypervisors: Those of these alone; none: of all.
        unprotected: Only those that no active policy selects.
    """
    estate = master.hypervisors.estate()
    found = [one for one in estate.select(query, hypervisors) if who.sees(one.client)]
    if unprotected:
        known = _protected(master)
        found = [one for one in found if one.machine.uuid not in known]
    return found


def facts(master: Master, some: Sequence[VirtualMachine]) -> list[MachineFacts]:
    """What people want to see of some machines."""
    protected = _protected(master)
    estate = master.hypervisors.estate()
    newest = master.catalog.newest_of([one.source for one in some]) if some else {}
    images = {one.id: one for one in master.catalog.each_image([*newest.values()])}
    made = []
    for one in some:
        uuid = one.machine.uuid
        image = newest.get(one.source)
        row = None if image is None else images.get(image)
        others = tuple(other.hypervisor for other in estate.elsewhere.get(uuid, ()))
        made.append(
            MachineFacts(
                one,
                tuple(protected.get(uuid, ())),
                others,
                image,
                None if row is None else row.started_at,
            )
        )
    return made


def named(master: Master, who: Principal, text: str) -> VirtualMachine:
    """The machine that somebody means by its name or uuid.

    Raises:
        NotFound: There is none that they see.
        Invalid: There are several of that name.
    """
    found = [one for one in master.hypervisors.estate().named(text) if who.sees(one.client)]
    there = [one for one in found if one.is_there]
    if not found:
        raise NotFound(
            f"no virtual machine '{text[:80]}' is known",
            "'holdfast machines' lists them, and 'holdfast hypervisor discover' looks again",
        )
    if len(there or found) > 1:
        listed = ", ".join(f"{one.machine.uuid} on {one.machine.host}" for one in there or found)
        why = f"there are several virtual machines '{text[:80]}': {listed}"
        raise Invalid(why, "name the uuid")
    return (there or found)[0]


def _protected(master: Master) -> dict[str, list[PolicyName]]:
    """Active policies by the uuids of the machines that they select."""
    estate = master.hypervisors.estate()
    found: dict[str, list[PolicyName]] = {}
    for name, stored in master.policies.snapshot().policies.items():
        if stored.policy.active and stored.policy.schedules:
            for one in machines_of(stored.policy, estate):
                found.setdefault(one.machine.uuid, []).append(name)
    return found
