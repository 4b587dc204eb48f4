"""What commands did without the control database, as the activity log and the audit log have it.

Must not do any of it. Invariant: one note makes one job, and the rows of one act, however often it
is told.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from holdfast.base.errors import HoldfastError
from holdfast.control.act_notes import ActNote, NotedRow

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from holdfast.base.clock import Clock
    from holdfast.base.ids import JobId
    from holdfast.control.act_notes import ActNotes
    from holdfast.control.catalog import Catalog
    from holdfast.control.database import Database
    from holdfast.control.inbox import Note
    from holdfast.site.site import Site

NOBODY = "(unknown)"
"""Who did what a note tells that can't be understood."""

DAMAGED = "note_damaged"
"""What the audit log calls such a note."""


def hear(site: Site, catalog: Catalog) -> None:
    """Have a catalog, and both logs, hear of all that was noted.

    What only the audit log is to hear may wait: it must not keep anybody from the catalog.

    Raises:
        CatalogError: A note of an image can't be understood.
    """
    # In this order: a backup that was killed at its very end has left a note of each kind.
    heard = bool(site.inbox.notes())
    site.inbox.hand_over(catalog, partial(record_backup, site.database, site.clock))
    if heard:
        # A site that nobody serves looks at its clock whenever something was backed up. Commands
        # that hear of nothing need none of this.
        from holdfast.site.retention import look_at_clock

        look_at_clock(site)
    with contextlib.suppress(HoldfastError):
        hear_acts(site.database, site.clock, site.act_notes)


def forget(site: Site, noted: list[Path]) -> None:
    """Throw notes of images away that the catalog has from the pool; the logs hear of them."""
    site.inbox.forget(noted, partial(record_backup, site.database, site.clock))


def record_backup(database: Database, clock: Clock, note: Note) -> None:
    """Have the logs know a backup that was given by hand."""
    from holdfast.control.dispatch.adhoc import done
    from holdfast.control.jobs import JobBook

    made = done(note)
    more: dict[str, object] = {"image": note.id}
    if made is not None:
        more["job"] = JobBook(database, clock).record(
            made.new,
            made.started_at,
            made.ended_at,
            made.result,
            made.remarks,
            made.left_out,
        )
    if note.act is None:
        return
    try:
        act = ActNote.of_plain(note.act)
    except (ValueError, TypeError, KeyError):
        _damaged(database, clock, f"image-{note.id}")
        return
    _tell(database, clock, act, more)


def hear_acts(database: Database, clock: Clock, notes: ActNotes, just_done: str = "") -> None:
    """Have the audit log know what commands noted, and what they left when they died.

    Args:
        database: The log's.
        clock: Of its rows.
        notes: Those of the home.
        just_done: The id of one that ended this moment: when that was, its rows say themselves.
    """
    for name, note in notes.told():
        if note is None:
            _damaged(database, clock, name)
            continue
        job = _record_work(database, clock, note)
        more = {} if job is None else {"job": job}
        _tell(database, clock, note, more, late=note.id != just_done)


def _record_work(database: Database, clock: Clock, note: ActNote) -> JobId | None:
    """Have the activity log know work that a command did, if it is to."""
    if note.job is None:
        return None
    from holdfast.control.catalog import ImageLists
    from holdfast.control.dispatch.adhoc import worked
    from holdfast.control.jobs import JobBook

    source = None
    if len(note.job.images) == 1:
        source = ImageLists(database).source_of(note.job.images[0])
    try:
        made = worked(note, source)
    except (ValueError, TypeError):
        # The audit log has what there is to say.
        return None
    if made is None:
        return None
    book = JobBook(database, clock)
    return book.record(made.new, made.started_at, made.ended_at, made.result)


def _tell(
    database: Database,
    clock: Clock,
    note: ActNote,
    more: Mapping[str, object],
    *,
    late: bool = True,
) -> None:
    from holdfast.control.access import ActBook, AuditLog, Entry, Outcome

    when: dict[str, object] = {}
    if note.ended_ns is None:
        when["begun_ns"] = note.begun_ns
    elif late:
        when["ended_ns"] = note.ended_ns

    def entry(row: NotedRow) -> Entry:
        known = row.outcome in set(Outcome) and note.ended_ns is not None
        outcome = Outcome(row.outcome) if known else Outcome.UNKNOWN
        return Entry.of(note.who, row.what, row.about, outcome, {**row.details, **when, **more})

    book = ActBook(database, clock, AuditLog(database, clock))
    book.tell(note.id, [entry(row) for row in note.rows])


def _damaged(database: Database, clock: Clock, name: str) -> None:
    from holdfast.control.access import ActBook, AuditLog, Entry, Outcome

    book = ActBook(database, clock, AuditLog(database, clock))
    book.tell(name, [Entry.of(NOBODY, DAMAGED, f"acts/{name}", Outcome.UNKNOWN)])
