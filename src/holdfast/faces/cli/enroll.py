"""``holdfast enroll``: have this machine join a site."""

from __future__ import annotations

import os
import sys

import click

from holdfast.base.errors import EXIT_OK, AlreadyExists, Invalid
from holdfast.faces.cli import opening, options
from holdfast.faces.cli.machine import ROLES
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Command

_FROM_STDIN = "-"


@click.command(
    cls=Command,
    arguments=[("URL", "Where the master listens for machines, such as https://master:8444.")],
    examples=[
        "holdfast enroll https://master.example.org:8444 --token hfe1.…",
        "holdfast enroll master.example.org --token=- --name web1 < token.txt",
    ],
)
@click.argument("url")
@click.option(
    "--token",
    metavar="T",
    required=True,
    help="What 'holdfast machine token' gave on the master; '-' reads it from stdin, so that no "
    "other user of this machine sees it.",
)
@click.option(
    "--role",
    type=click.Choice(ROLES),
    default="agent",
    show_default=True,
    help="As what to join; the token says so too.",
)
@click.option("--name", metavar="NAME", help="Under which name; without it, this machine's own.")
@click.option(
    "--again", is_flag=True, help="Join anew: forget the site and the key that there are."
)
@options.json_flag
def enroll(url: str, token: str, role: str, name: str | None, again: bool, as_json: bool) -> int:
    """Join a site, so that its master server has this machine backed up.

    A key is made here and never leaves this machine. The token names the site: it is shown to
    nobody who can't prove to be that. Afterwards 'holdfast agent run' holds the connection, or
    'holdfast service install --role agent' has the machine do so.
    """
    import asyncio

    from holdfast.base.clock import SystemClock
    from holdfast.movers import dialling, joining, machine_home
    from holdfast.wire.identity import EnrollmentToken, MachineRole, machine_name

    screen = Screen(as_json=as_json)
    home = opening.home()
    place = dialling.master_url(url)
    given = sys.stdin.readline() if token == _FROM_STDIN else token
    parsed = EnrollmentToken.parse(given)
    try:
        chosen = machine_name(name or os.uname().nodename)
    except Invalid as error:
        raise Invalid(error.message, "give it another: --name NAME") from error
    if machine_home.has_joined(home) and not again:
        raise _joined_already(machine_home.load(home))
    key = machine_home.prepare_key(home, again=again)
    identity = asyncio.run(
        joining.join(
            place,
            parsed,
            key=key,
            role=MachineRole(role),
            name=chosen,
            clock=SystemClock(),
        )
    )
    made = machine_home.save(home, (place,), identity)
    if as_json:
        screen.json(
            {
                "name": identity.name,
                "role": identity.role.value,
                "site": identity.site_id,
                "master": place,
                "home": str(made.home),
            }
        )
        return EXIT_OK
    screen.line(f"joined as {identity.role} '{identity.name}'")
    if identity.role is MachineRole.AGENT:
        screen.say("next: holdfast agent run, or for good: holdfast service install --role agent")
    return EXIT_OK


def _joined_already(known: object) -> AlreadyExists:
    from holdfast.movers.machine_home import MachineHome

    assert isinstance(known, MachineHome)  # noqa: S101 - narrows the type
    who = known.identity
    return AlreadyExists(
        f"this machine has joined {known.masters[0]} already, as {who.role} '{who.name}'",
        "to join anew, with a token that was made for its name: add --again",
    )
