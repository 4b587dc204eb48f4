"""What becomes of a job that has parts: it is where its parts are.

Must not look at single parts, which may be many: see `Parts`. Invariants: a parent has ended if
and only if all of its parts have; its outcome is the worst of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holdfast.base.errors import InternalError
from holdfast.control.jobs.job import Job, JobState, Outcome, Remark, Severity, counted
from holdfast.control.jobs.life import Step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_BAD = {Outcome.MISSED, Outcome.CANCELLED, Outcome.FAILED}


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one job, counted.

    Attributes:
        ended: How many have ended, by outcome.
        at_work: How many are active or ending.
        queued: How many are queued and may begin.
        suspended: How many are queued and may not.
        started_at: When the first of them began, if any has.
        ended_at: When the last that has ended did.
        counters: Sums over all.
    """

    ended: Mapping[Outcome, int]
    at_work: int
    queued: int
    suspended: int
    started_at: datetime | None
    ended_at: datetime | None
    counters: Mapping[str, int]

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.ended.values()) + self.at_work + self.queued + self.suspended


def follow(parent: Job, parts: Parts) -> Step:
    """Take a parent to where its parts are.

    Raises:
        InternalError: These are not its parts.
    """
    if parts.total != parent.children:
        raise InternalError(f"job {parent.id} has {parent.children} parts, not {parts.total}")
    if parent.state is JobState.ENDED:
        return Step(parent)
    followed = replace(parent, started_at=parts.started_at, counters=counted(parts.counters))
    if sum(parts.ended.values()) == parts.total:
        outcome = max(parts.ended, key=lambda one: one.badness)
        ended = replace(
            followed,
            state=JobState.ENDED,
            outcome=outcome,
            ended_at=parts.ended_at,
            suspended=False,
            waits_for=None,
        )
        return Step(ended, _remark(parts, outcome))
    waiting = parts.queued + parts.suspended
    begun = parts.at_work or parts.ended or parts.started_at is not None
    return Step(
        replace(
            followed,
            state=JobState.ACTIVE if begun else JobState.QUEUED,
            suspended=parts.suspended > 0 and parts.suspended == waiting and not parts.at_work,
            waits_for=waits_for(waiting, parts.total),
        )
    )


def waits_for(waiting: int, total: int) -> str | None:
    """What a parent waits for, of whose parts so many are queued."""
    return f"{waiting} of its {total} parts" if waiting else None


def _remark(parts: Parts, outcome: Outcome) -> Remark | None:
    if outcome is Outcome.COMPLETED:
        return None
    counts = ", ".join(
        f"{parts.ended[one]} {one.words}" for one in reversed(Outcome) if parts.ended.get(one)
    )
    severity = Severity.ERROR if outcome in _BAD else Severity.WARNING
    return Remark(severity, "parts", f"of {parts.total} parts: {counts}")
