"""Rules of RFC 5545: what they give, and the sentences that refuse them."""

from __future__ import annotations

from datetime import date, datetime, time
from itertools import islice

import pytest

from holdfast.base.errors import Invalid
from holdfast.control.schedule import BackupKind, Calendar, Schedule, Window
from holdfast.control.schedule.recurrence import recurrence


def shown(text: str, first: date, count: int) -> list[str]:
    moments = islice(recurrence(text).moments(first), count)
    return [f"{moment:%a %Y-%m-%d %H:%M}" for moment in moments]


@pytest.mark.parametrize(
    ("text", "moments"),
    [
        ("FREQ=WEEKLY", ["Mon 2026-11-23 00:00", "Mon 2026-11-30 00:00"]),
        ("rrule:freq=weekly;byday=sa", ["Sat 2026-11-21 00:00", "Sat 2026-11-28 00:00"]),
        ("FREQ=MONTHLY", ["Tue 2026-12-01 00:00", "Fri 2027-01-01 00:00"]),
        ("FREQ=MONTHLY;BYDAY=-1FR", ["Fri 2026-11-27 00:00", "Fri 2026-12-25 00:00"]),
        ("FREQ=MONTHLY;BYMONTHDAY=31", ["Thu 2026-12-31 00:00", "Sun 2027-01-31 00:00"]),
        (
            "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
            ["Mon 2026-11-30 00:00", "Thu 2026-12-31 00:00"],
        ),
        (
            "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29",
            ["Tue 2028-02-29 00:00", "Sun 2032-02-29 00:00"],
        ),
        ("FREQ=HOURLY;INTERVAL=6", ["Sat 2026-11-21 00:00", "Sat 2026-11-21 06:00"]),
        ("FREQ=DAILY;BYHOUR=12,18", ["Sat 2026-11-21 12:00", "Sat 2026-11-21 18:00"]),
        ("FREQ=MINUTELY;INTERVAL=15;BYHOUR=9", ["Sat 2026-11-21 09:00", "Sat 2026-11-21 09:15"]),
        ("FREQ=DAILY;UNTIL=20261121", ["Sat 2026-11-21 00:00"]),
        ("FREQ=DAILY;BYHOUR=23;UNTIL=20261121", ["Sat 2026-11-21 23:00"]),
        ("FREQ=DAILY;BYHOUR=1,23;UNTIL=20261121T120000", ["Sat 2026-11-21 01:00"]),
    ],
)
def test_a_rule_gives_its_moments(text: str, moments: list[str]) -> None:
    assert shown(text, date(2026, 11, 21), 2) == moments


