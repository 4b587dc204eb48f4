"""``holdfast ls``: what is in an image, read from the image's own tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.base.clock import from_ns
from holdfast.base.errors import EXIT_OK
from holdfast.base.ids import parse_image_path
from holdfast.faces.cli import describe, opening, options
from holdfast.faces.cli.screen import Screen, path_text, printable
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.base.ids import ImageId
    from holdfast.engine import Entry, Pool


@click.command(
    cls=Command,
    arguments=[("IMAGE", "An id, a unique prefix of one, or 'latest'.")],
    examples=[
        "holdfast ls latest",
        "holdfast ls latest:/etc --long",
        "holdfast ls 3f2a:/home --recursive --json",
    ],
)
@click.argument("place", metavar="IMAGE[:PATH]")
@click.option("--long", "-l", is_flag=True, help="Mode, owner, size and time as well.")
@click.option("--recursive", "-R", is_flag=True, help="Everything below, not one directory.")
@options.json_flag
def ls(place: str, long: bool, recursive: bool, as_json: bool) -> int:
    """List a directory, or one file, of an image."""
    screen = Screen(as_json=as_json)
    wanted = parse_image_path(place)
    with opening.open_site() as site:
        image = site.resolve(wanted.image)
        for path, entry in walk(site.pools.holding(image), image, wanted.path, recursive=recursive):
            _tell(screen, path, entry, long=long)
    return EXIT_OK


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


def _tell(screen: Screen, path: bytes, entry: Entry, *, long: bool) -> None:
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
