"""The wall clock, handed in. The only module that may ask the system for the date.

Must not be used to measure durations: that is what `time.monotonic` is for.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


class Clock(Protocol):
    """Tells the time. Thread-safe."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        ...

    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        return datetime.now(UTC)

    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        return time.time_ns()


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
