"""``holdfast mount``: an image as a read-only directory, until it is unmounted."""

from __future__ import annotations

import os

import click

from holdfast.base.errors import EXIT_OK
from holdfast.faces.cli import opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Command
from holdfast.movers.restore_run import require_empty

_POLL_S = 0.5


@click.command(
    cls=Command,
    arguments=[
        ("IMAGE", "An id, a unique prefix of one, or 'latest'."),
        ("DIR", "An empty directory to mount it on."),
    ],
    examples=["holdfast mount latest /mnt", "diff -r /mnt/etc /etc"],
)
@click.argument("image", metavar="IMAGE")
@click.argument("directory", metavar="DIR", type=options.PLACE)
@click.option("--allow-other", is_flag=True, help="Let other users look at it as well.")
@options.json_flag
def mount(image: str, directory: str, allow_other: bool, as_json: bool) -> int:
    """Mount an image, read-only, and stay until Ctrl-C or 'fusermount3 -u DIR'.

    Either way of ending is exit status 0.
    """
    screen = Screen(as_json=as_json)
    at = os.path.abspath(directory)
    with opening.open_site() as site:
        chosen = site.resolve(image)
        os.stat(at)
        require_empty(os.fsencode(at))
        mounted = site.pools.holding(chosen).mount(chosen, at, allow_other)
        try:
            if as_json:
                screen.json({"image": chosen, "mounted_at": at})
                screen.flush()
            else:
                screen.say(f"image {chosen} is at {at}; Ctrl-C unmounts it")
            while not mounted.wait(_POLL_S):
                pass
        except KeyboardInterrupt:
            mounted.unmount()
        except BaseException:
            mounted.unmount()
            raise
    screen.say("unmounted")
    return EXIT_OK
