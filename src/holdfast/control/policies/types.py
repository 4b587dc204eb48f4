"""The types of policies: what a selection of each means, and what may be asked of it.

Must not list them: a type registers itself, and nothing else has to know it. Invariant: a name
stands for one type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from holdfast.base.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holdfast.control.policies.findings import Finding
    from holdfast.control.policies.policy import Policy
    from holdfast.control.policies.validation import SiteFacts
    from holdfast.control.schedule import BackupKind


class PolicyType(Protocol):
    """One type of policies."""

    @property
    def name(self) -> str:
        """What a policy says to be of this type."""
        ...

    @property
    def summary(self) -> str:
        """What it protects, in words that go on after "protects"."""
        ...

    @property
    def kinds(self) -> frozenset[BackupKind]:
        """The kinds of backup that its schedules may ask for."""
        ...

    def check(self, policy: Policy, site: SiteFacts) -> Iterable[Finding]:
        """What is wrong with a policy of this type, and with no other; see `validation`."""
        ...


class PolicyTypes:
    """Types by name."""

    def __init__(self) -> None:
        self._types: dict[str, PolicyType] = {}

    def register(self, one: PolicyType) -> None:
        """Make a type known.

        Raises:
            InternalError: There is another of its name.
        """
        if self._types.setdefault(one.name, one) is not one:
            raise InternalError(f"there are two types of policies called '{one.name}'")

    def get(self, name: str) -> PolicyType | None:
        """The type of a name, None if there is none."""
        return self._types.get(name)

    def __iter__(self) -> Iterator[PolicyType]:
        return iter(sorted(self._types.values(), key=lambda one: one.name))


TYPES = PolicyTypes()
"""Those of this program."""
