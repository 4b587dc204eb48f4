"""A slow and simple judge of schedules: it looks at each minute of what the clocks show."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache
from itertools import accumulate
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from holdfast.control.schedule import BackupKind, Calendar, Schedule, Window
from holdfast.control.schedule.schedule import overlapping

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
ANCHOR = date(1996, 1, 1)
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")

TURNS = {
    "Europe/Berlin": (date(2026, 3, 29), date(2026, 10, 25), date(2028, 2, 29)),
    "America/New_York": (date(2026, 3, 8), date(2026, 11, 1)),
    "Australia/Lord_Howe": (date(2026, 4, 5), date(2026, 10, 4)),
    "Asia/Kathmandu": (date(2026, 6, 1),),
    "Pacific/Apia": (date(2011, 12, 30), date(2026, 6, 1)),
    "America/Sao_Paulo": (date(2018, 11, 4), date(2018, 2, 18)),
    "Africa/Casablanca": (date(2026, 2, 15), date(2026, 3, 22)),
    "UTC": (date(2028, 2, 29), date(2026, 12, 31)),
}
"""Zones, and days on which something is odd there."""


@dataclass(frozen=True)
class Rule:
    """A rule, and another way to tell which days and times it means."""

    text: str
    means: Callable[[date], bool]
    times: tuple[time, ...] = ()


def _daily(n: int) -> Rule:
    return Rule(f"FREQ=DAILY;INTERVAL={n}", lambda day: (day - ANCHOR).days % n == 0)


def _weekly(n: int, days: frozenset[int]) -> Rule:
    names = ",".join(WEEKDAYS[day] for day in sorted(days))
    return Rule(
        f"FREQ=WEEKLY;INTERVAL={n};BYDAY={names}",
        lambda day: (day - ANCHOR).days // 7 % n == 0 and day.weekday() in days,
    )


def _monthly(number: int) -> Rule:
    def means(day: date) -> bool:
        return day.day == number if number > 0 else (day - number * DAY).day == 1

    return Rule(f"FREQ=MONTHLY;BYMONTHDAY={number}", means)


def _nth(number: int, weekday: int) -> Rule:
    name = WEEKDAYS[weekday]

    def means(day: date) -> bool:
        if day.weekday() != weekday:
            return False
        if number > 0:
            return (day.day + 6) // 7 == number
        return (day + 7 * DAY).month != day.month

    return Rule(f"FREQ=MONTHLY;BYDAY={number}{name}", means)


LEAP = Rule("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29", lambda day: (day.month, day.day) == (2, 29))

_WEEKDAYS = st.frozensets(st.integers(0, 6), min_size=1)
_DAY_RULES = st.one_of(
    st.builds(_daily, st.integers(1, 4)),
    st.builds(_weekly, st.integers(1, 3), _WEEKDAYS),
    st.builds(_monthly, st.sampled_from([1, 15, 29, 30, 31, -1])),
    st.builds(_nth, st.sampled_from([1, 2, -1]), st.integers(0, 6)),
    st.just(LEAP),
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """A rule of days, or of times on those days."""
    rule = draw(_DAY_RULES)
    if draw(st.booleans()):
        return rule
    hours = draw(st.frozensets(st.sampled_from([0, 1, 2, 3, 12, 22, 23]), min_size=1, max_size=3))
    minutes = draw(st.frozensets(st.sampled_from([0, 15, 30, 59]), min_size=1, max_size=2))
    by = f";BYHOUR={','.join(map(str, hours))};BYMINUTE={','.join(map(str, minutes))}"
    times = tuple(time(hour, minute) for hour in hours for minute in minutes)
    return Rule(rule.text + by, rule.means, times)


_TIMES = st.builds(time, st.sampled_from([0, 1, 2, 3, 6, 12, 22, 23]), st.sampled_from([0, 15, 30]))
WINDOWS = (
    st.lists(st.builds(Window, _WEEKDAYS, _TIMES, _TIMES), max_size=3)
    .map(tuple)
    .filter(lambda windows: overlapping(windows) is None)
)


@dataclass(frozen=True)
class Planned:
    """A calendar in both forms."""

    rules: tuple[Rule, ...]
    except_rules: tuple[Rule, ...]
    dates: tuple[date, ...]
    except_dates: tuple[date, ...]

    @property
    def calendar(self) -> Calendar:
        return Calendar(
            rules=tuple(one.text for one in self.rules),
            dates=self.dates,
            except_rules=tuple(one.text for one in self.except_rules),
            except_dates=self.except_dates,
        )

    def on(self, day: date) -> tuple[bool, set[datetime]]:
        """Whether a day is meant as such, and the times on it that are."""
        meant = [one for one in self.rules if one.means(day)]
        taken = [one for one in self.except_rules if one.means(day)]
        if day in self.except_dates or any(not one.times for one in taken):
            return False, set()
        whole = day in self.dates or any(not one.times for one in meant)
        times = {at for one in meant for at in one.times} - {
            at for one in taken for at in one.times
        }
        return whole, {datetime.combine(day, at) for at in times}


@st.composite
def planned(draw: st.DrawFn, around: date) -> Planned:
    """A calendar; its dates lie about a day."""
    dates = st.integers(-4, 12).map(lambda number: around + number * DAY)
    found = Planned(
        rules=tuple(draw(st.lists(rules(), max_size=2))),
        except_rules=tuple(draw(st.lists(rules(), max_size=1))),
        dates=tuple(draw(st.lists(dates, max_size=2))),
        except_dates=tuple(draw(st.lists(dates, max_size=2))),
    )
    return found if found.rules or found.dates else Planned((_daily(1),), (), (), ())


@dataclass
class Minutes:
    """What the clocks of a zone show in each minute of some weeks."""

    zone: tzinfo
    first: date
    days: int
    start: datetime = field(init=False)
    shown: list[datetime] = field(init=False)

    def __post_init__(self) -> None:
        self.start = datetime.combine(self.first, time(), UTC) - 2 * DAY
        moments = (self.start + number * MINUTE for number in range((self.days + 4) * 24 * 60))
        shown = (moment.astimezone(self.zone).replace(tzinfo=None, fold=0) for moment in moments)
        self.shown = list(accumulate(shown, max))

    def reach(self, local: datetime) -> int:
        """The first minute in which the clocks showed a time or a later one."""
        return bisect_left(self.shown, local)

    def moment(self, minute: int) -> datetime:
        return self.start + minute * MINUTE

    def open_in(self, windows: tuple[Window, ...]) -> list[bool]:
        """Whether a backup may start in each minute."""
        if not windows:
            return [True] * len(self.shown)
        found = [False] * len(self.shown)
        for number in range(-3, self.days + 3):
            for opens, closes in openings(windows, self.first + number * DAY):
                for minute in range(self.reach(opens), self.reach(closes)):
                    found[minute] = True
        return found


@cache
def minutes_of(zone: ZoneInfo, first: date, days: int) -> Minutes:
    """Looks each minute up once."""
    return Minutes(zone, first, days)


def openings(windows: tuple[Window, ...], day: date) -> list[tuple[datetime, datetime]]:
    """When windows open and close that open on a day, as the clocks show it."""
    found = []
    for one in windows:
        if day.weekday() in one.days:
            last = day if one.closes > one.opens else day + DAY
            found.append((datetime.combine(day, one.opens), datetime.combine(last, one.closes)))
    return sorted(found)


def expected(
    plan: Planned, windows: tuple[Window, ...], minutes: Minutes
) -> dict[datetime, datetime | None]:
    """When each occurrence of a calendar opens and closes; nothing of the last week counts."""
    may_start = minutes.open_in(windows)
    found: dict[datetime, datetime | None] = {}
    for number in range(minutes.days):
        day = minutes.first + number * DAY
        whole, times = plan.on(day)
        if windows:
            of_day = openings(windows, day)
            near = [one for back in (0, 1) for one in openings(windows, day - back * DAY)]
            moments = {at for at in times if any(opens <= at < closes for opens, closes in near)}
            moments |= {of_day[0][0]} if whole and of_day else set()
        else:
            moments = times | ({datetime.combine(day, time())} if whole else set())
        for at in moments:
            minute = end = minutes.reach(at)
            while end < len(may_start) and may_start[end]:
                end += 1
            ended = end < len(may_start)
            found[minutes.moment(minute)] = minutes.moment(end) if ended else None
    return found


def zone_and_turn() -> st.SearchStrategy[tuple[ZoneInfo, date]]:
    return st.sampled_from([(ZoneInfo(name), day) for name, days in TURNS.items() for day in days])


def nightly(**more: object) -> Schedule:
    """A schedule that is due each day, unless it is told otherwise."""
    values: dict[str, object] = {
        "name": "nightly",
        "kind": BackupKind.DIFFERENTIAL,
        "calendar": Calendar(("FREQ=DAILY",)),
    }
    return Schedule(**(values | more))  # type: ignore[arg-type]
