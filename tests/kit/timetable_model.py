"""A slow and simple timetable: at each poll it looks at everything that was ever due."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import strategies as st

from holdfast.base.errors import Invalid
from holdfast.base.ids import SourceName
from holdfast.control.schedule import BackupKind, Due, Schedule
from holdfast.control.schedule.standing import LATE
from holdfast.control.schedule.timetable import share_of
from tests.kit.schedule_model import DAY, MINUTE, WINDOWS, Minutes, Planned, expected, planned

GREATEST_FIRST = ("full", "synthetic", "cumulative", "differential", "continuous")


@dataclass(frozen=True)
class Occurs:
    opens: datetime
    closes: datetime | None
    ready: datetime


@dataclass
class View:
    """Where one schedule stands."""

    opened: list[Occurs]
    over: list[Occurs]
    open_now: Occurs | None
    since: datetime | None
    again: datetime | None


@dataclass
class SlowLine:
    """One schedule for one source."""

    schedule: Schedule
    minutes: Minutes
    plan: Planned | None
    share: float
    since: datetime
    floor: datetime | None = None
    last_start: datetime | None = None
    occurs: list[Occurs] = field(init=False)
    may_start: list[bool] = field(init=False)

    def __post_init__(self) -> None:
        self.may_start = self.minutes.open_in(self.schedule.windows)
        self.occurs = []
        if self.plan is not None:
            model = expected(self.plan, self.schedule.windows, self.minutes)
            self.occurs = [
                Occurs(opens, closes, self.spread(opens, opens, closes))
                for opens, closes in sorted(model.items())
                if opens >= self.since
            ]

    def spread(self, at: datetime, opens: datetime, closes: datetime | None) -> datetime:
        whole = self.schedule.stagger
        whole = whole if closes is None else min(whole, closes - opens)
        return max(at, opens + timedelta(seconds=int(whole.total_seconds() * self.share)))

    def span(self, minute: int) -> tuple[datetime, datetime | None]:
        """The stretch around an open minute."""
        if all(self.may_start[2 * 24 * 60 : -2 * 24 * 60]):
            return self.minutes.moment(minute), None
        first = last = minute
        while self.may_start[first - 1]:
            first -= 1
        while self.may_start[last]:
            last += 1
        return self.minutes.moment(first), self.minutes.moment(last)

    def repeated(self, now: datetime) -> tuple[list[Occurs], datetime]:
        """What is due by distance until now, supposing that none of it started, and the next."""
        assert self.schedule.every is not None
        known = [one for one in (self.floor, self.last_start) if one is not None]
        at = max(known) + self.schedule.every if known else self.since
        found: list[Occurs] = []
        while True:
            minute = (at - self.minutes.start) // MINUTE
            while not self.may_start[minute]:
                minute += 1
            at = max(at, self.minutes.moment(minute))
            if at > now:
                return found, at
            opens, closes = self.span(minute)
            if closes is not None:
                ready = self.spread(at, opens, closes)
            else:
                ready = at if known or found else self.spread(at, at, None)
            found.append(Occurs(at, closes, ready))
            if not self.is_over(found[-1], now) or self.schedule.run_missed:
                return found, at + self.schedule.every
            at += self.schedule.every

    def is_over(self, one: Occurs, now: datetime) -> bool:
        if one.closes is not None:
            return now >= one.closes
        return not self.schedule.run_missed and now >= one.ready + LATE

    def look(self, now: datetime) -> View:
        if self.plan is None:
            opened, next_at = self.repeated(now)
            again: datetime | None = next_at
        else:
            opened = [
                one
                for one in self.occurs
                if one.opens <= now and (self.floor is None or one.opens > self.floor)
            ]
            again = None
        begun = [one for one in opened if one.ready <= now]
        over = [one for one in begun if self.is_over(one, now)]
        open_now = None
        if len(over) < len(begun):
            open_now = begun[-1]
        elif len(begun) < len(opened):
            open_now = opened[len(begun)]
        if open_now is not None:
            since = open_now.opens
            if self.plan is not None:
                later = [one.ready for one in self.occurs if one.opens > since]
                again = later[0] if later else None
            else:
                assert self.schedule.every is not None
                again = since + self.schedule.every
            return View(opened, over, open_now, since, again)
        if opened and self.schedule.run_missed:
            minute = (now - self.minutes.start) // MINUTE
            if self.may_start[minute]:
                opens, closes = self.span(minute)
                ready = self.spread(opens, opens, closes)
                late = Occurs(opened[-1].opens, closes, ready)
                if self.plan is not None:
                    later = [one.ready for one in self.occurs if one.opens > opened[-1].opens]
                    again = later[0] if later else None
                else:
                    assert self.schedule.every is not None
                    again = opens + self.schedule.every
                return View(opened, over, late, opens, again)
        return View(opened, over, None, None, None)


Handed = tuple[str, str, bool, datetime, int, tuple[tuple[str, datetime], ...]]
"""Schedule, source, missed, due at, collapsed, satisfied: what a test compares."""


def handed(due: Due) -> Handed:
    return (
        due.schedule,
        due.source,
        due.missed,
        due.due_at,
        due.collapsed,
        tuple((one.schedule, one.due_at) for one in due.satisfies),
    )


class SlowTimetable:
    """One policy."""

    def __init__(
        self,
        plans: dict[Schedule, Planned | None],
        sources: list[SourceName],
        minutes: Minutes,
        since: datetime,
    ) -> None:
        ordered = sorted(plans, key=lambda one: GREATEST_FIRST.index(one.kind))
        self.lines = {
            source: [SlowLine(one, minutes, plans[one], share_of(source), since) for one in ordered]
            for source in sources
        }

    def due(self, now: datetime) -> list[Handed]:
        found: list[Handed] = []
        for source, lines in self.lines.items():
            while some := self._some(source, lines, now):
                found += some
        return found

    def _some(self, source: str, lines: list[SlowLine], now: datetime) -> list[Handed]:
        found: list[Handed] = []
        views = [line.look(now) for line in lines]
        waits_until: list[datetime] = []
        for number, (line, view) in enumerate(zip(lines, views, strict=True)):
            if view.open_now is None:
                if not waits_until:
                    found += self._missed(source, line, view.over)
                continue
            if waits_until and (view.again is None or min(waits_until) <= view.again):
                continue
            found += self._missed(source, line, view.over)
            if view.open_now.ready > now:
                waits_until.append(view.open_now.ready)
                continue
            assert view.since is not None
            satisfied = []
            for lesser, its in zip(lines[number + 1 :], views[number + 1 :], strict=True):
                before = [one for one in its.over if lesser.is_over(one, view.since)]
                found += self._missed(source, lesser, before)
                gone = [] if lesser.schedule.run_missed else before
                if len(its.opened) > len(gone):
                    satisfied.append((lesser.schedule.name, its.opened[-1].opens))
                    lesser.floor, lesser.last_start = its.opened[-1].opens, now
            at = view.open_now.opens
            earlier = [one for one in view.opened if one.opens < at]
            taken = 0 if line.schedule.run_missed else len(view.over)
            found.append(
                (line.schedule.name, source, False, at, len(earlier) - taken, tuple(satisfied))
            )
            line.floor, line.last_start = at, now
            break
        return found

    def _missed(self, source: str, line: SlowLine, over: list[Occurs]) -> list[Handed]:
        if line.schedule.run_missed or not over:
            return []
        line.floor = over[-1].opens
        return [(line.schedule.name, source, True, over[-1].opens, len(over) - 1, ())]


EVERY = st.sampled_from([20, 60, 7 * 60, 24 * 60, 50 * 60]).map(lambda n: timedelta(minutes=n))


@st.composite
def schedules(draw: st.DrawFn, minutes: Minutes) -> dict[Schedule, Planned | None]:
    """Schedules of different kinds for one policy, with the calendars in another form."""
    found: dict[Schedule, Planned | None] = {}
    for kind in draw(st.lists(st.sampled_from(BackupKind), min_size=1, max_size=3, unique=True)):
        plan = None
        every = None
        if kind is BackupKind.CONTINUOUS or draw(st.integers(0, 3)) == 0:
            every = draw(EVERY)
        else:
            plan = draw(planned(minutes.first + 5 * DAY))
        windows = draw(WINDOWS)
        shortest = min((one.length for one in windows), default=DAY)
        stagger = draw(st.sampled_from([timedelta(), MINUTE * 30, MINUTE * 50, shortest]))
        try:
            schedule = Schedule(
                kind.value,
                kind,
                every=every,
                calendar=None if plan is None else plan.calendar,
                windows=windows,
                run_missed=draw(st.booleans()),
                stagger=min(stagger, shortest),
            )
        except Invalid:
            schedule = Schedule(kind.value, kind, every=DAY)
            plan = None
        found[schedule] = plan
    return found
