"""Whatever comes over the wire of a transfer is read, or refused in the way that it should be."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.errors import HoldfastError, Invalid, TooLarge
from holdfast.movers.transfer import connection, server, uploads
from holdfast.movers.transfer.connection import Connection, Request, Response
from holdfast.movers.transfer.rate import RateLimit
from holdfast.wire.problem import error_of

if TYPE_CHECKING:
    import ssl

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.binary(max_size=300) | values.map(lambda one: json.dumps(one).encode()))
def test_an_opening_is_read_or_invalid(body: bytes) -> None:
    with suppress(Invalid):
        read_all, attempt = server._opening(body)
        assert isinstance(read_all, bool)
        assert attempt


@given(values, values)
def test_an_opening_of_any_values_is_read_or_invalid(one: Any, two: Any) -> None:
    said = json.dumps({"read_all": one, "attempt": two}).encode()
    with suppress(Invalid):
        assert server._opening(said) == (one, two)


@given(st.binary(max_size=400))
def test_wanted_chunks_are_counted_or_refused(wanted: bytes) -> None:
    try:
        total = server._wanted_bytes(wanted, 1 << 20)
    except (Invalid, TooLarge):
        return
    assert 0 <= total <= 1 << 20
    assert len(wanted) % server.WANTED_BYTES == 0


@given(st.lists(st.integers(0, 50)))
def test_numbers_that_were_taken_are_remembered_in_little(numbers: list[int]) -> None:
    taken = uploads.Taken()
    for number in numbers:
        taken.add(number)
    assert [number in taken for number in range(52)] == [number in numbers for number in range(52)]
    row = next(number for number in range(53) if number not in numbers)
    assert len(taken._beyond) == len({number for number in numbers if number > row})


@given(st.integers(0, 999), st.binary(max_size=200) | values.map(lambda o: json.dumps(o).encode()))
def test_an_error_is_read_from_whatever_was_answered(status: int, body: bytes) -> None:
    assert isinstance(error_of(status, body), HoldfastError)


class Plain:
    """What takes the place of TLS: these bytes come as they are."""

    def wrap_socket(self, plain: socket.socket, server_hostname: str) -> Any:
        class Wrapped:
            def __getattr__(self, name: str) -> Any:
                return getattr(plain, name)

            def getpeercert(self, *, binary_form: bool) -> bytes:
                return b""

        return Wrapped()


def answered(said: bytes, body: bytes | None) -> Response:
    """What a connection makes of an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            near, _ = listener.accept()
            with near, suppress(OSError):
                near.recv(1)
                near.sendall(said)
                near.shutdown(socket.SHUT_WR)
                while near.recv(1 << 16):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        context: ssl.SSLContext = Plain()  # type: ignore[assignment]
        made = Connection(listener.getsockname(), None, context, RateLimit())
        try:
            return made.exchange(Request("POST", "/", body), "x.y")
        finally:
            made.close()
            thread.join()


heads = st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 "])
ends = st.sampled_from([b"Content-Length: 3\r\n\r\n", b"Content-Length: \xb2\r\n\r\n", b"\r\n\r\n"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(heads | ends | st.binary(max_size=30), max_size=5).map(b"".join),
    st.sampled_from([None, b"small", bytes(connection.EXPECT_BYTES)]),
)
def test_an_answer_is_read_or_the_connection_is_broken(said: bytes, body: bytes | None) -> None:
    with suppress(OSError):
        answer = answered(said, body)
        assert 100 <= answer.status <= 999


def test_an_answer_is_read_whole() -> None:
    said = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
    assert answered(said, b"small") == Response(200, b"abc", {"content-length": "3"})
    refused = b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\n{}"
    assert answered(refused, bytes(connection.EXPECT_BYTES)) == Response(
        409, b"{}", {"content-length": "2"}
    )


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
        b"220 mail.example ready\r\n\r\n",
    ],
)
def test_what_is_no_whole_answer_is_a_broken_connection(said: bytes) -> None:
    with pytest.raises(OSError, match=r"answer|HTTP"):
        answered(said, b"small")
