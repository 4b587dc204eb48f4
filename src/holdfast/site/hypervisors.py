"""Hypervisors of a site: made known, asked for their machines, and let go.

Must not back up nor restore. Invariants: credentials are opened for whoever is to reach the
hypervisor, never shown and never logged; who can't be asked leaves what is known as it is.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from holdfast.base.errors import HoldfastError, Invalid, NotFound, Unreachable, WrongState
from holdfast.sources.machines.provider import NOT_TRIMMED, Remark
from holdfast.sources.machines.providers import KINDS
from holdfast.wire.hypervisors import ListOrder, ListReport, TryOrder, TryReport
from holdfast.wire.machine_work import TRIM_VERSION, Reached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.base.ids import ClientName
    from holdfast.control.hypervisors import Hypervisor, VirtualMachine
    from holdfast.site.master import Master
    from holdfast.sources.machines.machine import Machine

ASK_S: Final = 60.0
"""So long a proxy may take to tell the machines of a hypervisor."""

TRY_S: Final = 60.0
"""So long it may take to look whether a backup of a machine would come to pass."""

MOST_REPORTS: Final = 1000

CREDENTIALS: Final = ("user", "password", "certificate")
"""What a hypervisor may let in with; see `sources.machines.providers.Credentials`."""

_LOG = logging.getLogger("holdfast.hypervisors")


def add(master: Master, new: Hypervisor, credentials: Mapping[str, str]) -> Hypervisor:
    """Make a hypervisor known. It is not asked yet.

    Raises:
        Invalid: Its name, kind, limits or credentials can't be such.
        NotFound: No client of the name of its proxy has an agent.
        AlreadyExists: There is one of this name.
    """
    _require_kind(new.kind)
    _require_credentials(credentials)
    _require_proxy(master, new.proxy)
    made = master.hypervisors.add(new, credentials, master.site.pool_key())
    master.news()
    return made


def change(
    master: Master, new: Hypervisor, credentials: Mapping[str, str] | None = None
) -> Hypervisor:
    """Have a hypervisor be another one, of the same name.

    Args:
        master: Whose.
        new: What it is to be.
        credentials: Others; None: as they were.

    Raises:
        NotFound: There is none of this name, or no agent of the name of its proxy.
        Invalid: Its kind, limits or credentials can't be such.
    """
    _require_kind(new.kind)
    if credentials is not None:
        _require_credentials(credentials)
    if new.proxy != master.hypervisors.hypervisor(new.name).proxy:
        _require_proxy(master, new.proxy)
    made = master.hypervisors.change(new, master.site.pool_key(), credentials)
    master.news()
    return made


def remove(master: Master, name: str) -> None:
    """Forget a hypervisor that no policy names. Images of its machines stay.

    Raises:
        NotFound: There is none of this name.
        WrongState: A policy names it.
    """
    master.hypervisors.hypervisor(name)
    naming = [
        stored.policy.name
        for stored in master.policies.snapshot().policies.values()
        if stored.policy.machines is not None and name in stored.policy.machines.hypervisors
    ]
    if naming:
        raise WrongState(
            f"hypervisor '{name}' is named by {len(naming)} policies, such as '{min(naming)}'",
            "have them name others first",
        )
    master.hypervisors.remove(name)
    master.news()


def discover(master: Master, name: str) -> Hypervisor:
    """Ask a hypervisor for its machines, and keep what it says.

    Raises:
        NotFound: There is none of this name.
        HoldfastError: It did not say; the true cause. What was known of it is kept.
    """
    hypervisor = master.hypervisors.hypervisor(name)
    try:
        found = _machines(master, hypervisor)
    except HoldfastError as error:
        master.hypervisors.not_found(name, error.message)
        master.news()
        raise
    master.hypervisors.found(name, found)
    master.news()
    _LOG.info("hypervisor '%s' has %d virtual machines", name, len(found))
    return master.hypervisors.hypervisor(name)


def reached(master: Master, hypervisor: Hypervisor) -> Reached:
    """How a hypervisor is reached, for whoever is to do so.

    Raises:
        NotFound: It is known no more.
        WrongKey: The site's key does not open its credentials.
    """
    credentials = master.hypervisors.credentials(hypervisor.name, master.site.pool_key())
    return Reached(hypervisor.name, hypervisor.kind, hypervisor.url, credentials)


def try_out(
    master: Master,
    one: VirtualMachine,
    scratch: str | None = None,
    *,
    trim: bool = False,
    leave_out: tuple[str, ...] = (),
) -> TryReport:
    """Have it looked whether a backup of a machine would come to pass.

    Args:
        master: Whose.
        one: Which.
        scratch: Where the policy has what guests overwrite; None for the worker's own.
        trim: Whether its guest is to trim.
        leave_out: Names of disks that are not wanted.

    Raises:
        HoldfastError: Nobody could look; the true cause.
    """
    hypervisor = master.hypervisors.hypervisor(one.hypervisor)
    order = TryOrder(reached(master, hypervisor), one.machine.uuid, scratch, trim, leave_out)
    if hypervisor.proxy is None:
        from holdfast.movers.machines.asking import try_machine
        from holdfast.site.near_machines import SCRATCH

        return try_machine(order, master.site.home / SCRATCH)
    report = TryReport.from_json(_ask(master, hypervisor.proxy, order.to_json(), TRY_S))
    too_old = why_untrimmed(master, hypervisor.proxy) if trim else None
    if too_old is None:
        return report
    return TryReport((*report.remarks, Remark("warning", NOT_TRIMMED, too_old)))


def why_untrimmed(master: Master, proxy: ClientName) -> str | None:
    """Why a proxy that is there has no guest trim; None where it would."""
    session = None if master.spoken_to is None else master.spoken_to.sessions.get(proxy)
    if session is None or session.hello.work >= TRIM_VERSION:
        return None
    return (
        f"the guest is not asked to trim: what runs on '{proxy}', {session.hello.software}, does "
        f"not know of that; update Holdfast on '{proxy}'"
    )


def _machines(master: Master, hypervisor: Hypervisor) -> list[Machine]:
    order = ListOrder(reached(master, hypervisor))
    found: list[Machine] = []
    for _ in range(MOST_REPORTS):
        report = _listed(master, hypervisor, order)
        found += report.machines
        if report.is_whole or not report.machines:
            return found
        last = report.machines[-1].uuid
        if last <= order.after:
            break
        order = replace(order, after=last)
    raise Invalid(f"what is said of the machines of hypervisor '{hypervisor.name}' does not end")


def _listed(master: Master, hypervisor: Hypervisor, order: ListOrder) -> ListReport:
    if hypervisor.proxy is None:
        from holdfast.movers.machines.asking import list_machines

        return list_machines(order)
    return ListReport.from_json(_ask(master, hypervisor.proxy, order.to_json(), ASK_S))


def _ask(
    master: Master, proxy: ClientName, order: dict[str, Any], within_s: float
) -> dict[str, Any]:
    if master.spoken_to is None:
        raise Unreachable(
            f"machine '{proxy}', which reaches the hypervisor, is not spoken to from here",
            "serve the site: holdfast serve",
        )
    return master.spoken_to.sessions.ask(proxy, order, within_s)


def _require_kind(kind: str) -> None:
    if kind not in KINDS:
        raise Invalid(
            f"'{kind[:40]}' is not a kind of hypervisor", f"use one of: {', '.join(sorted(KINDS))}"
        )


def _require_credentials(given: Mapping[str, str]) -> None:
    for name in given:
        if name not in CREDENTIALS:
            raise Invalid(
                f"a hypervisor has no '{name[:40]}' among its credentials",
                f"it may have {', '.join(CREDENTIALS)}",
            )


def _require_proxy(master: Master, proxy: ClientName | None) -> None:
    if proxy is None:
        return
    standing = master.machines.standing()
    if proxy not in standing.agents or proxy in standing.revoked:
        raise NotFound(
            f"no machine '{proxy}' with an agent has joined this site",
            "'holdfast machine list' shows those that have",
        )
