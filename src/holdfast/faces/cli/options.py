"""What several commands share: options, kinds of arguments, a catalog that has everything.

Must not print data.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast.faces.cli.progress import counting

if TYPE_CHECKING:
    from holdfast.engine import Pool
    from holdfast.faces.cli.screen import Screen
    from holdfast.site.site import Site

PLACE = click.Path(readable=False)
"""A path as it was typed. Whether it must be there and be readable is the command's to say."""

FILE = click.Path(readable=False, path_type=Path)
"""The same, of a file that Holdfast itself reads or writes."""

json_flag = click.option(
    "--json", "as_json", is_flag=True, help="Write JSON to stdout: an object, or one object a line."
)
source_option = click.option(
    "--source", metavar="S", help="Only this source, as 'holdfast images' shows it."
)

url_option = click.option(
    "--url",
    metavar="URL",
    help="Where the site is served, if not on this machine; HOLDFAST_TOKEN says who asks.",
)

only_this_option = click.option(
    "--only-this",
    is_flag=True,
    help="Not the other streams of the same backup, if it is of one of several.",
)

client_key_file_option = click.option(
    "--client-key-file",
    metavar="FILE",
    type=FILE,
    help="The client key that the image is sealed with, where this machine has not imported it.",
)

unit_option = click.option(
    "--unit",
    metavar="NAME",
    help="Of this storage unit, as 'holdfast storage list' shows it; else the site's own pool.",
)


def pool_of(site: Site, unit: str | None) -> Pool:
    """The pool of a storage unit; the site's own, if none is named."""
    return site.pool if unit is None else site.pools.of(site.pools.of_unit(unit))


def catch_up(screen: Screen, site: Site) -> None:
    """Feed the catalog what an interrupted command left for later, and say so."""
    pending = len(site.catalog.pending())
    if not pending:
        return
    screen.say(f"the catalog catches up with {pending} image(s)")
    with counting(screen, "catalog: rows") as rows:
        site.catch_up(rows)
