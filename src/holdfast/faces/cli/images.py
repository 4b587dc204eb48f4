"""``holdfast images``: what the catalog knows, newest last."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from holdfast.base.errors import EXIT_OK
from holdfast.base.units import format_count, format_size
from holdfast.control.catalog import IndexingState
from holdfast.faces.cli import describe, opening, options
from holdfast.faces.cli.screen import Column, Screen
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from holdfast.base.ids import ImageId
    from holdfast.control.catalog import ImageRow, Indexing, Protection
    from holdfast.site.site import Site

TABLE_ROWS = 1000
_AT_ONCE = 500


@click.command(
    cls=Command,
    examples=["holdfast images", "holdfast images --limit 5", "holdfast images --json | jq -r .id"],
)
@options.source_option
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Only the newest N; if left out, {TABLE_ROWS:,} in a table, and all as JSON.",
)
@options.json_flag
def images(source: str | None, limit: int | None, as_json: bool) -> int:
    """List the images, newest last."""
    screen = Screen(as_json=as_json)
    with opening.open_site() as site:
        ids = site.catalog.image_ids(source)
        most = limit or (len(ids) if as_json else TABLE_ROWS)
        kept = site.catalog.protections()
        inside = site.catalog.indexings()
        chosen = ids[-most:] if most else ids
        boots = _boots(site, chosen)
        now = site.clock.now()
        found = site.catalog.each_image(chosen)
        if as_json:
            for row in found:
                more = _inside(inside.get(row.id)) | _booted(boots.get(row.id))
                screen.json(_object(row, kept.get(row.id)) | more)
            return EXIT_OK
        rows = list(found)
    if not rows:
        screen.say("no images yet: 'holdfast backup PATH' makes one")
        return EXIT_OK
    columns: list[Column] = [
        ("id", "left"),
        ("source", "left"),
        ("time", "left"),
        ("files", "right"),
        ("size", "right"),
        ("new", "right"),
        ("status", "left"),
    ]
    cells = [
        _cells(row, kept.get(row.id), inside.get(row.id), boots.get(row.id), now) for row in rows
    ]
    screen.table(columns, cells)
    older = len(ids) - len(rows)
    if older > 0:
        screen.say(f"and {format_count(older)} older: '--limit {len(ids)}' shows all")
    return EXIT_OK


def _boots(site: Site, chosen: Sequence[ImageId]) -> dict[ImageId, bool]:
    """What the last boot check of each image said, of those that were booted."""
    from holdfast.control.boot_checks import BootCheckBook

    found: dict[ImageId, bool] = {}
    book = BootCheckBook(site.database)
    for begin in range(0, len(chosen), _AT_ONCE):
        some = book.newest_of(chosen[begin : begin + _AT_ONCE])
        found |= {image: one.check.passed for image, one in some.items()}
    return found


def _booted(boots: bool | None) -> dict[str, object]:
    return {} if boots is None else {"boots": boots}


def _cells(
    row: ImageRow,
    kept: Protection | None,
    inside: Indexing | None,
    boots: bool | None,
    now: datetime,
) -> list[str]:
    status = "completed" if not row.findings else f"findings: {format_count(row.findings)}"
    if row.client_key is not None:
        status += ", names sealed" if row.sealed_names else ", sealed"
    if kept and kept.holds:
        status += ", held"
    if inside is not None and inside.state is IndexingState.FAILED:
        status += ", files not indexed"
    if boots is not None:
        status += ", boots" if boots else ", does not boot"
    if kept and kept.locked_until is not None and kept.locked_until > now:
        status += ", locked"
    return [
        row.id[: describe.SHORT_ID],
        describe.source_words(row.source, row.host),
        describe.local_time(row.started_at),
        format_count(row.files),
        format_size(row.size_bytes),
        format_size(row.new_bytes),
        status,
    ]


def _inside(indexing: Indexing | None) -> dict[str, object]:
    """How far the index of the files inside of a machine is; nothing for other images."""
    if indexing is None:
        return {}
    return {"files_inside": indexing.state, "files_inside_detail": indexing.detail}


def _object(row: ImageRow, kept: Protection | None) -> dict[str, object]:
    until = kept.locked_until if kept else None
    return dataclasses.asdict(row) | {
        "holds": list(kept.holds) if kept else [],
        "locked_until": None if until is None else describe.iso_time(until),
        "started_at": describe.iso_time(row.started_at),
        "finished_at": describe.iso_time(row.finished_at),
    }
