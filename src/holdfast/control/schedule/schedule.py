"""What an administrator says about when backups are due: schedules, calendars, windows.

Must not compute moments, nor ask a clock. Invariant: one of these that exists makes sense by
itself; what does not is refused with one sentence when it is made.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from holdfast.base.errors import Invalid
from holdfast.base.ids import PLAIN_NAME_HINT, is_plain_name
from holdfast.base.units import format_duration

if TYPE_CHECKING:
    from holdfast.control.retention import Rules

DAY = timedelta(days=1)
WEEK = timedelta(days=7)
LEAST_DISTANCE = timedelta(minutes=1)
LEAST_DISTANCE_CONTINUOUS = timedelta(seconds=1)
GREATEST_DISTANCE = timedelta(days=36_500)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class BackupKind(enum.StrEnum):
    """How a backup finds what to read. The image is complete by itself in every case."""

    FULL = "full"
    DIFFERENTIAL = "differential"
    CUMULATIVE = "cumulative"
    SYNTHETIC = "synthetic"
    CONTINUOUS = "continuous"

    @property
    def greatness(self) -> int:
        """Of several that are due at once, the one for which this is highest runs."""
        return _GREATNESS[self]


_GREATNESS = {
    BackupKind.FULL: 4,
    BackupKind.SYNTHETIC: 3,
    BackupKind.CUMULATIVE: 2,
    BackupKind.DIFFERENTIAL: 1,
    BackupKind.CONTINUOUS: 0,
}


@dataclass(frozen=True, slots=True)
class Window:
    """When backups may start, in local time, from `opens` until just before `closes`.

    Attributes:
        days: The days on which it opens, 0 for Monday to 6 for Sunday.
        opens: Local time of day.
        closes: Local time of day; on the next day if it is not after `opens`, so that equal
            times make 24 hours.

    Raises:
        Invalid: It has no day, an unknown day, or times that are more than hours, minutes and
            seconds.
    """

    days: frozenset[int]
    opens: time
    closes: time

    def __post_init__(self) -> None:
        if not self.days:
            raise Invalid("a window opens on one day of the week at least", "name its days")
        for day in sorted(self.days):
            if not 0 <= day < len(WEEKDAYS):
                raise Invalid(
                    f"{day} is not a day of the week", "days go from 0, Monday, to 6, Sunday"
                )
        for moment in (self.opens, self.closes):
            if moment.tzinfo is not None:
                raise Invalid(
                    f"the time {moment} of a window has a zone of its own",
                    "a window is in the zone of its schedule",
                )
            if moment.microsecond:
                raise Invalid(f"the time {moment} of a window is not a whole second")

    @property
    def length(self) -> timedelta:
        """How long it is open where no clock is changed: at most 24 hours."""
        length = since_midnight(self.closes) - since_midnight(self.opens)
        return length if length > timedelta() else length + DAY

    def __str__(self) -> str:
        days = ", ".join(WEEKDAYS[day] for day in sorted(self.days))
        return (
            f"{days if len(self.days) < 7 else 'daily'} {self.opens:%H:%M} to {self.closes:%H:%M}"
        )


@dataclass(frozen=True, slots=True)
class Calendar:
    """The days or moments on which backups are due, in local time.

    Attributes:
        rules: RRULE texts as in RFC 5545, without the word RRULE.
        dates: Days that are added.
        except_rules: RRULE texts; what they give is taken away.
        except_dates: Days that are taken away.

    Raises:
        Invalid: A rule can't be understood or never fires, or exceptions leave nothing.
    """

    rules: tuple[str, ...] = ()
    dates: tuple[date, ...] = ()
    except_rules: tuple[str, ...] = ()
    except_dates: tuple[date, ...] = ()

    def __post_init__(self) -> None:
        from holdfast.control.schedule.occurrences import is_ever_due
        from holdfast.control.schedule.recurrence import recurrence

        if not self.rules and not self.dates:
            raise Invalid(
                "a calendar has one rule or date at least",
                "give it a rule such as 'FREQ=WEEKLY;BYDAY=SA'",
            )
        for one in (*self.dates, *self.except_dates):
            if isinstance(one, datetime):
                raise Invalid(f"'{one}' is a moment where a calendar wants a date")
        for text in (*self.rules, *self.except_rules):
            recurrence(text)
        if not is_ever_due(self, ()):
            raise Invalid(
                "nothing is left of a calendar: it ended long ago, or its exceptions take all away",
                "look at the UNTIL of its rules, and at its exceptions",
            )


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the backups of a policy are due, and of what kind they are.

    Attributes:
        name: Unique in its policy.
        kind: What kind of backup it asks for.
        every: Distance from the last start to the next.
        calendar: Days or moments; a schedule has either this or `every`.
        windows: When a backup may start; none means at any time. They don't overlap.
        zone: IANA name of the zone of calendar and windows; None for that of the site.
        run_missed: Whether a backup that could not start in its time starts later.
        stagger: The sources of a policy start spread over so long from the opening.
        retention: How long its images are kept; None for what the policy says.
        priority: From 0 to 100, higher goes first; None for what the policy says.

    Raises:
        Invalid: It does not make sense; the sentence names the schedule.
    """

    name: str
    kind: BackupKind
    every: timedelta | None = None
    calendar: Calendar | None = None
    windows: tuple[Window, ...] = ()
    zone: str | None = None
    run_missed: bool = True
    stagger: timedelta = timedelta()
    retention: Rules | None = None
    priority: int | None = None

    def __post_init__(self) -> None:
        if not is_plain_name(self.name):
            raise Invalid(f"'{self.name}' can't be the name of a schedule", PLAIN_NAME_HINT)
        self._check_distance()
        self._check_windows()
        if self.priority is not None and not 0 <= self.priority <= 100:
            raise Invalid(
                f"schedule '{self.name}' has priority {self.priority}; it goes from 0 to 100"
            )
        if self.zone is not None:
            zone_named(self.zone)

    def _check_distance(self) -> None:
        if self.kind is BackupKind.CONTINUOUS and (self.every is None or self.calendar):
            raise Invalid(
                f"schedule '{self.name}' is continuous and needs 'every', without a calendar",
                "'every' is the smallest distance between two starts, for example 15m",
            )
        if (self.every is None) == (self.calendar is None):
            has = "neither" if self.every is None else "both"
            raise Invalid(
                f"schedule '{self.name}' has {has} of 'every' and a calendar",
                "give it one: 'every' counts from the last start, a calendar names days",
            )
        if self.every is None:
            return
        continuous = self.kind is BackupKind.CONTINUOUS
        least = LEAST_DISTANCE_CONTINUOUS if continuous else LEAST_DISTANCE
        if not least <= self.every <= GREATEST_DISTANCE:
            raise Invalid(
                f"schedule '{self.name}' is due every {_in_words(self.every)}; it can be from"
                f" {_in_words(least)} to {GREATEST_DISTANCE.days} days"
            )

    def _check_windows(self) -> None:
        from holdfast.control.schedule.occurrences import is_ever_due

        overlap = overlapping(self.windows)
        if overlap is not None:
            raise Invalid(
                f"windows of schedule '{self.name}' overlap: {overlap[0]} and {overlap[1]}",
                "make one window of them, or let one close when the other opens",
            )
        if self.calendar is not None and not is_ever_due(self.calendar, self.windows):
            raise Invalid(
                f"schedule '{self.name}' is never due: nothing of its calendar lies in a window",
                "a day needs a window that opens on it, a time one that is open then",
            )
        if self.stagger < timedelta():
            raise Invalid(f"schedule '{self.name}' can't be staggered over less than nothing")
        shortest = min((one.length for one in self.windows), default=GREATEST_DISTANCE)
        if self.stagger > shortest:
            raise Invalid(
                f"schedule '{self.name}' staggers over {_in_words(self.stagger)}, but has a"
                f" window of {_in_words(shortest)}",
                "stagger over no more than the shortest window, or make that longer",
            )


def since_midnight(moment: time) -> timedelta:
    """How long after midnight a time of day is, where no clock is changed."""
    return timedelta(hours=moment.hour, minutes=moment.minute, seconds=moment.second)


def overlapping(windows: tuple[Window, ...]) -> tuple[Window, Window] | None:
    """Find two windows that are open at the same time of a week; None if there are none."""
    openings = sorted(
        (day * DAY + since_midnight(one.opens), place)
        for place, one in enumerate(windows)
        for day in one.days
    )
    following = [*openings[1:], *((start + WEEK, place) for start, place in openings[:1])]
    for (start, place), (next_start, next_place) in zip(openings, following, strict=True):
        if start + windows[place].length > next_start:
            return windows[place], windows[next_place]
    return None


def zone_named(name: str) -> ZoneInfo:
    """Look a zone up by its IANA name.

    Raises:
        Invalid: There is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise Invalid(
            f"there is no time zone '{name}'", "use a name such as Europe/Berlin or UTC"
        ) from error


def _in_words(length: timedelta) -> str:
    return format_duration(length.total_seconds())
