"""A backup that a person gave by hand, as a job that has ended: the activity log has it too.

Pure: values in, values out.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base import labels
from holdfast.base.clock import from_ns
from holdfast.base.ids import ADHOC, ClientName, ImageId, SourceName
from holdfast.control.dispatch import hearing
from holdfast.control.jobs import JobKind, NewJob, Outcome, Result, Severity, remark

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast.control.inbox import Note
    from holdfast.control.jobs import Remark

_WHOLE = "completed"


@dataclass(frozen=True, slots=True)
class Done:
    """A job as `JobBook.record` wants it."""

    new: NewJob
    started_at: datetime
    ended_at: datetime
    result: Result
    remarks: tuple[Remark, ...]
    left_out: int


def done(note: Note) -> Done | None:
    """The job that made an image; None if the book of jobs has it already."""
    if labels.JOB in note.labels:
        return None
    started_at = from_ns(note.started_ns)
    remarks = tuple(
        remark(severity, cause, message, b64decode(path))
        for severity, cause, message, path in note.findings
    )
    warned = any(one.severity is Severity.WARNING for one in remarks)
    outcome = Outcome.COMPLETED_WITH_WARNINGS if warned else Outcome.COMPLETED
    return Done(
        new=NewJob(
            kind=JobKind.BACKUP,
            policy=ADHOC,
            client=ClientName(note.host),
            source=SourceName(note.source),
            backup_kind=note.labels.get(labels.KIND),
            # Two backups of a source do not begin at the same moment.
            due_at=started_at,
        ),
        started_at=started_at,
        ended_at=from_ns(note.finished_ns),
        result=Result(
            outcome=outcome if note.status == _WHOLE else Outcome.COMPLETED_WITH_ERRORS,
            image_id=ImageId(note.id),
            counters={
                **hearing.counters(note.stats),
                "findings": note.findings_total,
            },
        ),
        remarks=remarks,
        left_out=max(note.findings_total - len(note.findings), 0),
    )
