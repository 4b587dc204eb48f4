"""The timetable, held against a slow one and against itself."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.ids import PolicyName, SourceName
from holdfast.control.schedule import Entry, Schedule, Timetable
from tests.kit.schedule_model import DAY, MINUTE, Minutes, Planned, minutes_of, zone_and_turn
from tests.kit.timetable_model import Handed, SlowTimetable, handed, schedules

DAYS = 7
STEP = 10 * MINUTE
POLICY = PolicyName("p")
SOURCES = [SourceName("a:/"), SourceName("b:/data,/srv")]

Case = tuple[dict[Schedule, Planned | None], Minutes]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    zone, turn = draw(zone_and_turn())
    minutes = minutes_of(zone, turn - 4 * DAY, 18)
    return draw(schedules(minutes)), minutes


@st.composite
def outages(draw: st.DrawFn) -> list[tuple[int, int]]:
    """In steps: from when to when the master is down."""
    starts = st.integers(0, DAYS * 144)
    lengths = st.sampled_from([1, 6, 40, 150, 450])
    pairs = draw(st.lists(st.tuples(starts, lengths), max_size=3))
    return [(start, start + length) for start, length in pairs]


def start_of(minutes: Minutes) -> datetime:
    return datetime.combine(minutes.first + DAY, time(), UTC)


def timetable_of(case: Case) -> Timetable:
    plans, minutes = case
    entry = Entry(POLICY, tuple(plans), tuple(SOURCES), start_of(minutes))
    return Timetable(minutes.zone, [entry])


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(cases(), outages())
def test_it_hands_out_what_a_slow_one_does(case: Case, down: list[tuple[int, int]]) -> None:
    plans, minutes = case
    quick, start = timetable_of(case), start_of(minutes)
    slow = SlowTimetable(plans, SOURCES, minutes, start)
    for step in range(DAYS * 144):
        if any(begin <= step < end for begin, end in down):
            continue
        now = start + step * STEP
        assert sorted(map(handed, quick.due(now))) == sorted(slow.due(now)), now


@settings(deadline=None)
@given(cases(), outages(), st.lists(st.timedeltas(timedelta(), DAYS * DAY), max_size=60))
def test_asking_more_often_changes_nothing(
    case: Case, down: list[tuple[int, int]], more: list[timedelta]
) -> None:
    start = start_of(case[1])
    end = start + DAYS * DAY
    outage = [(start + begin * STEP, start + to * STEP) for begin, to in down]

    def run(extra: list[datetime]) -> list[tuple[datetime, Handed]]:
        timetable, found = timetable_of(case), []
        left = sorted(extra)
        while (moment := timetable.next_moment()) is not None:
            more_often = bool(left) and left[0] < moment
            at = up(left.pop(0) if more_often else moment)
            if at < end:
                found += [(at, handed(due)) for due in timetable.due(at)]
            elif not more_often:
                break
        return sorted(found)

    def up(at: datetime) -> datetime:
        for begin, to in sorted(outage):
            if begin <= at < to:
                at = to
        return at

    assert run([]) == run([start + one for one in more])
