"""Policies of the type ``machines``: virtual machines, as a query selects them.

Must not look at any machine: see `live_machines`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid
from holdfast.control.hypervisors import parsed
from holdfast.control.policies.findings import Finding, error, inside, warning
from holdfast.control.policies.machine_selection import MACHINES, QUIESCE_MODES, machines_of
from holdfast.control.policies.reading import shown
from holdfast.control.policies.types import TYPES
from holdfast.control.policies.verify_boot import check_verify_boot
from holdfast.control.schedule import BackupKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.control.policies.policy import Policy
    from holdfast.control.policies.validation import SiteFacts

EXAMPLE = 'machines = { query = "tag=prod and not name=*-test" }'

_OF_FILES = (
    ("clients", "machines are selected by a query"),
    ("client_query", "machines are selected by 'machines.query'"),
    ("selections", "disks are taken whole; 'machines.leave_out' names those that are not wanted"),
)


@dataclass(frozen=True, slots=True)
class MachinesType:
    """Virtual machines.

    Every image is complete by itself, so a full differs from an incremental in what is read: a full
    reads all that is allocated, any other kind what changed since the newest image.
    """

    name: str = MACHINES
    summary: str = "virtual machines, from outside of them"
    kinds: frozenset[BackupKind] = frozenset(BackupKind)

    def check(self, policy: Policy, site: SiteFacts) -> Iterator[Finding]:
        """Look at the query, the hypervisors, and what is for files alone."""
        for key, hint in _OF_FILES:
            if getattr(policy, key):
                yield error(key, f"a policy of the type '{self.name}' has none", hint)
        if policy.streams > 1:
            yield error("streams", "a disk is not divided", "leave it out")
        if policy.encryption != "pool":
            message = "virtual machines are not sealed with a client key"
            yield error("encryption", message, "leave it out")
        wanted = policy.machines
        if wanted is None:
            yield error("machines", "it is for no virtual machine", f"write for example {EXAMPLE}")
            return
        if wanted.quiesce not in QUIESCE_MODES:
            message = f"'{shown(wanted.quiesce)}' is no way to bring guests to rest"
            yield error("machines.quiesce", message, f"it may be {', '.join(QUIESCE_MODES)}")
        if wanted.scratch is not None and not wanted.scratch.startswith("/"):
            message = f"'{shown(wanted.scratch)}' is not absolute"
            yield error("machines.scratch", message, "begin it with '/'")
        for number, rule in enumerate(wanted.leave_out):
            if not rule.rpartition(":")[2]:
                place = inside("machines.leave_out", number)
                yield error(place, f"'{shown(rule)}' names no disk", 'write "vdb" or "db*:vdb"')
        yield from check_verify_boot(policy)
        yield from _hypervisors(policy, site)
        yield from _query(policy, site)


def _hypervisors(policy: Policy, site: SiteFacts) -> Iterator[Finding]:
    from difflib import get_close_matches

    wanted = () if policy.machines is None else policy.machines.hypervisors
    known = site.estate.hypervisors
    if not known:
        message = "no hypervisor is known yet"
        yield error("machines", message, "make one known: holdfast hypervisor add")
        return
    for number, name in enumerate(wanted):
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there is {', '.join(known)}"
            place = inside("machines.hypervisors", number)
            yield error(place, f"there is no hypervisor '{shown(name)}'", hint)


def _query(policy: Policy, site: SiteFacts) -> Iterator[Finding]:
    if policy.machines is None:
        return
    try:
        parsed(policy.machines.query)
    except Invalid as wrong:
        yield error("machines.query", wrong.message, wrong.hint)
        return
    if site.estate.hypervisors and not machines_of(policy, site.estate):
        message = f"it selects none of {len(site.estate.select()):,} virtual machines"
        hint = "see 'holdfast machines --where QUERY'; it will be for those that come to fit"
        yield warning("machines.query", message, hint)


TYPES.register(MachinesType())
