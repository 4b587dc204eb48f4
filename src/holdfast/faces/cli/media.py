"""``holdfast media``: this machine at work as a media server of the site that it has joined."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from holdfast.base.errors import EXIT_OK, Invalid, SiteMissing, WrongState
from holdfast.faces.cli import opening, options
from holdfast.faces.cli.agent import until_signalled
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.service_manager import log_to_stderr, tell_service_manager
from holdfast.faces.cli.words import Group

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.site.site import Site
    from holdfast.wire.identity import Identity

LISTEN = "0.0.0.0:8445"


@click.group(cls=Group, no_args_is_help=False)
def media() -> None:
    """This machine at work as a media server of the site that it has joined."""


@media.command(
    examples=["holdfast media run", "holdfast media run --listen 10.0.0.5:8445 --address 10.0.0.5"]
)
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    default=LISTEN,
    envvar="HOLDFAST_MEDIA_LISTEN",
    show_default=True,
    help="Where agents bring data.",
)
@click.option(
    "--address",
    "addresses",
    metavar="A",
    multiple=True,
    envvar="HOLDFAST_MEDIA_ADDRESS",
    help="Where agents reach this machine; may be repeated. Else at all its addresses.",
)
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(min=1, max=10_000),
    envvar="HOLDFAST_MEDIA_JOBS",
    help="Of how many jobs it takes data at once; else of as many as come. More go to others.",
)
@options.json_flag
def run(listen: str, addresses: tuple[str, ...], jobs: int | None, as_json: bool) -> int:
    """Take data of the site's machines into pools, in the foreground.

    The home of this machine needs its place in the site ('holdfast enroll URL --role media').
    Pools on its own disk are made from the master; for a pool that all media servers reach, the
    home needs that as well ('holdfast init --existing --pool URL'). It ends when it is interrupted,
    or when the site lets this machine in no more.
    """
    from holdfast.movers import machine_home
    from holdfast.movers.holding import run_until
    from holdfast.site.media_server import MediaServer

    screen = Screen(as_json=as_json)
    home = opening.home()
    known = machine_home.load(home)
    who = known.identity
    require_media_server(who)
    place = _place(listen)
    log_to_stderr()
    with contextlib.ExitStack() as opened:
        site = site_of(home)
        if site is not None:
            opened.enter_context(site)
        server = MediaServer(known, site, place, addresses, jobs, takes_data=_ready)
        if as_json:
            screen.json({"name": who.name, "site": who.site_id, "masters": list(known.masters)})
            screen.flush()
        else:
            screen.say(f"media server '{who.name}' works for {', '.join(known.masters)}")
        run_until(server, until_signalled)
    screen.say("stopped")
    return EXIT_OK


def _ready() -> None:
    tell_service_manager("READY=1")


def site_of(home: Path) -> Site | None:
    """The site in the home of a media server; None for one with pools of its own alone.

    Where there is none, nothing that only a site needs has to be installed.
    """
    from holdfast.base import config
    from holdfast.base.clock import SystemClock

    try:
        config.load(home)
    except SiteMissing:
        return None
    from holdfast.site.site import Site

    return Site.open(home, opening.secret_source(), SystemClock())


def require_media_server(who: Identity) -> None:
    """Make sure that a machine has joined as a media server.

    Raises:
        WrongState: As something else.
    """
    from holdfast.wire.identity import MachineRole

    if who.role is not MachineRole.MEDIA:
        raise WrongState(
            f"this machine has joined as {who.role} '{who.name}', not as a media server",
            "to join anew: holdfast enroll URL --token T --role media --again",
        )


def _place(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise Invalid(f"'{listen}' is not where to listen", "write address:port")
    return host.strip("[]"), int(port)
