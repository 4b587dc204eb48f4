"""What a person had a command do, as a job that has ended: the activity log has it too.

Pure: values in, values out.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base import labels
from holdfast.base.clock import from_ns
from holdfast.base.errors import Cancelled
from holdfast.base.ids import ADHOC, ClientName, ImageId, SourceName, source_name
from holdfast.control.dispatch import hearing
from holdfast.control.jobs import (
    OF_CLIENTS,
    JobError,
    JobKind,
    NewJob,
    Outcome,
    Result,
    Severity,
    remark,
)

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast.control.act_notes import ActNote
    from holdfast.control.inbox import Note
    from holdfast.control.jobs import Remark

_WHOLE = "completed"


_FINDINGS = 1
"""The status with which a command ends that found something wrong with single files."""


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


def worked(note: ActNote, source: SourceName | None = None) -> Done | None:
    """The job that an act was; None if it was none, or is not known to have ended.

    Args:
        note: Of the act.
        source: What the image is of that it was about.

    Raises:
        ValueError: It tells of no job that there can be.
    """
    job = note.job
    if job is None or note.ended_ns is None:
        return None
    kind = JobKind(job.kind)
    started_at = from_ns(note.begun_ns)
    client = ClientName(job.host) if kind in OF_CLIENTS else None
    if kind is JobKind.BACKUP:
        source = source_name(ClientName(job.host), [b64decode(one) for one in job.paths])
    error = None if job.error is None else JobError(*job.error)
    if error is not None:
        outcome = Outcome.CANCELLED if error.code == Cancelled.code else Outcome.FAILED
    elif job.exit_status:
        warned = job.exit_status == _FINDINGS
        outcome = Outcome.COMPLETED_WITH_WARNINGS if warned else Outcome.COMPLETED_WITH_ERRORS
    else:
        outcome = Outcome.COMPLETED
    return Done(
        new=NewJob(
            kind=kind,
            policy=ADHOC if kind in OF_CLIENTS else None,
            client=client,
            source=source,
            due_at=started_at,
        ),
        started_at=started_at,
        ended_at=from_ns(note.ended_ns),
        result=Result(outcome=outcome, counters=job.counters, error=error),
        remarks=(),
        left_out=0,
    )
