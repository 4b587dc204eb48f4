"""Where one schedule stands for one source at a moment: open, missed, waiting, or not yet due.

Pure functions of schedule, state and moment; must not know of other schedules. Invariants: what
is open lies in a window; an occurrence is open, waiting or missed until it is handled, so that
none is lost however seldom one asks.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from holdfast.control.schedule.openings import Span

LATE = timedelta(minutes=15)
"""So long after its moment an occurrence still starts that has no window and is not to run later:
the master may be started anew meanwhile."""

TICK = timedelta(microseconds=1)
"""The least that moments differ by."""


class State:
    """What was handled of one schedule for one source. Nothing in it ever goes back.

    Attributes:
        since: Occurrences from this moment on count.
        handled: The last that was handled, if any.
        last_start: When a backup of it last started, if one did.
        floor: Occurrences after this moment count: the last handled, or just before `since` if
            that is later.
    """

    __slots__ = ("floor", "handled", "last_start", "since")

    def __init__(
        self, since: datetime, handled: datetime | None = None, last_start: datetime | None = None
    ) -> None:
        self.since = since
        self.handled = handled
        self.last_start = last_start
        self.floor = since - TICK if handled is None else max(since - TICK, handled)

    def handle(self, due_at: datetime, started_at: datetime | None = None) -> None:
        """Remember that an occurrence was handled."""
        if self.handled is None or due_at > self.handled:
            self.handled = due_at
            self.floor = max(self.floor, due_at)
        if started_at is not None:
            self.start(started_at)

    def start(self, at: datetime) -> None:
        """Remember that a backup started."""
        if self.last_start is None or at > self.last_start:
            self.last_start = at

    def copy(self) -> State:
        """Another one that goes its own way from here."""
        return State(self.since, self.handled, self.last_start)


class Standing(NamedTuple):
    """Where a schedule stands for a source.

    Attributes:
        due_at: The occurrence that may start; None if none may now.
        since: From when on it might have started.
        ready: When it starts, staggered; it may be later than now.
        closes: From when on it must not start.
        collapsed: How many earlier ones it stands for as well.
        missed_at: The latest occurrence that is over for good, if any.
        missed: How many are over for good.
        again: When the next occurrence after the one that may start comes; None if none will.
        latest: The latest occurrence whose time has come, in whichever state.
        wake: When to look again if nothing happens: not after the next change that counts; None
            if nothing will ever be due.
    """

    due_at: datetime | None
    since: datetime | None
    ready: datetime | None
    closes: datetime | None
    again: datetime | None
    collapsed: int
    missed_at: datetime | None
    missed: int
    latest: datetime | None
    wake: datetime | None


class Pattern(Protocol):
    """What schedules have in common that are due at the same moments.

    Attributes:
        run_missed: Whether what could not start in its time starts later.
    """

    run_missed: bool

    def look(self, state: State, now: datetime, share: float) -> Standing:
        """Tell where it stands.

        Args:
            state: What was handled.
            now: The moment.
            share: Where in the time over which sources are spread this one starts: from 0 to
                just under 1.
        """
        ...

    def chance(self, now: datetime, share: float) -> Span:
        """The window that is open, from where a source starts in it on, or the next one."""
        ...
