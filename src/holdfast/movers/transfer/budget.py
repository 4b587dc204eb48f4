"""Memory for bodies, given out by the byte: so much in all, so much and so many for one client.

Must not be used by several threads: it belongs to one event loop. Invariants: what is out never
exceeds a bound; who waits gets room in the order of coming, except that nobody waits for one
who waits for himself.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import Busy, TooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(eq=False, slots=True)
class _Waiting:
    client: str
    size_bytes: int
    granted: asyncio.Future[None]


class ByteBudget:
    """Room for so many bytes."""

    def __init__(self, total_bytes: int, client_bytes: int, client_bodies: int) -> None:
        self._total_bytes = total_bytes
        self._client_bodies = client_bodies
        self._client_bytes = min(client_bytes, total_bytes)
        self._out_bytes = 0
        self._out_of: dict[str, int] = {}
        self._bodies_of: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []

    @property
    def out_bytes(self) -> int:
        """How much is given out."""
        return self._out_bytes

    @asynccontextmanager
    async def room(self, client: str, size_bytes: int, wait_s: float) -> AsyncIterator[None]:
        """Hold room for a body.

        Raises:
            TooLarge: One client never gets as much.
            Busy: There was none for as long as was waited.
        """
        if size_bytes > self._client_bytes:
            raise TooLarge(
                f"a body of {size_bytes} bytes: a client has room for {self._client_bytes}"
            )
        await self._take(client, size_bytes, wait_s)
        try:
            yield
        finally:
            self._give_back(client, size_bytes)

    async def _take(self, client: str, size_bytes: int, wait_s: float) -> None:
        waiting = _Waiting(client, size_bytes, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._grant()
        try:
            async with asyncio.timeout(wait_s):
                await waiting.granted
        except BaseException as error:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                self._grant()
            else:
                self._give_back(client, size_bytes)
            if isinstance(error, TimeoutError):
                raise Busy(
                    f"the media server had no room for a body of {size_bytes} bytes "
                    f"for {wait_s:.0f} s",
                    "it is tried again by itself; fewer jobs at once would wait less",
                ) from error
            raise

    def _give_back(self, client: str, size_bytes: int) -> None:
        self._out_bytes -= size_bytes
        self._out_of[client] -= size_bytes
        self._bodies_of[client] -= 1
        if not self._bodies_of[client]:
            del self._out_of[client], self._bodies_of[client]
        self._grant()

    def _grant(self) -> None:
        full: set[str] = set()
        for waiting in list(self._waiting):
            client, size_bytes = waiting.client, waiting.size_bytes
            out_of_client = self._out_of.get(client, 0)
            if (
                client in full
                or out_of_client + size_bytes > self._client_bytes
                or self._bodies_of[client] >= self._client_bodies
            ):
                full.add(client)
                continue
            if self._out_bytes + size_bytes > self._total_bytes:
                # Smaller ones behind it would keep it out for ever.
                return
            self._waiting.remove(waiting)
            self._out_bytes += size_bytes
            self._out_of[client] = out_of_client + size_bytes
            self._bodies_of[client] += 1
            waiting.granted.set_result(None)
