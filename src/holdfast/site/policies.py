"""Policies of the embedded site: what is wrong with them here, and changing them.

Must not know files or HTTP. Invariants: what is refused is refused with all findings at once; what
is looked at live is what would be new; nobody changes a policy of clients that are not theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dateutil.tz import tzlocal

from holdfast.base.errors import EditConflict, PolicyInvalid
from holdfast.control.policies import (
    DEFAULT_STORAGE_UNIT,
    MACHINES,
    Finding,
    KnownClients,
    Plan,
    Severity,
    SiteFacts,
    check_live,
    check_live_machines,
    errors_of,
    machines_of,
    review,
)
from holdfast.site.probing import Remote, SiteProbe
from holdfast.site.probing_machines import HypervisorProbe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.base.ids import ClientName, PolicyName
    from holdfast.control.access import Principal
    from holdfast.control.policies import Applied, Document, Policy
    from holdfast.site.master import Master


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a document would do here.

    Attributes:
        plan: What would change; None if the document has errors by itself.
        findings: All that is wrong.
    """

    plan: Plan | None
    findings: tuple[Finding, ...]

    @property
    def is_valid(self) -> bool:
        """Whether it may be carried out."""
        return self.plan is not None and not errors_of(self.findings)


def facts(master: Master, who: Principal) -> SiteFacts:
    """What there is that a policy of somebody may name."""
    known = master.policies.known_clients()
    if not who.sees_all_clients:
        known = KnownClients(name for name in known.names if who.sees(name))
    return SiteFacts(
        clients=known,
        storage_units=frozenset(
            {DEFAULT_STORAGE_UNIT, *(one.name for one in master.units.units())}
        ),
        now=master.clock.now(),
        zone=master.settings.zone("site.zone") or tzlocal(),
        agents=frozenset(master.machines.standing().agents),
        estate=master.hypervisors.estate(),
    )


def clients_of(master: Master, policy: Policy) -> Sequence[ClientName]:
    """Whom a policy is for now: clients, or virtual machines by what their images are listed as."""
    if policy.type == MACHINES:
        found = (one.client for one in machines_of(policy, master.hypervisors.estate()))
        return tuple(dict.fromkeys(found))
    return master.policies.known_clients().of(policy)


def for_machine(master: Master, client: ClientName) -> tuple[PolicyName, ...]:
    """The policies that select a virtual machine which is listed as some client."""
    estate = master.hypervisors.estate()
    stored = master.policies.snapshot().policies.items() if estate.machines else ()
    return tuple(
        name
        for name, one in stored
        if any(found.client == client for found in machines_of(one.policy, estate))
    )


def prepare(
    master: Master,
    document: Document,
    who: Principal,
    *,
    prune: bool = False,
    live: bool = True,
    again: bool = False,
) -> Prepared:
    """Say what a document would change, and what is wrong with it here and now.

    Args:
        master: Whose site.
        document: What was read.
        who: Who wants it.
        prune: Remove policies that it does not name.
        live: Look at clients and storage as well, for active policies that are new or changed.
        again: Look so at those too that are as they were.

    Raises:
        Forbidden: A policy is of clients that are not theirs.
    """
    site = facts(master, who)
    findings = review(document, site)
    if errors_of(findings):
        return Prepared(None, tuple(findings))
    plan = master.policies.plan(document.policies, prune=prune)
    # Before anybody looks: what is at a client is for nobody to find out who may not see it.
    require_editable(who, plan)
    if live:
        new = (*plan.creates, *(one.new for one in plan.changes))
        findings += _look(master, document.policies if again else new, site)
    return Prepared(plan, tuple(findings))


def _look(master: Master, policies: Sequence[Policy], site: SiteFacts) -> list[Finding]:
    """Look at clients and storage for some policies, for as long as somebody may wait."""
    probe = SiteProbe(master.site, remote=_remote(master))
    found: list[Finding] = []
    active = [one for one in policies if one.active]
    for number, policy in enumerate(active):
        if probe.is_over:
            message = f"{len(active) - number:,} policies were not looked at for lack of time"
            found.append(Finding(Severity.INFO, "", message, "look at fewer at once"))
            break
        if policy.type == MACHINES:
            looks = HypervisorProbe(master, probe)
            found += check_live_machines(policy, site.estate, looks)
        else:
            found += check_live(policy, site.clients.of(policy), probe)
    return found


def _remote(master: Master) -> Remote:
    agents = master.machines.standing().agents
    spoken_to = master.spoken_to
    return Remote(agents, None if spoken_to is None else spoken_to.look)


def apply(
    master: Master,
    prepared: Prepared,
    who: Principal,
    expected: Mapping[str, int] | None = None,
) -> Applied:
    """Carry out what was prepared.

    Args:
        master: Whose site.
        prepared: Of `prepare`, just now.
        who: Who wants it.
        expected: The revision of each policy that somebody looked at before, 0 for one that was
            not there; None if nobody did.

    Raises:
        PolicyInvalid: Something is wrong, all of it told.
        EditConflict: Somebody changed a policy meanwhile.
    """
    require_valid(prepared.findings)
    plan = prepared.plan or Plan()
    if expected is not None:
        _require_expected(plan, expected)
    return master.policies.apply(plan, who.name)


def require_valid(findings: Sequence[Finding]) -> None:
    """Refuse what has errors.

    Raises:
        PolicyInvalid: With all of them.
    """
    wrong = errors_of(findings)
    if not wrong:
        return
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    refused = PolicyInvalid(f"{wrong[0].text}{more}", wrong[0].hint)
    refused.faults = tuple((one.where, one.message, one.hint) for one in wrong)
    raise refused


def require_editable(who: Principal, plan: Plan) -> None:
    """Refuse changes of policies that are for clients out of somebody's scope.

    Raises:
        Forbidden: The first of them.
    """
    policies = [*plan.creates, *(one.policy for one in plan.removals)]
    for change in plan.changes:
        policies += [change.old.policy, change.new]
    for policy in policies:
        require_own(who, policy)


def require_own(who: Principal, policy: Policy) -> None:
    """Refuse a policy that is, or may come to be, for clients out of somebody's scope.

    Raises:
        Forbidden: So it is.
    """
    who.require_clients(policy.clients)
    if policy.client_query is not None:
        who.require_all_clients(f"policy '{policy.name}', which has a query for clients")
    if policy.machines is not None:
        who.require_all_clients(f"policy '{policy.name}', which has a query for virtual machines")


def _require_expected(plan: Plan, expected: Mapping[str, int]) -> None:
    found = dict.fromkeys((one.name for one in plan.creates), 0)
    found |= {one.new.name: one.old.revision for one in plan.changes}
    found |= {one.policy.name: one.revision for one in plan.removals}
    for name, revision in found.items():
        if expected.get(name) != revision:
            raise EditConflict(
                f"policy '{name}' is not what it was when the plan was made: nothing was done",
                "make the plan again",
            )
