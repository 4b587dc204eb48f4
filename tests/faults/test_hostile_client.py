"""A client with a valid certificate that says anything: refused with a code, and told of.

Each test ends with the backup of another client that was at work all the time: it goes well.
"""

from __future__ import annotations

import gzip
import json
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.movers.transfer.ports import TransferLimits
from tests.kit.memory_pool import MemoryPool, body_of, name_of, wanted_of
from tests.kit.transfer_site import TransferSite, transfer_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.transfer_site import RawPeer

DATA = b"what the other client has" * 40
LIMITS = TransferLimits(
    body_bytes=1 << 20,
    names_bytes=32 * 1000,
    wanted_bytes=37 * 1000,
    read_bytes=1 << 20,
    draft_bytes=1 << 16,
    memory_bytes=8 << 20,
    client_memory_bytes=2 << 20,
    client_bodies=4,
    client_uploads=4,
    gap_s=0.5,
    slowest_bytes_per_s=4096,
    room_s=0.5,
)


class Victim:
    """Another client, in the middle of a backup."""

    def __init__(self, site: TransferSite) -> None:
        self.site = site
        self.peer = site.peer("victim")
        self.token = site.token("victim", job=100)
        self.upload = self.peer.open(self.token)
        self._sent = 0
        self.send()

    def send(self) -> None:
        path = f"/uploads/{self.upload}/blocks?seq={self._sent}"
        assert self.peer.ask("POST", path, body_of(DATA), self.token) == (204, b"")
        self._sent += 1

    def finish(self) -> None:
        self.send()
        path = f"/uploads/{self.upload}/commit"
        status, manifest = self.peer.ask("POST", path, name_of(DATA), self.token)
        assert status == 200
        assert [image.host for _, image in self.site.images] == ["victim"]
        assert self.site.pool.manifests == {manifest[:32].decode(): manifest}
        assert self.site.server._budget.out_bytes == 0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TransferSite]:
    with transfer_site(tmp_path, MemoryPool(), LIMITS, silent_s=0.5) as made:
        yield made


@pytest.fixture
def victim(site: TransferSite) -> Iterator[Victim]:
    made = Victim(site)
    yield made
    made.finish()


@pytest.fixture
def mallory(site: TransferSite, victim: Victim) -> RawPeer:
    return site.peer("mallory")


def refused(site: TransferSite, *codes: str, peer: str = "mallory") -> None:
    """Nobody but the hostile client was refused, and the audit log of the master says why."""
    assert site.codes() == [(peer, code) for code in codes]
    site.assert_audited()


def test_without_a_certificate_there_is_no_connection(site: TransferSite, victim: Victim) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", site.port))
    wrapped = context.wrap_socket(plain)
    # TLS 1.3 tells a client only after the handshake.
    heard = b""
    with suppress(ssl.SSLError, ConnectionError):
        wrapped.sendall(b"GET /v1/transfer/terms HTTP/1.1\r\nHost: x\r\n\r\n")
        heard = wrapped.recv(1)
    wrapped.close()
    assert heard == b""


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("", "not-authenticated"),
        ("Bearer", "not-authenticated"),
        ("Basic eDp5", "not-authenticated"),
        ("Bearer x.y", "not-authenticated"),
        ("Bearer " + "A" * 40_000, "not-authenticated"),
    ],
)
def test_without_a_token_nothing_is_done(
    site: TransferSite, mallory: RawPeer, header: str, code: str
) -> None:
    assert mallory.code("GET", "/terms", headers={"Authorization": header}) == code
    refused(site, code)


def test_a_stolen_token_is_worth_nothing(
    site: TransferSite, victim: Victim, mallory: RawPeer
) -> None:
    for method, path in (
        ("POST", f"/uploads/{victim.upload}/commit"),
        ("DELETE", f"/uploads/{victim.upload}"),
        ("GET", "/terms"),
    ):
        assert mallory.code(method, path, b"", victim.token) == "forbidden"
    refused(site, *["forbidden"] * 3)


def test_another_clients_upload_is_as_if_it_were_not_there(
    site: TransferSite, victim: Victim, mallory: RawPeer
) -> None:
    for method, path in (
        ("POST", "/missing"),
        ("POST", "/blocks?seq=5"),
        ("POST", "/commit"),
        ("DELETE", ""),
    ):
        assert mallory.code(method, f"/uploads/{victim.upload}{path}", b"") == "upload-missing"
    # Not even by the number of the job: its fence, however high, is another client's.
    token = site.token("mallory", job=100)
    assert mallory.code("DELETE", f"/uploads/{victim.upload}", token=token) == "upload-missing"
    refused(site, *["upload-missing"] * 5)