@pytest.mark.parametrize(
    "text",
    [
        "FREQ=WEEKLY;INTERVAL=2;BYDAY=SU,MO;WKST=SU",
        "FREQ=WEEKLY;INTERVAL=3",
        "FREQ=MONTHLY;INTERVAL=5;BYMONTHDAY=31",
        "FREQ=YEARLY;INTERVAL=4;BYMONTH=2;BYMONTHDAY=29",
        "FREQ=DAILY;INTERVAL=11",
        "FREQ=HOURLY;INTERVAL=7;BYHOUR=3,4",
        "FREQ=MINUTELY;INTERVAL=777",
    ],
)
def test_a_rule_gives_the_same_wherever_one_begins(text: str) -> None:
    rule = recurrence(text)
    whole = [one for one in islice(rule.moments(date(1990, 1, 1)), 50_000) if one.year < 2010]
    for first in (date(1995, 12, 31), date(1996, 1, 1), date(1999, 12, 30), date(2004, 2, 29)):
        beginning = datetime.combine(first, datetime.min.time())
        expected = [one for one in whole if one >= beginning][:20]
        assert list(islice(rule.moments(first), len(expected))) == expected


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "'' is not NAME=VALUE"),
        ("every day", "'EVERY DAY' is not NAME=VALUE"),
        ("FREQ=DAILY;", "'' is not NAME=VALUE"),
        ("BYDAY=SA", "it has no FREQ; there are YEARLY"),
        ("FREQ=SECONDLY", "it has FREQ=SECONDLY; there are YEARLY"),
        ("FREQ=DAILY;FREQ=DAILY", "it has FREQ twice"),
        ("FREQ=DAILY;BYEASTER=1", "there is no part BYEASTER"),
        ("FREQ=DAILY;INTERVAL=0", "INTERVAL goes from 1 to 7300, not '0'"),
        ("FREQ=DAILY;INTERVAL=x", "INTERVAL goes from 1 to 7300, not 'X'"),
        ("FREQ=YEARLY;INTERVAL=21", "INTERVAL goes from 1 to 20, not '21'"),
        ("FREQ=DAILY;BYHOUR=24", "BYHOUR goes from 0 to 23, not '24'"),
        ("FREQ=DAILY;BYHOUR=-1", "BYHOUR goes from 0 to 23, not '-1'"),
        ("FREQ=MONTHLY;BYMONTHDAY=32", "BYMONTHDAY goes from 1 to 31 or -31 to -1, not '32'"),
        ("FREQ=MONTHLY;BYMONTHDAY=0", "BYMONTHDAY goes from 1 to 31 or -31 to -1, not '0'"),
        ("FREQ=WEEKLY;BYDAY=SAT", "BYDAY has days such as SA, 1MO or -1FR, not 'SAT'"),
        ("FREQ=MONTHLY;BYDAY=0MO", "BYDAY has days such as SA, 1MO or -1FR, not '0MO'"),
        ("FREQ=WEEKLY;BYDAY=1MO", "a numbered BYDAY needs FREQ=MONTHLY or YEARLY"),
        ("FREQ=MONTHLY;BYDAY=6MO", "BYDAY counts up to 5 here, not 6"),
        ("FREQ=YEARLY;BYMONTH=5;BYDAY=53MO", "BYDAY counts up to 5 here, not 53"),
        ("FREQ=MONTHLY;BYDAY=1MO,FR", "BYDAY mixes numbered days with others"),
        ("FREQ=WEEKLY;WKST=8", "WKST is one of MO, TU, WE, TH, FR, SA, SU, not '8'"),
        ("FREQ=WEEKLY;BYMONTHDAY=1", "BYMONTHDAY can't be with FREQ=WEEKLY"),
        ("FREQ=DAILY;BYSETPOS=1", "BYSETPOS chooses among what other BY parts give"),
        ("FREQ=HOURLY;BYMINUTE=1,2;BYSETPOS=1", "BYSETPOS can't be with FREQ=HOURLY"),
        ("FREQ=DAILY;UNTIL=tomorrow", "UNTIL is a local date or time such as 20261231"),
        ("FREQ=DAILY;UNTIL=20260230", "UNTIL is a local date or time such as 20261231"),
        ("FREQ=DAILY;UNTIL=20261231T000000Z", "UNTIL is a local date or time such as 20261231"),
    ],
)
def test_what_is_no_rule_is_refused_with_the_cause(text: str, cause: str) -> None:
    with pytest.raises(Invalid) as caught:
        Calendar((text,))
    assert caught.value.message.startswith(f"rule '{text}' can't be understood: {cause}")
    assert caught.value.hint is not None
    assert "RFC 5545" in caught.value.hint
    with pytest.raises(Invalid):
        Calendar(("FREQ=DAILY",), except_rules=(text,))


@pytest.mark.parametrize(
    "text",
    [
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=MINUTELY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=WEEKLY;BYDAY=MO;BYSETPOS=2",
        "FREQ=HOURLY;INTERVAL=2;BYHOUR=1",
        "FREQ=MINUTELY;INTERVAL=1440;BYHOUR=3",
    ],
)
def test_an_impossible_rule_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=f"rule '{text}' never gives a moment in 60 years") as caught:
        Calendar((text,))
    assert caught.value.hint


def test_a_count_is_refused_since_nothing_begins_it() -> None:
    with pytest.raises(Invalid, match="ends after a COUNT") as caught:
        Calendar(("FREQ=DAILY;COUNT=3",))
    assert caught.value.hint == "end it with UNTIL, or write the dates themselves"


@pytest.mark.parametrize(
    "calendar",
    [
        {"rules": ("FREQ=DAILY",), "except_rules": ("FREQ=DAILY",)},
        {"rules": ("FREQ=HOURLY",), "except_rules": ("FREQ=DAILY",)},
        {"rules": ("FREQ=DAILY;UNTIL=19700101",)},
        {"dates": (date(2026, 1, 1),), "except_dates": (date(2026, 1, 1),)},
    ],
)
def test_a_calendar_that_leaves_nothing_is_refused(calendar: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(Invalid, match="nothing is left of a calendar"):
        Calendar(**calendar)  # type: ignore[arg-type]


def test_a_calendar_whose_exceptions_leave_something_is_not_refused() -> None:
    not_december = "FREQ=DAILY;BYMONTH=1,2,3,4,5,6,7,8,9,10,11"
    assert Calendar(("FREQ=HOURLY",), except_rules=(not_december,)).rules


def test_a_calendar_of_which_nothing_lies_in_a_window_is_refused() -> None:
    sundays = (Window(frozenset({6}), time(22), time(6)),)
    for rule in ("FREQ=WEEKLY;BYDAY=MO", "FREQ=DAILY;BYHOUR=12"):
        with pytest.raises(Invalid, match="schedule 'a' is never due: nothing of its calendar"):
            Schedule("a", BackupKind.FULL, calendar=Calendar((rule,)), windows=sundays)
    monday_night = Calendar(("FREQ=WEEKLY;BYDAY=MO;BYHOUR=3",))
    assert Schedule("a", BackupKind.FULL, calendar=monday_night, windows=sundays).calendar
