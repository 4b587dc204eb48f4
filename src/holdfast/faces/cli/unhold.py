"""``holdfast unhold``: lift holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.base.errors import EXIT_OK
from holdfast.faces.cli import acting, opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.whole import all_together
from holdfast.faces.cli.words import Command
from holdfast.site import keeping

if TYPE_CHECKING:
    from holdfast.control.catalog import Protection


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
        acting.about(chosen)
        known = site.catalog.protections()
        for image in named:
            holds = known[image].holds if image in known else ()
            keeping.require_held(image, holds, stated)
        held = [one for one in chosen if one in named or _is_held(known.get(one), stated)]
        for image in acting.each(held):
            count = site.catalog.unhold(image, stated)
            if as_json:
                screen.json({"unheld": image, "lifted": count})
            else:
                screen.line(f"unheld {image}")
    return EXIT_OK


def _is_held(kept: Protection | None, stated: str | None) -> bool:
    return kept is not None and bool(kept.holds) and (stated is None or stated in kept.holds)
