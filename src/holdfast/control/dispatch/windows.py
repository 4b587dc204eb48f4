"""Whether a scheduled job may begin now, or what it waits for.

Must not know what is due. Invariant: answers for one moment are the same for all jobs of a
schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from holdfast.control.schedule.occurrences import zone_of
from holdfast.control.schedule.openings import Openings

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from holdfast.control.schedule import Schedule, Window
    from holdfast.control.schedule.openings import Span


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a schedule's windows stand.

    Attributes:
        is_open: Whether one of its jobs may begin.
        until: When that changes; None if it never does.
        words: If not, why, for a person.
    """

    is_open: bool
    until: datetime | None
    words: str = ""


class Windows:
    """The windows of schedules. Not thread-safe."""

    def __init__(self, site_zone: tzinfo) -> None:
        """Know no schedule yet.

        Args:
            site_zone: The zone of schedules that name none.
        """
        self._site_zone = site_zone
        self._openings: dict[tuple[tuple[Window, ...], tzinfo], Openings] = {}

    def standing(self, schedule: Schedule, now: datetime) -> Standing:
        """Tell whether a window is open.

        Args:
            schedule: Whose.
            now: The moment, aware.
        """
        zone = zone_of(schedule, self._site_zone)
        key = schedule.windows, zone
        openings = self._openings.get(key)
        if openings is None:
            openings = self._openings[key] = Openings(schedule.windows, zone)
        span = openings.following(now)
        if span.opens <= now:
            return Standing(is_open=True, until=span.closes)
        return Standing(False, span.opens, _words(schedule, span, zone, now))


def _words(schedule: Schedule, span: Span, zone: tzinfo, now: datetime) -> str:
    opens = span.opens.astimezone(zone)
    when = f"{opens:%H:%M}" if span.opens - now < timedelta(hours=20) else f"{opens:%a %d %b %H:%M}"
    return f"the window of schedule '{schedule.name}' opens at {when}"
