"""``holdfast user``: who may log in, and as what."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from holdfast.base.errors import (
    EXIT_OK,
    Cancelled,
    Invalid,
    NoPermission,
    PathMissing,
    UsageError,
)
from holdfast.faces.cli import describe, opening, options
from holdfast.faces.cli.screen import Column, Screen
from holdfast.faces.cli.words import Group

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROLES = ("administrator", "operator", "restore-operator", "auditor")
"""As the control floor has them; to load that for a help text would take long."""

role_type = click.Choice(ROLES)

name_argument = click.argument("name")
clients_option = click.option(
    "--client",
    "clients",
    metavar="GLOB",
    multiple=True,
    help="Only clients whose name fits, such as 'web*'; may be repeated. Without it, all.",
)
password_file_option = click.option(
    "--password-file", metavar="F", type=options.FILE, help="Take the password from a file."
)


@click.group(cls=Group, no_args_is_help=False)
def user() -> None:
    """Who may log in, and as what."""


@user.command(name="list", examples=["holdfast user list"])
@options.url_option
@options.json_flag
def list_(url: str | None, as_json: bool) -> int:
    """List the users."""
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        rows = list(api.pages("/users"))
    if as_json:
        for row in rows:
            screen.json(row)
        return EXIT_OK
    if not rows:
        screen.say("no users yet: 'holdfast user add NAME --role ROLE' makes one")
        return EXIT_OK
    columns: list[Column] = [
        ("name", "left"),
        ("role", "left"),
        ("clients", "left"),
        ("logs in", "left"),
        ("display name", "left"),
    ]
    screen.table(columns, [_cells(row) for row in rows], gives_way=(2, 4, 0))
    return EXIT_OK


@user.command(
    arguments=[("NAME", "1 to 64 of a-z, 0-9, '.', '_', '@' and '-'; it is never changed.")],
    examples=[
        "holdfast user add alice --role administrator",
        "holdfast user add bob --role restore-operator --client 'web*' --no-password",
    ],
)
@name_argument
@click.option(
    "--role",
    metavar="ROLE",
    type=role_type,
    required=True,
    help=f"What this one is here for: {', '.join(ROLES)}.",
)
@clients_option
@click.option("--display-name", metavar="TEXT", default="", help="As people write it.")
@password_file_option
@click.option("--no-password", is_flag=True, help="No login by name and password.")
@click.option(
    "--identity",
    metavar="TEXT",
    help="Who this is at the site's identity provider; then no password is asked for.",
)
@options.url_option
@options.json_flag
def add(
    name: str,
    role: str,
    clients: tuple[str, ...],
    display_name: str,
    password_file: Path | None,
    no_password: bool,
    identity: str | None,
    url: str | None,
    as_json: bool,
) -> int:
    """Make a user. The password is asked for, unless it is in a file."""
    from holdfast.faces.cli.api_client import open_api

    if no_password and password_file is not None:
        raise UsageError("--no-password and --password-file contradict each other")
    body: dict[str, Any] = {"name": name, "role": role, "display_name": display_name}
    if clients:
        body["scope"] = list(clients)
    if identity is not None:
        body["identity"] = identity
    with open_api(url) as api:
        if password_file is not None or not (no_password or identity):
            body["password"] = read_password(password_file, f"new password of {name}")
        made = api.post("/users", body)
    _tell(Screen(as_json=as_json), made, "made")
    return EXIT_OK


@user.command(
    arguments=[("NAME", "The user.")],
    examples=["holdfast user set-password alice --password-file new.txt"],
)
@name_argument
@password_file_option
@options.url_option
@options.json_flag
def set_password(name: str, password_file: Path | None, url: str | None, as_json: bool) -> int:
    """Give a user a new password. What that one has logged in ends."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        password = read_password(password_file, f"new password of {name}")
        api.put(at("users", name, "password"), {"password": password})
    _tell_short(screen, {"user": name, "password": "set"}, f"{name} has a new password")
    return EXIT_OK


@user.command(
    arguments=[("NAME", "The user."), ("ROLE", ", ".join(ROLES) + ".")],
    examples=["holdfast user set-role bob operator --client 'web*' --client mail1"],
)
@name_argument
@click.argument("role", metavar="ROLE", type=role_type)
@clients_option
@options.url_option
@options.json_flag
def set_role(name: str, role: str, clients: tuple[str, ...], url: str | None, as_json: bool) -> int:
    """Give a user a role, for some clients or for all."""
    from holdfast.faces.cli.api_client import at, open_api

    with open_api(url) as api:
        body = {"role": role, "scope": list(clients) or ["*"]}
        changed = api.patch(at("users", name), body)
    _tell(Screen(as_json=as_json), changed, "changed")
    return EXIT_OK


@user.command(
    arguments=[("NAME", "The user."), ("IDENTITY", "What the provider says of that one.")],
    examples=["holdfast user set-identity bob bob@example.org", "holdfast user set-identity bob"],
)
@name_argument
@click.argument("identity", required=False)
@options.url_option
@options.json_flag
def set_identity(name: str, identity: str | None, url: str | None, as_json: bool) -> int:
    """Say who a user is at the site's identity provider; without IDENTITY, nobody."""
    from holdfast.faces.cli.api_client import at, open_api

    with open_api(url) as api:
        changed = api.put(at("users", name, "identity"), {"identity": identity})
    who = identity or "nobody"
    _tell_short(Screen(as_json=as_json), changed, f"{name} is {who} at the identity provider")
    return EXIT_OK


