"""What is wrong with the clients that a policy names, or with its query for them.

Pure. Must not look at clients.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from holdfast.control.policies.clients import globs
from holdfast.control.policies.findings import Finding, error, inside, warning
from holdfast.control.policies.reading import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.control.policies.policy import Policy
    from holdfast.control.policies.validation import SiteFacts


def check_clients(policy: Policy, site: SiteFacts) -> Iterator[Finding]:
    """Look for clients that there are not, and for queries that name none."""
    if policy.client_query is None:
        if not policy.clients:
            hint = 'write clients = ["web1"], or client_query = "web*"'
            yield error("clients", "it is for no client", hint)
        yield from _names(policy, site)
        return
    if policy.clients:
        message = "there are clients and a client_query, and a policy has one of them"
        yield error("client_query", message, "a name without '*' is a query as well")
    parts = globs(policy.client_query)
    if not all(part.removeprefix("!") for part in parts) or all(one[:1] == "!" for one in parts):
        hint = "write for example 'web*' or 'web*,db*,!web-test'"
        yield error("client_query", f"'{shown(policy.client_query)}' names no client", hint)
    elif not site.clients.matching(policy.client_query):
        message = f"it names none of the known clients ({len(site.clients):,})"
        yield warning("client_query", message, "it will be for those that join later")


def _names(policy: Policy, site: SiteFacts) -> Iterator[Finding]:
    seen = set()
    for number, name in enumerate(policy.clients):
        place = inside("clients", number)
        if name in seen:
            yield warning(place, f"client '{name}' is named twice", "leave one of them out")
        elif name not in site.clients:
            near = get_close_matches(name, site.clients.names, n=1)
            message = f"no client '{shown(name)}' is known"
            hint = (
                f"did you mean '{near[0]}'?"
                if near
                else "join it first, or make the policy inactive until then"
            )
            # What is written down for machines that are yet to come is not in anybody's way.
            yield error(place, message, hint) if policy.active else warning(place, message, hint)
        seen.add(name)
