"""``holdfast unhold``: lift holds."""

from __future__ import annotations

import click

from holdfast.base.errors import EXIT_OK
from holdfast.faces.cli import opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.whole import all_together
from holdfast.faces.cli.words import Command
from holdfast.site import keeping


@click.command(
    cls=Command,
    arguments=[("IMAGE", "Ids, unique prefixes of them, or 'latest'.")],
    examples=["holdfast unhold 3f2a", "holdfast unhold 3f2a --reason 'audit of 2026'"],
)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--reason", metavar="TEXT", help="Only the hold of this reason; without: all.")
@options.only_this_option
@options.json_flag
def unhold(images: tuple[str, ...], reason: str | None, only_this: bool, as_json: bool) -> int:
    """Lift holds from images. Rules decide about them again.

    Of a path that is backed up in several streams, an image stands for all streams of its backup.
    """
    screen = Screen(as_json=as_json)
    stated = None if reason is None else " ".join(reason.split())
    with opening.open_site() as site:
        named = [site.catalog.resolve(text) for text in images]
        chosen = all_together(screen, site, named, only_these=only_this)
        known = site.catalog.protections()
        for image in named:
            holds = known[image].holds if image in known else ()
            keeping.require_held(image, holds, stated)
        for image in chosen:
            count = site.catalog.unhold(image, stated)
            if not count and image not in named:
                continue
            if as_json:
                screen.json({"unheld": image, "lifted": count})
            else:
                screen.line(f"unheld {image}")
    return EXIT_OK
