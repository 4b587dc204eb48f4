"""What a machine is to be like that is made of its image: options of several commands.

Must not ask a site. Invariant: what is not said stays as it was in the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from holdfast.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_Command = TypeVar("_Command", bound="Callable[..., Any]")

IMAGE = ("IMAGE", "An id, a unique prefix of one, or 'latest'.")

_IDENTITY = (
    click.option("--name", metavar="NAME", help="What it is to be called, if not what it was."),
    click.option("--new-identity", is_flag=True, help="With a new uuid and new MAC addresses."),
    click.option(
        "--network",
        "networks",
        metavar="NETWORK",
        multiple=True,
        help="What its cards are connected to, if not to what they were; may be repeated.",
    ),
    click.option("--no-network", is_flag=True, help="Connect its cards to nothing."),
)

beside_original_option = click.option(
    "--beside-original", is_flag=True, help="Although the original runs."
)


def identity_options(command: _Command) -> _Command:
    """Its name, identity and networks; `identity` makes of them what the API is told."""
    for option in reversed(_IDENTITY):
        command = option(command)
    return command


def identity(
    networks: tuple[str, ...], *, no_network: bool, new_identity: bool
) -> dict[str, object]:
    """What the API is told of identity and networks.

    Raises:
        UsageError: The options contradict each other.
    """
    if networks and no_network:
        raise UsageError("--network and --no-network contradict each other")
    return {
        "keep_identity": not new_identity,
        "networks": list(networks) if networks or no_network else None,
    }
