"""``holdfast lock``: keep images until a date, whoever asks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from holdfast.base.errors import EXIT_OK, Invalid
from holdfast.base.units import parse_duration
from holdfast.faces.cli import describe, opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Command


@click.command(
    cls=Command,
    arguments=[("IMAGE", "Ids, unique prefixes of them, or 'latest'.")],
    examples=["holdfast lock latest --until 2027-01-31", "holdfast lock 3f2a --until 90d"],
)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option(
    "--until",
    metavar="WHEN",
    required=True,
    help="A date (to its end), a moment in ISO 8601, or a duration from now such as 90d.",
)
@options.json_flag
def lock(images: tuple[str, ...], until: str, as_json: bool) -> int:
    """Keep images until a date. Nobody can shorten that, you neither; it can be made longer."""
    screen = Screen(as_json=as_json)
    with opening.open_site() as site:
        now = site.clock.now()
        end = _moment(until, now)
        if end <= now:
            raise Invalid(f"'{until}' is past", "a lock ends in the future")
        chosen = list(dict.fromkeys(site.catalog.resolve(text) for text in images))
        for image in chosen:
            site.catalog.lock(image, end)
            if as_json:
                screen.json({"locked": image, "until": describe.iso_time(end)})
            else:
                screen.line(f"locked {image} until {describe.local_time(end)}")
    return EXIT_OK


def _moment(text: str, now: datetime) -> datetime:
    """The moment that a person means: local time, where no zone is named."""
    try:
        return _date(text.strip()) or now + timedelta(seconds=parse_duration(text))
    except (Invalid, OverflowError) as error:
        raise Invalid(
            f"'{text}' is no date, or too far away",
            "write for example 2027-01-31, 2027-01-31T18:00 or 90d",
        ) from error


def _date(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if len(text) <= len("2026-01-31"):
        moment += timedelta(days=1)
    return moment.astimezone(UTC)
