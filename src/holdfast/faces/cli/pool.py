"""``holdfast pool``: statistics, check, a new index, the recovery kit."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from holdfast.base.errors import EXIT_FAILED, EXIT_OK, InputOutput, UsageError
from holdfast.base.units import format_count, format_ratio, format_size
from holdfast.faces.cli import at_owner, opening, options
from holdfast.faces.cli.progress import reporting
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.verify import tell_verified
from holdfast.faces.cli.words import Group
from holdfast.movers.pool_runs import run_check, run_rebuild_index

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.engine import PoolStats
    from holdfast.site.site import Site


@click.group(cls=Group, no_args_is_help=False)
def pool() -> None:
    """The pool itself."""


@pool.command(examples=["holdfast pool stats --json"])
@options.unit_option
@options.json_flag
def stats(unit: str | None, as_json: bool) -> int:
    """Say what the pool holds and what it costs."""
    screen = Screen(as_json=as_json)
    with opening.open_site() as site:
        _tell_stats(screen, options.pool_of(site, unit).stats(), *_place(site, unit))
    return EXIT_OK


@pool.command(examples=["holdfast pool check --read-data"])
@click.option("--read-data", is_flag=True, help="Also read every pack and compare every name.")
@options.unit_option
@options.json_flag
def check(read_data: bool, unit: str | None, as_json: bool) -> int:
    """Check packs, index and manifests against each other. Exit status 2 if anything is wrong."""
    screen = Screen(as_json=as_json)
    with opening.open_site() as site:
        owned = at_owner.owned(site, unit)
        if owned is not None:
            return at_owner.work(screen, owned, "checks", {"read_data": read_data})
        pool = options.pool_of(site, unit)
        started = time.monotonic()
        with reporting(screen, "check") as (_, report):
            result = run_check(pool, read_data=read_data, report=report)
        elapsed = time.monotonic() - started
    tell_verified(screen, result, elapsed, read_data=read_data)
    return EXIT_FAILED if result.problems_total else EXIT_OK


@pool.command(examples=["holdfast pool rebuild-index"])
@options.unit_option
@options.json_flag
def rebuild_index(unit: str | None, as_json: bool) -> int:
    """Make the index anew from the packs."""
    screen = Screen(as_json=as_json)
    with opening.open_site() as site:
        owned = at_owner.owned(site, unit)
        if owned is not None:
            return at_owner.work(screen, owned, "index", {})
        pool = options.pool_of(site, unit)
        with reporting(screen, "rebuild") as (_, report):
            result = run_rebuild_index(pool, site.clock, report)
        _tell_stats(screen, result, *_place(site, unit))
    return EXIT_OK


@pool.command(examples=["holdfast pool recovery-kit --html kit.html"])
@click.option(
    "--html", metavar="F", type=options.FILE, help="Write a page to print, with a QR code."
)
@click.option(
    "--text", metavar="F", type=options.FILE, help="Write the text to a file, not to stdout."
)
@options.unit_option
@options.json_flag
def recovery_kit(html: Path | None, text: Path | None, unit: str | None, as_json: bool) -> int:
    """Write the paper that opens the pool when all else is lost.

    Whoever has it can read every backup: print it, lock it away, delete the file.
    """
    from holdfast.site.kits import kit_of

    screen = Screen(as_json=as_json)
    if html is not None and html == text:
        raise UsageError("--html and --text name the same file")
    with opening.open_site() as site:
        kit = kit_of(site, unit)
    written = []
    for path, content in ((html, kit.html), (text, kit.text)):
        if path is not None:
            _write_secret(path, content)
            written.append(str(path))
    if as_json:
        screen.json({"written": written} if written else {"text": kit.text})
    elif written:
        for name in written:
            screen.line(name)
    else:
        screen.line(kit.text.rstrip("\n"))
    screen.say("this opens every backup of the pool: keep it offline, away from this machine")
    return EXIT_OK


def _place(site: Site, unit: str | None) -> tuple[str, str]:
    """Where a pool is, and its id."""
    if unit is None or site.pools.of_unit(unit) == site.pool_id:
        return site.config.pool_url, site.config.pool_id
    found = site.units.unit(unit)
    where = "" if found.server is None else f" on media server '{found.server}'"
    return f"{found.place}{where}", found.pool


def _write_secret(path: Path, content: str) -> None:
    """Write a file that its owner alone may read, and never over another."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise InputOutput(f"'{path}' is there already", "choose another name") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)


def _tell_stats(screen: Screen, stats: PoolStats, url: str, pool_id: str) -> None:
    if screen.as_json:
        screen.json(
            {
                "pool": url,
                "pool_id": pool_id,
                "images": stats.images,
                "packs": stats.packs,
                "pack_bytes": stats.pack_bytes,
                "chunks": stats.chunks,
                "chunk_bytes": stats.chunk_bytes,
                "index_segments": stats.index_segments,
                "index_bytes": stats.index_bytes,
            }
        )
        return
    per_chunk = stats.index_bytes / stats.chunks if stats.chunks else 0
    index = (
        f"{format_size(stats.index_bytes)} in {format_count(stats.index_segments)} segments, "
        f"{per_chunk:.0f} bytes a chunk"
    )
    ratio = format_ratio(stats.chunk_bytes, stats.pack_bytes)
    screen.facts(
        [
            ("pool", url),
            ("pool id", pool_id),
            ("images", format_count(stats.images)),
            ("packs", f"{format_count(stats.packs)}, {format_size(stats.pack_bytes)}"),
            ("chunks", f"{format_count(stats.chunks)}, {format_size(stats.chunk_bytes)} ({ratio})"),
            ("index", index),
        ]
    )
