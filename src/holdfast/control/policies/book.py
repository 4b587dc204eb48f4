"""The policies of a site in the control database, with everything that they ever said.

Must not judge policies (see `validation`): what is given here is stored. Invariants: a plan is
carried out whole or not at all; what somebody else changed meanwhile is never undone, it is a
conflict; what is as it should be already is left alone, so a plan may be carried out twice; each
change keeps who made it, when, and what was there before.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast.base.errors import CatalogError, EditConflict, PolicyMissing
from holdfast.base.ids import PolicyName
from holdfast.control.policies import rows
from holdfast.control.policies.clients import KnownClients
from holdfast.control.policies.plan import Change, Plan, StoredPolicy, field_changes, make_plan
from holdfast.control.policies.rows import Act, Filter, Revision, Write
from holdfast.control.policies.schema import policies

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from holdfast.base.clock import Clock
    from holdfast.base.ids import ClientName
    from holdfast.control.database import Database
    from holdfast.control.policies.policy import Policy

_NAMED = 3
"""So many policies are named where there may be thousands."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done of a plan; the rest of it was so already."""

    created: tuple[PolicyName, ...] = ()
    changed: tuple[PolicyName, ...] = ()
    removed: tuple[PolicyName, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All policies of a site at one moment.

    Attributes:
        generation: Another one at another moment, if anything was changed between.
        policies: By name.
        unreadable: What this Holdfast can't read of what another one wrote, and why: such as a
            time zone that this machine does not know.
    """

    generation: int
    policies: dict[PolicyName, StoredPolicy]
    unreadable: dict[PolicyName, str]


class PolicyBook:
    """The policies of one site. Thread-safe."""

    def __init__(
        self, database: Database, clock: Clock, own_clients: Iterable[ClientName] = ()
    ) -> None:
        """Prepare.

        Args:
            database: Where they are.
            clock: Tells when they are changed.
            own_clients: Clients that are known though there are no images of them yet: without
                them, a query would never come to the first.
        """
        self._database = database
        self._clock = clock
        self._own_clients = tuple(own_clients)
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None

    def get(self, name: PolicyName) -> StoredPolicy:
        """One policy.

        Raises:
            PolicyMissing: There is none of this name.
            CatalogError: This Holdfast can't read it.
        """
        with self._database.read() as connection:
            row = rows.by_name(connection, [name]).get(name)
        return _there(name, row)

    def page(
        self, *, limit: int, after: PolicyName | None = None, only: Filter | None = None
    ) -> list[StoredPolicy]:
        """Some policies by name; those after one.

        Of what can't be read there is as much as the database's columns tell, and why.
        """
        with self._database.read() as connection:
            statement = rows.select(connection, only or Filter()).limit(limit)
            if after is not None:
                statement = statement.where(policies.c.name > after)
            return [rows.read_or_outline(row) for row in connection.execute(statement)]

    def snapshot(self) -> Snapshot:
        """All policies. Cheap while nothing is changed: one small question to the database."""
        with self._lock:
            with self._database.read() as connection:
                generation = rows.generation(connection)
                known = self._snapshot
                if known is not None and known.generation == generation:
                    return known
                found = connection.execute(sa.select(policies).order_by(policies.c.name)).all()
            self._snapshot = _snapshot(generation, found, known)
            return self._snapshot

    def revisions(
        self, name: PolicyName, *, limit: int, before: int | None = None
    ) -> list[Revision]:
        """What was done to a policy, and to others that had its name, newest first.

        Args:
            name: Whose.
            limit: How many at most.
            before: Only those with lower numbers.
        """
        with self._database.read() as connection:
            return rows.revisions(connection, name, limit, before)

    def last_known(self) -> dict[PolicyName, Policy]:
        """What each policy says, and each that was removed said last: images of it are there."""
        found = {name: one.policy for name, one in self.snapshot().policies.items()}
        with self._database.read() as connection:
            for removed in rows.last_removed(connection):
                if removed.policy is not None:
                    found.setdefault(removed.policy.name, removed.policy)
        return found

    def known_clients(self) -> KnownClients:
        """The clients of which the site has had images, those that joined it, and its own."""
        with self._database.read() as connection:
            known = (*rows.clients(connection), *rows.agents(connection), *self._own_clients)
        return KnownClients(known)

    def plan(self, wanted: Sequence[Policy], *, prune: bool = False) -> Plan:
        """Compare policies with what is stored; see `make_plan`."""
        return make_plan(self.snapshot().policies, wanted, prune=prune)

    def apply(self, plan: Plan, who: str) -> Applied:
        """Carry out a plan, whole or not at all.

        Args:
            plan: Made of what was stored then.
            who: Who wants it.

        Raises:
            EditConflict: Somebody else changed a policy of it meanwhile to something else.
        """
        named = [one.name for one in plan.creates]
        named += [one.new.name for one in plan.changes]
        named += [one.policy.name for one in plan.removals]
        with self._database.write() as connection:
            there = {name: rows.read(row) for name, row in rows.by_name(connection, named).items()}
            last = rows.last_numbers(connection, named)
            writes, conflicts = _writes(plan, there, last)
            if conflicts:
                raise _conflict(conflicts)
            rows.write(connection, writes, who, self._clock.now_ns())
        done = {act: tuple(one.policy.name for one in writes if one.act is act) for act in Act}
        return Applied(done[Act.CREATED], done[Act.CHANGED], done[Act.REMOVED])

    def remove(self, name: PolicyName, who: str, revision: int | None = None) -> None:
        """Remove a policy. Its images stay, and go by the rules that it had.

        Args:
            name: Which.
            who: Who wants it.
            revision: The one that was looked at; None for whichever there is.

        Raises:
            PolicyMissing: There is none of this name.
            EditConflict: It was changed since.
        """
        stored = self._looked_at(name, revision)
        self.apply(Plan(removals=(stored,)), who)

    def set_active(
        self, name: PolicyName, active: bool, who: str, revision: int | None = None
    ) -> StoredPolicy:
        """Let a policy start backups by itself, or not; see `remove`."""
        stored = self._looked_at(name, revision)
        new = replace(stored.policy, active=active)
        if new != stored.policy:
            change = Change(stored, new, field_changes(stored.policy, new))
            self.apply(Plan(changes=(change,)), who)
        return self.get(name)

    def _looked_at(self, name: PolicyName, revision: int | None) -> StoredPolicy:
        stored = self.get(name)
        if revision is not None and revision != stored.revision:
            raise _conflict([_changed(stored)])
        return stored


def _snapshot(generation: int, found: Sequence[sa.Row[Any]], known: Snapshot | None) -> Snapshot:
    before = {} if known is None else known.policies
    readable: dict[PolicyName, StoredPolicy] = {}
    unreadable: dict[PolicyName, str] = {}
    for row in found:
        name = PolicyName(row.name)
        old = before.get(name)
        # A name's revisions are never given twice.
        read = old if old is not None and old.revision == row.revision else rows.read(row)
        if isinstance(read, str):
            unreadable[name] = read
        else:
            readable[name] = read
    return Snapshot(generation, readable, unreadable)


def _there(name: PolicyName, row: sa.Row[Any] | None) -> StoredPolicy:
    if row is None:
        raise PolicyMissing(f"there is no policy '{name}'")
    found = rows.read(row)
    if isinstance(found, str):
        raise CatalogError(
            f"policy '{name}' can't be read by this Holdfast: {found}",
            "correct that, or give the policy anew with: holdfast policy apply",
        )
    return found


def _writes(
    plan: Plan, there: dict[PolicyName, StoredPolicy | str], last: dict[PolicyName, int]
) -> tuple[list[Write], list[str]]:
    """What is left to do of a plan, and what is in its way."""
    writes: list[Write] = []
    conflicts: list[str] = []
    wanted: list[tuple[Policy, int | None]] = [(one, None) for one in plan.creates]
    wanted += [(one.new, one.old.revision) for one in plan.changes]
    for policy, revision in wanted:
        found = there.get(policy.name)
        number = last.get(policy.name, 0) + 1
        if found is None and revision is None:
            writes.append(Write(Act.CREATED, policy, number))
        elif found is None:
            conflicts.append(f"policy '{policy.name}' was removed")
        elif isinstance(found, str):
            # Nobody can have looked at it; to write it anew is the way out.
            writes.append(Write(Act.CHANGED, policy, number))
        elif found.policy == policy:
            continue
        elif found.revision == revision:
            writes.append(Write(Act.CHANGED, policy, number))
        else:
            conflicts.append(_changed(found))
    for stored in plan.removals:
        found = there.get(stored.policy.name)
        if isinstance(found, StoredPolicy) and found.revision != stored.revision:
            conflicts.append(_changed(found))
        elif found is not None:
            number = last[stored.policy.name] + 1
            writes.append(Write(Act.REMOVED, stored.policy, number))
    return writes, conflicts


def _changed(stored: StoredPolicy) -> str:
    return (
        f"policy '{stored.policy.name}' was changed by {stored.changed_by} at "
        f"{stored.changed_at:%Y-%m-%d %H:%M:%S} UTC (revision {stored.revision})"
    )


def _conflict(conflicts: Sequence[str]) -> EditConflict:
    more = f", and {len(conflicts) - _NAMED:,} more" if len(conflicts) > _NAMED else ""
    return EditConflict(f"{'; '.join(conflicts[:_NAMED])}{more}: nothing was done")
