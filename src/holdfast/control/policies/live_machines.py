"""What is wrong with a policy for virtual machines that only a look at hypervisors can tell.

Must not look by itself: a `MachineProbe` does, whom the site hands in. Invariant: what is told is
what the process saw that would do the work.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from holdfast.base.errors import HoldfastError
from holdfast.base.units import format_count
from holdfast.control.policies.findings import Finding, Severity, error, info, warning
from holdfast.control.policies.machine_selection import machines_of
from holdfast.control.policies.verify_boot import KEY as VERIFY_BOOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.control.hypervisors import Estate, VirtualMachine
    from holdfast.control.policies.live import Room
    from holdfast.control.policies.policy import Policy
    from holdfast.sources.machines.provider import Remark

MOST_MACHINES = 10
"""So many machines of a policy are tried; thousands would take hours."""

_SEVERITIES = {
    "error": Severity.ERROR,
    "warning": Severity.WARNING,
    "info": Severity.INFO,
}


class MachineProbe(Protocol):
    """Who looks."""

    @property
    def is_over(self) -> bool:
        """Whether it has looked for as long as somebody may wait."""
        ...

    def room(self, storage_unit: str) -> Room:
        """Try to write to a storage unit.

        Raises:
            HoldfastError: It can't be written, and why.
        """
        ...

    def ask_hypervisor(self, name: str) -> Estate:
        """Have a hypervisor tell its machines now; the estate as it is after that.

        Raises:
            HoldfastError: It does not, and why.
        """
        ...

    def try_machine(
        self, one: VirtualMachine, scratch: str | None, *, trim: bool, leave_out: tuple[str, ...]
    ) -> Sequence[Remark]:
        """Look whether a backup of a machine would come to pass.

        Args:
            one: Which.
            scratch: As its policy says.
            trim: Whether its guest is to trim.
            leave_out: Names of its disks that are not wanted.

        Raises:
            HoldfastError: It can't be looked at, and why.
        """
        ...

    def require_emulator(self) -> None:
        """Make sure that images can be booted where boot checks are done.

        Raises:
            HoldfastError: They can't, and why.
        """
        ...


def check_live_machines(policy: Policy, estate: Estate, probe: MachineProbe) -> list[Finding]:
    """Look whether a policy for virtual machines would succeed as things are.

    Args:
        policy: It has no errors by itself.
        estate: What is known.
        probe: Who looks.

    Returns:
        Findings with the policy's name.
    """
    found = [*_room(policy, probe), *_boots(policy, probe), *_look(policy, estate, probe)]
    return [replace(one, policy=policy.name) for one in found]


def _room(policy: Policy, probe: MachineProbe) -> Iterator[Finding]:
    unit = policy.storage_unit
    try:
        probe.room(unit)
    except HoldfastError as failure:
        message = f"storage unit '{unit}' can't be written: {failure.message}"
        yield error("storage_unit", message, failure.hint)


def _boots(policy: Policy, probe: MachineProbe) -> Iterator[Finding]:
    if policy.verify_boot is None:
        return
    try:
        probe.require_emulator()
    except HoldfastError as failure:
        message = f"no image can be booted on the master server: {failure.message}"
        yield error(VERIFY_BOOT, message, failure.hint)


def _look(policy: Policy, estate: Estate, probe: MachineProbe) -> Iterator[Finding]:
    wanted = policy.machines
    if wanted is None:
        return
    silent: set[str] = set()
    for name in wanted.hypervisors or tuple(estate.hypervisors):
        try:
            estate = probe.ask_hypervisor(name)
        except HoldfastError as failure:
            silent.add(name)
            message = f"hypervisor '{name}' does not tell its machines: {failure.message}"
            yield error("machines.hypervisors", message, failure.hint)
    machines = machines_of(policy, estate)
    listed = ", ".join(one.machine.name for one in machines[:5])
    more = f" and {format_count(len(machines) - 5)} more" if len(machines) > 5 else ""
    if machines:
        yield info("machines.query", f"it selects {format_count(len(machines))}: {listed}{more}")
    alike: dict[Finding, list[str]] = {}
    reached = [one for one in machines if one.hypervisor not in silent]
    tried = 0
    for one in reached[:MOST_MACHINES]:
        if probe.is_over:
            break
        tried += 1
        for finding in _try(policy, one, probe):
            alike.setdefault(finding, []).append(one.machine.name)
    for finding, names in alike.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield replace(finding, message=f"machine '{names[0]}'{others}: {finding.message}")
    if tried < len(reached):
        yield info("machines", f"{tried} of {format_count(len(reached))} machines were tried")


def _try(policy: Policy, one: VirtualMachine, probe: MachineProbe) -> Iterator[Finding]:
    wanted = policy.machines
    if wanted is None:
        return
    left_out = wanted.left_out(one.machine)
    if one.machine.disks and len(left_out) == len(one.machine.disks):
        yield warning("machines.leave_out", "every disk of it is left out", "leave some in")
    try:
        remarks = probe.try_machine(one, wanted.scratch, trim=wanted.trim, leave_out=left_out)
    except HoldfastError as failure:
        yield error("machines", f"it can't be tried: {failure.message}", failure.hint)
        return
    for remark in remarks:
        if remark.about is not None and remark.about in left_out:
            continue
        about = "" if remark.about is None else f"disk '{remark.about}': "
        yield Finding(_SEVERITIES[remark.severity], "machines", f"{about}{remark.message}")
