"""A connected socket to an NBD server: whole pieces in, whole pieces out, each in time.

Must not know what the pieces mean. Invariant: whatever the other end does, all that is asked
within an allowance of time ends in it, with what was asked for or with an error that names the
server; nothing it says is kept in memory beyond what was asked for.
"""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    InputOutput,
    NoPermission,
    NotFound,
    TooSlow,
    Unreachable,
    storage_error,
)

if TYPE_CHECKING:
    import struct
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Address:
    """Where an NBD server listens.

    Attributes:
        path: Of a UNIX socket; None for TCP.
        host: Name or number, for TCP.
        port: For TCP.
    """

    path: str | None = None
    host: str = ""
    port: int = 10809

    def __str__(self) -> str:
        """As messages name it."""
        if self.path is not None:
            return f"the NBD server at {self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"the NBD server at {host}:{self.port}"


class Wire:
    """A connected socket, and the time that is left for what is being asked."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        """Connect.

        Raises:
            NotFound: There is no such socket.
            Unreachable, NoPermission: Nobody answers there, or this user may not ask.
        """
        self.address = address
        self.socket = _connected(address, timeout_s)
        self.allow(timeout_s)

    def allow(self, seconds: float) -> None:
        """Let what follows take so long, all of it together."""
        self._allowed_s = seconds
        self._until = time.monotonic() + seconds

    def send(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Send pieces one after another.

        Raises:
            Unreachable: The connection is lost.
            TooSlow: The server does not take them.
        """
        with self._named():
            for piece in pieces:
                self._hurry()
                self.socket.sendall(piece)

    def receive(self, count: int) -> bytearray:
        """Exactly so many bytes.

        Raises:
            Unreachable: The connection is lost.
            TooSlow: They do not come.
        """
        buffer = bytearray(count)
        self.receive_into(memoryview(buffer))
        return buffer

    def receive_into(self, buffer: memoryview) -> None:
        """Fill a buffer.

        Raises:
            Unreachable: The connection is lost.
            TooSlow: They do not come.
        """
        with self._named():
            at = 0
            while at < len(buffer):
                self._hurry()
                got = self.socket.recv_into(buffer[at:])
                if not got:
                    raise Unreachable(
                        f"{self.address} closed the connection",
                        hint="see in its log why; it may have been stopped or have crashed",
                    )
                at += got

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        """Receive and take apart one structure of numbers."""
        return layout.unpack(self.receive(layout.size))

    def skip(self, count: int) -> None:
        """Receive bytes that are of no use, without keeping them."""
        while count:
            count -= len(self.receive(min(count, 65536)))

    def close(self) -> None:
        """Close the socket; the server hears of it as a lost connection."""
        self.socket.close()

    def _hurry(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.socket.settimeout(left)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise TooSlow(
                f"{self.address} did not answer within {self._allowed_s:g} seconds",
                hint="see whether it hangs, and what its storage is doing",
            ) from error
        except OSError as error:
            raise Unreachable(
                f"the connection to {self.address} is lost: {error.strerror or error}",
                hint="see in its log why; it may have been stopped or have crashed",
            ) from error


def babble(address: Address, what: str) -> InputOutput:
    """The error for a server that says what it must not."""
    return InputOutput(
        f"{address} breaks the protocol: {what}",
        hint="see whether that is an NBD server at all, and of which version",
    )


def _connected(address: Address, timeout_s: float) -> socket.socket:
    try:
        if address.path is None:
            made = socket.create_connection((address.host, address.port), timeout=timeout_s)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(timeout_s)
            made.connect(address.path)
        except BaseException:
            made.close()
            raise
        return made
    except FileNotFoundError as error:
        raise NotFound(
            f"{address} is not there: no such socket",
            hint="start the server, or name the socket that it has",
        ) from error
    except TimeoutError as error:
        raise Unreachable(
            f"{address} did not answer within {timeout_s:g} seconds",
            hint="see that the server runs, and that the network between lets it be reached",
        ) from error
    except OSError as error:
        kind = storage_error(error)
        raise (kind if kind is NoPermission else Unreachable)(
            f"{address} can't be reached: {error.strerror or error}",
            hint=None if kind is NoPermission else "see that the server runs, and listens there",
        ) from error
