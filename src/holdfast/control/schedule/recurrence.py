"""Rules of a calendar: RRULE texts of RFC 5545, and the local moments they give.

Must not know of zones: moments are local, without one. Invariants: periods are counted from
`ANCHOR`, a Monday and the first of a leap year, so that a rule gives the same moments wherever
one begins to ask; a rule that exists gives one at least.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from itertools import dropwhile
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterator

ANCHOR = datetime(1996, 1, 1)  # noqa: DTZ001 - local, whatever the zone
"""Where the first period of every rule begins; what a rule leaves open is as it is here."""

LAST_YEAR = 9999
YEARS_TRIED = 60
"""A rule that gives nothing in so many years is refused: a 29 February that has to be a given
day of the week is 40 years away at most."""

HINT = "write it as in RFC 5545, for example FREQ=WEEKLY;BYDAY=SA or FREQ=MONTHLY;BYDAY=-1FR"

_FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY")
_SHORT = ("HOURLY", "MINUTELY")
_DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_RANGES = {
    "BYMONTH": (1, 12, False),
    "BYMONTHDAY": (1, 31, True),
    "BYYEARDAY": (1, 366, True),
    "BYWEEKNO": (1, 53, True),
    "BYSETPOS": (1, 366, True),
    "BYHOUR": (0, 23, False),
    "BYMINUTE": (0, 59, False),
    "BYSECOND": (0, 59, False),
}
_NOT_WITH = {
    "BYWEEKNO": ("MONTHLY", "WEEKLY", "DAILY", *_SHORT),
    "BYYEARDAY": ("MONTHLY", "WEEKLY", "DAILY"),
    "BYMONTHDAY": ("WEEKLY",),
    "BYSETPOS": _SHORT,
}
_TIMES = ("BYHOUR", "BYMINUTE", "BYSECOND")
_GREATEST_INTERVAL = {
    "YEARLY": 20,
    "MONTHLY": 240,
    "WEEKLY": 1_040,
    "DAILY": 7_300,
    "HOURLY": 9_999,
    "MINUTELY": 9_999,
}
_NUMBERED_DAY = re.compile(r"([+-]?[0-9]{1,2})?(MO|TU|WE|TH|FR|SA|SU)")
_UNTIL = re.compile(r"([0-9]{8})(?:T([0-9]{6}))?")


@dataclass(frozen=True, slots=True)
class Recurrence:
    """One rule, understood.

    Attributes:
        text: As it was written.
        frequency: The unit of its periods, such as ``WEEKLY``.
        interval: It looks at each so many-th period.
        until: It gives nothing after this local moment.
        by: Its other parts, as `dateutil.rrule` calls them.
    """

    text: str
    frequency: str
    interval: int
    until: datetime | None
    by: tuple[tuple[str, Any], ...]

    @property
    def is_timed(self) -> bool:
        """Whether it gives moments of a day; else it gives days, as their midnights."""
        named = {name for name, _ in self.by}
        return self.frequency in _SHORT or not named.isdisjoint(one.lower() for one in _TIMES)

    def moments(self, first: date) -> Iterator[datetime]:
        """All moments from the beginning of a day on, in order, without end if there is none.

        The next moment may take some time to find where moments are years apart.
        """
        beginning = datetime.combine(first, time())
        return dropwhile(
            lambda moment: moment < beginning, self._rule(self._aligned(beginning), self.until)
        )

    def gives_anything(self) -> bool:
        """Whether it gives a moment in any `YEARS_TRIED` years, without regard to its end.

        The years that are tried are the last ones there are, because the library would search
        for a moment that never comes until then.
        """
        start = self._aligned(datetime(LAST_YEAR - YEARS_TRIED, 1, 1))  # noqa: DTZ001
        try:
            return next(iter(self._rule(start, None)), None) is not None
        except (ValueError, OverflowError):  # no hour or minute fits, or the last year ended
            return False

    def _rule(self, start: datetime, until: datetime | None) -> Iterator[datetime]:
        from dateutil import rrule

        days = dict(zip(_DAYS, rrule.weekdays, strict=True))
        by = dict(self.by)
        if "byweekday" in by:
            by["byweekday"] = [days[name](n) for n, name in by["byweekday"]]
        if "wkst" in by:
            by["wkst"] = days[by["wkst"]]
        frequency = getattr(rrule, self.frequency)
        rule = rrule.rrule(frequency, start, self.interval, until=until, **by)
        yield from rule

    def _aligned(self, moment: datetime) -> datetime:
        """A beginning of a period that counts, one whole period or more before a moment."""
        if self.frequency in ("YEARLY", "MONTHLY"):
            length = self.interval * (12 if self.frequency == "YEARLY" else 1)
            months = (moment.year - ANCHOR.year) * 12 + moment.month - ANCHOR.month
            year, month = divmod((months // length - 1) * length, 12)
            return ANCHOR.replace(year=ANCHOR.year + year, month=1 + month)
        step = (
            self.interval
            * {
                "WEEKLY": timedelta(weeks=1),
                "DAILY": timedelta(days=1),
                "HOURLY": timedelta(hours=1),
                "MINUTELY": timedelta(minutes=1),
            }[self.frequency]
        )
        return ANCHOR + ((moment - ANCHOR) // step - 1) * step


@lru_cache(maxsize=4096)
def recurrence(text: str) -> Recurrence:
    """Understand a rule.

    Raises:
        Invalid: It is not a rule, asks for what is not offered here, or never gives anything;
            the sentence names the rule and the cause.
    """
    parts = _parts(text)
    frequency = parts.pop("FREQ", "")
    if frequency not in _FREQUENCIES:
        given = f"FREQ={frequency}" if frequency else "no FREQ"
        raise _wrong(text, f"it has {given}; there are {', '.join(_FREQUENCIES)}")
    if "COUNT" in parts:
        raise Invalid(
            f"rule '{text}' ends after a COUNT, but rules have no first moment to count from",
            "end it with UNTIL, or write the dates themselves",
        )
    most = _GREATEST_INTERVAL[frequency]
    interval = _number(text, "INTERVAL", parts.pop("INTERVAL", "1"), 1, most)
    until = _until(text, parts.pop("UNTIL")) if "UNTIL" in parts else None
    by = {name.lower(): _part(text, name, value) for name, value in parts.items()}
    if "BYDAY" in parts:
        by["byweekday"] = by.pop("byday")
    _check_together(text, frequency, by)
    found = Recurrence(text, frequency, interval, until, tuple(sorted(by.items())))
    if not found.gives_anything():
        raise Invalid(
            f"rule '{text}' never gives a moment in {YEARS_TRIED} years",
            "look for a day that no month has, or parts that exclude each other",
        )
    return found


def _parts(text: str) -> dict[str, str]:
    """Take ``NAME=VALUE;NAME=VALUE`` apart."""
    body = text.strip().upper().removeprefix("RRULE:")
    found: dict[str, str] = {}
    for part in body.split(";"):
        name, equals, value = part.strip().partition("=")
        if not equals or not value:
            raise _wrong(text, f"'{part}' is not NAME=VALUE")
        if name in found:
            raise _wrong(text, f"it has {name} twice")
        found[name] = value
    return found


def _part(text: str, name: str, value: str) -> Any:
    """Understand one of the parts that choose among the moments of a period."""
    if name == "BYDAY":
        return tuple(_numbered_day(text, one) for one in value.split(","))
    if name == "WKST":
        if value not in _DAYS:
            raise _wrong(text, f"WKST is one of {', '.join(_DAYS)}, not '{value}'")
        return value
    if name not in _RANGES:
        raise _wrong(text, f"there is no part {name}")
    least, most, from_end = _RANGES[name]
    return tuple(
        _number(text, name, one, least, most, from_end=from_end) for one in value.split(",")
    )


def _number(
    text: str, name: str, value: str, least: int, most: int, *, from_end: bool = False
) -> int:
    found = int(value) if re.fullmatch(r"[+-]?[0-9]{1,6}", value) else None
    if found is None or not least <= (abs(found) if from_end else found) <= most:
        ends = f"{least} to {most}" + (f" or -{most} to -{least}" if from_end else "")
        raise _wrong(text, f"{name} goes from {ends}, not '{value}'")
    return found


def _numbered_day(text: str, value: str) -> tuple[int | None, str]:
    match = _NUMBERED_DAY.fullmatch(value)
    number = int(match[1]) if match and match[1] else None
    if match is None or number == 0:
        raise _wrong(text, f"BYDAY has days such as SA, 1MO or -1FR, not '{value}'")
    return number, match[2]


def _until(text: str, value: str) -> datetime:
    match = _UNTIL.fullmatch(value)
    try:
        if match is None:
            raise ValueError
        return datetime.strptime(match[1] + (match[2] or "235959"), "%Y%m%d%H%M%S")  # noqa: DTZ007
    except ValueError as error:
        raise _wrong(
            text,
            f"UNTIL is a local date or time such as 20261231 or 20261231T235959, not '{value}'",
        ) from error


def _check_together(text: str, frequency: str, by: dict[str, Any]) -> None:
    for name, frequencies in _NOT_WITH.items():
        if name.lower() in by and frequency in frequencies:
            raise _wrong(text, f"{name} can't be with FREQ={frequency}")
    if "bysetpos" in by and len(by.keys() - {"wkst"}) == 1:
        raise _wrong(text, "BYSETPOS chooses among what other BY parts give, but there are none")
    numbers = [number for number, _ in by.get("byweekday", ())]
    numbered = [abs(number) for number in numbers if number is not None]
    if not numbered:
        return
    if frequency not in ("YEARLY", "MONTHLY") or "byweekno" in by:
        raise _wrong(text, "a numbered BYDAY needs FREQ=MONTHLY or YEARLY, without BYWEEKNO")
    if len(numbered) < len(numbers):
        raise _wrong(text, "BYDAY mixes numbered days with others; write two rules")
    most = 53 if frequency == "YEARLY" and "bymonth" not in by else 5
    if max(numbered) > most:
        raise _wrong(text, f"BYDAY counts up to {most} here, not {max(numbered)}")


def _wrong(text: str, cause: str) -> Invalid:
    return Invalid(f"rule '{text}' can't be understood: {cause}", HINT)
