"""Rules of retention as plain data, for messages and requests.

Must not judge. Invariant: what `to_plain` wrote, `from_plain` reads as the same rules.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from holdfast.control.retention import PERIODS, Rules

if TYPE_CHECKING:
    from collections.abc import Mapping

WITHIN = "within_s"

_COUNTS = ("last", *(period.value for period in PERIODS))


def to_plain(rules: Rules) -> dict[str, float]:
    """Rules by name: numbers of images, and a duration in seconds."""
    plain: dict[str, float] = {name: count for name in _COUNTS if (count := getattr(rules, name))}
    if rules.within is not None:
        plain[WITHIN] = rules.within.total_seconds()
    return plain


def from_plain(plain: Mapping[str, float]) -> Rules:
    """The rules.

    Raises:
        Invalid: A rule would keep less than nothing.
    """
    counts = {name: int(plain[name]) for name in _COUNTS if name in plain}
    within = timedelta(seconds=plain[WITHIN]) if WITHIN in plain else None
    return Rules(within=within, **counts)
