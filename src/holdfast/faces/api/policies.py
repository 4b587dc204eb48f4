"""Policies: what is protected, when, where to, and how long it is kept."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from holdfast.base.errors import PolicyMissing
from holdfast.base.ids import ClientName, PolicyName
from holdfast.control.access import Principal, Verb
from holdfast.control.policies import Filter, Policy, StoredPolicy
from holdfast.faces.api.door import TheMaster, make_router, may
from holdfast.faces.api.models import Page
from holdfast.faces.api.paging import Pages
from holdfast.faces.api.policy_models import (
    LookedAt,
    NamedPolicy,
    PolicyDetail,
    PolicyRow,
    RevisionRow,
)
from holdfast.site import policies as site_policies
from holdfast.site.master import Master

router = make_router("Policies")

Viewer = Annotated[Principal, may(Verb.SEE)]
Editor = Annotated[Principal, may(Verb.EDIT_POLICIES)]
_TEXT = r"^[^\x00]+$"


@router.get("/policies")
def list_policies(
    who: Viewer,
    master: TheMaster,
    pages: Pages,
    text: Annotated[
        str | None, Query(pattern=_TEXT, max_length=63, description="Part of the name.")
    ] = None,
    active: Annotated[bool | None, Query(description="Those that start by themselves.")] = None,
    type_: Annotated[
        str | None, Query(alias="type", pattern=_TEXT, description="Of this type.")
    ] = None,
    storage_unit: Annotated[
        str | None, Query(pattern=_TEXT, description="That write to this storage unit.")
    ] = None,
    client: Annotated[
        str | None, Query(pattern=_TEXT, description="That are for this client.")
    ] = None,
) -> Page[PolicyRow]:
    """The policies that you see, by name."""
    if client is not None and not who.sees(client):
        return Page(items=[], next_cursor=None)
    of = None if client is None else ClientName(client)
    for_machine = () if of is None else site_policies.for_machine(master, of)
    only = Filter(text, active, type_, storage_unit, of, for_machine)
    after = pages.after(str)
    last = None if after is None else PolicyName(str(after[0]))
    found: list[StoredPolicy] = []
    while len(found) < pages.fetch:
        rows = master.policies.page(limit=pages.fetch, after=last, only=only)
        found += [row for row in rows if _sees(who, master, row.policy)]
        if len(rows) < pages.fetch:
            break
        last = rows[-1].policy.name
    return pages.page(
        found[: pages.fetch],
        key=lambda row: (row.policy.name,),
        show=lambda row: PolicyRow.of(row, who),
    )


@router.get("/policies/{name}")
def read_policy(who: Viewer, master: TheMaster, name: NamedPolicy) -> PolicyDetail:
    """One policy."""
    return _detail(who, master, _seen(who, master, name))


@router.get("/policies/{name}/revisions")
def list_revisions(
    who: Viewer, master: TheMaster, name: NamedPolicy, pages: Pages
) -> Page[RevisionRow]:
    """What was done to a policy, and to others that had its name, newest first.

    Of a policy that was removed too; that takes somebody who sees all clients.
    """
    try:
        policy = _seen(who, master, name).policy
        if not all(who.sees(client) for client in policy.clients):
            who.require_all_clients(f"what policy '{name}' was before")
    except PolicyMissing:
        if not who.sees_all_clients:
            raise
    after = pages.after(int)
    before = None if after is None else int(after[0] or 0)
    rows = master.policies.revisions(PolicyName(name), limit=pages.fetch, before=before)
    if not rows and before is None:
        raise PolicyMissing(f"there never was a policy '{name}'")
    return pages.page(
        rows, key=lambda row: (row.number,), show=lambda row: RevisionRow.of(row, who)
    )


@router.post("/policies/{name}/activate")
def activate_policy(
    who: Editor, master: TheMaster, name: NamedPolicy, revision: LookedAt = None
) -> PolicyDetail:
    """Let a policy start backups by itself."""
    return _set_active(who, master, name, revision, active=True)


@router.post("/policies/{name}/deactivate")
def deactivate_policy(
    who: Editor, master: TheMaster, name: NamedPolicy, revision: LookedAt = None
) -> PolicyDetail:
    """Let a policy start nothing by itself. Its images are kept as before."""
    return _set_active(who, master, name, revision, active=False)


@router.delete("/policies/{name}", status_code=204)
def remove_policy(
    who: Editor, master: TheMaster, name: NamedPolicy, revision: LookedAt = None
) -> None:
    """Remove a policy. Its images stay, and go by the rules that it had."""
    site_policies.require_own(who, _seen(who, master, name).policy)
    master.policies.remove(PolicyName(name), who.name, revision)


def _set_active(
    who: Principal, master: Master, name: str, revision: int | None, *, active: bool
) -> PolicyDetail:
    site_policies.require_own(who, _seen(who, master, name).policy)
    stored = master.policies.set_active(PolicyName(name), active, who.name, revision)
    return _detail(who, master, stored)


def _detail(who: Principal, master: Master, stored: StoredPolicy) -> PolicyDetail:
    return PolicyDetail.of(stored, site_policies.clients_of(master, stored.policy), who)


def _seen(who: Principal, master: Master, name: str) -> StoredPolicy:
    stored = master.policies.get(PolicyName(name))
    if not _sees(who, master, stored.policy):
        # That it is there is nobody's business who may not see it.
        raise PolicyMissing(f"there is no policy '{name}'")
    return stored


def _sees(who: Principal, master: Master, policy: Policy) -> bool:
    if who.sees_all_clients:
        return True
    return any(who.sees(client) for client in site_policies.clients_of(master, policy))