@user.command(arguments=[("NAME", "The user.")], examples=["holdfast user disable bob"])
@name_argument
@options.url_option
@options.json_flag
def disable(name: str, url: str | None, as_json: bool) -> int:
    """Let nothing of a user in any more, until 'holdfast user enable'."""
    return _set_disabled(name, url, as_json=as_json, disabled=True)


@user.command(arguments=[("NAME", "The user.")], examples=["holdfast user enable bob"])
@name_argument
@options.url_option
@options.json_flag
def enable(name: str, url: str | None, as_json: bool) -> int:
    """Let a user in again."""
    return _set_disabled(name, url, as_json=as_json, disabled=False)


@user.command(arguments=[("NAME", "The user.")], examples=["holdfast user remove bob --yes"])
@name_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.url_option
@options.json_flag
def remove(name: str, yes: bool, url: str | None, as_json: bool) -> int:
    """Remove a user, with all tokens. The audit log keeps the name."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        api.get(at("users", name))
        if not yes:
            _confirm(f"remove {name} with all tokens?")
        api.delete(at("users", name))
    _tell_short(screen, {"removed": name}, f"removed {name}")
    return EXIT_OK


@user.command(
    arguments=[("NAME", "Who you are; without it, the site's identity provider says so.")],
    examples=[
        "export HOLDFAST_URL=https://master.example.org:8443",
        'export HOLDFAST_TOKEN="$(holdfast user login alice)"',
        'export HOLDFAST_TOKEN="$(holdfast user login)"',
    ],
)
@click.argument("name", required=False)
@password_file_option
@click.option("--device", is_flag=True, help="In a browser of any device, where this has none.")
@options.url_option
@options.json_flag
def login(
    name: str | None, password_file: Path | None, device: bool, url: str | None, as_json: bool
) -> int:
    """Log in, and write a token to stdout that lasts for twelve hours.

    Without NAME, in a browser on this machine, by the site's identity provider; with --device, in
    one anywhere, by a code.
    """
    if device and name is not None:
        raise UsageError("--device is for a login by the identity provider, without NAME")
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    with open_api(url, anonymous=True) as api:
        if name is None:
            from holdfast.faces.cli import browser_login, device_login

            session = (device_login if device else browser_login).log_in(api, screen)
        else:
            password = read_password(password_file, f"password of {name}")
            session = api.post("/sessions", {"name": name, "password": password})
    if as_json:
        screen.json(session)
        return EXIT_OK
    screen.line(session["token"])
    screen.say(f"good until {local_time(session['expires_at'])}")
    return EXIT_OK


def read_password(file: Path | None, what: str) -> str:
    """Take a password from a file, or ask for it.

    Raises:
        UsageError: There is neither a file nor anybody to ask.
        PathMissing: The file is not there.
        NoPermission: It may not be read.
        Invalid: It is not text, or empty.
    """
    if file is None:
        if not opening.can_ask():
            raise UsageError(
                "no password was given, and nobody is here to ask", "--password-file F"
            )
        return opening.ask_passphrase(what)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise PathMissing(f"there is no file {file}", "name the file with the password") from error
    except PermissionError as error:
        raise NoPermission(f"may not read {file}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"can't read {file}: {error}") from error
    password = text.removesuffix("\n").removesuffix("\r")
    if not password or "\n" in password:
        raise Invalid(f"{file} does not hold one line with a password")
    return password


def clients_text(scope: Sequence[str]) -> str:
    """Globs over clients, for a person."""
    return "all" if list(scope) == ["*"] else ", ".join(scope)


def local_time(text: str | None, otherwise: str = "") -> str:
    """A moment of the API, for a person."""
    return otherwise if text is None else describe.local_time(datetime.fromisoformat(text))


def _set_disabled(name: str, url: str | None, *, as_json: bool, disabled: bool) -> int:
    from holdfast.faces.cli.api_client import at, open_api

    with open_api(url) as api:
        changed = api.patch(at("users", name), {"disabled": disabled})
    _tell(Screen(as_json=as_json), changed, "disabled" if disabled else "enabled")
    return EXIT_OK


def _confirm(question: str) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("nobody is here to ask", "add --yes")
    if not click.confirm(question, default=False, err=True):
        raise Cancelled("nothing was removed")


def _cells(row: dict[str, Any]) -> list[str]:
    way = "with a password" if row["has_password"] else "by tokens"
    way = "by the provider" if row["identity"] else way
    return [
        row["name"],
        row["role"],
        clients_text(row["scope"]),
        "disabled" if row["disabled"] else way,
        row["display_name"],
    ]


def _tell(screen: Screen, row: dict[str, Any], done: str) -> None:
    clients = clients_text(row["scope"])
    _tell_short(screen, row, f"{done} {row['name']}: {row['role']}, clients: {clients}")


def _tell_short(screen: Screen, value: dict[str, Any], line: str) -> None:
    if screen.as_json:
        screen.json(value)
    else:
        screen.line(line)
