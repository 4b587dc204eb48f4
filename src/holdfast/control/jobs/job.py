"""What a job is: its facts, its state, its outcome, and what happened to its files.

Must not say what may follow on what: see life. Invariant: what is here is a value; changing a
job is making another one.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from holdfast.base import errors
from holdfast.base.ids import ClientName

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from holdfast.base.ids import ImageId, JobId, PolicyName, SourceName

BY_SITE: Final = ClientName("-")
"""The worker of a job that who serves the site does itself, whoever its client is. No machine that
has joined is called so."""

COUNTER_NAMES = (
    "files", "size_bytes", "online_bytes", "new_bytes", "transmitted_bytes", "findings",
)  # fmt: skip
"""What is counted of every job; a worker may count more."""


def counted(counters: Mapping[str, int] | None = None) -> dict[str, int]:
    """Counters with every one of `COUNTER_NAMES`."""
    return dict.fromkeys(COUNTER_NAMES, 0) | dict(counters or {})


class JobKind(enum.StrEnum):
    """What a job does. More kinds may come."""

    BACKUP = "backup"
    COMMAND_BEFORE = "command-before"
    """What a policy wants run on a client before the first of several backups; see `sequence`."""
    COMMAND_AFTER = "command-after"
    """The same after the last of them."""
    RESTORE = "restore"
    VERIFY = "verify"
    COLLECT = "collect"
    EXPIRE = "expire"
    CATALOG_BACKUP = "catalog-backup"
    CATALOG = "catalog"
    """The catalog is fed, or made anew."""
    INDEX = "index"
    """The pool's index is made anew."""
    REPLICATE = "replicate"
    """Images are brought into another storage unit."""
    BOOT_CHECK = "boot-check"
    """An image of a virtual machine is booted, and judged."""
    INSTANT = "instant"
    """A virtual machine runs from its image, which is served for as long as it needs that."""
    INSTANT_MIGRATE = "instant-migrate"
    INSTANT_DISCARD = "instant-discard"


COMMANDS: Final = frozenset({JobKind.COMMAND_BEFORE, JobKind.COMMAND_AFTER})

INSTANT: Final = frozenset({JobKind.INSTANT, JobKind.INSTANT_MIGRATE, JobKind.INSTANT_DISCARD})

OF_CLIENTS: Final = frozenset({JobKind.BACKUP, JobKind.RESTORE, *COMMANDS, *INSTANT})
"""What the machine of a client does, where one has joined."""


class Held(enum.StrEnum):
    """What part of its family a queued job is kept by; see `sequence`."""

    BY_FAMILY_BEFORE = "family-before"
    """The commands of an older job of the same policy on the same client are not through."""
    BY_COMMAND = "command"
    """The command before it has not run."""
    BY_BACKUPS = "backups"
    """Its backups have not ended."""
    BY_BACKUPS_OWED = "backups-owed"
    """The same; and it has to run, as what it undoes was begun."""


class JobState(enum.StrEnum):
    """How far a job is. One that is suspended is queued and says so beside."""

    QUEUED = "queued"
    ACTIVE = "active"
    ENDING = "ending"
    ENDED = "ended"


class Outcome(enum.StrEnum):
    """How a job ended, the best first: of a parent, the worst of its children."""

    COMPLETED = "completed"
    COMPLETED_WITH_WARNINGS = "completed-with-warnings"
    COMPLETED_WITH_ERRORS = "completed-with-errors"
    MISSED = "missed"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def words(self) -> str:
        """For a person: ``completed with errors``."""
        return self.replace("-", " ")

    @property
    def badness(self) -> int:
        """Higher is worse."""
        return _BADNESS[self]


_BADNESS = {outcome: place for place, outcome in enumerate(Outcome)}


class Asked(enum.StrEnum):
    """What was asked of a job that is at work; its worker is told to stop."""

    CANCEL = "cancel"
    SUSPEND = "suspend"
    REQUEUE = "requeue"


