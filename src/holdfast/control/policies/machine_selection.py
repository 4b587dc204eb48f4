"""Which virtual machines a policy is for, and how they are frozen.

Pure: what there is is handed in. Must not read text; a query that can't be read selects nothing,
and is a finding: see `machines_type`.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.base.errors import Invalid
from holdfast.control.hypervisors import parsed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.base.ids import ClientName, SourceName
    from holdfast.control.hypervisors import Estate, VirtualMachine
    from holdfast.control.policies.policy import Policy
    from holdfast.sources.machines.machine import Machine

MACHINES: Final = "machines"
"""The type of policies that are for virtual machines."""

TRY_QUIESCE, REQUIRE_QUIESCE, NO_QUIESCE = "try", "require", "no"
QUIESCE_MODES: Final = (TRY_QUIESCE, REQUIRE_QUIESCE, NO_QUIESCE)
"""``try``: a guest that can't be brought to rest is backed up all the same, with a warning."""

DEFAULT_TRIM_TIMEOUT_S: Final = 600
TRIM_TIMEOUT_S: Final = range(1, 86_400 + 1)


@dataclass(frozen=True, slots=True)
class MachineSelection:
    """What is taken of the virtual machines of a site.

    Attributes:
        query: Which of them; see `control.hypervisors.query`.
        hypervisors: Only those of these, by name; none: of all.
        leave_out: Globs of disks that are not wanted: ``vdb``, or of some machines alone,
            ``db*:vd[cd]``.
        quiesce: Whether guests are brought to rest, one of `QUIESCE_MODES`.
        trim: Whether guests trim their file systems before that.
        trim_timeout_s: After so long they are not waited for any more.
        scratch: An absolute directory where the work is done for what guests overwrite meanwhile;
            None for that machine's own.
        scratch_bytes: How much of that there may be for each machine; 0 for as much as it holds.
    """

    query: str
    hypervisors: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    quiesce: str = TRY_QUIESCE
    trim: bool = False
    trim_timeout_s: int = DEFAULT_TRIM_TIMEOUT_S
    scratch: str | None = None
    scratch_bytes: int = 0

    def left_out(self, machine: Machine) -> tuple[str, ...]:
        """Names of a machine's disks that are not wanted."""
        return tuple(disk.name for disk in machine.disks if self._leaves_out(machine, disk.name))

    def _leaves_out(self, machine: Machine, disk: str) -> bool:
        for rule in self.leave_out:
            of, between, name = rule.rpartition(":")
            if between and not _like(machine.name, of):
                continue
            if _like(disk, name):
                return True
        return False


@dataclass(frozen=True, slots=True)
class MachineSource:
    """One virtual machine of a policy: its images follow each other.

    Attributes:
        found: The machine, where it is now.
        proxy: The client whose agent reaches its hypervisor; None for the master server itself.
    """

    found: VirtualMachine
    proxy: ClientName | None = None

    @property
    def client(self) -> ClientName:
        """What its images are listed under."""
        return self.found.client

    @property
    def source(self) -> SourceName:
        """The same wherever it goes, and whatever it is called."""
        return self.found.source

    @property
    def is_known(self) -> bool:
        """There is nothing to be divided."""
        return True


def machines_of(policy: Policy, estate: Estate) -> list[VirtualMachine]:
    """The machines that a policy is for now, by name; none for one that is not for machines."""
    wanted = policy.machines
    if policy.type != MACHINES or wanted is None:
        return []
    try:
        query = parsed(wanted.query)
    except Invalid:
        return []
    return estate.select(query, wanted.hypervisors)


def machine_sources(policy: Policy, estate: Estate) -> Iterable[MachineSource]:
    """The machines that a policy is for now, each a source."""
    for one in machines_of(policy, estate):
        hypervisor = estate.hypervisors.get(one.hypervisor)
        yield MachineSource(one, None if hypervisor is None else hypervisor.proxy)


def _like(text: str, glob: str) -> bool:
    return fnmatch.fnmatchcase(text.casefold(), glob.casefold())
