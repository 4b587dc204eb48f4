"""NBD servers that lie, babble, stall and die: each ends in an error that names it, in time."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.base.errors import HoldfastError, InputOutput, TooSlow, Unreachable, Unsupported
from holdfast.sources.nbd import client, protocol
from holdfast.sources.nbd.protocol import Answer, Option
from holdfast.sources.nbd.wire import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 1 << 30
GREETING = protocol.GREETING.pack(protocol.NBDMAGIC, protocol.IHAVEOPT, 3)


@contextlib.contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[Address]:
    """A server that says to its one client what it is told to."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(30)

    def run() -> None:
        peer, _ = listening.accept()
        with peer:
            peer.settimeout(30)
            with contextlib.suppress(OSError, struct.error):
                talk(peer)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield Address(host="127.0.0.1", port=listening.getsockname()[1])
    finally:
        thread.join()
        listening.close()


def take(peer: socket.socket, count: int) -> bytes:
    return peer.recv(count, socket.MSG_WAITALL)


def option(peer: socket.socket) -> tuple[int, bytes]:
    _, number, length = protocol.OPTION.unpack(take(peer, 16))
    return number, take(peer, length) if length else b""


def answer(number: int, kind: int, data: bytes = b"") -> bytes:
    return protocol.OPTION_ANSWER.pack(protocol.OPTION_REPLY, number, kind, len(data)) + data


def export(size: int = SIZE, flags: int = 3) -> bytes:
    told = answer(Option.GO, Answer.INFO, struct.pack(">HQH", 0, size, flags))
    return told + answer(Option.GO, Answer.ACK)


def agree(peer: socket.socket, context: bytes = b"base:allocation") -> None:
    """Go honestly to where reads begin."""
    peer.sendall(GREETING)
    take(peer, 4)
    while True:
        number, _ = option(peer)
        if number == Option.SET_META_CONTEXT:
            told = struct.pack(">I", 1) + context
            peer.sendall(answer(number, Answer.META_CONTEXT, told) + answer(number, Answer.ACK))
        elif number == Option.GO:
            peer.sendall(export())
            return
        else:
            peer.sendall(answer(number, Answer.ACK))


def piece(cookie: int, kind: int, data: bytes, *, flags: int = 1, size: int | None = None) -> bytes:
    size = len(data) if size is None else size
    header = protocol.STRUCTURED_HEADER.pack(protocol.STRUCTURED_REPLY, flags, kind, cookie, size)
    return header + data


def request(peer: socket.socket) -> int:
    """The cookie of the next request."""
    cookie: int = protocol.REQUEST_HEADER.unpack(take(peer, 28))[3]
    return cookie


def greeted(said: bytes) -> Callable[[socket.socket], None]:
    """A server that greets, hears one question, and says that."""

    def talk(peer: socket.socket) -> None:
        peer.sendall(GREETING)
        take(peer, 4)
        option(peer)
        peer.sendall(said)

    return talk


STRUCTURED = Option.STRUCTURED_REPLY


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (b"", Unreachable, "closed"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", InputOutput, "greet"),
        (GREETING[:10], Unreachable, "closed"),
        (protocol.GREETING.pack(protocol.NBDMAGIC, protocol.OLD_STYLE, 0), Unsupported, "old"),
        (protocol.GREETING.pack(protocol.NBDMAGIC, protocol.IHAVEOPT, 0), Unsupported, "old"),
        (protocol.GREETING.pack(protocol.NBDMAGIC, 12345, 3), InputOutput, "greet"),
    ],
)
def test_who_does_not_greet_as_an_nbd_server_is_named(
    said: bytes, error: type[HoldfastError], words: str
) -> None:
    with (
        server(lambda peer: peer.sendall(said)) as address,
        pytest.raises(error, match=words) as caught,
    ):
        client.connect(address, connect_s=20)
    assert str(address) in str(caught.value)


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (answer(77, Answer.ACK), InputOutput, "option 77"),
        (b"\0" * 20, InputOutput, "breaks the protocol"),
        (
            protocol.OPTION_ANSWER.pack(protocol.OPTION_REPLY, STRUCTURED, Answer.ACK, 1 << 31),
            InputOutput,
            "2147483648 bytes",
        ),
        (answer(STRUCTURED, Answer.TLS_REQUIRED), Unsupported, "TLS"),
        (answer(STRUCTURED, Answer.ACK), Unreachable, "lost|closed"),
    ],
)
def test_what_answers_wrongly_is_named(said: bytes, error: type[HoldfastError], words: str) -> None:
    with server(greeted(said)) as address, pytest.raises(error, match=words):
        client.connect(address, connect_s=20)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (export(flags=0), "flags 0"),
        (export(size=1 << 63), "9223372036854775808 bytes"),
        (answer(Option.GO, Answer.ACK), "size"),
        (
            answer(Option.GO, Answer.INFO, struct.pack(">HIII", 3, 3, 4096, 100)) + export(),
            "requests of 3 to 100",
        ),
        (answer(Option.GO, Answer.INFO, b"x") + answer(Option.GO, Answer.ACK), "size"),
    ],
)
def test_an_export_that_can_not_be_is_refused(told: bytes, words: str) -> None:
    with (
        server(greeted(told)) as address,
        pytest.raises(InputOutput, match=words),
    ):
        client.connect(address, structured=False, connect_s=20)


