"""Who sends a request: a token says so, or the socket of this machine does.

Must not judge what they may do. Invariants: only whoever serves the application can say which user
of the operating system is at the other end, never the request; a token goes before that, so that
the owner of a site can look at it with the eyes of another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import NotAuthenticated
from holdfast.control.access import Principal, local

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

    from starlette.requests import Request

    from holdfast.site.master import Master

_STATE = "holdfast_peer"


@dataclass(frozen=True, slots=True)
class Peer:
    """A user of the operating system, at the other end of a socket or in this process.

    Attributes:
        user_id: As the kernel says it.
    """

    user_id: int


def announce(state: MutableMapping[str, Any], peer: Peer) -> None:
    """Say who is at the other end; for whoever serves the application.

    Args:
        state: ``scope["state"]`` of the requests of one connection.
        peer: Who it is.
    """
    state[_STATE] = peer


def recognise(request: Request) -> Principal:
    """Find out who sends a request.

    Raises:
        NotAuthenticated: Nobody who is known.
    """
    given = request.headers.get("authorization")
    if given is not None:
        kind, _, secret = given.partition(" ")
        if kind.lower() != "bearer" or not secret.strip():
            raise NotAuthenticated("the header 'Authorization' is not 'Bearer TOKEN'")
        master: Master = request.app.state.master
        return master.access.principal_of(secret.strip())
    peer = request.scope.get("state", {}).get(_STATE)
    if isinstance(peer, Peer) and peer.user_id in request.app.state.owners:
        return local(peer.user_id)
    raise NotAuthenticated("this needs a token")


def address(request: Request) -> str:
    """Where a request comes from, as far as can be told: an address, or ``local``."""
    return "local" if request.client is None else request.client.host
