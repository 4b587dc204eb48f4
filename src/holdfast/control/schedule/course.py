"""Occurrences of a calendar, computed once for all that ask.

Must not compute further than it is asked. Invariant: what it says does not depend on what it was
asked before.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from holdfast.control.schedule.local_time import to_local
from holdfast.control.schedule.occurrences import crossed
from holdfast.control.schedule.schedule import DAY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.control.schedule.occurrences import Occurrence
    from holdfast.control.schedule.openings import Openings
    from holdfast.control.schedule.schedule import Calendar

_REMEMBERED = 50_000
_MARGIN = timedelta(days=32)
"""It begins so long before what it is asked, since others will ask for somewhat earlier."""

_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
"""Nothing was due before."""


class Course:
    """The occurrences of a calendar, computed once and as far as they are asked for.

    Schedules that are due at the same moments share one. Not thread-safe.
    """

    def __init__(self, calendar: Calendar, openings: Openings) -> None:
        self._calendar = calendar
        self._openings = openings
        self._known: list[Occurrence] = []
        self._moments: list[datetime] = []
        self._begins = datetime.max.replace(tzinfo=UTC)
        self._rest: Iterator[Occurrence] = iter(())

    def after(self, moment: datetime) -> Occurrence | None:
        """The first that opens after a moment; None if there is no further one."""
        place = self._place_after(moment)
        return self._known[place] if place < len(self._known) else None

    def between(self, after: datetime, until: datetime) -> list[Occurrence]:
        """Those that open after a moment, and not after another one."""
        if until <= after:
            return []
        self._place_after(after)
        end = self._place_after(until)
        return self._known[bisect_right(self._moments, after) : end]

    def _place_after(self, moment: datetime) -> int:
        if moment < self._begins:
            self._begin(moment)
        while not self._moments or self._moments[-1] <= moment:
            following = next(self._rest, None)
            if following is None:
                break
            self._known.append(following)
            self._moments.append(following.opens)
        if len(self._moments) > 2 * _REMEMBERED:
            self._forget(bisect_right(self._moments, moment) - _REMEMBERED)
        return bisect_right(self._moments, moment)

    def _begin(self, moment: datetime) -> None:
        start = max(moment, _EARLIEST) - _MARGIN
        self._begins = min(moment, start)
        first = to_local(start, self._openings.zone).date() - DAY
        self._known, self._moments = [], []
        self._rest = crossed(self._calendar, self._openings, first)

    def _forget(self, count: int) -> None:
        if count > 0:
            self._begins = self._moments[count - 1]
            del self._known[:count], self._moments[:count]
