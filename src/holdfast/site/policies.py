"""Policies of the embedded site: what is wrong with them here.

Must not store anything: see `control.policies`. Invariant: what is refused is refused with all
findings at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dateutil.tz import tzlocal

from holdfast.base.errors import PolicyInvalid
from holdfast.control.policies import (
    DEFAULT_STORAGE_UNIT,
    KnownClients,
    SiteFacts,
    check_live,
    errors_of,
    review,
)
from holdfast.site.probing import SiteProbe, this_client

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.base.ids import PolicyName
    from holdfast.control.policies import Document, Finding
    from holdfast.site.master import Master


def known_clients(master: Master) -> KnownClients:
    """The clients that a policy may name: those of which there are images, and this machine."""
    return KnownClients((*master.policies.known_clients().names, this_client()))


def facts(master: Master) -> SiteFacts:
    """What there is that a policy may name."""
    return SiteFacts(
        clients=known_clients(master),
        storage_units=frozenset({DEFAULT_STORAGE_UNIT}),
        now=master.clock.now(),
        zone=master.settings.zone("site.zone") or tzlocal(),
    )


def examine(
    master: Master, document: Document, *, live: bool, only: frozenset[PolicyName] | None = None
) -> list[Finding]:
    """Say all that is wrong with a document here and now.

    Args:
        master: Whose site.
        document: What was read.
        live: Look at clients and storage as well, for policies that are active and without errors.
        only: Look so at these alone, because the others are what they were.
    """
    site = facts(master)
    found = review(document, site)
    if not live:
        return found
    wrong = {one.policy for one in errors_of(found)}
    probe = SiteProbe(master.site)
    for policy in document.policies:
        if policy.active and policy.name not in wrong and (only is None or policy.name in only):
            found += check_live(policy, site.clients.of(policy), probe)
    return found


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
