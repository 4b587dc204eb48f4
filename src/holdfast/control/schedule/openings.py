"""Windows of a week as stretches of time: when a backup may start.

Must not know of calendars. Invariants: windows that touch are one stretch; a stretch across a
change of clocks has its true length, and one that the change leaves nothing of does not exist.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from holdfast.control.schedule.local_time import to_local, to_utc
from holdfast.control.schedule.schedule import DAY, WEEK, since_midnight

if TYPE_CHECKING:
    from datetime import tzinfo

    from holdfast.control.schedule.schedule import Window

_WEEKS_REMEMBERED = 64


class Span(NamedTuple):
    """A stretch of time in which a backup may start, in UTC.

    Attributes:
        opens: Its first moment.
        closes: The first moment after it; None if it never ends.
    """

    opens: datetime
    closes: datetime | None


class Openings:
    """The windows of a schedule in their zone. Thread-safe."""

    def __init__(self, windows: tuple[Window, ...], zone: tzinfo) -> None:
        self.zone = zone
        self._has_windows = bool(windows)
        self._opens_on = [
            min((one.opens for one in windows if day in one.days), default=None) for day in range(7)
        ]
        self._stretches = _stretches(windows)
        self._weeks: dict[int, tuple[Span, ...]] = {}

    @property
    def always(self) -> bool:
        """Whether there is no moment at which a backup may not start."""
        return not self._stretches

    def opening_on(self, day: date) -> time | None:
        """When the first window of a day opens, in local time; None if none does."""
        return self._opens_on[day.weekday()] if self._has_windows else time()

    def first_on(self, day: date) -> Span | None:
        """From when and until when a backup of a day may start; None if no window opens on it.

        A window that lies in a gap of the clocks gives a span in which nothing can start.
        """
        opens = self.opening_on(day)
        if opens is None:
            return None
        moment = to_utc(datetime.combine(day, opens), self.zone)
        return self.at(moment) or Span(moment, moment)

    def hold(self, local: datetime) -> bool:
        """Whether a window is open at a local time, where no clock is changed."""
        since_monday = local.weekday() * DAY + since_midnight(local.time())
        return self.always or any(
            start <= moment < end
            for moment in (since_monday, since_monday + WEEK)
            for start, end in self._stretches
        )

    def at(self, moment: datetime) -> Span | None:
        """What is left of the span that holds a moment, from that on; None if none does."""
        span = self.following(moment)
        return Span(moment, span.closes) if span.opens <= moment else None

    def following(self, moment: datetime) -> Span:
        """The whole span that holds a moment, else the first after it.

        Where a backup may start at any time, it begins at the moment.
        """
        if self.always:
            return Span(moment, None)
        week = (to_local(moment, self.zone).toordinal() - 1) // 7
        for number in count(week - 1):
            spans = self._week(number)
            for span in spans:
                if span.closes is not None and span.closes > moment:
                    return span if span is not spans[-1] else self._joined(span, number + 1)
        raise AssertionError  # weeks don't end

    def _joined(self, span: Span, number: int) -> Span:
        """Add what the following week begins with, if it touches."""
        following = self._week(number)
        while following and following[0].opens == span.closes:
            span = Span(span.opens, following[0].closes)
            number += 1
            following = self._week(number) if len(following) == 1 else ()
        return span

    def _week(self, number: int) -> tuple[Span, ...]:
        """The spans that open in a week. Ordinals begin with Monday 0001-01-01 as 1."""
        known = self._weeks.get(number)
        if known is not None:
            return known
        monday = datetime.fromordinal(number * 7 + 1)
        found: list[Span] = []
        for start, end in self._stretches:
            opens, closes = to_utc(monday + start, self.zone), to_utc(monday + end, self.zone)
            if found and found[-1].closes == opens:
                # A gap of the clocks can swallow what lies between two windows.
                found[-1] = Span(found[-1].opens, closes)
            elif opens < closes:
                found.append(Span(opens, closes))
        if len(self._weeks) >= _WEEKS_REMEMBERED:
            self._weeks.clear()
        self._weeks[number] = tuple(found)
        return tuple(found)


def _stretches(windows: tuple[Window, ...]) -> tuple[tuple[timedelta, timedelta], ...]:
    """Join windows that touch: from when to when after Monday's midnight each stretch is open.

    Returns nothing where they leave no gap.
    """
    openings = sorted(
        (day * DAY + since_midnight(one.opens), one.length) for one in windows for day in one.days
    )
    if sum((length for _, length in openings), timedelta()) == WEEK:
        return ()
    ends = {(start + length) % WEEK for start, length in openings}
    lengths = dict(openings)
    found = []
    for start, length in openings:
        if start in ends:
            continue
        end = start + length
        while end % WEEK in lengths:
            end += lengths[end % WEEK]
        found.append((start, end))
    return tuple(found)
