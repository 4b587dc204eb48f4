"""What a document would change: policies made, changed field by field, removed, left as they are.

Pure. Must not change anything: `book` carries a plan out. Invariant: a plan names the revision of
each policy that it was made of, so that it never undoes what somebody did meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.control.policies.findings import inside
from holdfast.control.policies.plain import to_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from holdfast.base.ids import PolicyName
    from holdfast.control.policies.policy import Policy


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A policy as the book has it.

    Attributes:
        policy: What it says.
        revision: Counts the changes of everything that ever had its name, from 1.
        changed_at: When it was changed last, aware.
        changed_by: By whom.
        unreadable: Why this Holdfast can't read it, if it can't: then the policy is an outline.
    """

    policy: Policy
    revision: int
    changed_at: datetime
    changed_by: str
    unreadable: str | None = None


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of a policy that changes.

    Attributes:
        place: ``priority``, ``schedules[nightly].windows``.
        old: What it was, as plain data; None if it was not there.
        new: What it will be; None if it will not be there.
    """

    place: str
    old: object
    new: object


@dataclass(frozen=True, slots=True)
class Change:
    """A policy that becomes another."""

    old: StoredPolicy
    new: Policy
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done.

    Attributes:
        creates: Policies that are new.
        changes: Policies that become others.
        removals: Policies that go.
        unchanged: Policies that are as they should be.
        others: Policies that the document does not name, and that stay.
    """

    creates: tuple[Policy, ...] = ()
    changes: tuple[Change, ...] = ()
    removals: tuple[StoredPolicy, ...] = ()
    unchanged: tuple[PolicyName, ...] = ()
    others: tuple[PolicyName, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.creates or self.changes or self.removals)


def make_plan(
    stored: Mapping[PolicyName, StoredPolicy], wanted: Sequence[Policy], *, prune: bool = False
) -> Plan:
    """Compare what is with what should be.

    Args:
        stored: All policies of the site.
        wanted: Those of a document, each name once.
        prune: Remove those that the document does not name.
    """
    creates: list[Policy] = []
    changes: list[Change] = []
    unchanged: list[PolicyName] = []
    for policy in wanted:
        old = stored.get(policy.name)
        if old is None:
            creates.append(policy)
        elif old.policy == policy:
            unchanged.append(policy.name)
        else:
            changes.append(Change(old, policy, field_changes(old.policy, policy)))
    named = {policy.name for policy in wanted}
    others = sorted(name for name in stored if name not in named)
    return Plan(
        creates=tuple(creates),
        changes=tuple(changes),
        removals=tuple(stored[name] for name in others) if prune else (),
        unchanged=tuple(unchanged),
        others=() if prune else tuple(others),
    )


def field_changes(old: Policy, new: Policy) -> tuple[FieldChange, ...]:
    """What differs between two policies of one name, in the order of a document."""
    return tuple(_tables("", to_plain(old, whole=True), to_plain(new, whole=True)))


def _tables(place: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[FieldChange]:
    for key in [*old, *(key for key in new if key not in old)]:
        yield from _values(inside(place, key), old.get(key), new.get(key))


def _values(place: str, old: Any, new: Any) -> Iterator[FieldChange]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _tables(place, old, new)
    elif _has_names(old) and _has_names(new):
        yield from _named(place, old, new)
    else:
        yield FieldChange(place, old, new)


def _named(
    place: str, old: list[dict[str, Any]], new: list[dict[str, Any]]
) -> Iterator[FieldChange]:
    before, after = _by_name(old), _by_name(new)
    for name in [*before, *(name for name in after if name not in before)]:
        yield from _values(f"{place}[{name}]", before.get(name), after.get(name))
    stay = [name for name in before if name in after]
    order = [name for name in after if name in before]
    if stay != order:
        yield FieldChange(place, stay, order)


def _has_names(value: object) -> bool:
    """Whether a value is a list of tables that can be told apart by their names."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        return False
    return len(_by_name(value)) == len(value)


def _by_name(tables: Iterable[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    return {one.get("name"): one for one in tables}
