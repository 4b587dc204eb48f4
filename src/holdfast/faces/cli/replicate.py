"""``holdfast replicate``: images into another storage unit."""

from __future__ import annotations

import os

import click

from holdfast.base.errors import EXIT_OK, UsageError
from holdfast.faces.cli import opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.whole import all_together
from holdfast.faces.cli.words import Command


@click.command(
    cls=Command,
    arguments=[("IMAGE", "Ids, unique prefixes, 'latest'.")],
    examples=[
        "holdfast replicate latest --to branch",
        "holdfast replicate --source web1:/srv --to cloud",
    ],
)
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@click.option(
    "--to",
    "unit",
    metavar="NAME",
    required=True,
    help="The storage unit, as 'holdfast storage list' shows it.",
)
@options.source_option
@options.only_this_option
@options.url_option
@options.json_flag
def replicate(
    images: tuple[str, ...],
    unit: str,
    source: str | None,
    only_this: bool,
    url: str | None,
    as_json: bool,
) -> int:
    """Bring images into another storage unit, as a job that 'holdfast serve' gives out.

    What is there already does not travel. With --source every image of that source. For a site that
    is named by its URL, IMAGE is a whole id, and brings nothing but itself.

    Of a path that is backed up in several streams, an image stands for all streams of its backup.
    Images of several sources that the unit knows go side by side, as parts of the job.
    """
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    if bool(images) == bool(source):
        raise UsageError("name images, or one --source", "for example: holdfast replicate latest")
    if source is not None and (url or os.environ.get(opening.URL_VARIABLE)):
        raise UsageError("--source is for the site of this machine", "name images by their ids")
    if url is None and not os.environ.get(opening.URL_VARIABLE):
        with opening.open_site() as site:
            if source is not None:
                images = tuple(site.catalog.image_ids(source))
                if not images:
                    raise UsageError(
                        f"source '{source}' has no image", "list them with: holdfast images"
                    )
            else:
                named = [site.resolve(text) for text in images]
                images = tuple(all_together(screen, site, named, only_these=only_this))
    with open_api(url) as api:
        queued = api.post("/replications", {"images": list(images), "unit": unit})
        begins = api.is_served
    if as_json:
        screen.json(queued)
    else:
        screen.line(str(queued["job"]))
        screen.say(f"follow it: holdfast jobs watch {queued['job']}")
        if not begins:
            screen.say("it begins when the site is served: holdfast serve")
    return EXIT_OK
