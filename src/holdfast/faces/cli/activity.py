"""``holdfast activity``: what came of each backup set, and of other work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holdfast.base.errors import EXIT_OK
from holdfast.base.units import format_count
from holdfast.faces.cli import downloads, job_words, options
from holdfast.faces.cli.screen import Column, Screen
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from pathlib import Path


@click.command(
    cls=Command,
    examples=[
        "holdfast activity --since 1d",
        "holdfast activity --client web1 --sort transmitted_bytes",
        "holdfast activity --since 2027-01-01 --until 2027-01-31 --format xlsx --to january.xlsx",
    ],
)
@job_words.chosen
@job_words.sorted_by(job_words.SORTS, "started_at")
@job_words.limit_option
@downloads.as_file
@options.url_option
@options.json_flag
def activity(
    sort: str,
    reverse: bool,
    limit: int,
    form: str | None,
    to: Path | None,
    zone: str | None,
    url: str | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Show the activity log: start, duration, files, sizes and status of each backup set.

    Online is the size of all files that changed, whole; transmitted is what of them was new, after
    compression.
    """
    from holdfast.base.clock import SystemClock
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    now = SystemClock().now()
    wanted = job_words.parameters(now, **given)
    wanted |= {"sort": sort, "order": job_words.order(reverse=reverse)}
    form = downloads.form_of(form, to)
    where = downloads.zone_of(zone)
    with open_api(url) as api:
        if form is not None:
            pieces = api.text("/activity/export", format=form, zone=where, **wanted)
            return downloads.write(screen, pieces, form, to)
        rows = list(api.pages("/activity", limit=limit, **wanted))
    if as_json:
        for row in rows:
            screen.json(row)
        return EXIT_OK
    if not rows:
        screen.say("no such activity")
        return EXIT_OK
    columns: list[Column] = [
        ("start", "left"),
        ("took", "right"),
        ("files", "right"),
        ("online", "right"),
        ("transmitted", "right"),
        ("status", "left"),
        ("set", "left"),
    ]
    cells = [
        [
            job_words.short_moment(row["started_at"] or row["ended_at"], now),
            job_words.took(row, now),
            format_count(row["files"]),
            job_words.size(row["online_bytes"]),
            job_words.size(row["transmitted_bytes"]),
            job_words.status(row),
            job_words.what(row),
        ]
        for row in rows
    ]
    screen.table(columns, cells, gives_way=6)
    return EXIT_OK
