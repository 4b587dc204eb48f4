"""``holdfast ls``: what is in an image, read from the image's own tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.base.clock import from_ns
from holdfast.base.errors import EXIT_OK
from holdfast.base.ids import parse_image_path
from holdfast.base.labels import is_machine
from holdfast.faces.cli import describe, opening, options, whole
from holdfast.faces.cli.screen import Screen, path_text, printable
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.base.ids import ImageId
    from holdfast.engine import Entry, Pool, WholeTree
    from holdfast.movers.machines.inside import InnerEntry, Inside


@click.command(
    cls=Command,
    arguments=[("IMAGE", "An id, a unique prefix of one, or 'latest'.")],
    examples=[
        "holdfast ls latest",
        "holdfast ls latest:/etc --long",
        "holdfast ls 3f2a:/home --recursive --json",
        "holdfast ls 3f2a:/vda/p1/etc",
        "holdfast ls latest:/home --client-key-file office.txt",
    ],
)
@click.argument("place", metavar="IMAGE[:PATH]")
@click.option("--long", "-l", is_flag=True, help="Mode, owner, size and time as well.")
@click.option("--recursive", "-R", is_flag=True, help="Everything below, not one directory.")
@options.only_this_option
@options.client_key_file_option
@options.json_flag
def ls(
    place: str,
    long: bool,
    recursive: bool,
    only_this: bool,
    client_key_file: Path | None,
    as_json: bool,
) -> int:
    """List a directory, or one file, of an image.

    Where a path is backed up in several streams, what all of them have is listed as one.

    Names that a client sealed are listed plain where its key is, else as the site has them.

    In the image of a virtual machine, /DISK/VOLUME leads to the files on a disk: /vda/p1/etc,
    /lvm/GROUP/VOLUME/home.
    """
    screen = Screen(as_json=as_json)
    wanted = parse_image_path(place)
    with opening.open_site() as site:
        image = site.resolve(wanted.image)
        pool = site.pools.holding(image)
        if is_machine(pool.image(image).labels):
            _machine(screen, pool, image, wanted.path, long=long, recursive=recursive)
        else:
            images = [image] if only_this else whole.together(screen, site, image)
            tree = whole.whole_tree(site, images, client_key_file)
            for path, entry in walk(tree, wanted.path, recursive=recursive):
                _tell(screen, path, entry, long=long)
    return EXIT_OK


def _machine(
    screen: Screen, pool: Pool, image: ImageId, path: bytes, *, long: bool, recursive: bool
) -> None:
    """List what is in the image of a machine, and in the file systems on its disks."""
    # What reads file systems is loaded for images of machines alone.
    from holdfast.engine import WholeTree
    from holdfast.movers.machines.inside import Inside

    with Inside.of_image(pool, image) as inside:
        within = path != b"/" and inside.knows(path)
        if not within:
            for place, entry in walk(WholeTree([(pool, image)]), path, recursive=recursive):
                _tell(screen, place, entry, long=long)
        if within or path == b"/":
            for place, inner in walk_inside(inside, path, recursive=recursive):
                _tell(screen, place, inner, long=long)
        for one in inside.remarks_of([path] if within else []):
            screen.say(f"{one.severity}: {printable(one.message)}")


def walk_inside(
    inside: Inside, path: bytes, *, recursive: bool
) -> Iterator[tuple[bytes, InnerEntry]]:
    """As `walk`, of what is on the disks of a machine."""
    if path != b"/":
        first = inside.entry(path)
        if first.kind != "dir":
            yield path, first
            return
    if recursive:
        yield from inside.below(path)
        return
    for entry in inside.children(path):
        yield path.rstrip(b"/") + b"/" + entry.name, entry


def walk(tree: WholeTree, path: bytes, *, recursive: bool) -> Iterator[tuple[bytes, Entry]]:
    """The entries of a directory, or the one entry of anything else, with whole paths."""
    first = tree.entry(path)
    if first.kind != "dir":
        yield path, first
        return
    # Depth first, with one list of entries a level: bounded by depth times directory size.
    levels = [(path, iter(tree.list_dir(path)))]
    while levels:
        parent, entries = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
            continue
        child = parent.rstrip(b"/") + b"/" + entry.name
        yield child, entry
        if recursive and entry.kind == "dir":
            levels.append((child, iter(tree.list_dir(child))))


def _tell(screen: Screen, path: bytes, entry: Entry | InnerEntry, *, long: bool) -> None:
    if screen.as_json:
        screen.json(describe.entry_json(path, entry))
        return
    name = path_text(path)
    if screen.data_is_terminal:
        name = printable(name)
    if not long:
        screen.line(name + ("/" if entry.kind == "dir" else ""))
        return
    owner = f"{entry.user or entry.uid} {entry.group or entry.gid}"
    size = ",".join(map(str, entry.rdev)) if entry.rdev else str(entry.size)
    time = describe.local_time(from_ns(entry.mtime_ns))
    arrow = f" -> {path_text(entry.target)}" if entry.target is not None else ""
    if screen.data_is_terminal:
        arrow = printable(arrow)
    screen.line(f"{describe.entry_mode(entry)} {owner:<17} {size:>12} {time} {name}{arrow}")
