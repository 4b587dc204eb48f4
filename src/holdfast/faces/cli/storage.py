"""``holdfast storage``: storage units, and copies of images in them."""

from __future__ import annotations

import os
from typing import Any

import click

from holdfast.base.errors import EXIT_OK, UsageError
from holdfast.base.units import format_count
from holdfast.faces.cli import options
from holdfast.faces.cli.screen import Column, Screen
from holdfast.faces.cli.words import Group


@click.group(cls=Group, no_args_is_help=False, default="list")
def storage() -> None:
    """Storage units: places for images, each a pool of its own."""


@storage.command(name="list", examples=["holdfast storage list"])
@options.url_option
@options.json_flag
def list_(url: str | None, as_json: bool) -> int:
    """List storage units. 'default' is the pool that the site began with."""
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        rows = api.get("/storage-units")["items"]
    if as_json:
        for row in rows:
            screen.json(row)
        return EXIT_OK
    columns: list[Column] = [
        ("unit", "left"),
        ("on", "left"),
        ("place", "left"),
        ("slots", "right"),
        ("images", "right"),
    ]
    cells = [
        [row["name"], _on(row), row["place"], str(row["slots"]), format_count(row["images"])]
        for row in rows
    ]
    screen.table(columns, cells, gives_way=(2,))
    for row in rows:
        if row["problem"] is not None:
            screen.warn(f"storage unit '{row['name']}': {row['problem']}")
    return EXIT_OK


@storage.command(
    arguments=[("NAME", "What policies will name it by.")],
    examples=[
        "holdfast storage create second --pool /srv/second",
        "holdfast storage create cloud --pool s3://backups/site --slots 8",
        "holdfast storage create branch --on media2 --pool /srv/pool",
    ],
)
@click.argument("name")
@click.option(
    "--pool",
    "place",
    metavar="PLACE",
    required=True,
    help="A directory or URL; with --on an absolute directory there, empty or missing.",
)
@click.option("--on", "server", metavar="NAME", help="The media server that is to own it.")
@click.option(
    "--slots", metavar="N", type=click.IntRange(min=1), help="How many jobs it takes at once."
)
@options.url_option
@options.json_flag
def create(
    name: str, place: str, server: str | None, slots: int | None, url: str | None, as_json: bool
) -> int:
    """Make a storage unit, with a new pool.

    Without --on it is one that the master reaches itself. The key of the pool is the site's alone:
    print it with 'holdfast pool recovery-kit --unit NAME'.
    """
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    if server is None and url is None and "://" not in place:
        # Said of this machine's working directory, and carried out in another process.
        place = os.path.abspath(place)
    elif server is not None and not place.startswith("/"):
        raise UsageError(
            f"'{place}' is no absolute directory", f"say where on '{server}' it is to be: /srv/pool"
        )
    body: dict[str, Any] = {"name": name, "place": place, "server": server}
    if slots is not None:
        body["slots"] = slots
    with open_api(url) as api:
        made = api.post("/storage-units", body)
    if as_json:
        screen.json(made)
    else:
        where = f" on media server '{made['server']}'" if made["server"] else ""
        screen.line(f"storage unit '{made['name']}' is pool {made['pool_id']}{where}")
        screen.say(f"print its key: holdfast pool recovery-kit --unit {made['name']}")
    return EXIT_OK


@storage.command(
    name="set",
    arguments=[("NAME", "Of the unit.")],
    examples=["holdfast storage set cloud --slots 8"],
)
@click.argument("name")
@click.option(
    "--slots",
    metavar="N",
    type=click.IntRange(min=1),
    required=True,
    help="How many jobs it takes at once.",
)
@options.url_option
@options.json_flag
def change(name: str, slots: int, url: str | None, as_json: bool) -> int:
    """Have a storage unit take another number of jobs at once."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        made = api.patch(at("storage-units", name), {"slots": slots})
    if as_json:
        screen.json(made)
    else:
        screen.line(f"storage unit '{made['name']}' takes {made['slots']} jobs at once")
    return EXIT_OK


@storage.command(arguments=[("NAME", "Of the unit.")], examples=["holdfast storage remove second"])
@click.argument("name")
@options.url_option
@options.json_flag
def remove(name: str, url: str | None, as_json: bool) -> int:
    """Forget a storage unit that holds no image and that no policy names. Its pool stays."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        api.delete(at("storage-units", name))
    if as_json:
        screen.json({"removed": name})
    else:
        screen.say(f"storage unit '{name}' is forgotten; its pool is where it was")
    return EXIT_OK


def _on(row: dict[str, Any]) -> str:
    if row["server"] is None:
        return "all"
    if row["connected"]:
        return str(row["server"])
    return f"{row['server']} ({'away' if row['problem'] is None else 'disk'})"