def test_a_token_does_only_what_its_verbs_say(site: TransferSite, mallory: RawPeer) -> None:
    image = "00" * 16
    site.pool.manifests[image] = b"a manifest"
    restoring = site.token("mallory", verbs=frozenset({"restore"}), images=frozenset({image}))
    opening = json.dumps({"read_all": False, "attempt": "a"}).encode()
    assert mallory.code("POST", "/uploads", opening, restoring) == "forbidden"
    # A backup may read its parent, and images that its token happens to name are none.
    backing_up = site.token("mallory", images=frozenset({image}))
    assert mallory.code("GET", f"/images/{image}", token=backing_up) == "forbidden"
    assert mallory.code("POST", "/read", wanted_of(DATA), backing_up) == "forbidden"
    refused(site, *["forbidden"] * 3)
    del site.pool.manifests[image]


def test_a_refusal_says_who_from_where_and_for_which_job(
    site: TransferSite, mallory: RawPeer
) -> None:
    stolen = site.token("alpha", job=12)
    assert mallory.code("GET", "/terms", token=stolen) == "forbidden"
    assert mallory.code("GET", "/terms", token="rubbish") == "not-authenticated"
    told = [(one.peer, one.address, one.code, one.job) for one in site.refusals]
    assert told == [
        ("mallory", "127.0.0.1", "forbidden", 12),
        ("mallory", "127.0.0.1", "not-authenticated", None),
    ]
    site.assert_audited()
    site.refusals.clear()


def test_another_clients_image_is_refused(site: TransferSite, mallory: RawPeer) -> None:
    token = site.token("mallory", verbs=frozenset({"restore"}), images=frozenset({"11" * 16}))
    for image in ("22" * 16, "11" * 15, "11" * 16 + "%00", "..%2Fterms", "%ff%fe"):
        assert mallory.code("GET", f"/images/{image}", token=token) == "forbidden"
    refused(site, *["forbidden"] * 5)


def test_a_token_that_ended_or_is_of_another_pool_is_refused(
    site: TransferSite, mallory: RawPeer
) -> None:
    ended = site.token("mallory", expires_s=site.grant().expires_s - 1000)
    assert mallory.code("GET", "/terms", token=ended) == "not-authenticated"
    elsewhere = site.token("mallory", pool="cd" * 16)
    assert mallory.code("GET", "/terms", token=elsewhere) == "not-found"
    refused(site, "not-authenticated", "not-found")


def test_a_token_of_a_job_that_is_over_begins_nothing(site: TransferSite, mallory: RawPeer) -> None:
    site.fences[1] = 5
    opening = json.dumps({"read_all": False, "attempt": "a"}).encode()
    assert mallory.code("POST", "/uploads", opening) == "fenced"
    refused(site, "fenced")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (body_of(b"mine").replace(b"mine", b"his."), "integrity"),
        (bytes(31) + b"\1", "invalid"),
        (body_of(b"mine")[:-1], "invalid"),
    ],
)
def test_wrong_content_is_refused_and_nothing_of_it_kept(
    site: TransferSite, mallory: RawPeer, body: bytes, code: str
) -> None:
    before = dict(site.pool.chunks)
    upload = mallory.open()
    assert mallory.code("POST", f"/uploads/{upload}/blocks?seq=0", body) == code
    refused(site, code)
    assert site.pool.chunks == before


@pytest.mark.parametrize("seq", ["", "-1", "x", "1e3", "10000", "9" * 15, "9" * 400, "%00"])
def test_a_body_needs_a_sound_number(site: TransferSite, mallory: RawPeer, seq: str) -> None:
    upload = mallory.open()
    assert mallory.code("POST", f"/uploads/{upload}/blocks?seq={seq}", b"") == "invalid"
    refused(site, "invalid")


@pytest.mark.parametrize(
    "opening",
    [
        b"",
        b"[]",
        b"[" * 4096,
        b"\xff",
        b'{"read_all": 0, "attempt": "a"}',
        b'{"read_all": false, "attempt": ""}',
        b'{"read_all": false, "attempt": "../x"}',
    ],
)
def test_an_opening_is_read_strictly(site: TransferSite, mallory: RawPeer, opening: bytes) -> None:
    assert mallory.code("POST", "/uploads", opening) == "invalid"
    refused(site, "invalid")


@pytest.mark.parametrize(
    ("path", "size_bytes", "code"),
    [
        ("blocks?seq=0", LIMITS.body_bytes + 1, "too-large"),
        ("missing", LIMITS.names_bytes + 32, "too-large"),
        ("missing", 33, "invalid"),
        ("commit", LIMITS.draft_bytes + 1, "too-large"),
    ],
)
def test_what_is_too_long_is_refused_before_it_is_read(
    site: TransferSite, mallory: RawPeer, path: str, size_bytes: int, code: str
) -> None:
    upload = mallory.open()
    assert said_early(mallory, f"/uploads/{upload}/{path}", size_bytes) == code
    refused(site, code)


def said_early(peer: RawPeer, path: str, size_bytes: int | str, headers: str = "") -> str:
    """The code of an answer that comes though no byte of the body did."""
    return exchange(peer, path, f"Content-Length: {size_bytes}\r\n{headers}", b"")


