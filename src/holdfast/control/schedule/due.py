"""What goes into a timetable and what comes out of it.

Values only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast.base.ids import PolicyName, SourceName
    from holdfast.control.schedule.schedule import BackupKind, Schedule


@dataclass(frozen=True, slots=True)
class Entry:
    """An active policy, as far as it says what is due.

    Attributes:
        policy: Its name.
        schedules: Of different names.
        sources: What it backs up, each by itself.
        since: Of schedules and sources without history, occurrences from this moment on count;
            aware.
        priority: Of its schedules that have none of their own.
    """

    policy: PolicyName
    schedules: tuple[Schedule, ...]
    sources: tuple[SourceName, ...]
    since: datetime
    priority: int = 50


@dataclass(frozen=True, slots=True)
class History:
    """What became of one schedule of a policy for one source, until now.

    It is to be recorded from the moment when a schedule or source is first put into a timetable
    (`Timetable.histories` tells it), with `since`: else what falls due while the master is down is
    not known to have been due.

    Attributes:
        policy: Whose schedule.
        schedule: Its name.
        source: Of which source.
        handled_until: `Due.due_at` of the last occurrence that was started, satisfied or missed;
            None if there was none. Never goes back, whatever clocks do.
        last_start: When a backup of it, or one that satisfied it, last started, or was due if it
            has not started yet; None if none did.
        since: Occurrences from this moment on count, such as since the policy was last made
            active; None for what the entry says.
    """

    policy: PolicyName
    schedule: str
    source: SourceName
    handled_until: datetime | None = None
    last_start: datetime | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Satisfied:
    """An occurrence of a lesser kind that need not start, since a greater one does.

    Attributes:
        schedule: Whose occurrence.
        due_at: What names it.
    """

    schedule: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Due:
    """An occurrence of a schedule for one source, whose time has come or is over.

    Attributes:
        policy: Whose schedule.
        schedule: Its name.
        source: What is to be backed up.
        kind: How.
        due_at: When the schedule was due, in UTC; with policy, schedule and source it names the
            occurrence.
        closes_at: From when on it must not start any more; None if it always may.
        missed: Whether it is over, to be recorded and not to be started.
        collapsed: How many earlier occurrences of the schedule it stands for as well.
        satisfies: Occurrences of other schedules of the policy that this backup does for.
    """

    policy: PolicyName
    schedule: str
    source: SourceName
    kind: BackupKind
    due_at: datetime
    closes_at: datetime | None = None
    missed: bool = False
    collapsed: int = 0
    satisfies: tuple[Satisfied, ...] = ()
