"""When schedules are due, held against a judge that looks at each minute."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from holdfast.base.errors import Invalid
from holdfast.control.schedule import BackupKind, Schedule, Window, occurrences
from tests.kit.schedule_model import (
    DAY,
    WINDOWS,
    Minutes,
    Planned,
    expected,
    minutes_of,
    planned,
    zone_and_turn,
)

SHOWN_DAYS = 10

SHOWN = zone_and_turn().map(lambda one: minutes_of(one[0], one[1] - 4 * DAY, SHOWN_DAYS + 8))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Planned, Schedule, Minutes]:
    zone, turn = draw(zone_and_turn())
    plan = draw(planned(turn))
    windows = draw(WINDOWS)
    try:
        schedule = Schedule("s", BackupKind.FULL, calendar=plan.calendar, windows=windows)
    except Invalid:
        assume(False)
    return plan, schedule, minutes_of(zone, turn - 4 * DAY, SHOWN_DAYS + 8)


@settings(deadline=None)
@given(cases())
def test_a_calendar_is_due_when_the_clocks_say_so(
    case: tuple[Planned, Schedule, Minutes],
) -> None:
    plan, schedule, minutes = case
    since = datetime.combine(minutes.first + DAY, time(), UTC)
    until = since + SHOWN_DAYS * DAY
    found = list(occurrences(schedule, minutes.zone, since, until))
    assert [one.opens for one in found] == sorted({one.opens for one in found})
    model = expected(plan, schedule.windows, minutes)
    assert {one.opens: one.closes for one in found} == {
        opens: closes for opens, closes in model.items() if since <= opens < until
    }


@settings(deadline=None)
@given(cases(), st.integers(0, SHOWN_DAYS * 24 * 60))
def test_where_one_begins_to_ask_changes_nothing(
    case: tuple[Planned, Schedule, Minutes], later: int
) -> None:
    _, schedule, minutes = case
    since = datetime.combine(minutes.first + DAY, time(), UTC)
    until = since + SHOWN_DAYS * DAY
    middle = since + timedelta(minutes=later)
    whole = list(occurrences(schedule, minutes.zone, since, until))
    parts = [
        *occurrences(schedule, minutes.zone, since, middle),
        *occurrences(schedule, minutes.zone, middle, until),
    ]
    assert parts == whole


@settings(deadline=None)
@given(
    zone_and_turn().map(lambda one: minutes_of(one[0], one[1] - 4 * DAY, SHOWN_DAYS + 8)),
    WINDOWS,
    st.data(),
)
def test_a_distance_is_kept_and_each_start_lies_in_a_window(
    minutes: Minutes, windows: tuple[Window, ...], data: st.DataObject
) -> None:
    every = timedelta(minutes=data.draw(st.sampled_from([7, 60, 60 * 11, 60 * 24])))
    schedule = Schedule("s", BackupKind.FULL, every=every, windows=windows)
    since = datetime.combine(minutes.first + DAY, time(), UTC)
    found = list(occurrences(schedule, minutes.zone, since, since + 7 * DAY))
    may_start = minutes.open_in(windows)
    at = (since - minutes.start) // timedelta(minutes=1)
    model = []
    end = at + 7 * 24 * 60
    while at < end:
        if may_start[at]:
            model.append(minutes.moment(at))
            at += every // timedelta(minutes=1)
        else:
            at += 1
    assert [one.opens for one in found] == model
    for one in found:
        assert one.closes is None or one.opens < one.closes
