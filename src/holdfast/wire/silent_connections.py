"""Close connections that were opened and then say nothing.

Must not touch one that ever sent a whole request: between requests the server's own limit counts,
and within one the limits of who handles it. A connection without a request costs its peer nothing,
and the server memory and a descriptor; the server itself waits for a first request for ever.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from aiohttp import web

from holdfast.base.errors import TooSlow
from holdfast.wire.peer import name_shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web_protocol import RequestHandler

WAIT_S = 20.0

Told: TypeAlias = "Callable[[str, str, TooSlow], None]"
"""Is told of a connection that was closed: which machine's, by its certificate, and from where."""


class SilentConnections:
    """Connections of one application that have not said anything yet."""

    def __init__(
        self,
        app: web.Application,
        wait_s: float | None = None,
        told: Told = lambda _name, _address, _error: None,
    ) -> None:
        """Begin to note who speaks; `watch` does the rest, once the application runs.

        Args:
            app: Whose connections.
            wait_s: How long one may say nothing; None for as long as usual.
            told: Is told of those that were closed and whose other end said nothing over others
                either. Must not block.
        """
        self._wait_s = WAIT_S if wait_s is None else wait_s
        self._told = told
        self._spoke: set[RequestHandler] = set()

        @web.middleware
        async def note(
            request: web.Request,
            handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
        ) -> web.StreamResponse:
            self._spoke.add(request.protocol)
            return await handler(request)

        app.middlewares.append(note)

    async def watch(self, runner: web.AppRunner) -> None:
        """Close what is silent for too long, until cancelled."""
        loop = asyncio.get_running_loop()
        since_s: dict[RequestHandler, float] = {}
        while True:
            server = runner.server
            if server is None:
                return
            open_now = server.connections
            self._spoke.intersection_update(open_now)
            silent = [one for one in open_now if one not in self._spoke]
            since_s = {one: since_s.get(one, loop.time()) for one in silent}
            for one, at_s in since_s.items():
                if loop.time() - at_s >= self._wait_s and one.transport is not None:
                    self._tell(one.transport)
                    one.force_close()
            await asyncio.sleep(self._wait_s / 4)

    def _tell(self, transport: asyncio.Transport) -> None:
        who = _end(transport)
        # One whose bandwidth is bounded opens connections that wait for their turn: no word of it.
        if any(_end(one.transport) == who for one in self._spoke):
            return
        why = f"a connection that asked for nothing within {self._wait_s:g} s was closed"
        self._told(*who, TooSlow(why))


def _end(transport: asyncio.BaseTransport | None) -> tuple[str, str]:
    """The other end: whom its certificate names, and where it is."""
    there = None if transport is None else transport.get_extra_info("peername")
    return name_shown(transport), str(there[0]) if there else ""
