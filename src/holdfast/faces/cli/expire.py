"""``holdfast expire``: let go of images."""

from __future__ import annotations

import click

from holdfast.base.errors import EXIT_OK
from holdfast.faces.cli import opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Command


@click.command(
    cls=Command,
    arguments=[("IMAGE", "Ids, unique prefixes of them, or 'latest'.")],
    examples=["holdfast expire 3f2a 9c01", "holdfast gc"],
)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@options.json_flag
def expire(images: tuple[str, ...], as_json: bool) -> int:
    """Let go of images for good. Their space returns with 'holdfast gc'.

    If any of them is held or locked, none goes.
    """
    screen = Screen(as_json=as_json)
    with opening.open_site() as site:
        # All names are understood, and all may go, before anything goes.
        _ = site.pool
        chosen = list(dict.fromkeys(site.catalog.resolve(text) for text in images))
        for image in chosen:
            site.catalog.require_unprotected(image)
        for image in chosen:
            site.expire(image)
            if as_json:
                screen.json({"expired": image})
            else:
                screen.line(f"expired {image}")
    screen.say("next: 'holdfast gc' gives the space back")
    return EXIT_OK
