"""Policies as rows of the control database.

Must not open transactions: every function runs on the caller's connection. Invariant: a row of
`policies`, the clients that it names and a row of its revision are written together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.clock import from_ns
from holdfast.base.ids import ClientName, PolicyName
from holdfast.control.policies.clients import KnownClients
from holdfast.control.policies.plain import from_plain, to_plain
from holdfast.control.policies.plan import StoredPolicy
from holdfast.control.policies.policy import Policy
from holdfast.control.policies.schema import policies, policy_clients, policy_revisions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

AT_ONCE = 500
"""How many names one statement asks for."""

# The catalog's, of which nothing but the names is wanted here.
_CLIENTS = sa.table("clients", sa.column("name", sa.Text))
# Likewise of those that have joined.
_MACHINES = sa.table(
    "machines",
    sa.column("name", sa.Text),
    sa.column("role", sa.Text),
    sa.column("revoked_ns", sa.BigInteger),
)


class Act(StrEnum):
    """What was done to a policy."""

    CREATED = "created"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Revision:
    """One change of a policy.

    Attributes:
        policy: What it said from then on; of one that was removed, what it said last. None if this
            Holdfast can't read it any more.
        number: Of the policy's name, from 1.
        act: What was done.
        at: When, aware.
        who: By whom.
    """

    policy: Policy | None
    number: int
    act: Act
    at: datetime
    who: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Which policies a list is to have. None means any.

    Attributes:
        text: Part of the name.
        active: Whether they are.
        type: Of this type.
        storage_unit: That write to this one.
        client: That are for this client, by name or by query.
        for_machine: Policies that are for it as a virtual machine, which no column tells.
    """

    text: str | None = None
    active: bool | None = None
    type: str | None = None
    storage_unit: str | None = None
    client: ClientName | None = None
    for_machine: tuple[PolicyName, ...] = ()


@dataclass(frozen=True, slots=True)
class Write:
    """One policy that is made, changed or removed.

    Attributes:
        act: What is done.
        policy: What it says from now on, or what it said last.
        revision: The number of this change.
    """

    act: Act
    policy: Policy
    revision: int


def clients(connection: sa.Connection) -> list[ClientName]:
    """The clients of which there are images."""
    return [ClientName(name) for name in connection.scalars(sa.select(_CLIENTS.c.name))]


def agents(connection: sa.Connection) -> list[ClientName]:
    """The clients that have joined the site by themselves, and are let in."""
    wanted = (_MACHINES.c.role == "agent", _MACHINES.c.revoked_ns.is_(None))
    found = connection.scalars(sa.select(_MACHINES.c.name).where(*wanted))
    return [ClientName(name) for name in found]


def generation(connection: sa.Connection) -> int:
    """A number that is higher after each change of any policy."""
    return connection.scalar(sa.select(sa.func.max(policy_revisions.c.seq))) or 0


def by_name(
    connection: sa.Connection, names: Iterable[PolicyName]
) -> dict[PolicyName, sa.Row[Any]]:
    """The rows of some policies."""
    found: dict[PolicyName, sa.Row[Any]] = {}
    for some in _batches(sorted(set(names))):
        statement = sa.select(policies).where(policies.c.name.in_(some))
        found.update((PolicyName(row.name), row) for row in connection.execute(statement))
    return found


def select(connection: sa.Connection, only: Filter) -> sa.Select[Any]:
    """A query for the policies that a list is to have, by name."""
    statement = sa.select(policies).order_by(policies.c.name)
    if only.text is not None:
        statement = statement.where(policies.c.name.contains(only.text, autoescape=True))
    if only.active is not None:
        statement = statement.where(policies.c.active.is_(only.active))
    if only.type is not None:
        statement = statement.where(policies.c.type == only.type)
    if only.storage_unit is not None:
        statement = statement.where(policies.c.storage_unit == only.storage_unit)
    if only.client is not None:
        named = policies.c.name.in_(only.for_machine)
        statement = statement.where(sa.or_(_for_client(connection, only.client), named))
    return statement


def read(row: sa.Row[Any]) -> StoredPolicy | str:
    """What a row says; in words why it can't be read, if it can't."""
    policy = _read_document(row.document)
    if isinstance(policy, str):
        return policy
    return StoredPolicy(policy, row.revision, from_ns(row.changed_ns), row.changed_by)


def read_or_outline(row: sa.Row[Any]) -> StoredPolicy:
    """What a row says; what its columns tell of it, if it can't be read."""
    found = read(row)
    if not isinstance(found, str):
        return found
    outline = Policy(
        name=PolicyName(row.name),
        type=row.type,
        active=row.active,
        client_query=row.client_query,
        storage_unit=row.storage_unit,
        priority=row.priority,
    )
    return StoredPolicy(outline, row.revision, from_ns(row.changed_ns), row.changed_by, found)


