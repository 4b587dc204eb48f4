"""The wall clock, handed in. The only module that may ask the system for the date.

Must not be used to measure durations: that is what `time.monotonic` is for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ClockMark:
    """What two clocks showed at one moment, to find out later whether one was set.

    Attributes:
        wall_ns: The clock on the wall, in ns since 1970; a person or a time server may set it.
        since_boot_ns: Since the machine started, sleep included; nobody can set that.
        boot: Which start of the machine that was.
    """

    wall_ns: int
    since_boot_ns: int
    boot: str


class Clock(Protocol):
    """Tells the time. Thread-safe."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        ...

    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        ...

    def mark(self) -> ClockMark:
        """What all clocks show now."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        return datetime.now(UTC)

    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        return time.time_ns()

    def mark(self) -> ClockMark:
        """What all clocks show now."""
        since_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return ClockMark(self.now_ns(), since_ns, _boot())


def set_by(before: ClockMark, now: ClockMark) -> timedelta | None:
    """By how much the clock on the wall was set between two marks, forward or back.

    None if the machine was started in between: then nobody can tell.
    """
    if not now.boot or now.boot != before.boot:
        return None
    passed_ns = now.since_boot_ns - before.since_boot_ns
    return timedelta(microseconds=(now.wall_ns - before.wall_ns - passed_ns) // 1000)


@cache
def _boot() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""


def from_ns(moment_ns: int) -> datetime:
    """Turn nanoseconds since 1970 into an aware UTC moment, to the microsecond.

    Times of files reach beyond what a `datetime` can say; those are clamped to its ends.
    """
    try:
        return _EPOCH + timedelta(microseconds=moment_ns // 1000)
    except OverflowError:
        return _FIRST if moment_ns < 0 else _LAST


def to_ns(moment: datetime) -> int:
    """Turn an aware moment into nanoseconds since 1970, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
