"""``holdfast expire``: let go of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.base.errors import EXIT_OK
from holdfast.faces.cli import acting, opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from holdfast.base.ids import ImageId
    from holdfast.site.site import Site

_SHOWN = 8


@click.command(
    cls=Command,
    arguments=[("IMAGE", "Ids, unique prefixes of them, or 'latest'.")],
    examples=["holdfast expire 3f2a 9c01", "holdfast gc"],
)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@options.json_flag
def expire(images: tuple[str, ...], as_json: bool) -> int:
    """Let go of images for good. Their space returns with 'holdfast gc'.

    If any of them is held or locked, none goes. Of a path that is backed up in several streams only
    the images go that are named; of a backup that is not whole any more that is said.
    """
    screen = Screen(as_json=as_json)
    with opening.open_site() as site:
        # All names are understood, and all may go, before anything goes.
        _ = site.pool
        chosen = list(dict.fromkeys(site.catalog.resolve(text) for text in images))
        acting.about(chosen)
        for image in chosen:
            site.catalog.require_unprotected(image)
        left = _left_behind(site, chosen)
        for image in chosen:
            site.expire(image)
            if as_json:
                screen.json({"expired": image})
            else:
                screen.line(f"expired {image}")
    if left:
        shown = " ".join(one[:8] for one in left[:_SHOWN]) + (" …" if left[_SHOWN:] else "")
        screen.say(f"warning: other streams of the same backups stay, without these: {shown}")
    screen.say("next: 'holdfast gc' gives the space back")
    return EXIT_OK


def _left_behind(site: Site, images: list[ImageId]) -> list[ImageId]:
    """Images of other streams that are one backup with images that are to go."""
    from holdfast.site.whole_backups import whole_backup

    found: dict[ImageId, None] = {}
    for image in images:
        whole = whole_backup(site.catalog, site.catalog.image(image))
        apart = {one.id for one in whole.of_other_jobs}
        found |= dict.fromkeys(one.id for one in whole.images if one.id not in apart)
    return [one for one in found if one not in images]