def test_a_server_that_answers_for_ever_is_left() -> None:
    def talk(peer: socket.socket) -> None:
        greeted(b"")(peer)
        while True:
            peer.sendall(answer(Option.LIST, Answer.SERVER, struct.pack(">I", 1) + b"x") * 1000)

    with server(talk) as address, pytest.raises(InputOutput, match="more than 10000"):
        client.list_exports(address)


def test_a_name_that_is_longer_than_its_answer_is_refused() -> None:
    told = answer(Option.LIST, Answer.SERVER, struct.pack(">I", 1 << 30) + b"x")
    with server(greeted(told)) as address, pytest.raises(InputOutput, match="name of an export"):
        client.list_exports(address)


@pytest.mark.parametrize("context", [b"other:context", b""])
def test_a_context_that_nobody_asked_for_is_refused(context: bytes) -> None:
    with (
        server(lambda peer: agree(peer, context)) as address,
        pytest.raises(InputOutput, match="nobody asked"),
    ):
        client.connect(address, contexts=[protocol.ALLOCATION])


def test_a_server_that_drips_is_given_up_in_time() -> None:
    def talk(peer: socket.socket) -> None:
        for byte in GREETING:
            peer.sendall(bytes([byte]))
            time.sleep(0.2)

    begun = time.monotonic()
    with server(talk) as address, pytest.raises(TooSlow, match=r"within 0\.5 seconds"):
        client.connect(address, connect_s=0.5)
    assert time.monotonic() - begun < 20


def test_a_server_that_stops_answering_is_given_up_in_time() -> None:
    def talk(peer: socket.socket) -> None:
        agree(peer)
        request(peer)
        peer.recv(1)

    with server(talk) as address:
        connection = client.connect(address, request_s=0.3)
        with pytest.raises(TooSlow, match=r"0\.3 seconds"):
            connection.read(0, 512)
        connection.drop()


LIES: list[tuple[Callable[[int], bytes], str]] = [
    (lambda _: b"\0" * 64, "no reply"),
    (lambda cookie: piece(cookie + 1, 1, bytes(520)), "reply to request"),
    (lambda cookie: piece(cookie, 1, struct.pack(">Q", 512) + bytes(512)), "bytes at 512"),
    (lambda cookie: piece(cookie, 1, struct.pack(">Q", 0) + bytes(513)), "bytes at 0"),
    (lambda cookie: piece(cookie, 1, struct.pack(">Q", 0) + bytes(511)), "gaps"),
    (lambda cookie: piece(cookie, 2, struct.pack(">QI", 0, 1 << 31)), "bytes at 0"),
    (lambda cookie: piece(cookie, 2, struct.pack(">QI", 0, 0)), "bytes at 0"),
    (lambda cookie: piece(cookie, 0, b""), "gaps"),
    (lambda cookie: piece(cookie, 5, bytes(12)), "piece 5"),
    (lambda cookie: piece(cookie, 0x8001, b"", size=1 << 31), "error of 2147483648"),
    (lambda cookie: piece(cookie, 0x8001, struct.pack(">IH", 5, 9) + b"bad\nblock"), "bad block"),
    (lambda cookie: piece(cookie, 0x8001, struct.pack(">IH", 4711, 0)), "error 4711"),
    (lambda cookie: protocol.SIMPLE_HEADER.pack(protocol.SIMPLE_REPLY, 5, cookie), "EIO"),
    (lambda cookie: piece(cookie, 2, struct.pack(">QI", 0, 1), flags=0) * 70000, "without end"),
]


