"""Schedules, calendars and windows refuse what makes no sense."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import pytest

from holdfast.base.errors import Invalid
from holdfast.control.schedule import BackupKind, Calendar, Schedule, Window

DAILY = frozenset(range(7))
NIGHT = Window(DAILY, time(22), time(6))
SATURDAYS = Calendar(("FREQ=WEEKLY;BYDAY=SA",))


def test_a_window_that_closes_before_it_opens_crosses_midnight() -> None:
    assert NIGHT.length == timedelta(hours=8)
    assert Window(DAILY, time(9), time(17)).length == timedelta(hours=8)
    assert Window(DAILY, time(9), time(9)).length == timedelta(hours=24)
    assert str(NIGHT) == "daily 22:00 to 06:00"
    assert str(Window(frozenset({5, 0}), time(1), time(2))) == "Monday, Saturday 01:00 to 02:00"


@pytest.mark.parametrize(
    ("days", "opens", "sentence"),
    [
        (set(), time(1), "a window opens on one day of the week at least"),
        ({7}, time(1), "7 is not a day of the week"),
        ({0}, time(1, tzinfo=UTC), "the time 01:00:00\\+00:00 of a window has a zone of its own"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(
    days: set[int], opens: time, sentence: str
) -> None:
    with pytest.raises(Invalid, match=sentence):
        Window(frozenset(days), opens, time(6))


def test_a_calendar_of_nothing_is_refused() -> None:
    with pytest.raises(Invalid, match="one rule or date at least"):
        Calendar(except_dates=(date(2026, 12, 25),))
    with pytest.raises(Invalid, match="is a moment where a calendar wants a date"):
        Calendar(dates=(datetime(2026, 12, 25, 1, tzinfo=UTC),))


def test_a_schedule_has_either_a_distance_or_a_calendar() -> None:
    assert Schedule("a", BackupKind.FULL, calendar=SATURDAYS).every is None
    with pytest.raises(Invalid, match="schedule 'a' has neither of 'every' and a calendar"):
        Schedule("a", BackupKind.FULL)
    with pytest.raises(Invalid, match="schedule 'a' has both of 'every' and a calendar"):
        Schedule("a", BackupKind.FULL, every=timedelta(days=1), calendar=SATURDAYS)
    assert Schedule("a", BackupKind.CONTINUOUS, every=timedelta(seconds=30)).calendar is None
    with pytest.raises(Invalid, match="is continuous and needs 'every'"):
        Schedule("a", BackupKind.CONTINUOUS, calendar=SATURDAYS)


@pytest.mark.parametrize("every", [timedelta(), timedelta(seconds=59), timedelta(days=36_501)])
def test_a_distance_is_not_too_short_and_not_too_long(every: timedelta) -> None:
    with pytest.raises(Invalid, match=r"schedule 'a' is due every .* from 1 m 00 s to 36500 days"):
        Schedule("a", BackupKind.FULL, every=every)


@pytest.mark.parametrize("name", ["", "Nightly", "-a", "a b", "a" * 64, "ä"])
def test_a_name_is_short_and_plain(name: str) -> None:
    with pytest.raises(Invalid, match="can't be the name of a schedule"):
        Schedule(name, BackupKind.FULL, every=timedelta(days=1))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (NIGHT, Window(frozenset({3}), time(5, 59), time(12))),
        (NIGHT, Window(frozenset({0}), time(0), time(1))),
        (NIGHT, NIGHT),
        (Window(frozenset({6}), time(22), time(6)), Window(frozenset({0}), time(5), time(7))),
        (Window(DAILY, time(9), time(9)), Window(frozenset({0}), time(5), time(7))),
    ],
)
def test_windows_that_overlap_are_refused(first: Window, second: Window) -> None:
    for windows in ((first, second), (second, first)):
        with pytest.raises(Invalid, match=r"windows of schedule 'a' overlap: .* and "):
            Schedule("a", BackupKind.FULL, every=timedelta(days=1), windows=windows)


def test_windows_that_touch_are_not_refused() -> None:
    windows = (
        NIGHT,
        Window(frozenset({3}), time(6), time(12)),
        Window(frozenset({4}), time(12), time(22)),
    )
    assert Schedule("a", BackupKind.FULL, every=timedelta(days=1), windows=windows).windows
    whole = (Window(DAILY, time(9), time(9)),)
    assert Schedule("a", BackupKind.FULL, every=timedelta(days=1), windows=whole).windows


def test_other_values_that_make_no_sense_are_refused() -> None:
    every = timedelta(days=1)
    with pytest.raises(Invalid, match="there is no time zone 'Europe/Bonn'") as caught:
        Schedule("a", BackupKind.FULL, every=every, zone="Europe/Bonn")
    assert caught.value.hint == "use a name such as Europe/Berlin or UTC"
    for name in ("", "../etc/passwd", "Europe", "a\0b"):
        with pytest.raises(Invalid, match="there is no time zone"):
            Schedule("a", BackupKind.FULL, every=every, zone=name)
    with pytest.raises(Invalid, match="schedule 'a' has priority 101; it goes from 0 to 100"):
        Schedule("a", BackupKind.FULL, every=every, priority=101)
    with pytest.raises(Invalid, match="staggers over 9 h 00 m, but has a window of 8 h 00 m"):
        Schedule("a", BackupKind.FULL, every=every, windows=(NIGHT,), stagger=timedelta(hours=9))
    with pytest.raises(Invalid, match="less than nothing"):
        Schedule("a", BackupKind.FULL, every=every, stagger=-every)


def test_the_greatest_kind_is_known() -> None:
    order = sorted(BackupKind, key=lambda kind: kind.greatness, reverse=True)
    assert " > ".join(order) == "full > synthetic > cumulative > differential > continuous"
