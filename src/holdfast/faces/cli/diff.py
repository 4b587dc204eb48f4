"""``holdfast diff``: what changed between two images, found by walking only what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.base.errors import EXIT_OK
from holdfast.faces.cli import opening, options, whole
from holdfast.faces.cli.screen import Screen, path_json, path_text, printable
from holdfast.faces.cli.words import Command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.engine import WholeTree

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
@options.only_this_option
@options.client_key_file_option
@options.json_flag
def diff(old: str, new: str, only_this: bool, client_key_file: Path | None, as_json: bool) -> int:
    """Tell two images apart: + was added, - was removed, M has other content or attributes.

    Where a path is backed up in several streams, both stand for all streams of their backups, also
    where the path was divided otherwise.

    Names that a client sealed are told plain where its key is, else as the site has them.
    """
    screen = Screen(as_json=as_json)
    counts = dict.fromkeys(SIGNS, 0)
    with opening.open_site() as site:
        first, second = site.resolve(old), site.resolve(new)
        before, after = (
            [one] if only_this else whole.together(screen, site, one) for one in (first, second)
        )
        if first != second and {*before} == {*after}:
            screen.say("both are of one backup, in several streams: --only-this tells them apart")
        older, newer = (whole.whole_tree(site, each, client_key_file) for each in (before, after))
        for path, change, kind, size_bytes, mtime_ns in differences(older, newer):
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


def differences(old: WholeTree, new: WholeTree) -> Iterator[tuple[bytes, int, int, int, int]]:
    """Tell (path, change, kind, size in bytes, mtime in ns) of each name that differs."""
    for batch in new.changes_since(old):
        for at, name, change, kind, size_bytes, mtime_ns, *_ in batch.rows:
            yield batch.dirs[at].rstrip(b"/") + b"/" + name, change, kind, size_bytes, mtime_ns
