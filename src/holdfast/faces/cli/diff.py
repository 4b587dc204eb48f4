"""``holdfast diff``: what changed between two images, found by walking only what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.base.errors import EXIT_OK
from holdfast.faces.cli import opening, options
from holdfast.faces.cli.screen import Screen, path_json, path_text, printable
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.base.ids import ImageId
    from holdfast.engine import Pool

SIGNS = {1: "+", 2: "-", 3: "M"}
_WORDS = {1: "added", 2: "removed", 3: "changed"}
_KINDS = ("file", "dir", "symlink", "fifo", "socket", "char", "block")


@click.command(
    cls=Command,
    arguments=[("IMAGE", "The older one."), ("IMAGE", "The newer one.")],
    examples=["holdfast diff 3f2a latest", "holdfast diff 3f2a 9c01 --json"],
)
@click.argument("old", metavar="IMAGE")
@click.argument("new", metavar="IMAGE")
@options.json_flag
def diff(old: str, new: str, as_json: bool) -> int:
    """Tell two images apart: + was added, - was removed, M has other content or attributes."""
    screen = Screen(as_json=as_json)
    counts = dict.fromkeys(SIGNS, 0)
    with opening.open_site() as site:
        first, second = site.resolve(old), site.resolve(new)
        pool = site.pools.holding(first, second)
        for path, change, kind, size_bytes, mtime_ns in differences(pool, first, second):
            counts[change] += 1
            if as_json:
                screen.json(
                    {
                        **path_json(path),
                        "change": _WORDS[change],
                        "kind": _KINDS[kind],
                        "size": size_bytes,
                        "mtime_ns": mtime_ns,
                    }
                )
                continue
            name = path_text(path) + ("/" if _KINDS[kind] == "dir" and path != b"/" else "")
            screen.line(f"{SIGNS[change]} {printable(name) if screen.data_is_terminal else name}")
    if not as_json:
        told = ", ".join(f"{count:,} {_WORDS[change]}" for change, count in counts.items())
        screen.say(told)
    return EXIT_OK


def differences(
    pool: Pool, old: ImageId | None, new: ImageId | None
) -> Iterator[tuple[bytes, int, int, int, int]]:
    """Tell (path, change, kind, size in bytes, mtime in ns) of each name that differs."""
    for batch in pool.changes(old, new):
        for at, name, change, kind, size_bytes, mtime_ns, *_ in batch.rows:
            yield batch.dirs[at].rstrip(b"/") + b"/" + name, change, kind, size_bytes, mtime_ns
