"""Backups that were given by hand, as the activity log has them.

Must not do any. Invariant: one note makes one job, however often it is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.base.clock import Clock
    from holdfast.control.database import Database
    from holdfast.control.inbox import Note


def record_job(database: Database, clock: Clock, note: Note) -> None:
    """Have the activity log know a backup that was given by hand."""
    from holdfast.control.dispatch.adhoc import done
    from holdfast.control.jobs import JobBook

    made = done(note)
    if made is not None:
        JobBook(database, clock).record(
            made.new,
            made.started_at,
            made.ended_at,
            made.result,
            made.remarks,
            made.left_out,
        )