def write(connection: sa.Connection, writes: Sequence[Write], who: str, now_ns: int) -> None:
    """Make, change and remove policies.

    Args:
        connection: Of a write transaction, which lets nobody else write.
        writes: Each name once.
        who: Who does it.
        now_ns: When.
    """
    if not writes:
        return
    seq = generation(connection)
    documents = {one.policy.name: _document(one.policy) for one in writes}
    stay = [one for one in writes if one.act is not Act.REMOVED]
    for some in _batches([one.policy.name for one in writes if one.act is not Act.CREATED]):
        connection.execute(sa.delete(policy_clients).where(policy_clients.c.policy.in_(some)))
        connection.execute(sa.delete(policies).where(policies.c.name.in_(some)))
    rows = [
        {
            "name": one.policy.name,
            "revision": one.revision,
            "type": one.policy.type,
            "active": one.policy.active,
            "priority": one.policy.priority,
            "storage_unit": one.policy.storage_unit,
            "client_query": one.policy.client_query,
            "document": documents[one.policy.name],
            "changed_ns": now_ns,
            "changed_by": who,
        }
        for one in stay
    ]
    clients = [
        {"policy": one.policy.name, "client": client}
        for one in stay
        for client in sorted(set(one.policy.clients))
    ]
    revisions = [
        {
            "seq": seq + number,
            "policy": one.policy.name,
            "revision": one.revision,
            "act": one.act.value,
            "document": documents[one.policy.name],
            "at_ns": now_ns,
            "who": who,
        }
        for number, one in enumerate(writes, start=1)
    ]
    for table, given in (
        (policies, rows),
        (policy_clients, clients),
        (policy_revisions, revisions),
    ):
        if given:
            connection.execute(sa.insert(table), given)


def last_numbers(connection: sa.Connection, names: Iterable[PolicyName]) -> dict[PolicyName, int]:
    """The highest revision that each name ever had."""
    found: dict[PolicyName, int] = {}
    for some in _batches(sorted(set(names))):
        statement = (
            sa.select(policy_revisions.c.policy, sa.func.max(policy_revisions.c.revision))
            .where(policy_revisions.c.policy.in_(some))
            .group_by(policy_revisions.c.policy)
        )
        found.update((PolicyName(name), number) for name, number in connection.execute(statement))
    return found


def revisions(
    connection: sa.Connection, name: PolicyName, limit: int, before: int | None
) -> list[Revision]:
    """Changes of one name, newest first."""
    statement = (
        sa.select(policy_revisions)
        .where(policy_revisions.c.policy == name)
        .order_by(policy_revisions.c.revision.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(policy_revisions.c.revision < before)
    return [_revision(row) for row in connection.execute(statement)]


def last_removed(connection: sa.Connection) -> Iterator[Revision]:
    """Of each name that no policy has any more, what its policy said last."""
    newest = (
        sa.select(
            policy_revisions.c.policy, sa.func.max(policy_revisions.c.revision).label("revision")
        )
        .group_by(policy_revisions.c.policy)
        .subquery()
    )
    statement = (
        sa.select(policy_revisions)
        .join(
            newest,
            sa.and_(
                policy_revisions.c.policy == newest.c.policy,
                policy_revisions.c.revision == newest.c.revision,
            ),
        )
        .where(policy_revisions.c.act == Act.REMOVED.value)
    )
    for row in connection.execute(statement):
        yield _revision(row)


def _revision(row: sa.Row[Any]) -> Revision:
    policy = _read_document(row.document)
    return Revision(
        None if isinstance(policy, str) else policy,
        row.revision,
        Act(row.act),
        from_ns(row.at_ns),
        row.who,
    )


def _for_client(connection: sa.Connection, client: ClientName) -> sa.ColumnElement[bool]:
    named = sa.select(policy_clients.c.policy).where(policy_clients.c.client == client)
    queries = connection.scalars(
        sa.select(policies.c.client_query).where(policies.c.client_query.is_not(None)).distinct()
    )
    only = KnownClients([client])
    fitting = [one for one in queries if only.matching(one)]
    return sa.or_(policies.c.name.in_(named), policies.c.client_query.in_(fitting))


def _document(policy: Policy) -> str:
    return json.dumps(to_plain(policy, whole=True), ensure_ascii=False, separators=(",", ":"))


def _read_document(text: str) -> Policy | str:
    policy, findings = from_plain(json.loads(text))
    if policy is None or findings:
        return "; ".join(f"{one.place}: {one.message}" for one in findings)
    return policy


def _batches(names: Sequence[PolicyName]) -> Iterator[Sequence[PolicyName]]:
    for start in range(0, len(names), AT_ONCE):
        yield names[start : start + AT_ONCE]
