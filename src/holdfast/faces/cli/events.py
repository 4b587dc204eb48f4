"""``holdfast events``: what happened to a job and to its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holdfast.base.errors import EXIT_OK
from holdfast.base.units import format_count
from holdfast.faces.cli import downloads, job_words, options
from holdfast.faces.cli.screen import Column, Screen, path_json, printable
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from pathlib import Path

SEVERITIES = ("info", "warning", "error")


@click.command(
    cls=Command,
    arguments=[("JOB", "Number of a job, as 'holdfast jobs list' shows it.")],
    examples=[
        "holdfast events 4711",
        "holdfast events 4711 --matters --sort path",
        "holdfast events 4711 --format csv --to events.csv",
    ],
)
@click.argument("job", type=click.IntRange(min=1))
@click.option(
    "--severity", type=click.Choice(SEVERITIES), multiple=True, help="Only such; may be repeated."
)
@click.option("--cause", metavar="WORDS", multiple=True, help="Only of this cause, in its words.")
@click.option("--matters", is_flag=True, help="Only what somebody has to look after.")
@job_words.sorted_by(job_words.EVENT_SORTS, "seq")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="So many at most.",
)
@downloads.as_file
@options.url_option
@options.json_flag
def events(
    job: int,
    matters: bool,
    sort: str,
    reverse: bool,
    limit: int,
    form: str | None,
    to: Path | None,
    zone: str | None,
    url: str | None,
    as_json: bool,
    **wanted: Any,
) -> int:
    """Show the event log of a job: each error and warning, its file, its cause."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    # Events are read from the first to the last.
    wanted |= {"sort": sort, "order": job_words.order(reverse=not reverse)}
    wanted |= {"matters": True if matters else None}
    form = downloads.form_of(form, to)
    where = downloads.zone_of(zone)
    with open_api(url) as api:
        if form is not None:
            pieces = api.text(
                at("jobs", job, "events", "export"), format=form, zone=where, **wanted
            )
            return downloads.write(screen, pieces, form, to)
        row = api.get(at("jobs", job))
        found = list(api.pages(at("jobs", job, "events"), limit=limit, **wanted))
    if as_json:
        for one in found:
            screen.json(_object(one))
        return EXIT_OK
    if not found:
        screen.say(f"job {job} has no such events")
        return EXIT_OK
    columns: list[Column] = [
        ("", "left"),
        ("severity", "left"),
        ("cause", "left"),
        ("file", "left"),
    ]
    columns.append(("message", "left"))
    cells = [
        [
            "!" if one["matters"] else " ",
            one["severity"],
            printable(one["cause"]),
            printable(one["path"] or "-"),
            printable(one["message"]),
        ]
        for one in found
    ]
    screen.table(columns, cells, gives_way=(4, 3, 2))
    if any(one["matters"] for one in found):
        screen.say("! matters: data is missing, or somebody has to do something")
    if row["events_left_out"]:
        screen.say(f"{format_count(row['events_left_out'])} more events were not kept")
    return EXIT_OK


def _object(event: dict[str, Any]) -> dict[str, Any]:
    """An event with its path as all commands write paths."""
    path = event.pop("path_hex")
    return event if path is None else event | path_json(bytes.fromhex(path))
