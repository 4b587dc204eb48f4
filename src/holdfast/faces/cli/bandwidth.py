"""``holdfast bandwidth``: how much machines may move, by network and by time of day."""

from __future__ import annotations

import click

from holdfast.base.errors import EXIT_OK
from holdfast.base.units import format_rate, parse_size
from holdfast.faces.cli import options
from holdfast.faces.cli.screen import Column, Screen
from holdfast.faces.cli.words import Group


@click.group(cls=Group, no_args_is_help=False, default="list")
def bandwidth() -> None:
    """How much machines may move, by network and by time of day."""


@bandwidth.command(name="list", examples=["holdfast bandwidth list"])
@options.url_option
@options.json_flag
def list_(url: str | None, as_json: bool) -> int:
    """List the rules. Of several that hold for a machine the one that leaves least counts."""
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        rows = api.get("/bandwidth-rules")["items"]
    if as_json:
        for row in rows:
            screen.json(row)
        return EXIT_OK
    if not rows:
        screen.say("no rule: machines move as much as they can")
        return EXIT_OK
    columns: list[Column] = [
        ("rule", "left"),
        ("at most", "right"),
        ("networks", "left"),
        ("when", "left"),
    ]
    cells = [
        [
            row["name"],
            format_rate(row["bytes_per_s"]),
            ", ".join(row["networks"]) or "all",
            ", ".join(row["windows"]) or "always",
        ]
        for row in rows
    ]
    screen.table(columns, cells, gives_way=(2, 3))
    return EXIT_OK


@bandwidth.command(
    name="set",
    arguments=[("NAME", "Of the rule; one of this name becomes another.")],
    examples=[
        'holdfast bandwidth set office --limit 2.5M --window "Mon-Fri 08:00-18:00"',
        "holdfast bandwidth set branch --limit 1M --network 10.2.0.0/16",
    ],
)
@click.argument("name")
@click.option(
    "--limit",
    metavar="SIZE",
    required=True,
    help="Bytes a second, of all machines together that it is for: 2.5M.",
)
@click.option(
    "--network",
    "networks",
    metavar="CIDR",
    multiple=True,
    help="For machines of this network; may be repeated. Else for all.",
)
@click.option(
    "--window",
    "windows",
    metavar="W",
    multiple=True,
    help="When, in the site's zone; may be repeated. Else always.",
)
@options.url_option
@options.json_flag
def put(
    name: str,
    limit: str,
    networks: tuple[str, ...],
    windows: tuple[str, ...],
    url: str | None,
    as_json: bool,
) -> int:
    """Make a rule. Machines at work keep to it within seconds.

    What machines may move is shared by those that it is for and that have something to move.
    """
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    body = {
        "bytes_per_s": parse_size(limit),
        "networks": list(networks),
        "windows": list(windows),
    }
    with open_api(url) as api:
        made = api.put(at("bandwidth-rules", name), body)
    if as_json:
        screen.json(made)
    else:
        screen.line(f"{made['name']}: at most {format_rate(made['bytes_per_s'])}")
    return EXIT_OK


@bandwidth.command(
    arguments=[("NAME", "Of the rule.")], examples=["holdfast bandwidth remove office"]
)
@click.argument("name")
@options.url_option
@options.json_flag
def remove(name: str, url: str | None, as_json: bool) -> int:
    """Forget a rule."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        api.delete(at("bandwidth-rules", name))
    if as_json:
        screen.json({"removed": name})
    else:
        screen.say(f"rule '{name}' is forgotten")
    return EXIT_OK
