"""One connection to a media server: TLS over TCP, and HTTP/1.1 requests one after the other.

Must not try anything again, and is one thread's own but for `cut`. Invariants: a peer that is gone
is noticed within seconds, one that stopped answering within `STALL_S`; a failed connection is never
used again.

Plain sockets and threads, no event loop: on the same machine that takes a third less of the
processor for each byte sent, and the engine's threads wait for answers anyway.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast.base.units import KIB, MIB

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from holdfast.movers.transfer.rate import RateLimit

CONNECT_S = 4.0
"""For so long a connection may take to be made."""

GONE_MS = 3000
"""A peer that acknowledges nothing for so long is gone: TCP_USER_TIMEOUT."""

GONE_BESIDE_OTHERS_MS = 2000
"""The same where there are other paths, which can take its work."""

STALL_S = 20.0
"""A media server that works on an answer says so more often than this."""

ANSWER_BYTES = 128 * MIB
"""No answer is longer."""

EXPECT_BYTES = 1536 * KIB
"""A body from this size on is sent only when the media server has room for it. One that is shorter
fits into what a media server reads ahead of each connection, so that it never stands still."""

_HEAD_BYTES = 64 * KIB
_PIECE_BYTES = MIB
_LIMITED_PIECE_BYTES = 32 * KIB
_READ_BYTES = 256 * KIB
_ONE_PACKET_BYTES = 64 * KIB


class BrokenConnection(ConnectionError):  # noqa: N818 - it is one of many kinds of OSError here
    """What came is no answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its token.

    Attributes:
        method: Of HTTP.
        target: The path, with its query.
        body: None for none.
    """

    method: str
    target: str
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A final answer.

    Attributes:
        status: Of HTTP.
        body: All of it.
        headers: By their names in small letters.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Connection:
    """A connection that is open until it fails, is closed, or its peer ends it.

    Attributes:
        made_s: When it was made, by the clock of whoever made it.
    """

    def __init__(
        self,
        address: tuple[str, int],
        source: str | None,
        context: ssl.SSLContext,
        rate: RateLimit,
        check_peer: Callable[[bytes], None] = lambda _: None,
        gone_ms: int = GONE_MS,
    ) -> None:
        """Connect.

        Args:
            address: Host and port.
            source: The local address to come from; None for what the system chooses.
            context: Has this machine's certificate and the site's authority.
            rate: What may be sent and received.
            check_peer: Is given the peer's certificate in DER; raises if it is not the one wanted.
            gone_ms: After how long without an acknowledgement the peer is gone.

        Raises:
            OSError: It could not be made.
        """
        self._host = f"{address[0]}:{address[1]}"
        self._rate = rate
        self.made_s = 0.0
        self._cut = False
        self._over = False
        self._buffer = bytearray()
        plain = socket.create_connection(
            address, CONNECT_S, None if source is None else (source, 0)
        )
        try:
            _keep_alive(plain, gone_ms)
            self._socket = context.wrap_socket(plain, server_hostname=address[0])
        except BaseException:
            plain.close()
            raise
        try:
            check_peer(self._socket.getpeercert(binary_form=True) or b"")
            self._socket.settimeout(STALL_S)
        except BaseException:
            self._socket.close()
            raise

    @property
    def usable(self) -> bool:
        """Whether another request may go over it."""
        return not self._over and not self._cut

    def exchange(
        self, request: Request, token: str | None, at_work: Callable[[], None] = lambda: None
    ) -> Response:
        """Send a request and wait for its answer.

        Args:
            request: What is asked.
            token: What authorises it; None where the certificate does.
            at_work: Called whenever the peer says that it is still at work on it.

        Raises:
            OSError: The connection is gone; the request may have been done, or not.
        """
        try:
            return self._exchange(request, token, at_work)
        except BaseException:
            self._over = True
            raise

    def cut(self) -> None:
        """End it, and whatever another thread waits for on it. May be called at any time."""
        self._cut = True
        # The method of `SSLSocket` would have the other thread go on in plain text.
        with suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Free it."""
        self._over = True
        self._socket.close()

    def _exchange(
        self, request: Request, token: str | None, at_work: Callable[[], None]
    ) -> Response:
        body = request.body
        head = [f"{request.method} {request.target} HTTP/1.1", f"Host: {self._host}"]
        if token is not None:
            head.append(f"Authorization: Bearer {token}")
        if body is not None:
            head.append(f"Content-Length: {len(body)}")
        expect = body is not None and len(body) >= EXPECT_BYTES
        if expect:
            head.append("Expect: 100-continue")
        raw = "\r\n".join([*head, "", ""]).encode()
        if expect:
            self._socket.sendall(raw)
            status, headers = self._heads(at_work, until_continue=True)
            if status != 100:
                # The body was not asked for: the connection is not where either side thinks.
                self._over = True
                return Response(status, self._body(status, headers), headers)
            self._send(body or b"")
        elif body is not None and len(body) <= _ONE_PACKET_BYTES:
            self._rate.take(len(body), self._stopped)
            self._socket.sendall(raw + body)
        else:
            self._socket.sendall(raw)
            self._send(body or b"")
        status, headers = self._heads(at_work)
        answer = Response(status, self._body(status, headers), headers)
        if headers.get("connection", "").lower() == "close":
            self._over = True
        return answer

    def _send(self, body: bytes) -> None:
        view = memoryview(body)
        at = 0
        while at < len(view):
            limited = self._rate.bytes_per_s is not None
            piece = view[at : at + (_LIMITED_PIECE_BYTES if limited else _PIECE_BYTES)]
            self._rate.take(len(piece), self._stopped)
            self._socket.sendall(piece)
            at += len(piece)

    def _heads(
        self, at_work: Callable[[], None], *, until_continue: bool = False
    ) -> tuple[int, dict[str, str]]:
        """Read heads of answers up to the one that counts."""
        while True:
            status, headers = self._head()
            if status >= 200 or (until_continue and status == 100):
                return status, headers
            at_work()

    def _head(self) -> tuple[int, dict[str, str]]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _HEAD_BYTES:
                raise BrokenConnection("the head of an answer does not end")
            piece = self._socket.recv(_HEAD_BYTES)
            if not piece:
                raise BrokenConnection("the connection was closed before an answer came")
            self._buffer += piece
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        version, _, rest = lines[0].partition(" ")
        number = rest[:3]
        if version not in ("HTTP/1.1", "HTTP/1.0") or not number.isascii() or not number.isdigit():
            raise BrokenConnection("what came is no HTTP")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(number), headers

    def _body(self, status: int, headers: dict[str, str]) -> bytes:
        if status in (204, 304):
            return b""
        text = headers.get("content-length", "")
        if not text.isascii() or not text.isdigit() or int(text) > ANSWER_BYTES:
            raise BrokenConnection("the answer does not say how long it is, or is too long")
        body = bytearray(int(text))
        view = memoryview(body)
        at = min(len(self._buffer), len(body))
        view[:at] = self._buffer[:at]
        del self._buffer[:at]
        while at < len(body):
            got = self._socket.recv_into(view[at : at + _READ_BYTES])
            if not got:
                raise BrokenConnection(f"the answer ended after {at} of {len(body)} bytes")
            self._rate.take(got, self._stopped)
            at += got
        return bytes(body)

    def _stopped(self) -> bool:
        return self._cut


def _keep_alive(plain: socket.socket, gone_ms: int) -> None:
    """Have the system notice a peer that is gone, also while nothing is on its way."""
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, gone_ms)
