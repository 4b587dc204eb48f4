"""The moments at which a schedule is due: its calendar crossed with its windows, or its distance.

Must not know of sources or history. Invariants: occurrences come in order and no two open at
the same moment; one can start from its opening until just before its closing, and all of that
lies in windows. A day is due when the first window opens on it, a time when it comes if a window
is open then; windows never make more occurrences of a calendar.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from holdfast.control.schedule.days import Patience, beginning_of, days_of
from holdfast.control.schedule.local_time import to_local, to_utc
from holdfast.control.schedule.openings import Openings, Span
from holdfast.control.schedule.schedule import DAY, GREATEST_DISTANCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

    from holdfast.control.schedule.days import CalendarDay
    from holdfast.control.schedule.schedule import Calendar, Schedule, Window

_SAMPLE = 60
"""So many occurrences tell how far apart they usually are."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A moment at which a schedule is due.

    Attributes:
        opens: The moment, in UTC; what names the occurrence.
        closes: From when on it can't start any more; None if it always can.
    """

    opens: datetime
    closes: datetime | None


def zone_of(schedule: Schedule, site_zone: tzinfo) -> tzinfo:
    """The zone whose clocks and calendar count for a schedule."""
    return site_zone if schedule.zone is None else ZoneInfo(schedule.zone)


def occurrences(
    schedule: Schedule,
    site_zone: tzinfo,
    since: datetime,
    until: datetime,
    last_start: datetime | None = None,
) -> Iterator[Occurrence]:
    """The moments in a stretch of time at which a schedule is due, in order.

    Args:
        schedule: Whose.
        site_zone: The zone of the site, for schedules that name none.
        since: From this moment on, aware.
        until: Before this moment, aware.
        last_start: When a backup by `every` started last, aware; each further one is supposed to
            start when it is due. Without it, or where it is too long ago, the first is due at
            once.
    """
    openings = Openings(schedule.windows, zone_of(schedule, site_zone))
    since, until = since.astimezone(UTC), until.astimezone(UTC)
    if schedule.calendar is not None:
        first, last = (to_local(moment, openings.zone).date() for moment in (since, until))
        found = crossed(schedule.calendar, openings, first - DAY, last + DAY)
    else:
        every = schedule.every or DAY
        start = since if last_start is None else last_start.astimezone(UTC) + every
        found = _repeated(every, openings, max(start, since))
    for one in found:
        if one.opens >= until:
            return
        if one.opens >= since:
            yield one


def crossed(
    calendar: Calendar, openings: Openings, first: date, last_day: date = date.max
) -> Iterator[Occurrence]:
    """The occurrences of a calendar in the openings of windows, in order.

    Ends where nothing came for so long that nothing will.

    Args:
        calendar: Says how often.
        openings: Say when on those days.
        first: The first local day that is looked at.
        last_day: The last one.
    """
    patience = Patience(first)
    last = datetime.min.replace(tzinfo=UTC)
    for day in days_of(calendar, first):
        if day.day > last_day:
            return
        found = sorted(_on(day, openings), key=lambda span: span.opens)
        if not found and patience.is_over(day.day, day.looked_at):
            return
        for opens, closes in found:
            # A change of clocks can make one moment of several local times.
            if opens > last:
                patience.found(day.day)
                last = opens
                yield Occurrence(opens, closes)


def _on(day: CalendarDay, openings: Openings) -> Iterator[Span]:
    if day.whole:
        span = openings.first_on(day.day)
        if span is not None:
            yield span
    for local in day.times:
        if openings.hold(local):
            moment = to_utc(local, openings.zone)
            # In a gap of the clocks, the window may be over when the time comes.
            yield openings.at(moment) or Span(moment, moment)


def _repeated(every: timedelta, openings: Openings, start: datetime) -> Iterator[Occurrence]:
    while True:
        span = openings.following(start)
        opens = max(start, span.opens)
        yield Occurrence(opens, span.closes)
        start = opens + every


@lru_cache(maxsize=4096)
def is_ever_due(calendar: Calendar, windows: tuple[Window, ...]) -> bool:
    """Whether anything of a calendar is left by its exceptions and lies in windows."""
    openings = Openings(windows, UTC)
    return next(crossed(calendar, openings, beginning_of(calendar)), None) is not None


@lru_cache(maxsize=4096)
def usual_distance(calendar: Calendar) -> timedelta:
    """How far apart the occurrences of a calendar usually are, without regard to windows."""
    first = beginning_of(calendar)
    found = crossed(calendar, Openings((), UTC), first)
    moments = [one.opens for one in islice(found, _SAMPLE)]
    if len(moments) < 2:
        return GREATEST_DISTANCE
    return (moments[-1] - moments[0]) / (len(moments) - 1)
