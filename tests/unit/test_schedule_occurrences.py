"""When schedules are due: examples that a person can check."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from holdfast.control.schedule import BackupKind, Calendar, Schedule, Window, occurrences
from holdfast.control.schedule.course import Course
from holdfast.control.schedule.local_time import to_utc
from holdfast.control.schedule.occurrences import usual_distance
from holdfast.control.schedule.openings import Openings

BERLIN = ZoneInfo("Europe/Berlin")
DAILY = frozenset(range(7))
NIGHT = Window(DAILY, time(22), time(6))
EVERY_DAY = Calendar(("FREQ=DAILY",))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def found(
    since: str, until: str, calendar: Calendar = EVERY_DAY, windows: tuple[Window, ...] = ()
) -> list[str]:
    schedule = Schedule("s", BackupKind.FULL, calendar=calendar, windows=windows)
    return [
        f"{one.opens:%m-%d %H:%M}" + (f" to {one.closes:%m-%d %H:%M}" if one.closes else "")
        for one in occurrences(schedule, BERLIN, utc(since), utc(until))
    ]


@pytest.mark.parametrize(
    ("zone", "local", "moment"),
    [
        ("Europe/Berlin", "2026-03-29T02:00", "2026-03-29T01:00"),
        ("Europe/Berlin", "2026-03-29T02:59:59", "2026-03-29T01:00"),
        ("Europe/Berlin", "2026-03-29T03:00", "2026-03-29T01:00"),
        ("Europe/Berlin", "2026-10-25T02:30", "2026-10-25T00:30"),
        ("Europe/Berlin", "2026-10-25T03:00", "2026-10-25T02:00"),
        ("America/New_York", "2026-03-08T02:30", "2026-03-08T07:00"),
        ("Australia/Lord_Howe", "2026-10-04T02:10", "2026-10-03T15:30"),
        ("Australia/Lord_Howe", "2026-04-05T01:45", "2026-04-04T14:45"),
        ("Asia/Kathmandu", "2026-01-01T00:00", "2025-12-31T18:15"),
        ("Pacific/Apia", "2011-12-30T12:00", "2011-12-30T10:00"),
        ("America/Sao_Paulo", "2018-11-04T00:00", "2018-11-04T03:00"),
    ],
)
def test_a_local_time_is_one_moment(zone: str, local: str, moment: str) -> None:
    assert to_utc(datetime.fromisoformat(local), ZoneInfo(zone)) == utc(moment)


def test_a_day_is_due_when_its_first_window_opens() -> None:
    assert found("2026-11-20", "2026-11-22", windows=(NIGHT,)) == [
        "11-20 21:00 to 11-21 05:00",
        "11-21 21:00 to 11-22 05:00",
    ]
    noon = Window(DAILY, time(12), time(13))
    assert found("2026-11-20", "2026-11-21", windows=(NIGHT, noon)) == [
        "11-20 11:00 to 11-20 12:00"
    ]


def test_a_day_without_a_window_is_not_due() -> None:
    weekend = (Window(frozenset({5, 6}), time(1), time(23)),)
    assert found("2026-11-16", "2026-11-23", windows=weekend) == [
        "11-21 00:00 to 11-21 22:00",
        "11-22 00:00 to 11-22 22:00",
    ]


def test_a_time_is_due_when_it_comes_if_a_window_is_open() -> None:
    times = Calendar(("FREQ=DAILY;BYHOUR=1,12",))
    assert found("2026-11-20", "2026-11-21", times, (NIGHT,)) == ["11-20 00:00 to 11-20 05:00"]
    assert found("2026-11-20", "2026-11-21", times) == ["11-20 00:00", "11-20 11:00"]


def test_a_window_across_a_change_of_clocks_has_its_true_length() -> None:
    assert found("2026-03-28T12:00", "2026-03-29", windows=(NIGHT,)) == [
        "03-28 21:00 to 03-29 04:00"
    ]
    assert found("2026-10-24T12:00", "2026-10-25", windows=(NIGHT,)) == [
        "10-24 20:00 to 10-25 05:00"
    ]


def test_a_time_that_comes_twice_is_due_once_and_one_that_does_not_come_is_due_after_the_gap() -> (
    None
):
    times = Calendar(("FREQ=DAILY;BYHOUR=2;BYMINUTE=30",))
    assert found("2026-10-25", "2026-10-26", times) == ["10-25 00:30"]
    assert found("2026-03-29", "2026-03-30", times) == ["03-29 01:00"]
    hourly = Calendar(("FREQ=HOURLY",))
    assert found("2026-03-29", "2026-03-29T03:00", hourly) == [
        "03-29 00:00",
        "03-29 01:00",
        "03-29 02:00",
    ]


def test_a_window_that_a_gap_swallows_is_over_when_it_opens() -> None:
    short = (Window(DAILY, time(2, 15), time(2, 45)),)
    assert found("2026-03-29", "2026-03-30", windows=short) == ["03-29 01:00 to 03-29 01:00"]
    times = Calendar(("FREQ=DAILY;BYHOUR=2;BYMINUTE=30",))
    assert found("2026-03-29", "2026-03-30", times, short) == ["03-29 01:00 to 03-29 01:00"]


def test_windows_that_touch_are_one() -> None:
    evening = Window(frozenset({4}), time(18), time(0))
    saturday = Window(frozenset({5}), time(0), time(0))
    fridays = Calendar(("FREQ=WEEKLY;BYDAY=FR",))
    assert found("2026-11-20", "2026-11-22", fridays, (evening, saturday)) == [
        "11-20 17:00 to 11-21 23:00"
    ]
    whole = Window(DAILY, time(9), time(9))
    assert found("2026-11-20", "2026-11-21", windows=(whole,)) == ["11-20 08:00"]


@pytest.mark.parametrize(
    ("zone", "moment", "opens", "closes"),
    [
        # There was no 30 December: the window of the 29th ended as that of the 30th began.
        ("Pacific/Apia", "2011-12-30T09", "2011-12-30T08", "2011-12-30T12"),
        # On a Monday, 03:00 became 04:00, and nothing was left between two windows.
        ("Europe/Istanbul", "2014-03-31T00:30", "2014-03-30T20", "2014-03-31T03"),
    ],
)
def test_windows_are_one_where_a_gap_swallows_what_lies_between(
    zone: str, moment: str, opens: str, closes: str
) -> None:
    apart = {
        "Pacific/Apia": (Window(DAILY, time(22), time(2)),),
        "Europe/Istanbul": (
            Window(frozenset({6}), time(22), time(3, 15)),
            Window(frozenset({0}), time(3, 45), time(6)),
        ),
    }
    span = Openings(apart[zone], ZoneInfo(zone)).following(utc(moment))
    assert span == (utc(opens), utc(closes))


def test_exceptions_take_away_days_and_times() -> None:
    calendar = Calendar(
        ("FREQ=DAILY;BYHOUR=1,12",),
        dates=(date(2026, 12, 24),),
        except_rules=("FREQ=WEEKLY;BYDAY=SA,SU", "FREQ=DAILY;BYHOUR=12;BYMONTHDAY=23"),
        except_dates=(date(2026, 12, 25),),
    )
    assert found("2026-12-22T22:00", "2026-12-28", calendar) == [
        "12-23 00:00",
        "12-23 23:00",
        "12-24 00:00",
        "12-24 11:00",
    ]


def test_the_29th_of_february_comes_in_leap_years_only() -> None:
    leap = Calendar(("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29",))
    schedule = Schedule("s", BackupKind.FULL, calendar=leap, zone="UTC")
    moments = occurrences(schedule, BERLIN, utc("2026-01-01"), utc("2037-01-01"))
    assert [one.opens for one in moments] == [
        utc("2028-02-29"),
        utc("2032-02-29"),
        utc("2036-02-29"),
    ]


def test_a_distance_counts_real_hours_from_the_last_start() -> None:
    schedule = Schedule("s", BackupKind.FULL, every=timedelta(hours=10), windows=(NIGHT,))
    moments = occurrences(
        schedule, BERLIN, utc("2026-03-28"), utc("2026-03-30"), utc("2026-03-27T23:30")
    )
    assert [f"{one.opens:%m-%d %H:%M}" for one in moments] == ["03-28 21:00", "03-29 20:00"]
    at_once = Schedule("s", BackupKind.FULL, every=timedelta(hours=10))
    moments = occurrences(at_once, BERLIN, utc("2026-03-28"), utc("2026-03-29"))
    assert [f"{one.opens:%m-%d %H:%M}" for one in moments] == [
        "03-28 00:00",
        "03-28 10:00",
        "03-28 20:00",
    ]
    late = occurrences(
        at_once, BERLIN, utc("2026-03-28"), utc("2026-03-28T01:00"), utc("2020-01-01")
    )
    assert [one.opens for one in late] == [utc("2026-03-28")]


def test_a_course_remembers_what_it_computed_and_goes_back_when_it_must() -> None:
    course = Course(EVERY_DAY, Openings((), UTC))
    for day in (10, 20, 1, 15):
        after = course.after(utc(f"2026-01-{day:02}"))
        assert after is not None
        assert after.opens == utc(f"2026-01-{day + 1:02}")
    long_ago = course.after(utc("1950-06-01"))
    assert long_ago is not None
    some = course.between(utc("2026-01-01"), utc("2026-01-04"))
    assert [one.opens.day for one in some] == [2, 3, 4]
    assert not course.between(utc("2026-01-04"), utc("2026-01-01"))


def test_a_course_of_many_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.control.schedule.course._REMEMBERED", 100)
    course = Course(Calendar(("FREQ=HOURLY",)), Openings((), UTC))
    moment = utc("2026-01-01")
    for _ in range(1000):
        after = course.after(moment)
        assert after is not None
        assert after.opens - moment == timedelta(hours=1)
        moment = after.opens
    early = course.after(utc("2026-01-01"))
    assert early is not None
    assert early.opens == utc("2026-01-01T01:00")


def test_a_course_that_is_over_has_nothing_further() -> None:
    course = Course(Calendar(dates=(date(2026, 1, 1),)), Openings((), UTC))
    assert course.after(utc("2026-01-01")) is None
    assert course.after(utc("2025-01-01")) is not None


def test_the_usual_distance_tells_which_calendar_is_rarer() -> None:
    assert usual_distance(EVERY_DAY) == timedelta(days=1)
    monthly = usual_distance(Calendar(("FREQ=MONTHLY",)))
    assert timedelta(days=30) < monthly < timedelta(days=31)
    assert usual_distance(Calendar(dates=(date(2026, 1, 1),))) > 100 * monthly


def test_nothing_of_the_calendar_is_imported_before_it_is_needed() -> None:
    program = "import sys, holdfast.control.schedule; print('dateutil' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert shown.stdout == b"False\n"