@dataclass(frozen=True, slots=True)
class JobError:
    """What a job failed of, as the error was told."""

    code: str
    message: str
    hint: str | None = None

    @classmethod
    def of(cls, error: errors.HoldfastError) -> JobError:
        """The same facts about an error that was raised."""
        return cls(error.code, error.message, error.hint)

    @property
    def retry(self) -> errors.Retry:
        """Whether the same again may help; an unknown code promises nothing."""
        known = errors.BY_CODE.get(self.code)
        return errors.Retry.NEVER if known is None else known.retry


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job. What it is told to do is kept beside it: see `book.JobBook.work`.

    Attributes:
        parent_id: The job of which this is a part.
        children: How many parts this has; a job that has parts does no work of its own.
        restart_of: The ended job that this one runs again.
        schedule: Of the policy; None if a person asked for it.
        backup_kind: Full, differential, …; of backups only.
        priority: 0 to 100, higher goes first.
        suspended: Queued, and not to begin until somebody resumes it.
        asked: What a person, or the master, asked for while it was at work.
        due_at: Which occurrence of its schedule it is; there is one job of each.
        not_before: It may not begin before this; None for at once.
        started_at: When it began; if it was tried again, the last time.
        attempt: How often it was begun, as far as that counts against it.
        fence: Names the one worker that may write; raised whenever that changes.
        lease_until: Its worker is given up if nothing is heard of it until then.
        counters: Each of `COUNTER_NAMES`, and what else its worker counts.
        waits_on: The resource that a queued job waits for, such as ``storage unit 'default'``.
        waits_for: The same in a sentence, with numbers.
        error: Why it failed, or why its last attempt did.
        events: How many events it has; see `events_left_out`.
        events_left_out: How many more there were than are kept.
        worker: Whose machine does the work, or `BY_SITE`; None for that of the client.
        held: What part of its family keeps it from beginning; None for nothing.
    """

    id: JobId
    kind: JobKind
    priority: int
    queued_at: datetime
    parent_id: JobId | None = None
    children: int = 0
    restart_of: JobId | None = None
    policy: PolicyName | None = None
    schedule: str | None = None
    client: ClientName | None = None
    source: SourceName | None = None
    backup_kind: str | None = None
    storage_unit: str | None = None
    state: JobState = JobState.QUEUED
    suspended: bool = False
    asked: Asked | None = None
    outcome: Outcome | None = None
    due_at: datetime | None = None
    not_before: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    attempt: int = 0
    fence: int = 0
    lease_until: datetime | None = None
    image_id: ImageId | None = None
    counters: Mapping[str, int] = field(default_factory=counted)
    waits_on: str | None = None
    waits_for: str | None = None
    error: JobError | None = None
    events: int = 0
    events_left_out: int = 0
    worker: ClientName | None = None
    held: Held | None = None

    @property
    def done_by(self) -> ClientName | None:
        """Whose machine does the work, if it is one's that has joined."""
        return self.worker or self.client

    @property
    def is_at_work(self) -> bool:
        """Whether a worker holds it, or, of a parent, any of its parts has begun."""
        return self.state in {JobState.ACTIVE, JobState.ENDING}

    @property
    def duration(self) -> timedelta | None:
        """From its beginning to its end, whatever the clock did; None until both are known."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(self.ended_at - self.started_at, timedelta())

    @property
    def status(self) -> str:
        """Its outcome if it has ended, else its state, in words."""
        if self.outcome is not None:
            return self.outcome.words
        return "suspended" if self.suspended else str(self.state)


class Severity(enum.StrEnum):
    """How bad an event is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that happened to a job or to one of its files, yet to be written down.

    Attributes:
        cause: In plain words, the same for all of its kind: ``no permission``.
        message: One sentence about this one.
        matters: Whether somebody has to do something, or data is missing.
        path: The file, as its bytes; None if it is about the job.
    """

    severity: Severity
    cause: str
    message: str
    matters: bool = False
    path: bytes | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A remark that was written down.

    Attributes:
        seq: Counts from 1 within a job.
    """

    job_id: JobId
    seq: int
    at: datetime
    severity: Severity
    path: bytes | None
    cause: str
    message: str
    matters: bool
