"""The days of a calendar, and the times on them that its rules name.

Must not know of zones or windows. Invariant: days come in order, each once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from heapq import merge
from itertools import groupby, repeat
from typing import TYPE_CHECKING

from holdfast.control.schedule.recurrence import ANCHOR, recurrence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holdfast.control.schedule.schedule import Calendar

PATIENCE = timedelta(days=365 * 60)
"""What gives nothing for so long gives nothing any more."""

PATIENCE_COUNT = 500_000
"""And what gives nothing so many times over, for the sake of rules that fire each minute."""


@dataclass(frozen=True, slots=True)
class CalendarDay:
    """A day that rules or dates of a calendar name.

    Attributes:
        day: Which.
        whole: Whether the day itself is named, without a time.
        times: Local moments on it that are named, in order.
        looked_at: How many moments were named before exceptions took some away.
    """

    day: date
    whole: bool
    times: tuple[datetime, ...]
    looked_at: int


def days_of(calendar: Calendar, first: date) -> Iterator[CalendarDay]:
    """All days that a calendar names, in order, those of which exceptions leave nothing too.

    An exception without a time takes away a whole day with all times on it; one with a time
    takes away that time.

    Args:
        calendar: Rules, dates and exceptions.
        first: Where to begin.
    """
    named = merge(
        *_rules(calendar.rules, first),
        ((datetime.combine(day, time()), False) for day in sorted(set(calendar.dates))),
    )
    taken_days = _Following(_only(calendar.except_rules, first, timed=False))
    taken_times = _Following(_only(calendar.except_rules, first, timed=True))
    for day, moments in groupby(named, lambda one: one[0].date()):
        found = list(moments)
        if day < first:
            continue
        if day in calendar.except_dates or taken_days.has(datetime.combine(day, time())):
            yield CalendarDay(day, whole=False, times=(), looked_at=len(found))
            continue
        whole = not all(is_time for _, is_time in found)
        times = sorted({moment for moment, is_time in found if is_time})
        left = tuple(moment for moment in times if not taken_times.has(moment))
        yield CalendarDay(day, whole, left, len(found))


def beginning_of(calendar: Calendar) -> date:
    """A day before which a calendar names nothing that counts."""
    return min((ANCHOR.date(), *calendar.dates))


class Patience:
    """Tells when a search that finds nothing has gone on for long enough."""

    def __init__(self, start: date) -> None:
        self._since = start
        self._count = 0

    def found(self, day: date) -> None:
        """Begin anew: something was found."""
        self._since = day
        self._count = 0

    def is_over(self, day: date, looked_at: int) -> bool:
        """Count what was looked at in vain."""
        self._count += looked_at
        return day - self._since > PATIENCE or self._count > PATIENCE_COUNT


def _rules(texts: Iterable[str], first: date) -> Iterator[Iterator[tuple[datetime, bool]]]:
    for text in texts:
        rule = recurrence(text)
        yield zip(rule.moments(first), repeat(rule.is_timed))


def _only(texts: Iterable[str], first: date, *, timed: bool) -> Iterator[datetime]:
    rules = [rule for rule in map(recurrence, texts) if rule.is_timed == timed]
    return merge(*(rule.moments(first) for rule in rules))


class _Following:
    """Moments in order that are asked, in order, whether they hold others."""

    def __init__(self, moments: Iterator[datetime]) -> None:
        self._moments = moments
        self._next = next(moments, None)

    def has(self, moment: datetime) -> bool:
        while self._next is not None and self._next < moment:
            self._next = next(self._moments, None)
        return self._next == moment
