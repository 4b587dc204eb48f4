"""``holdfast machine``: hosts that join the site, on its master server."""

from __future__ import annotations

from typing import Any

import click

from holdfast.base.errors import EXIT_OK
from holdfast.base.units import parse_duration
from holdfast.faces.cli import options
from holdfast.faces.cli.screen import Column, Screen
from holdfast.faces.cli.user import local_time
from holdfast.faces.cli.words import Group

ROLES = ("agent", "media")

role_option = click.option(
    "--role",
    type=click.Choice(ROLES),
    default="agent",
    show_default=True,
    help="agent: a machine that is protected. media: one that keeps data.",
)


@click.group(cls=Group, no_args_is_help=False, default="list")
def machine() -> None:
    """Hosts that join the site: let them in, look at them, let them out."""


@machine.command(
    examples=["holdfast machine token", "holdfast machine token --name web1 --valid 15m"]
)
@click.option(
    "--name",
    metavar="NAME",
    help="For this name alone. Needed for one that a machine has or had, or of which there are "
    "images.",
)
@role_option
@click.option(
    "--valid",
    metavar="TIME",
    default="1h",
    show_default=True,
    help="For how long: 1m to 30d.",
)
@options.url_option
@options.json_flag
def token(name: str | None, role: str, valid: str, url: str | None, as_json: bool) -> int:
    """Make a token that lets one machine join, and write it to stdout, this once."""
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    body = {"role": role, "name": name, "valid_s": int(parse_duration(valid))}
    with open_api(url) as api:
        made = api.post("/machine-tokens", body)
    if as_json:
        screen.json(made)
        return EXIT_OK
    screen.line(made["token"])
    whom = f"the machine '{made['name']}'" if made["name"] else "one machine"
    until = local_time(made["expires_at"])
    screen.say(f"lets {whom} join as {made['role']}, once, until {until}")
    port = made["listen"].rpartition(":")[2]
    if port:
        also = f" --name {made['name']}" if made["name"] else ""
        role_words = "" if made["role"] == "agent" else f" --role {made['role']}"
        screen.say(f"there: holdfast enroll https://THIS-SERVER:{port} --token=-{role_words}{also}")
    return EXIT_OK


@machine.command(name="list", examples=["holdfast machine list", "holdfast machine list --json"])
@options.url_option
@options.json_flag
def list_(url: str | None, as_json: bool) -> int:
    """List the machines that have joined, by name."""
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        rows = list(api.pages("/machines"))
    if as_json:
        for row in rows:
            screen.json(row)
        return EXIT_OK
    if not rows:
        screen.say("no machine has joined: 'holdfast machine token' makes what lets one in")
        return EXIT_OK
    columns: list[Column] = [
        ("machine", "left"),
        ("role", "left"),
        ("state", "left"),
        ("last seen", "left"),
        ("certificate until", "left"),
        ("software", "left"),
    ]
    screen.table(columns, [_cells(row) for row in rows], gives_way=(5, 0))
    return EXIT_OK


@machine.command(
    arguments=[("NAME", "As 'holdfast machine list' shows it.")],
    examples=["holdfast machine revoke web1"],
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@options.url_option
@options.json_flag
def revoke(names: tuple[str, ...], url: str | None, as_json: bool) -> int:
    """Let machines in no more, from this moment on. Their images stay.

    To let one in again, make a token for its name: holdfast machine token --name NAME
    """
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        # All are there before any is let out.
        for name in names:
            api.get(at("machines", name))
        for name in names:
            out = api.post(at("machines", name) + "/revoke")
            if as_json:
                screen.json(out)
            else:
                screen.line(f"revoked {out['name']}")
    return EXIT_OK


def _cells(row: dict[str, Any]) -> list[str]:
    state = "connected" if row["connected"] else "away"
    return [
        row["name"],
        row["role"],
        "revoked" if row["revoked_at"] else state,
        "now" if row["connected"] else local_time(row["last_seen_at"], "never"),
        local_time(row["certificate_until"], "-"),
        row["software"] or "-",
    ]
