"""When schedules are due, for many sources alike: by a calendar, or some time after the last start.

Must not know of policies. Invariant: schedules that are due at the same moments share what was
computed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

from holdfast.control.schedule.course import Course
from holdfast.control.schedule.occurrences import zone_of
from holdfast.control.schedule.openings import Openings, Span
from holdfast.control.schedule.standing import LATE, TICK, Standing

if TYPE_CHECKING:
    from collections.abc import Hashable
    from datetime import tzinfo

    from holdfast.control.schedule.occurrences import Occurrence
    from holdfast.control.schedule.schedule import Schedule
    from holdfast.control.schedule.standing import Pattern, State


_ALIKE = 100_000
"""So many answers are kept, for the moment that is asked about."""

_FLOORS = 10_000
"""For so many moments until which something was handled it is kept what they have in common."""

_LAST = datetime.max.replace(tzinfo=UTC)


class _Slot(NamedTuple):
    """An occurrence, and over how many seconds from its opening sources are spread."""

    opens: datetime
    closes: datetime | None
    spread_s: float

    def ready(self, share: float) -> datetime:
        """When a source starts."""
        if not self.spread_s:
            return self.opens
        return self.opens + timedelta(0, int(self.spread_s * share))


class _Facts(NamedTuple):
    """What all sources have in common of which as much was handled.

    Attributes:
        come: Occurrences whose time has come, and that were not handled.
        following: The first whose time has not come.
        until: Before this moment that is so, if nothing has come.
        waits: Where sources stand for which nothing has come, by their shares.
    """

    come: tuple[_Slot, ...]
    following: _Slot | None
    until: datetime
    waits: dict[float, Standing]

    def wait(self, share: float) -> Standing:
        """Nothing has come: that looks the same until something does."""
        standing = self.waits.get(share)
        if standing is None:
            wake = None if self.following is None else self.following.ready(share)
            standing = self.waits[share] = _nothing(wake)
        return standing


def _slot(opens: datetime, closes: datetime | None, stagger: timedelta) -> _Slot:
    spread = stagger if closes is None else min(stagger, closes - opens)
    return _Slot(opens, closes, spread.total_seconds())


class CalendarPattern:
    """Schedules of one calendar."""

    def __init__(
        self, course: Course, openings: Openings, stagger: timedelta, *, run_missed: bool
    ) -> None:
        self.run_missed = run_missed
        self._course = course
        self._openings = openings
        self._stagger = stagger
        self._now: datetime | None = None
        self._facts_at: datetime | None = None
        self._windows: dict[datetime, _Slot] = {}
        self._facts: dict[datetime, _Facts] = {}
        self._quiet: dict[datetime, _Facts] = {}
        self._alike: dict[tuple[datetime, datetime, float], Standing] = {}

    def look(self, state: State, now: datetime, share: float) -> Standing:
        """Tell where it stands; what many sources have in common is found out once."""
        floor = state.floor
        if not self._stagger:
            share = 0.0
        quiet = self._quiet.get(floor)
        if quiet is not None and now < quiet.until:
            return quiet.wait(share)
        if self._now is None or now > self._now or len(self._alike) > _ALIKE:
            self._now = now
            self._windows.clear()
            self._alike.clear()
        key = now, floor, share
        standing = self._alike.get(key)
        if standing is None:
            standing = self._alike[key] = self._look(floor, now, share)
        return standing

    def chance(self, now: datetime, share: float) -> Span:
        """The window that is open, from where a source starts in it on, or the next one."""
        return _chance(self._openings, self._stagger, now, share)

    def _look(self, floor: datetime, now: datetime, share: float) -> Standing:
        facts = self._facts.get(floor)
        if facts is None or self._facts_at != now:
            facts = self._find_facts(floor, now)
        come, following = facts.come, facts.following
        if not come:
            return facts.wait(share)
        begun = len(come)
        while begun and come[begun - 1].ready(share) > now:
            begun -= 1
        over = begun
        while over and not self._is_over(come[over - 1], now, share):
            over -= 1
        if over == len(come):
            return self._all_over(come, following, now, share)
        # Of those that have begun the latest starts, for the others too.
        place = begun - 1 if over < begun else begun
        ready = come[place].ready(share)
        next_one = come[place + 1] if place + 1 < len(come) else following
        missed = 0 if self.run_missed else over
        return Standing(
            come[place].opens,
            come[place].opens,
            ready,
            come[place].closes,
            None if next_one is None else next_one.ready(share),
            place - missed,
            come[missed - 1].opens if missed else None,
            missed,
            come[-1].opens,
            ready,
        )

    def _all_over(
        self, come: tuple[_Slot, ...], following: _Slot | None, now: datetime, share: float
    ) -> Standing:
        last = come[-1].opens
        again = None if following is None else following.ready(share)
        if not self.run_missed:
            return _missed(last, len(come), again)
        window = self._windows.get(now)
        if window is None:
            window = self._windows[now] = _slot(*self._openings.following(now), self._stagger)
        return _waiting(last, len(come) - 1, window, share, now, again)

    def _is_over(self, slot: _Slot, now: datetime, share: float) -> bool:
        if slot.closes is not None:
            return now >= slot.closes
        return not self.run_missed and now >= slot.ready(share) + LATE

    def _find_facts(self, floor: datetime, now: datetime) -> _Facts:
        # The first after the floor, where now is before it.
        following = self._course.after(max(floor, now))
        come = tuple(self._slot_of(one) for one in self._course.between(floor, now))
        slot = None if following is None else self._slot_of(following)
        facts = _Facts(come, slot, _LAST if slot is None else slot.opens, {})
        if not come:
            if len(self._quiet) > _FLOORS:
                self._quiet.clear()
            self._quiet[floor] = facts
            return facts
        if self._facts_at != now:
            self._facts_at = now
            self._facts.clear()
        self._facts[floor] = facts
        return facts

    def _slot_of(self, occurrence: Occurrence) -> _Slot:
        return _slot(occurrence.opens, occurrence.closes, self._stagger)


class DistancePattern:
    """Schedules that are due some time after their last start."""

    def __init__(
        self, every: timedelta, openings: Openings, stagger: timedelta, *, run_missed: bool
    ) -> None:
        self.run_missed = run_missed
        self._every = every
        self._openings = openings
        self._stagger = stagger

    def look(self, state: State, now: datetime, share: float) -> Standing:
        """Tell where it stands."""
        known = [one for one in (state.handled, state.last_start) if one is not None]
        base = max(max(known) + self._every, state.since) if known else state.since
        missed, missed_at = 0, None
        while True:
            span = self._openings.following(base)
            due_at = max(base, span.opens)
            ready = self._ready(due_at, span, share, first=not known)
            if due_at > now:
                return _missed(missed_at, missed, ready)
            over_at = span.closes
            if over_at is None and not self.run_missed:
                over_at = ready + LATE
            if over_at is None or now < over_at:
                break
            if self.run_missed:
                later = _slot(*self._openings.following(now), self._stagger)
                return _waiting(due_at, 0, later, share, now, later.opens + self._every)
            # All further ones up to its closing, or until shortly before now, are over too.
            last = now - LATE if span.closes is None else span.closes - TICK
            more = (last - due_at) // self._every
            missed += more + 1
            missed_at = due_at + more * self._every
            base = missed_at + self._every
            known.append(missed_at)
        again = due_at + self._every
        return Standing(
            due_at, due_at, ready, span.closes, again, 0, missed_at, missed, due_at, ready
        )

    def chance(self, now: datetime, share: float) -> Span:
        """The window that is open, from where a source starts in it on, or the next one."""
        return _chance(self._openings, self._stagger, now, share)

    def _ready(self, due_at: datetime, span: Span, share: float, *, first: bool) -> datetime:
        """Sources that wait for an opening are spread from it on; others are spread already."""
        if not self._stagger:
            return due_at
        if span.closes is not None:
            return max(due_at, _slot(*span, self._stagger).ready(share))
        return _slot(due_at, None, self._stagger).ready(share) if first else due_at


def _chance(openings: Openings, stagger: timedelta, now: datetime, share: float) -> Span:
    span = openings.following(now)
    return Span(_slot(*span, stagger).ready(share) if span.closes else now, span.closes)


def _nothing(wake: datetime | None) -> Standing:
    return Standing(None, None, None, None, None, 0, None, 0, None, wake)


def _missed(missed_at: datetime | None, missed: int, wake: datetime | None) -> Standing:
    return Standing(None, None, None, None, None, 0, missed_at, missed, missed_at, wake)


def _waiting(
    due_at: datetime,
    collapsed: int,
    window: _Slot,
    share: float,
    now: datetime,
    again: datetime | None,
) -> Standing:
    """An occurrence that could not start in its time, and starts in the next window."""
    ready = window.ready(share)
    if window.opens <= now:
        return Standing(
            due_at, window.opens, ready, window.closes, again, collapsed, None, 0, due_at, ready
        )
    # The next occurrence does not come before: it lies in this window too, or in a later one.
    return Standing(None, None, None, None, None, 0, None, 0, due_at, ready)


class Patterns:
    """One pattern for all schedules that are due at the same moments; kept while it is used."""

    def __init__(self, site_zone: tzinfo) -> None:
        self._site_zone = site_zone
        self._patterns: WeakValueDictionary[Hashable, CalendarPattern | DistancePattern] = (
            WeakValueDictionary()
        )
        self._courses: WeakValueDictionary[Hashable, Course] = WeakValueDictionary()
        self._openings: WeakValueDictionary[Hashable, Openings] = WeakValueDictionary()

    def of(self, schedule: Schedule) -> Pattern:
        """The pattern of a schedule."""
        zone = zone_of(schedule, self._site_zone)
        times = schedule.every, schedule.calendar, schedule.windows, zone
        key = *times, schedule.stagger, schedule.run_missed
        found = self._patterns.get(key)
        if found is None:
            found = self._patterns[key] = self._make(schedule, zone)
        return found

    def _make(self, schedule: Schedule, zone: tzinfo) -> CalendarPattern | DistancePattern:
        openings = self._openings.get((schedule.windows, zone))
        if openings is None:
            openings = Openings(schedule.windows, zone)
            self._openings[schedule.windows, zone] = openings
        stagger, run_missed = schedule.stagger, schedule.run_missed
        if schedule.every is not None:
            return DistancePattern(schedule.every, openings, stagger, run_missed=run_missed)
        if schedule.calendar is None:
            raise AssertionError(schedule)
        course = self._courses.get((schedule.calendar, schedule.windows, zone))
        if course is None:
            course = Course(schedule.calendar, openings)
            self._courses[schedule.calendar, schedule.windows, zone] = course
        return CalendarPattern(course, openings, stagger, run_missed=run_missed)
