"""Start windows and durations as a policy's file writes them.

Pure. Invariant: what is written here is read back as the same value.
"""

from __future__ import annotations

import re
from datetime import time, timedelta
from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid
from holdfast.base.units import parse_duration
from holdfast.control.schedule import Window

if TYPE_CHECKING:
    from collections.abc import Iterable

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
EVERY_DAY = frozenset(range(7))

_DAY_NUMBERS = {day.lower(): number for number, day in enumerate(DAYS)} | {
    name: number
    for number, name in enumerate(
        ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    )
}
_CLOCK = "[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?"
_WINDOW = re.compile(
    rf"(?:(?P<days>[^0-9]*[^0-9\s])\s+)?(?P<opens>{_CLOCK})\s*-\s*(?P<closes>{_CLOCK})"
)
_WINDOW_HINT = "write for example 'Mon-Fri 22:00-06:00', 'Sat,Sun 00:00-24:00' or '20:00-04:00'"
_UNITS = (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("m", timedelta(minutes=1)))


def read_window(text: str) -> Window:
    """Read ``Mon-Fri 22:00-06:00``; without days it is every day's.

    Raises:
        Invalid: It is not a window.
    """
    match = _WINDOW.fullmatch(text.strip())
    if match is None:
        raise Invalid(f"'{text}' is not a window", _WINDOW_HINT)
    opens = _time(match, "opens", text)
    closes = time() if match["closes"] == "24:00" else _time(match, "closes", text)
    days = match["days"]
    return Window(EVERY_DAY if days is None else _days(days, text), opens, closes)


def write_window(window: Window) -> str:
    """Write ``Mon-Fri 22:00-06:00``."""
    closes = _clock(window.closes)
    if closes == "00:00":
        closes = "24:00"
    times = f"{_clock(window.opens)}-{closes}"
    return times if window.days == EVERY_DAY else f"{write_days(window.days)} {times}"


def write_days(days: Iterable[int]) -> str:
    """Write days of the week, Monday being 0: ``Mon-Wed,Sat,Sun``."""
    runs: list[list[int]] = []
    for day in sorted(days):
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(
        f"{DAYS[run[0]]}-{DAYS[run[-1]]}" if len(run) > 2 else ",".join(DAYS[one] for one in run)
        for run in runs
    )


def read_span(text: str) -> timedelta:
    """Read a duration in whole seconds: ``30d``, ``12h``, ``1h30m``.

    Raises:
        Invalid: It is not one.
    """
    try:
        span = timedelta(seconds=parse_duration(text))
    except OverflowError as error:
        raise Invalid(f"'{text}' is longer than time itself", "write for example 30d") from error
    if span.microseconds:
        raise Invalid(f"'{text}' is not in whole seconds", "write for example 90s")
    return span


def write_span(span: timedelta) -> str:
    """Write a duration of whole seconds: ``30d``, ``1h30m``, ``0s``."""
    parts = []
    for letter, unit in _UNITS:
        count, span = divmod(span, unit)
        if count:
            parts.append(f"{count}{letter}")
    if span or not parts:
        parts.append(f"{int(span.total_seconds())}s")
    return "".join(parts)


def _days(text: str, whole: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        begin = _DAY_NUMBERS.get(first.lower())
        end = _DAY_NUMBERS.get(last.lower()) if dash else begin
        if begin is None or end is None:
            raise Invalid(f"'{whole}': '{part}' is no day of the week", _WINDOW_HINT)
        found.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(found)


def _time(match: re.Match[str], which: str, whole: str) -> time:
    hour, minute, second = [*map(int, match[which].split(":")), 0][:3]
    try:
        return time(hour, minute, second)
    except ValueError as error:
        raise Invalid(f"'{whole}': no clock shows {match[which]}", _WINDOW_HINT) from error


def _clock(moment: time) -> str:
    return moment.strftime("%H:%M:%S" if moment.second else "%H:%M")
