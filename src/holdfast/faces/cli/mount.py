"""``holdfast mount``: an image as a read-only directory, until it is unmounted."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import click

from holdfast.base.errors import EXIT_OK, HoldfastError
from holdfast.base.labels import is_machine
from holdfast.faces.cli import acting, describe, opening, options, whole
from holdfast.faces.cli.screen import Screen, printable, tell_findings
from holdfast.faces.cli.words import Command
from holdfast.movers.restore_run import require_empty

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.base.ids import ImageId
    from holdfast.movers.machines.shown_inside import ShownInside
    from holdfast.site.site import Site

_POLL_S = 0.5


@click.command(
    cls=Command,
    arguments=[
        ("IMAGE", "An id, a unique prefix of one, or 'latest'."),
        ("DIR", "An empty directory to mount it on."),
    ],
    examples=[
        "holdfast mount latest /mnt",
        "diff -r /mnt/etc /etc",
        "holdfast mount latest /mnt --client-key-file office.txt",
        "holdfast mount 3f2a /mnt; grep -r PermitRoot /mnt/vda/p1/etc/ssh",
    ],
)
@click.argument("image", metavar="IMAGE")
@click.argument("directory", metavar="DIR", type=options.PLACE)
@click.option("--allow-other", is_flag=True, help="Let other users look at it as well.")
@click.option(
    "--disks-only", is_flag=True, help="Of a virtual machine: not the files on its disks."
)
@options.only_this_option
@options.client_key_file_option
@options.json_flag
def mount(
    image: str,
    directory: str,
    allow_other: bool,
    disks_only: bool,
    only_this: bool,
    client_key_file: Path | None,
    as_json: bool,
) -> int:
    """Mount an image, read-only, and stay until Ctrl-C or 'fusermount3 -u DIR'.

    Where a path is backed up in several streams, what all of them have is one tree. An image that
    is sealed with a client key is mounted where that key is.

    Of a virtual machine's image, DIR/DISK/VOLUME shows the files on a disk: DIR/vda/p1/etc,
    DIR/lvm/GROUP/VOLUME/home. For that its files are indexed, once, where that was not done yet.

    Either way of ending is exit status 0.
    """
    screen = Screen(as_json=as_json)
    at = os.path.abspath(directory)
    with opening.open_site() as site, contextlib.ExitStack() as around:
        chosen = site.resolve(image)
        acting.about([chosen])
        os.stat(at)
        require_empty(os.fsencode(at))
        inside = None
        if is_machine(site.pools.holding(chosen).image(chosen).labels) and not disks_only:
            inside = _inside(screen, site, chosen, around)
        images = [chosen]
        if inside is not None:
            mounted = site.pools.holding(chosen, inside[0]).mount(chosen, at, allow_other, inside)
        else:
            images = images if only_this else whole.together(screen, site, chosen)
            mounted = whole.whole_tree(site, images, client_key_file).mount(at, allow_other)
        try:
            if as_json:
                screen.json(
                    {
                        "image": chosen,
                        "images": images,
                        "mounted_at": at,
                        "files_inside": inside is not None,
                    }
                )
                screen.flush()
            else:
                others = f" with {len(images) - 1} more of its backup" if images[1:] else ""
                screen.say(f"image {chosen}{others} is at {at}; Ctrl-C unmounts it")
            while not mounted.wait(_POLL_S):
                pass
        except KeyboardInterrupt:
            mounted.unmount()
        except BaseException:
            mounted.unmount()
            raise
        findings = mounted.findings()
        lines = describe.finding_lines(findings)
        tell_findings(screen, lines, len(findings), "things could not be read")
    screen.say("unmounted")
    return EXIT_OK


def _inside(
    screen: Screen, site: Site, image: ImageId, around: contextlib.ExitStack
) -> tuple[ImageId, ShownInside] | None:
    """The index of what is on a machine's disks, and who reads it; None where there is none."""
    # What reads file systems is loaded for images of machines alone.
    from holdfast.movers.machines.inside import Inside
    from holdfast.movers.machines.shown_inside import ShownInside
    from holdfast.site.machine_indexes import index_at_hand

    catalog, pools = site.catalog, site.pools
    if not catalog.indexes_of(image):
        screen.say("looking at what is on its disks, which is done once for an image")
    try:
        index = index_at_hand(catalog, pools, site.clock, image)
        pool = pools.holding(image, index)
    except HoldfastError as error:
        screen.say(f"warning: files on its disks are not shown: {printable(error.message)}")
        return None
    indexing = catalog.indexing(image)
    if indexing is not None and indexing.detail:
        screen.say(f"warning: {printable(indexing.detail)}")
    return index, ShownInside(around.enter_context(Inside.of_image(pool, image)))
