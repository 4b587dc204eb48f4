"""Rules of retention: by number, by age, by calendar (grandfather, father, son).

Must not look at images. Invariant: a rule only ever keeps; what no rule keeps may go.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Hashable
    from datetime import datetime, timedelta


class Period(enum.StrEnum):
    """A stretch of the calendar of which the newest image is kept."""

    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    YEARLY = "yearly"

    def key(self, local: datetime) -> Hashable:
        """What all moments of the same period have in common.

        Args:
            local: An aware moment, in the zone whose calendar counts.
        """
        week = local.isocalendar()
        # The hour that a change to winter time repeats is two hours.
        keys: dict[Period, Hashable] = {
            Period.HOURLY: (local.date(), local.hour, local.utcoffset()),
            Period.DAILY: local.date(),
            Period.WEEKLY: (week.year, week.week),
            Period.MONTHLY: (local.year, local.month),
            Period.YEARLY: local.year,
        }
        return keys[self]

    def name_of(self, local: datetime) -> str:
        """The period in words: ``2026-11-21``, ``week 47 of 2026``."""
        week = local.isocalendar()
        names = {
            Period.HOURLY: f"{local:%Y-%m-%d %H}h",
            Period.DAILY: f"{local:%Y-%m-%d}",
            Period.WEEKLY: f"week {week.week} of {week.year}",
            Period.MONTHLY: f"{local:%Y-%m}",
            Period.YEARLY: f"{local:%Y}",
        }
        return names[self]


PERIODS = tuple(Period)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is kept of each source. An image is kept if any of them keeps it.

    Attributes:
        last: The newest so many images.
        within: All that are not older than this.
        hourly: The newest image of each of the last so many hours that have one; and so on.
    """

    last: int = 0
    within: timedelta | None = None
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    def __post_init__(self) -> None:
        for name in ("last", *PERIODS):
            if getattr(self, name) < 0:
                raise Invalid(f"a rule keeps at least none, not {getattr(self, name)} ({name})")
        if self.within is not None and self.within.total_seconds() < 0:
            raise Invalid("a rule can't keep what is younger than nothing")

    @property
    def are_there(self) -> bool:
        """Whether there is any rule; without one, nothing may go."""
        return bool(self.last or self.within or any(self.count(period) for period in PERIODS))

    def count(self, period: Period) -> int:
        """How many periods of a kind have an image kept."""
        found: int = getattr(self, period.value)
        return found
