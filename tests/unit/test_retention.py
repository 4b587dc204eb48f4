"""Rules of retention by example: calendars, summer time, clocks that were set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from holdfast.base.clock import ClockMark
from holdfast.base.errors import Invalid
from holdfast.base.ids import ImageId, SourceName
from holdfast.control.retention import Candidate, Period, Rules, judge
from holdfast.control.retention.clock_watch import jump

BERLIN = ZoneInfo("Europe/Berlin")


def images(*moments: datetime) -> list[Candidate]:
    return [
        Candidate(
            id=ImageId(f"{number:032x}"),
            source=SourceName("host:/"),
            number=number,
            started_at=moment.astimezone(UTC),
            finished_at=moment.astimezone(UTC) + timedelta(minutes=1),
        )
        for number, moment in enumerate(moments, start=1)
    ]


def kept(found: list[Candidate], rules: Rules, zone: ZoneInfo = BERLIN) -> list[int]:
    now = found[-1].finished_at
    return [one.image.number for one in judge(found, rules, now, zone).verdicts if one.stays]


def test_a_year_of_nights_leaves_sons_fathers_and_grandfathers() -> None:
    night = datetime(2025, 1, 1, 22, tzinfo=BERLIN)
    there: list[Candidate] = []
    rules = Rules(daily=7, weekly=4, monthly=12, yearly=3)
    for number in range(1, 366):
        there += [Candidate(ImageId(f"{number:032x}"), SourceName("host:/"), number, night, night)]
        gone = judge(there, rules, night, BERLIN).leaving
        there = [one for one in there if one not in gone]
        # Local time: 22:00 stays 22:00 when the clocks change.
        night += timedelta(days=1)
    days = [f"{one.started_at:%m-%d}" for one in there]
    assert days == [
        *("01-31", "02-28", "03-31", "04-30", "05-31", "06-30", "07-31", "08-31", "09-30"),
        *("10-31", "11-30", "12-14", "12-21"),
        *("12-25", "12-26", "12-27", "12-28", "12-29", "12-30", "12-31"),
    ]


def test_the_newest_of_each_period_is_the_one_that_stays() -> None:
    found = images(*(datetime(2026, 5, 4 + n // 3, 8 + n % 3, tzinfo=BERLIN) for n in range(9)))
    assert kept(found, Rules(daily=2)) == [6, 9]
    assert kept(found, Rules(hourly=4)) == [6, 7, 8, 9]
    assert kept(found, Rules(last=2, daily=3)) == [3, 6, 8, 9]


def test_a_day_is_a_day_of_the_zone() -> None:
    found = images(
        datetime(2026, 7, 1, 21, 30, tzinfo=UTC), datetime(2026, 7, 1, 22, 30, tzinfo=UTC)
    )
    assert kept(found, Rules(daily=2), BERLIN) == [1, 2]
    assert kept(found, Rules(daily=2), ZoneInfo("UTC")) == [2]


def test_the_hour_that_comes_twice_in_autumn_is_two_hours() -> None:
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    found = images(first, first + timedelta(hours=1), first + timedelta(hours=2))
    assert [one.started_at.astimezone(BERLIN).hour for one in found] == [2, 2, 3]
    assert kept(found, Rules(hourly=3)) == [1, 2, 3]


def test_weeks_belong_to_the_year_that_the_standard_says() -> None:
    assert Period.WEEKLY.key(datetime(2027, 1, 3, tzinfo=UTC)) == (2026, 53)
    assert Period.WEEKLY.name_of(datetime(2027, 1, 3, tzinfo=UTC)) == "week 53 of 2026"
    assert Period.YEARLY.key(datetime(2027, 1, 3, tzinfo=UTC)) == 2027


def test_every_reason_is_said() -> None:
    found = images(*(datetime(2026, 5, day, tzinfo=BERLIN) for day in (1, 2, 3)))
    rules = Rules(last=1, within=timedelta(days=1, hours=1), daily=3, monthly=1)
    verdicts = judge(found, rules, found[-1].finished_at, BERLIN).verdicts
    assert [one.reasons for one in verdicts] == [
        ("daily 3 of 3: 2026-05-01",),
        ("not older than 1 d 01 h", "daily 2 of 3: 2026-05-02"),
        ("last 1 of 1", "not older than 1 d 01 h", "daily 1 of 3: 2026-05-03",
         "monthly 1 of 1: 2026-05"),
    ]  # fmt: skip


def test_without_a_rule_everything_stays_and_with_an_old_one_the_newest() -> None:
    found = images(datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC))
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert judge(found, Rules(), now).leaving == []
    judgement = judge(found, Rules(within=timedelta(days=30)), now)
    assert [one.number for one in judgement.leaving] == [1]
    assert judgement.verdicts[1].reasons == ("the newest of its source",)
    assert judge([], Rules(last=1), now).verdicts == ()


def test_rules_that_make_no_sense_are_refused() -> None:
    with pytest.raises(Invalid, match="daily"):
        Rules(daily=-1)
    with pytest.raises(Invalid, match="younger"):
        Rules(within=timedelta(days=-1))


HOUR_NS = 3600 * 10**9


@pytest.mark.parametrize(
    ("passed_h", "since_h", "boot", "told"),
    [
        (5, 5, "a", None),
        (5, 4.9, "a", None),
        (5, 1, "a", "forward by 4 h 00 m"),
        (-3, 1, "a", "back by 4 h 00 m"),
        (168, 0, "b", None),
        (169, 0, "b", "shows 7 d 01 h more than"),
        (9999, 9999, "a", None),
        (9999, 2, "b", "was off for so long, or its clock is wrong"),
        (-3, 0, "b", "back by 3 h 00 m"),
        (-0.1, 0, "b", None),
        (5, 0, "", None),
        (9999, 0, "", "shows 416 d 15 h more than"),
    ],
)
def test_a_clock_that_was_set_is_told(
    passed_h: float, since_h: float, boot: str, told: str | None
) -> None:
    before = ClockMark(1_000_000 * HOUR_NS, 7 * HOUR_NS, "a")
    wall_ns = before.wall_ns + int(passed_h * HOUR_NS)
    now = ClockMark(wall_ns, before.since_boot_ns + int(since_h * HOUR_NS), boot)
    found = jump(before, now, timedelta(days=7))
    assert (found is None) == (told is None), found
    assert told is None or (found is not None and told in found), found


def test_a_first_look_at_the_clock_has_nothing_to_compare() -> None:
    assert jump(None, ClockMark(1, 1, "a"), timedelta(days=7)) is None
