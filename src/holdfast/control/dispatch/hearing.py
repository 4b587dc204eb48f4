"""What a worker's last message means for its job.

Pure: values in, values out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.errors import Cancelled
from holdfast.base.ids import ImageId
from holdfast.control.jobs import JobError, Outcome, Remark, Result, Severity, remark

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.control.catalog import ImageRow
    from holdfast.wire.messages import WorkEnded

_NAMES = {"bytes_found": "size_bytes", "bytes_online": "online_bytes", "bytes_new": "new_bytes",
          "bytes_transmitted": "transmitted_bytes"}  # fmt: skip
"""What the engine calls what jobs count under another name."""

_WHOLE = "completed"

_PASSING = {"info"}


def counters(told: Mapping[str, int]) -> dict[str, int]:
    """The numbers of a job, by the names that jobs have for them."""
    return {_NAMES.get(name, name): value for name, value in told.items()}


def result(message: WorkEnded) -> Result:
    """What came of a job."""
    image = message.image
    numbers = counters(message.counters)
    if image is not None:
        numbers["findings"] = image.findings_total
    error = None
    if message.error is not None:
        error = JobError(message.error.code, message.error.message, message.error.hint)
    return Result(
        outcome=_outcome(message),
        image_id=None if image is None else ImageId(image.id),
        counters=numbers,
        error=error,
    )


def remarks(message: WorkEnded) -> list[Remark]:
    """What its event log is to say."""
    return [remark(one.severity, one.cause, one.message, one.path) for one in message.events]


def left_out(message: WorkEnded) -> int:
    """How many events it had more than it told."""
    return max(message.events_total - len(message.events), 0)


def of_image(image: ImageRow) -> Result:
    """What came of a job whose worker ended after the image was committed."""
    whole = image.status == _WHOLE
    return Result(
        outcome=Outcome.COMPLETED if whole else Outcome.COMPLETED_WITH_ERRORS,
        image_id=image.id,
        counters={
            "files": image.files,
            "size_bytes": image.size_bytes,
            "online_bytes": image.online_bytes,
            "new_bytes": image.new_bytes,
            "transmitted_bytes": image.transmitted_bytes,
            "findings": image.findings,
        },
    )


def _outcome(message: WorkEnded) -> Outcome:
    if message.error is not None:
        cancelled = message.error.code == Cancelled.code
        return Outcome.CANCELLED if cancelled else Outcome.FAILED
    severities = {one.severity for one in message.events}
    broken = message.image is not None and message.image.status != _WHOLE
    if broken or Severity.ERROR in severities:
        return Outcome.COMPLETED_WITH_ERRORS
    if severities - _PASSING:
        return Outcome.COMPLETED_WITH_WARNINGS
    return Outcome.COMPLETED
