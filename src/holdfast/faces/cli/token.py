"""``holdfast token``: what programs log in with."""

from __future__ import annotations

from typing import Any

import click

from holdfast.base.errors import EXIT_OK, Invalid
from holdfast.faces.cli import moments, options
from holdfast.faces.cli.screen import Column, Screen
from holdfast.faces.cli.user import clients_option, clients_text, local_time, role_type
from holdfast.faces.cli.words import Group


@click.group(cls=Group, no_args_is_help=False)
def token() -> None:
    """What programs log in with."""


@token.command(name="list", examples=["holdfast token list --user alice"])
@click.option("--user", metavar="NAME", help="Only of this user.")
@click.option("--logins", is_flag=True, help="Also what came of logins.")
@options.url_option
@options.json_flag
def list_(user: str | None, logins: bool, url: str | None, as_json: bool) -> int:
    """List tokens, oldest first: everybody's, or only your own if you do not manage users."""
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        rows = list(api.pages("/tokens", user=user, sessions=logins))
    if as_json:
        for row in rows:
            screen.json(row)
        return EXIT_OK
    if not rows:
        screen.say("no tokens: 'holdfast token create NAME --user USER' makes one")
        return EXIT_OK
    columns: list[Column] = [
        ("id", "left"),
        ("user", "left"),
        ("name", "left"),
        ("good until", "left"),
        ("last used", "left"),
    ]
    screen.table(columns, [_cells(row) for row in rows], gives_way=(2, 1))
    return EXIT_OK


@token.command(
    arguments=[("NAME", "What it is for.")],
    examples=[
        "holdfast token create reports --user alice --role auditor --expires 90d",
        "HOLDFAST_TOKEN=hf_… holdfast user list --url https://master.example.org:8443",
    ],
)
@click.argument("name")
@click.option("--user", metavar="NAME", help="Whose it is; without it, your own.")
@click.option(
    "--expires",
    metavar="WHEN",
    help="A date (to its end), a moment in ISO 8601, or a duration such as 90d. Without it, never.",
)
@click.option(
    "--role",
    metavar="ROLE",
    type=role_type,
    help="Narrows the user's: both have to allow what is done.",
)
@clients_option
@options.url_option
@options.json_flag
def create(
    name: str,
    user: str | None,
    expires: str | None,
    role: str | None,
    clients: tuple[str, ...],
    url: str | None,
    as_json: bool,
) -> int:
    """Make a token and write its secret to stdout, this once."""
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    body: dict[str, Any] = {"name": name, "user": user, "role": role}
    body["scope"] = list(clients) or None
    if expires is not None:
        body["lifetime_s"] = _lifetime_s(expires)
    with open_api(url) as api:
        made = api.post("/tokens", body)
    if as_json:
        screen.json(made)
        return EXIT_OK
    screen.line(made["secret"])
    end = local_time(made["expires_at"], "it is revoked")
    screen.say(f"token {made['id']} of {made['user']}, good until {end}")
    screen.say("nobody can be shown it again: keep it where only the program reads it")
    return EXIT_OK


@token.command(
    arguments=[("ID", "As 'holdfast token list' shows it.")],
    examples=["holdfast token revoke 0c5bd1f5a2e9"],
)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@options.url_option
@options.json_flag
def revoke(ids: tuple[str, ...], url: str | None, as_json: bool) -> int:
    """Take tokens back: they are worth nothing from now on."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        # All are there before any is revoked.
        for one in ids:
            api.get(at("tokens", one))
        for one in ids:
            api.delete(at("tokens", one))
            if as_json:
                screen.json({"revoked": one})
            else:
                screen.line(f"revoked {one}")
    return EXIT_OK


def _lifetime_s(expires: str) -> int:
    from holdfast.base.clock import SystemClock

    now = SystemClock().now()
    lifetime_s = int((moments.until(expires, now) - now).total_seconds())
    if lifetime_s <= 0:
        raise Invalid(f"'{expires}' is past", "name a later moment")
    return lifetime_s


def _cells(row: dict[str, Any]) -> list[str]:
    narrowed = [row["role"]] if row["role"] else []
    narrowed += [clients_text(row["scope"])] if row["scope"] else []
    name = f"{row['name']} ({'; '.join(narrowed)})" if narrowed else row["name"]
    end = local_time(row["expires_at"], "revoked")
    return [
        row["id"],
        row["user"],
        name,
        "revoked" if row["revoked_at"] else end if row["expires_at"] else "for ever",
        local_time(row["last_used_at"], "never"),
    ]