def exchange(peer: RawPeer, path: str, headers: str, sent: bytes) -> str:
    """Send a head and something of a body, and read the answer."""
    connection = peer.connection()
    connection.connect()
    connection.sock.settimeout(20)
    connection.sock.sendall(
        f"POST /v1/transfer{path} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {peer.site.token(peer.name)}\r\n{headers}\r\n".encode()
        + sent
    )
    answer = b""
    while b"\r\n\r\n" not in answer or b"}" not in answer:
        piece = connection.sock.recv(65536)
        if not piece:
            break
        answer += piece
    connection.close()
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return str(found["code"])


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (b"", "invalid"),
        (bytes(36), "invalid"),
        ((bytes(32) + b"\xff\xff\xff\xff\0") * 2, "too-large"),
        (wanted_of(b"nothing of the kind"), "chunk-missing"),
    ],
)
def test_wanted_chunks_are_read_strictly(
    site: TransferSite, mallory: RawPeer, wanted: bytes, code: str
) -> None:
    token = site.token("mallory", verbs=frozenset({"restore"}), images=frozenset({"00" * 16}))
    assert mallory.code("POST", "/read", wanted, token) == code
    refused(site, code)


def test_a_body_says_how_long_it_is_and_is_not_packed(site: TransferSite, mallory: RawPeer) -> None:
    upload = mallory.open()
    path = f"/uploads/{upload}/blocks?seq=0"
    assert exchange(mallory, path, "Transfer-Encoding: chunked\r\n", b"4\r\nabcd\r\n") == "invalid"
    bomb = gzip.compress(bytes(64 << 20))
    packed = f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n"
    assert exchange(mallory, path, packed, bomb) == "invalid"
    refused(site, "invalid", "invalid")


def test_a_body_that_stands_still_is_cut_off(site: TransferSite, mallory: RawPeer) -> None:
    upload = mallory.open()
    path = f"/uploads/{upload}/blocks?seq=0"
    assert said_early(mallory, path, 1 << 20) == "too-slow"
    refused(site, "too-slow")


def test_a_body_that_trickles_is_cut_off(site: TransferSite, mallory: RawPeer) -> None:
    upload = mallory.open()
    connection = mallory.connection()
    connection.connect()
    connection.sock.sendall(
        f"POST /v1/transfer/uploads/{upload}/blocks?seq=0 HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {site.token('mallory')}\r\nContent-Length: 100000\r\n\r\n".encode()
    )
    connection.sock.settimeout(0.05)
    answer = b""
    for _ in range(400):
        try:
            answer = connection.sock.recv(65536)
            break
        except TimeoutError:
            connection.sock.sendall(b"x")
    connection.close()
    assert b" 408 " in answer
    refused(site, "too-slow")


def test_a_connection_that_never_says_a_whole_request_is_closed(
    site: TransferSite, mallory: RawPeer
) -> None:
    connections = [mallory.connection() for _ in range(3)]
    for connection, said in zip(connections, (b"", b"P", b"POST / HTTP/1.1\r\nX: "), strict=True):
        connection.connect()
        connection.sock.settimeout(20)
        connection.sock.sendall(said)
    for connection in connections:
        with suppress(ConnectionError):
            assert connection.sock.recv(1) == b""
        connection.close()
    refused(site, *["too-slow"] * 3)


def test_what_one_client_keeps_waiting_leaves_room_for_others(
    site: TransferSite, victim: Victim, mallory: RawPeer
) -> None:
    uploads = [mallory.open(site.token("mallory", job=job)) for job in range(1, 5)]
    token = site.token("mallory", job=5)
    opening = json.dumps({"read_all": False, "attempt": "a"}).encode()
    assert mallory.code("POST", "/uploads", opening, token) == "busy"
    sockets = []
    for _ in range(8):
        connection = mallory.connection()
        connection.connect()
        connection.sock.sendall(
            f"POST /v1/transfer/uploads/{uploads[0]}/blocks?seq=0 HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {site.token('mallory')}\r\n"
            f"Content-Length: {1 << 20}\r\n\r\n".encode()
        )
        sockets.append(connection)
    victim.send()
    assert site.server._budget.out_bytes <= LIMITS.client_memory_bytes
    for connection in sockets:
        connection.sock.settimeout(20)
        assert connection.sock.recv(65536).split()[1] in (b"408", b"503")
        connection.close()
    assert set(site.codes()) == {("mallory", "too-slow")}
    site.assert_audited()


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01" + bytes(100),
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/transfer/uploads HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/transfer/uploads HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET /v1/transfer/terms HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    ],
)
def test_what_is_no_http_is_answered_or_closed(
    site: TransferSite, mallory: RawPeer, said: bytes
) -> None:
    connection = mallory.connection()
    connection.connect()
    connection.sock.settimeout(20)
    try:
        connection.sock.sendall(said)
        answer = connection.sock.recv(65536)
    except (ConnectionError, ssl.SSLEOFError):
        # Closed before all of it was sent.
        answer = b""
    finally:
        connection.close()
    assert answer == b"" or answer.split()[1].startswith(b"4")
