"""``holdfast hold``: keep images, whatever rules say."""

from __future__ import annotations

import click

from holdfast.base.errors import EXIT_OK
from holdfast.faces.cli import acting, opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.whole import all_together
from holdfast.faces.cli.words import Command
from holdfast.site import keeping


@click.command(
    cls=Command,
    arguments=[("IMAGE", "Ids, unique prefixes of them, or 'latest'.")],
    examples=["holdfast hold 3f2a --reason 'case 17, until the court says so'"],
)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--reason", metavar="TEXT", required=True, help="Why; shown with the image.")
@options.only_this_option
@options.json_flag
def hold(images: tuple[str, ...], reason: str, only_this: bool, as_json: bool) -> int:
    """Keep images until 'holdfast unhold' (a legal hold), whatever rules say.

    An image may be held for several reasons; it stays until the last is lifted.

    Of a path that is backed up in several streams, an image stands for all streams of its backup.
    """
    screen = Screen(as_json=as_json)
    stated = keeping.reason(reason)
    with opening.open_site() as site:
        named = [site.catalog.resolve(text) for text in images]
        chosen = all_together(screen, site, named, only_these=only_this)
        for image in acting.each(chosen):
            site.catalog.hold(image, stated)
            if as_json:
                screen.json({"held": image, "reason": stated})
            else:
                screen.line(f"held {image}: {stated}")
    return EXIT_OK
