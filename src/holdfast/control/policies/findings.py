"""What is wrong with a policy, where, and what to do about it.

Must not decide what is wrong: see `document`, `validation` and `live`. Invariant: a finding
names its place in words that a person finds again in the file.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Severity(enum.StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    """What the policy says can't be done: it is refused."""

    WARNING = "warning"
    """It can be done, and is hardly what was meant."""

    INFO = "info"
    """Good to know."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one place of one policy.

    Attributes:
        severity: How much it matters.
        place: ``schedules[1].windows[0]``; empty for the policy as a whole.
        message: One sentence that names the object and the numbers.
        hint: What a person can do about it.
        policy: The policy's name, or ``#3`` for the third of a file if it has none; None for a
            file as a whole.
    """

    severity: Severity
    place: str
    message: str
    hint: str | None = None
    policy: str | None = None

    @property
    def where(self) -> str:
        """The policy and the place: ``policy 'web', schedules[1].windows[0]``."""
        if self.policy is None:
            return self.place
        name = f"policy {self.policy}" if self.policy.startswith("#") else f"policy '{self.policy}'"
        return f"{name}, {self.place}" if self.place else name

    @property
    def text(self) -> str:
        """Place and message on one line."""
        return f"{self.where}: {self.message}" if self.where else self.message


def error(place: str, message: str, hint: str | None = None) -> Finding:
    """A finding for which a policy is refused."""
    return Finding(Severity.ERROR, place, message, hint)


def warning(place: str, message: str, hint: str | None = None) -> Finding:
    """A finding with which a policy works, though hardly as it was meant."""
    return Finding(Severity.WARNING, place, message, hint)


def info(place: str, message: str, hint: str | None = None) -> Finding:
    """A finding that is good to know."""
    return Finding(Severity.INFO, place, message, hint)


def errors_of(findings: Iterable[Finding]) -> list[Finding]:
    """Those for which a policy is refused."""
    return [one for one in findings if one.severity is Severity.ERROR]


def inside(place: str, key: str | int) -> str:
    """The place of a key, or of an item counted from 0, inside of another place."""
    if isinstance(key, int):
        return f"{place}[{key}]"
    return f"{place}.{key}" if place else key


def touch(one: str, other: str) -> bool:
    """Whether one place is the other, or lies inside of it."""
    short, long = sorted((one, other), key=len)
    return not short or (long.startswith(short) and long[len(short) :][:1] in ("", ".", "["))
