"""The activity log and the event log as tables: which columns there are, and what is in them.

The activity log has a row for each backup set, and for each other job that did work: when, how
long, how many files, how much of what changed, how much of that was sent, and how it ended. Must
not write files: see export.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.control.jobs.job import Event, Job

Row = TypeVar("Row")
Value = str | int | datetime | timedelta | None


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column of a table.

    Attributes:
        name: For programs; what lists can be sorted by has the same name there.
        title: For people.
        width: How wide it is in text, in characters; longer values make their row longer.
        value: What a row has there: a number of bytes if `is_size`.
        is_size: People are shown a size with its unit.
    """

    name: str
    title: str
    width: int
    value: Callable[[Row], Value]
    is_size: bool = False


ACTIVITY: tuple[Column[Job], ...] = (
    Column("id", "job", 8, lambda job: job.id),
    Column("started_at", "start", 19, lambda job: job.started_at),
    Column("ended_at", "end", 19, lambda job: job.ended_at),
    Column("duration", "duration", 9, lambda job: job.duration),
    Column("files", "files", 10, lambda job: job.counters["files"]),
    Column("online_bytes", "online", 9, lambda job: job.counters["online_bytes"], is_size=True),
    Column(
        "transmitted_bytes",
        "transmitted",
        11,
        lambda job: job.counters["transmitted_bytes"],
        is_size=True,
    ),
    Column("status", "status", 23, lambda job: job.status),
    Column("kind", "kind", 14, lambda job: str(job.kind)),
    Column("client", "client", 16, lambda job: job.client),
    Column("policy", "policy", 16, lambda job: job.policy),
    Column("source", "set", 20, lambda job: job.source),
)
"""A row of the activity log. *Online* is all files that changed, whole; *transmitted* is what of
them was sent: new chunks, compressed."""

EVENTS: tuple[Column[Event], ...] = (
    Column("job_id", "job", 8, lambda event: event.job_id),
    Column("seq", "event", 6, lambda event: event.seq),
    Column("at", "time", 19, lambda event: event.at),
    Column("severity", "severity", 8, lambda event: str(event.severity)),
    Column("matters", "matters", 7, lambda event: "yes" if event.matters else "no"),
    Column("cause", "cause", 32, lambda event: event.cause),
    Column("path", "file", 40, lambda event: path_words(event.path)),
    Column("message", "message", 40, lambda event: event.message),
)
"""A row of the event log of a job."""


def path_words(path: bytes | None) -> str | None:
    """A path for a person: bytes that are not UTF-8 come as escapes."""
    return None if path is None else path.decode("utf-8", "backslashreplace")