@pytest.mark.parametrize("at", range(len(LIES)))
def test_a_lie_in_answer_to_a_read_is_named(at: int) -> None:
    lie, words = LIES[at]

    def talk(peer: socket.socket) -> None:
        agree(peer)
        peer.sendall(lie(request(peer)))
        peer.recv(1)

    with server(talk) as address:
        connection = client.connect(address, request_s=20)
        with pytest.raises(InputOutput, match=words):
            connection.read(0, 512)
        connection.drop()


def status(cookie: int, *extents: tuple[int, int], context: int = 1) -> bytes:
    told = b"".join(struct.pack(">II", *one) for one in extents)
    return piece(cookie, 5, struct.pack(">I", context) + told)


STATUS_LIES: list[tuple[Callable[[int], bytes], str]] = [
    (lambda cookie: status(cookie, (4096, 0), context=2), "context 2"),
    (status, "no block status"),
    (lambda cookie: status(cookie, (0, 0), (0, 1)), "no block status"),
    (lambda cookie: piece(cookie, 5, bytes(9)), "status of 9"),
    (lambda cookie: piece(cookie, 5, b"", size=0x7FFFFFFC), "status of 2147483644"),
    (lambda cookie: piece(cookie, 1, bytes(16)), "piece 1"),
    (
        lambda cookie: piece(cookie, 5, struct.pack(">III", 1, 512, 0), flags=0) * 2,
        "context 1",
    ),
]


@pytest.mark.parametrize("at", range(len(STATUS_LIES)))
def test_a_lie_about_what_is_allocated_is_named(at: int) -> None:
    lie, words = STATUS_LIES[at]

    def talk(peer: socket.socket) -> None:
        agree(peer)
        peer.sendall(lie(request(peer)))
        peer.recv(1)

    with server(talk) as address:
        connection = client.connect(address, contexts=[protocol.ALLOCATION], request_s=20)
        with pytest.raises(InputOutput, match=words):
            connection.block_status()
        connection.drop()


def test_an_extent_beyond_the_question_is_cut_at_the_end_of_the_disk() -> None:
    def talk(peer: socket.socket) -> None:
        agree(peer)
        peer.sendall(status(request(peer), (SIZE // 2, 3), (0xFFFFFFFF, 0)))
        peer.recv(1)

    with server(talk) as address:
        connection = client.connect(address, contexts=[protocol.ALLOCATION])
        found = connection.block_status()[protocol.ALLOCATION]
        connection.drop()
    assert found == [(0, SIZE // 2, 3), (SIZE // 2, SIZE // 2, 0)]


def test_exports_that_differ_between_connections_are_refused() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(30)

    def run() -> None:
        with contextlib.ExitStack() as open_until_the_end:
            for size in (SIZE, SIZE + 512):
                peer = open_until_the_end.enter_context(listening.accept()[0])
                greeted(export(size))(peer)
            peer.recv(1)

    thread = threading.Thread(target=run)
    thread.start()
    address = Address(host="127.0.0.1", port=listening.getsockname()[1])
    with (
        pytest.raises(InputOutput, match="not the same"),
        client.sockets(address, count=2, structured=False),
    ):
        pass
    thread.join()
    listening.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300), st.integers(0, 3))
def test_rubbish_at_any_step_ends_in_an_error_with_a_name(rubbish: bytes, step: int) -> None:
    def talk(peer: socket.socket) -> None:
        if step == 0:
            peer.sendall(rubbish)
        elif step == 1:
            greeted(rubbish)(peer)
        else:
            agree(peer)
            request(peer)
            peer.sendall(rubbish)

    with server(talk) as address, pytest.raises(HoldfastError, match="NBD server at"):
        _use(address, step)


def _use(address: Address, step: int) -> None:
    connection = client.connect(address, contexts=[protocol.ALLOCATION], connect_s=20)
    with contextlib.closing(connection):
        if step == 2:
            connection.read(0, 4096)
        connection.block_status()
