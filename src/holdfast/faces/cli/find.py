"""``holdfast find``: search the names of everything that was ever backed up."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from holdfast.base.errors import EXIT_OK, Invalid
from holdfast.base.units import format_size
from holdfast.faces.cli import describe, opening, options
from holdfast.faces.cli.screen import Screen, path_json, path_text, printable
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from holdfast.control.catalog import FoundRow


@click.command(
    cls=Command,
    arguments=[("PATTERN", "A part of a name, or a glob with * ? [ ].")],
    examples=[
        "holdfast find invoice",
        "holdfast find '*.odt' --versions",
        "holdfast find '/etc/*/hosts' --source web1:/etc",
    ],
)
@click.argument("pattern", metavar="PATTERN")
@options.source_option
@click.option("--versions", is_flag=True, help="Every version of each, not only the newest.")
@options.json_flag
def find(pattern: str, source: str | None, versions: bool, as_json: bool) -> int:
    """Find files and directories by name, over all images.

    Each line names the newest image that has that state of it: restore from there.
    """
    if not pattern:
        raise Invalid("an empty pattern would find everything", "name a part of what you look for")
    from holdfast.site import searching

    screen = Screen(as_json=as_json)
    found = 0
    with opening.open_site() as site:
        catch_up = partial(options.catch_up, screen)
        for row in searching.find(
            site, pattern, source=source, versions=versions, catch_up=catch_up
        ):
            found += 1
            _tell(screen, row)
    if not found:
        screen.say(f"nothing is named like '{printable(pattern)}'")
    return EXIT_OK


def _tell(screen: Screen, row: FoundRow) -> None:
    if screen.as_json:
        screen.json(_object(row))
        return
    name = path_text(row.path)
    if screen.data_is_terminal:
        name = printable(name)
    size = format_size(row.size_bytes) if row.kind == "file" else row.kind
    time = describe.local_time(row.modified_at)
    last = row.last_image[: describe.SHORT_ID]
    screen.line(f"{last}  {time}  {size:>9}  {name}")


def _object(row: FoundRow) -> dict[str, object]:
    return {
        "source": row.source,
        **path_json(row.path),
        "kind": row.kind,
        "size": row.size_bytes,
        "mtime_ns": row.mtime_ns,
        "mode": f"{row.mode:04o}",
        "uid": row.uid,
        "gid": row.gid,
        "first_image": row.first_image,
        "first_at": describe.iso_time(row.first_at),
        "last_image": row.last_image,
        "last_at": describe.iso_time(row.last_at),
        "images": row.images,
        "current": row.current,
    }
