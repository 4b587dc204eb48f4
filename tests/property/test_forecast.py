"""The forecast, held against a slow one that takes one event at a time."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.ids import PolicyName, SourceName
from holdfast.control.schedule import (
    BackupKind,
    Calendar,
    Demand,
    Due,
    Entry,
    History,
    Schedule,
    Timetable,
    Window,
    forecast,
)
from tests.kit.forecast_model import Eager, slow_forecast

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
DAILY = frozenset(range(7))
NIGHT = (Window(DAILY, time(22), time(3)),)
LUNCH = (Window(frozenset(range(5)), time(12), time(12, 45)),)
EVERY_DAY = Calendar(("FREQ=DAILY",))
# Clocks go back on the second day.
START = datetime(2026, 10, 24, 9, tzinfo=UTC)
SITE = ZoneInfo("Europe/Berlin")
NEEDS = ("disk", "tape", "client")
POOL = (
    Schedule("full", BackupKind.FULL, None, Calendar(("FREQ=WEEKLY;BYDAY=SU",)), NIGHT),
    Schedule("spread", BackupKind.FULL, None, EVERY_DAY, NIGHT, stagger=3 * HOUR),
    Schedule("nightly", BackupKind.DIFFERENTIAL, None, EVERY_DAY, NIGHT, run_missed=False),
    Schedule("lunch", BackupKind.CUMULATIVE, None, EVERY_DAY, LUNCH, "America/New_York"),
    Schedule("hourly", BackupKind.DIFFERENTIAL, None, Calendar(("FREQ=HOURLY",)), NIGHT),
    Schedule("always", BackupKind.DIFFERENTIAL, None, EVERY_DAY, run_missed=False),
    Schedule("often", BackupKind.CONTINUOUS, 25 * MINUTE, run_missed=False),
    Schedule("long", BackupKind.CONTINUOUS, 90 * MINUTE, None, NIGHT, stagger=HOUR),
    Schedule("distant", BackupKind.SYNTHETIC, 20 * HOUR, None, LUNCH),
)


@st.composite
def sites(draw: st.DrawFn) -> tuple[list[Entry], list[History]]:
    """Some policies, and what was handled of some of their sources."""
    found, histories = [], []
    for number in range(draw(st.integers(1, 4))):
        name = PolicyName(f"p{number}")
        schedules = draw(st.lists(st.sampled_from(POOL), min_size=1, max_size=3, unique=True))
        sources = tuple(SourceName(f"{one}:/") for one in range(draw(st.integers(1, 4))))
        since = START - draw(st.sampled_from([timedelta(), HOUR, 50 * HOUR]))
        found.append(Entry(name, tuple(schedules), sources, since))
        for source in sources:
            if draw(st.booleans()):
                at = START - draw(st.sampled_from([30 * MINUTE, 11 * HOUR, 40 * HOUR]))
                histories.append(History(name, schedules[0].name, source, at, at, since))
    return found, histories


@settings(deadline=None, max_examples=150)
@given(
    sites(),
    st.lists(
        st.builds(
            Demand,
            st.sampled_from([MINUTE, 20 * MINUTE, 26 * MINUTE, 4 * HOUR, 30 * HOUR]),
            st.lists(st.sampled_from(NEEDS), max_size=3).map(tuple),
            st.sampled_from([10, 50, 90]),
        ),
        min_size=1,
        max_size=5,
    ),
    st.fixed_dictionaries({}, optional=dict.fromkeys(NEEDS, st.integers(1, 3))),
    st.integers(0, 3),
)
def test_it_says_what_a_slow_one_does(
    site: tuple[list[Entry], list[History]],
    demands: list[Demand],
    slots: dict[str, int],
    occupied: int,
) -> None:
    entries, histories = site
    until = START + timedelta(days=3)

    def demand(due: Due) -> Demand:
        return demands[
            (int(due.policy[1:]) + len(due.schedule) + int(due.source[0])) % len(demands)
        ]

    def stands(kind: type[Timetable]) -> Timetable:
        made = kind(SITE, entries, histories)
        for entry in entries[:occupied]:
            # A backup of it is under way, and does not end.
            made.occupy(entry.policy, entry.sources[0])
        return made

    table = stands(Timetable)
    quick = list(forecast(table, START, until, demand, slots))
    assert quick == list(slow_forecast(stands(Eager), START, until, demand, slots))
    # The table stayed as it was, and a part of it is what it is as a part of the whole.
    only = entries[-1].policy
    part = list(forecast(table, START, until, demand, slots, only=only, keeps=False))
    assert part == [one for one in quick if one.due.policy == only]
