"""Verify images, check a pool, collect its garbage, rebuild its index: whole-pool verbs.

Must not decide which images go: expiring is the caller's. Invariant: none of these changes what
any image holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.movers.drive import drive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.base.clock import Clock
    from holdfast.base.ids import ImageId
    from holdfast.engine import GarbageResult, Pool, PoolStats, VerifyResult
    from holdfast.movers.drive import Reporter

LEASE_S = 24 * 60 * 60
"""A job whose record was not renewed for so long is dead."""


def run_verify(
    pool: Pool,
    images: Sequence[ImageId] | None,
    *,
    read_data: bool,
    report: Reporter | None = None,
) -> VerifyResult:
    """Follow images down to their last chunk.

    Args:
        pool: The pool.
        images: Which ones; None for all.
        read_data: Also read, open and rehash every chunk they name.
        report: See `drive`.

    Returns:
        What was looked at, and every problem. A problem is not raised here.
    """
    chosen: list[str] | None = None if images is None else list(images)
    return drive(pool.verify(chosen, read_data=read_data), report)


def run_check(pool: Pool, *, read_data: bool, report: Reporter | None = None) -> VerifyResult:
    """Check the pool itself: packs, footers, index, manifests, and that they agree."""
    return drive(pool.check(read_data=read_data), report)


def run_garbage_collection(
    pool: Pool, clock: Clock, *, dry_run: bool, report: Reporter | None = None
) -> GarbageResult:
    """Give back the space of chunks that no image names; safe beside running backups."""
    run = pool.collect_garbage(now_ns=clock.now_ns(), dry_run=dry_run, lease_s=LEASE_S)
    return drive(run, report)


def run_rebuild_index(pool: Pool, clock: Clock, report: Reporter | None = None) -> PoolStats:
    """Make the index anew from the footers of all packs."""
    return drive(pool.rebuild_index(now_ns=clock.now_ns(), lease_s=LEASE_S), report)
