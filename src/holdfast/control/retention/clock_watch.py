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


def jump(before: ClockMark | None, now: ClockMark, longest_absence: timedelta) -> str | None:
    """Tell in words how far the clock was set; None if it was not, as far as can be known.

    Over a restart of the machine nobody can tell a clock that was put forward from a machine that
    was off: a short time is taken for the latter, a long one is in doubt.

    Args:
        before: What was remembered, if anything.
        now: What the clocks show now.
        longest_absence: For so long a machine may have been off without anybody being asked.
    """
    if before is None:
        return None
    by = set_by(before, now)
    if by is None:
        passed = from_ns(now.wall_ns) - from_ns(before.wall_ns)
        if passed > longest_absence:
            return (
                f"the clock shows {_words(passed)} more than when this site last looked at it, and "
                "the machine was started meanwhile: it was off for so long, or its clock is wrong"
            )
        by = min(passed, timedelta())
    if abs(by) <= JUMP:
        return None
    way = "forward" if by > timedelta() else "back"
    return f"the clock was put {way} by {_words(by)} since this site last looked at it"


def _words(length: timedelta) -> str:
    return format_duration(abs(length).total_seconds())
