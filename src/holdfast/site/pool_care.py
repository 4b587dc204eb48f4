"""Care for one whole pool, told in events: what is freed, what is wrong, what was made anew.

Must not decide when, nor know of a site: it is done wherever a pool is open. Invariant: none of it
changes what any image holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.units import format_count, format_size
from holdfast.movers.pool_runs import (
    run_check,
    run_garbage_collection,
    run_rebuild_index,
    run_verify,
)
from holdfast.wire.messages import WorkEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.base.clock import Clock
    from holdfast.base.ids import ImageId
    from holdfast.engine import Pool, VerifyResult
    from holdfast.movers.drive import Reporter


def collect(
    pool: Pool, clock: Clock, report: Reporter, *, dry_run: bool = False
) -> list[WorkEvent]:
    """Give back the space of what no image names, or tell how much that would be."""
    done = run_garbage_collection(pool, clock, dry_run=dry_run, report=report)
    freed, deleted, written = (
        ("would be freed", "would be deleted", "would be written anew")
        if dry_run
        else ("freed", "deleted", "written anew")
    )
    events = [
        WorkEvent(
            "info",
            "preview" if dry_run else "collected",
            f"{format_size(done.bytes_freed)} {freed}: {format_count(done.packs_deleted)} of "
            f"{format_count(done.packs_before)} packs {deleted}, "
            f"{format_count(done.packs_rewritten)} {written}; in use: "
            f"{format_size(done.bytes_live)} of {format_size(done.bytes_total)}, "
            f"{format_count(done.chunks_live)} of {format_count(done.chunks_total)} chunks",
        )
    ]
    if done.waiting_for:
        waiting = f"the space returns when {len(done.waiting_for)} running jobs have ended"
        events.append(WorkEvent("info", "waiting", waiting))
    return events


def verify(
    pool: Pool, images: Sequence[ImageId] | None, report: Reporter, *, read_data: bool
) -> list[WorkEvent]:
    """Follow images, or all of them, to their last chunk."""
    found = run_verify(pool, images, read_data=read_data, report=report)
    looked = f"{format_count(found.images)} images, {format_count(found.chunks)} chunks"
    return _problems(found, "verified", looked)


def check(pool: Pool, report: Reporter, *, read_data: bool) -> list[WorkEvent]:
    """Look at every object, and whether they agree."""
    found = run_check(pool, read_data=read_data, report=report)
    looked = (
        f"{format_count(found.packs)} packs, {format_count(found.images)} images, "
        f"{format_count(found.chunks)} chunks"
    )
    return _problems(found, "checked", looked)


def rebuild_index(pool: Pool, clock: Clock, report: Reporter) -> list[WorkEvent]:
    """Make the index anew."""
    made = run_rebuild_index(pool, clock, report)
    said = f"the index has {format_count(made.chunks)} chunks of {format_count(made.packs)} packs"
    return [WorkEvent("info", "rebuilt", said)]


def _problems(found: VerifyResult, cause: str, looked: str) -> list[WorkEvent]:
    events = [WorkEvent("error", one.code, one.message, one.path or None) for one in found.problems]
    total = found.problems_total
    more = f"; the first {len(events)} are listed" if total > len(events) else ""
    said = f"{looked}: {format_count(total)} problems{more}"
    return [WorkEvent("error" if total else "info", cause, said), *events]
