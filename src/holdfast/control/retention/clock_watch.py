"""Whether the master's own clock was set between two moments.

Must not ask a clock. What is kept is judged by the clock: one that is put a year forward would
have a year's images go at once.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from holdfast.base.clock import from_ns, set_by
from holdfast.base.units import format_duration

if TYPE_CHECKING:
    from holdfast.base.clock import ClockMark

JUMP = timedelta(minutes=10)
"""Less than this is what time servers do to a clock that was off."""


def jump(before: ClockMark | None, now: ClockMark) -> str | None:
    """Tell in words how far the clock was set; None if it was not, as far as can be known.

    Over a restart of the machine only a clock that was put back can be told: it may have been
    off for as long as a clock that was put forward says.

    Args:
        before: What was remembered, if anything.
        now: What the clocks show now.
    """
    if before is None:
        return None
    passed = set_by(before, now)
    if passed is None:
        passed = min(from_ns(now.wall_ns) - from_ns(before.wall_ns), timedelta())
    if abs(passed) <= JUMP:
        return None
    way = "forward" if passed > timedelta() else "back"
    return f"the clock was put {way} by {format_duration(abs(passed).total_seconds())}"
