"""``holdfast lock``: keep images until a date, whoever asks."""

from __future__ import annotations

import click

from holdfast.base.errors import EXIT_OK
from holdfast.faces.cli import acting, describe, moments, opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.whole import all_together
from holdfast.faces.cli.words import Command
from holdfast.site import keeping


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
@options.only_this_option
@options.json_flag
def lock(images: tuple[str, ...], until: str, only_this: bool, as_json: bool) -> int:
    """Keep images until a date. Nobody can shorten that, you neither; it can be made longer.

    Of a path that is backed up in several streams, an image stands for all streams of its backup.
    """
    screen = Screen(as_json=as_json)
    with opening.open_site() as site:
        now = site.clock.now()
        end = moments.until(until, now)
        keeping.require_future(end, now)
        named = [site.catalog.resolve(text) for text in images]
        chosen = all_together(screen, site, named, only_these=only_this)
        for image in acting.each(chosen, until=describe.iso_time(end)):
            site.catalog.lock(image, end)
            if as_json:
                screen.json({"locked": image, "until": describe.iso_time(end)})
            else:
                screen.line(f"locked {image} until {describe.local_time(end)}")
    return EXIT_OK
