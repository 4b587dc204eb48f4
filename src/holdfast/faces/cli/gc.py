"""``holdfast gc``: give back the space that no image uses any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.base.errors import EXIT_OK
from holdfast.base.units import format_count, format_size
from holdfast.faces.cli import at_owner, opening, options
from holdfast.faces.cli.progress import reporting
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Command
from holdfast.movers.pool_runs import run_garbage_collection

if TYPE_CHECKING:
    from holdfast.engine import GarbageResult


@click.command(cls=Command, examples=["holdfast gc --dry-run", "holdfast gc"])
@click.option("--dry-run", is_flag=True, help="Say what would be given back; change nothing.")
@options.unit_option
@options.json_flag
def gc(dry_run: bool, unit: str | None, as_json: bool) -> int:
    """Give back the space of expired images. Backups may run meanwhile."""
    screen = Screen(as_json=as_json)
    with opening.open_site() as site:
        owned = at_owner.owned(site, unit)
        if owned is not None:
            return at_owner.work(screen, owned, "collections", {"dry_run": dry_run})
        pool = options.pool_of(site, unit)
        with reporting(screen, "gc") as (_, report):
            result = run_garbage_collection(pool, site.clock, dry_run=dry_run, report=report)
    _tell(screen, result)
    return EXIT_OK


def _tell(screen: Screen, result: GarbageResult) -> None:
    if screen.as_json:
        screen.json(
            {
                "dry_run": result.dry_run,
                "packs_before": result.packs_before,
                "packs_deleted": result.packs_deleted,
                "packs_rewritten": result.packs_rewritten,
                "bytes_freed": result.bytes_freed,
                "bytes_live": result.bytes_live,
                "bytes_total": result.bytes_total,
                "chunks_live": result.chunks_live,
                "chunks_total": result.chunks_total,
                "waiting_for": list(result.waiting_for),
            }
        )
        return
    chunks = f"{format_count(result.chunks_live)} of {format_count(result.chunks_total)}"
    sizes = f"{format_size(result.bytes_live)} of {format_size(result.bytes_total)}"
    packs = (
        f"{format_count(result.packs_before)}, of which {format_count(result.packs_deleted)} "
        f"go and {format_count(result.packs_rewritten)} are written anew"
    )
    freed = "would be freed" if result.dry_run else "freed"
    screen.facts(
        [
            ("packs", packs),
            ("chunks in use", chunks),
            ("bytes in use", sizes),
            (freed, format_size(result.bytes_freed)),
        ]
    )
    if result.waiting_for:
        jobs = ", ".join(result.waiting_for)
        screen.warn(f"candidates are marked; their space returns once these jobs ended: {jobs}")
        screen.say("hint: run 'holdfast gc' again then")
