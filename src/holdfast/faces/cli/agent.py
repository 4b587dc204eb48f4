"""``holdfast agent``: this machine at work for the site that it has joined."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import click

from holdfast.base.errors import EXIT_OK, WrongState
from holdfast.faces.cli import opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.service_manager import log_to_stderr, tell_service_manager
from holdfast.faces.cli.words import Group

if TYPE_CHECKING:
    import asyncio


@click.group(cls=Group, no_args_is_help=False)
def agent() -> None:
    """This machine at work for the site that it has joined."""


@agent.command(
    examples=["holdfast agent run", "holdfast agent run --address 10.1.0.5 --address 10.2.0.5"]
)
@click.option(
    "--address",
    "addresses",
    metavar="A",
    multiple=True,
    envvar="HOLDFAST_AGENT_ADDRESS",
    help="Of this machine, that data uses; may be repeated. Else all that it has.",
)
@options.json_flag
def run(addresses: tuple[str, ...], as_json: bool) -> int:
    """Hold the connection to the master and do its work, in the foreground.

    It ends when it is interrupted, or when the site lets this machine in no more. A master that
    can't be reached is tried again and again. 'holdfast service install --role agent' has the
    machine start it.
    """
    from holdfast.movers import machine_home
    from holdfast.movers.client_keys import ClientKeys
    from holdfast.movers.holding import run_until
    from holdfast.movers.remote_agent import agent_answers
    from holdfast.movers.session import MachineSession
    from holdfast.movers.transfer.machine import FarMovers
    from holdfast.movers.transfer.paths import read_addresses
    from holdfast.wire.identity import MachineRole

    screen = Screen(as_json=as_json)
    sources = read_addresses(addresses)
    known = machine_home.load(opening.home())
    who = known.identity
    if who.role is not MachineRole.AGENT:
        raise WrongState(
            f"this machine has joined as {who.role} '{who.name}', not as an agent",
            "to join anew: holdfast enroll URL --token T --again",
        )
    log_to_stderr()
    if as_json:
        screen.json({"name": who.name, "site": who.site_id, "masters": list(known.masters)})
        screen.flush()
    else:
        screen.say(f"agent '{who.name}' works for {', '.join(known.masters)}")
    keys, scratch = ClientKeys(known.home), known.home / "scratch"
    movers = FarMovers(
        known.home / "cache",
        master=lambda: session.master_url,
        keys=keys,
        scratch=scratch,
        sources=sources,
    )
    session = MachineSession(
        known,
        movers,
        answers={**agent_answers(keys, scratch), "rate": movers.limit},
        addresses=tuple(map(str, sources)),
    )

    def until(told: asyncio.Event) -> None:
        until_signalled(told)
        # It is at work when its master can't be reached, too: it tries again and again.
        tell_service_manager("READY=1")

    run_until(session, until)
    screen.say("stopped")
    return EXIT_OK


def until_signalled(told: asyncio.Event) -> None:
    """Have a signal set an event, in the event loop of this thread."""
    import asyncio

    loop = asyncio.get_running_loop()

    def tell() -> None:
        tell_service_manager("STOPPING=1")
        told.set()
        # Whoever asks for a second time does not want to wait.
        loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, tell)
