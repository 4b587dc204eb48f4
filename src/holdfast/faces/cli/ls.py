"""``holdfast ls``: what is in an image, read from the image's own tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.base.clock import from_ns
from holdfast.base.errors import EXIT_OK, PathMissing
from holdfast.base.ids import parse_image_path
from holdfast.base.labels import is_machine
from holdfast.faces.cli import describe, opening, options
from holdfast.faces.cli.restore import together
from holdfast.faces.cli.screen import Screen, path_text, printable
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.base.ids import ImageId
    from holdfast.engine import Entry, Pool
    from holdfast.movers.machines.inside import InnerEntry, Inside


@click.command(
    cls=Command,
    arguments=[("IMAGE", "An id, a unique prefix of one, or 'latest'.")],
    examples=[
        "holdfast ls latest",
        "holdfast ls latest:/etc --long",
        "holdfast ls 3f2a:/home --recursive --json",
        "holdfast ls 3f2a:/vda/p1/etc",
    ],
)
@click.argument("place", metavar="IMAGE[:PATH]")
@click.option("--long", "-l", is_flag=True, help="Mode, owner, size and time as well.")
@click.option("--recursive", "-R", is_flag=True, help="Everything below, not one directory.")
@click.option(
    "--only-this",
    is_flag=True,
    help="Not the other streams of the same backup, if it is of one of several.",
)
@options.json_flag
def ls(place: str, long: bool, recursive: bool, only_this: bool, as_json: bool) -> int:
    """List a directory, or one file, of an image.

    Where a path is backed up in several streams, what all of them have is listed as one.

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
            images = [image] if only_this else together(screen, site, image)
            pools = [(site.pools.holding(one), one) for one in images]
            for path, entry in walk_all(pools, wanted.path, recursive=recursive):
                _tell(screen, path, entry, long=long)
    return EXIT_OK


def _machine(
    screen: Screen, pool: Pool, image: ImageId, path: bytes, *, long: bool, recursive: bool
) -> None:
    """List what is in the image of a machine, and in the file systems on its disks."""
    # What reads file systems is loaded for images of machines alone.
    from holdfast.movers.machines.inside import Inside

    with Inside.of_image(pool, image) as inside:
        within = path != b"/" and inside.knows(path)
        if not within:
            for place, entry in walk(pool, image, path, recursive=recursive):
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


def walk_all(
    images: list[tuple[Pool, ImageId]], path: bytes, *, recursive: bool
) -> Iterator[tuple[bytes, Entry]]:
    """As `walk`, of images that are one backup: what several have is there once.

    Raises:
        PathMissing: None of them has it.
    """
    if len(images) == 1:
        yield from walk(*images[0], path, recursive=recursive)
        return
    there: list[tuple[Pool, ImageId]] = []
    for pool, image in images:
        try:
            first = pool.entry(image, path)
        except PathMissing:
            continue
        if first.kind != "dir":
            yield path, first
            return
        there.append((pool, image))
    if not there:
        shown = path.decode("utf-8", "backslashreplace")
        raise PathMissing(f"no image of this backup has '{shown}'")
    yield from _below_all(there, path, recursive=recursive)


def _below_all(
    images: list[tuple[Pool, ImageId]], path: bytes, *, recursive: bool
) -> Iterator[tuple[bytes, Entry]]:
    entries: dict[bytes, Entry] = {}
    having: dict[bytes, list[tuple[Pool, ImageId]]] = {}
    for pool, image in images:
        for entry in pool.list_dir(image, path):
            entries.setdefault(entry.name, entry)
            if entry.kind == "dir":
                having.setdefault(entry.name, []).append((pool, image))
    for name in sorted(entries):
        child = path.rstrip(b"/") + b"/" + name
        yield child, entries[name]
        if recursive and name in having:
            if len(having[name]) == 1:
                ((pool, image),) = having[name]
                below = walk(pool, image, child, recursive=True)
            else:
                below = _below_all(having[name], child, recursive=True)
            yield from below


def walk(
    pool: Pool, image: ImageId, path: bytes, *, recursive: bool
) -> Iterator[tuple[bytes, Entry]]:
    """The entries of a directory, or the one entry of anything else, with whole paths."""
    first = pool.entry(image, path)
    if first.kind != "dir":
        yield path, first
        return
    # Depth first, with one list of entries a level: bounded by depth times directory size.
    levels = [(path, iter(pool.list_dir(image, path)))]
    while levels:
        parent, entries = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
            continue
        child = parent.rstrip(b"/") + b"/" + entry.name
        yield child, entry
        if recursive and entry.kind == "dir":
            levels.append((child, iter(pool.list_dir(image, child))))


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
