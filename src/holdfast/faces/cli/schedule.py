"""``holdfast schedule``: what is going to start, of all policies."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from holdfast.base.errors import EXIT_OK
from holdfast.faces.cli import describe, options
from holdfast.faces.cli.screen import Column, Screen
from holdfast.faces.cli.words import Group

HOURS_A_DAY = 24


@click.group(cls=Group, no_args_is_help=False)
def schedule() -> None:
    """What is going to start, of all policies."""


@schedule.command(examples=["holdfast schedule due", "holdfast schedule due --days 7"])
@click.option(
    "--days", type=click.FloatRange(0, 400, min_open=True), default=1.0, show_default=True
)
@options.url_option
@options.json_flag
def due(days: float, url: str | None, as_json: bool) -> int:
    """List what is due now and what will be, in the order in which it will be queued.

    A backup is taken to last as long as the last one of the same source, and ten minutes if there
    was none; what it would wait for follows from that.
    """
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        found = api.get("/schedule", hours=hours_of(days))
    return tell_upcoming(screen, found)


def hours_of(days: float) -> float:
    """Days as the API wants them."""
    return days * HOURS_A_DAY


def tell_upcoming(screen: Screen, found: dict[str, Any]) -> int:
    """Write what the API says is expected."""
    rows = found["items"]
    if screen.as_json:
        for row in rows:
            screen.json(row)
        return EXIT_OK
    if not rows:
        screen.say("nothing is due in this time")
        return EXIT_OK
    columns: list[Column] = [
        ("starts", "left"),
        ("policy", "left"),
        ("source", "left"),
        ("kind", "left"),
        ("note", "left"),
    ]
    screen.table(columns, [_cells(row) for row in rows], gives_way=2)
    if found["more"]:
        screen.say(f"and more: only the first {len(rows):,} are shown")
    return EXIT_OK


def _cells(row: dict[str, Any]) -> list[str]:
    starts = row["starts_at"] or row["queued_at"]
    moment = datetime.fromisoformat(starts).astimezone()
    source = describe.source_words(row["source"], row["client"])
    return [f"{moment:%a %d %b %H:%M}", row["policy"], source, row["kind"], _note(row)]


def _note(row: dict[str, Any]) -> str:
    if row["missed"]:
        return "will be missed"
    if row["waits_for"]:
        return f"waits for {row['waits_for'][0]}"
    return "" if row["starts_at"] else "waits until the end"
