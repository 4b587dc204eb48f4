"""The socket of one client of our server: whole pieces in, whole answers out.

Must not know what the pieces mean. Invariants: nothing is kept of what a client sends beyond what
was asked for; an answer is sent whole or the connection ends; a client that does not take its
answers is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import struct

STALL_S = 120.0
"""How long a client may take to accept one answer."""

_AT_ONCE = 64 * 1024


class Gone(Exception):  # noqa: N818 - it is no error that a client leaves
    """The client left, or was left."""


class Peer:
    """A connected client."""

    def __init__(self, connected: socket.socket) -> None:
        """Take over a socket that does not block."""
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def exactly(self, count: int) -> bytes:
        """So many bytes.

        Raises:
            Gone: They do not come.
        """
        while len(self._buffer) < count:
            try:
                more = await self._loop.sock_recv(self._socket, _AT_ONCE)
            except OSError as error:
                raise Gone from error
            if not more:
                raise Gone
            self._buffer += more
        found = bytes(self._buffer[:count])
        del self._buffer[:count]
        return found

    async def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        """Receive and take apart one structure of numbers."""
        return layout.unpack(await self.exactly(layout.size))

    async def skip(self, count: int) -> None:
        """Receive bytes that are of no use, without keeping them."""
        while count:
            count -= len(await self.exactly(min(count, _AT_ONCE)))

    async def send(self, *pieces: bytes) -> None:
        """Send pieces as one, with nothing of another answer between them.

        Raises:
            Gone: The client does not take them.
        """
        sent = 0
        if not self._waiting:
            # Most answers fit at once, and need nobody to wait for. The lock alone would not tell:
            # it may be free and promised to the next.
            sent = self._at_once(pieces)
            if sent == sum(map(len, pieces)):
                return
        self._waiting += 1
        try:
            async with self._turn:
                await self._rest(pieces, sent)
        finally:
            self._waiting -= 1

    async def _rest(self, pieces: tuple[bytes, ...], sent: int) -> None:
        try:
            async with asyncio.timeout(STALL_S):
                for piece in pieces:
                    if sent < len(piece):
                        await self._loop.sock_sendall(self._socket, memoryview(piece)[sent:])
                    sent = max(0, sent - len(piece))
        except (OSError, TimeoutError) as error:
            # Half of an answer may be out: nothing that follows could be understood. It is
            # closed when nobody waits for it any more.
            self.hang_up()
            raise Gone from error

    def _at_once(self, pieces: tuple[bytes, ...]) -> int:
        try:
            return self._socket.sendmsg(pieces)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise Gone from error

    def handed_over(self) -> tuple[int, bytes]:
        """The socket's descriptor, and what came on it that nobody has asked for yet."""
        begun = bytes(self._buffer)
        self._buffer.clear()
        return self._socket.fileno(), begun

    def hang_up(self) -> None:
        """End the connection; whoever reads from it finds that it has ended."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the client."""
        self._socket.close()

    def left(self, _task: object) -> None:
        """Let go of the client, when what served it has ended."""
        self.close()
