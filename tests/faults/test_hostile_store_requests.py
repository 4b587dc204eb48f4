"""Whoever asks a media server for objects of its pools and is not to have them, or asks wrongly.

Each is refused with a code, is told of, touches nothing, and keeps the master's own requests from
nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from holdfast.movers.transfer.ports import TransferLimits
from holdfast.movers.transfer.store_routes import OBJECT_BYTES, READ_BYTES
from holdfast.vault.backends.open_directory import OpenDirectory
from holdfast.wire.identity import MachineRole, client_context, identity_of
from tests.kit.real_machines import RealMachines
from tests.kit.store_site import POOL, WRITER, StoreSite, store_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMITS = TransferLimits(gap_s=0.5, slowest_bytes_per_s=4096)
CHANGE = {"writer": WRITER, "seq": 1}
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/object", {}),
    ("PUT", "/object", CHANGE),
    ("PUT", "/object", {**CHANGE, "absent": 1}),
    ("DELETE", "/object", CHANGE),
    ("GET", "/size", {}),
    ("GET", "/list", {}),
]


def everything(directory: Path) -> dict[str, bytes | None]:
    """All that is there, and what is in it."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
        if path.name != "tmp"
    }


@pytest.fixture
def site(tmp_path: Path) -> Iterator[StoreSite]:
    """Serves a directory beside a neighbour; at the end both are as they were."""
    disk = tmp_path / "disk"
    (disk / "images").mkdir(parents=True)
    (disk / "images" / "one").write_bytes(b"an image")
    (tmp_path / "neighbour").write_bytes(b"a secret")
    directory = OpenDirectory(str(disk))
    before = everything(tmp_path)
    with store_site(directory, LIMITS) as made:
        yield made
        with contextlib.closing(made.remote()) as store:
            assert store.get("images/one") == b"an image"
    directory.close()
    assert everything(tmp_path) == before
    assert not list((disk / "tmp").iterdir() if (disk / "tmp").exists() else [])


@pytest.mark.parametrize(("method", "path", "query"), REQUESTS)
@pytest.mark.parametrize("role", [MachineRole.AGENT, MachineRole.MEDIA])
def test_nobody_but_a_master_is_answered(
    site: StoreSite, role: MachineRole, method: str, path: str, query: dict[str, Any]
) -> None:
    asked = {"key": "images/one", **query}
    body = b"x" * 100_000 if method == "PUT" else None
    assert site.code(method, path, asked, body, role=role) == "forbidden"
    assert site.refusals == [("somebody", "forbidden")]


def test_a_master_of_another_site_is_none(site: StoreSite) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        site.ask("GET", "/size", {"key": "images/one"}, machines=RealMachines())
    assert site.refusals == []


def test_without_a_certificate_there_is_no_connection(site: StoreSite) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", site.port))
    heard = b""
    with contextlib.suppress(ssl.SSLError, ConnectionError), context.wrap_socket(plain) as wrapped:
        wrapped.sendall(b"GET /v1/store HTTP/1.1\r\nHost: x\r\n\r\n")
        heard = wrapped.recv(1)
    plain.close()
    assert heard == b""


def test_a_master_that_was_revoked_is_none_any_more(site: StoreSite) -> None:
    store = site.remote()
    with contextlib.closing(store):
        assert store.size("images/one") == 8
        der = ssl.PEM_cert_to_DER_cert(site.machines.made[-1].certificate_pem.decode())
        site.revoked.add(identity_of(der).serial)
        # Over the connection that it has open.
        with pytest.raises(PermissionError, match="revoked"):
            store.get("images/one")
        with pytest.raises(PermissionError, match="revoked"):
            store.put("images/two", b"x" * 1_000_000)
    site.revoked.clear()


@pytest.mark.parametrize(
    "key",
    [
        "../neighbour",
        "images/../../neighbour",
        "/etc/passwd",
        "images//one",
        "images/./one",
        "images/.hidden",
        "tmp/x",
        "tmp",
        "",
        "a\0b",
        "a\nb",
        "images/one/",
        "ä",
        "a" * 300,
        "a/" * 600,
        "%2e%2e/neighbour",
    ],
)
def test_a_key_that_climbs_or_hides_touches_nothing(site: StoreSite, key: str) -> None:
    for method, path, query in REQUESTS[:5]:
        body = b"x" if method == "PUT" else None
        assert site.code(method, path, {"key": key, **query}, body) == "invalid"
    if key:
        for query in ({"prefix": f"{key}/"}, {"prefix": "images/", "after": key}):
            assert site.code("GET", "/list", query) == "invalid"
    assert {code for _, code in site.refusals} == {"invalid"}


@pytest.mark.parametrize("pool", ["..", "../" + POOL, "cd" * 16, "AB" * 16, POOL + "0", "%2e%2e"])
def test_a_pool_that_is_not_there_touches_nothing(site: StoreSite, pool: str) -> None:
    status, _ = site.ask("GET", "/size", {"key": "images/one"}, pool=quote(pool, safe=""))
    assert status in (400, 404, 422)


def test_what_a_link_points_to_is_neither_read_nor_written(site: StoreSite, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (disk / "link").symlink_to(tmp_path / "neighbour")
    (disk / "folder").symlink_to(tmp_path)
    os.mkfifo(disk / "pipe")
    try:
        for key in ("link", "folder/neighbour", "pipe"):
            assert site.code("GET", "/object", {"key": key}) == "object-missing"
            assert site.ask("GET", "/size", {"key": key}) == (200, b'{"size": null}')
        for absent in (0, 1):
            asked = {"key": "folder/new", **CHANGE, "absent": absent}
            assert site.code("PUT", "/object", asked, b"x") == "io"
        assert site.ask("DELETE", "/object", {"key": "folder/neighbour", **CHANGE})[0] == 204
        assert b"neighbour" not in site.ask("GET", "/list", {"prefix": ""})[1]
        assert site.ask("GET", "/list", {"prefix": "folder/"})[1].startswith(b'{"objects": []')
    finally:
        for name in ("link", "folder", "pipe"):
            (disk / name).unlink()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("query", "headers", "code"),
    [
        ({"writer": WRITER}, {}, "invalid"),
        ({"seq": 1}, {}, "invalid"),
        ({"seq": 1, "writer": "somebody"}, {}, "invalid"),
        ({"seq": -1, "writer": WRITER}, {}, "invalid"),
        ({"seq": "9" * 19, "writer": WRITER}, {}, "invalid"),
        ({**CHANGE, "absent": "yes"}, {}, "invalid"),
        ({**CHANGE, "again": 2}, {}, "invalid"),
        (CHANGE, {"Content-Length": str(OBJECT_BYTES + 1)}, "too-large"),
        (CHANGE, {"Content-Encoding": "gzip"}, "invalid"),
    ],
)
def test_a_change_that_is_not_as_it_should_be_is_none(
    site: StoreSite, query: dict[str, Any], headers: dict[str, str], code: str
) -> None:
    asked = {"key": "images/one", **query}
    assert site.code("PUT", "/object", asked, b"x", headers=headers) == code


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"length": READ_BYTES + 1}, "too-large"),
        ({"offset": 7, "length": 2}, "integrity"),
        ({"offset": 10**17, "length": 0}, "integrity"),
        ({"offset": "x"}, "invalid"),
        ({"offset": "-1", "length": 1}, "invalid"),
        ({"length": "1e3"}, "invalid"),
    ],
)
def test_a_part_that_is_not_there_is_not_read(
    site: StoreSite, query: dict[str, Any], code: str
) -> None:
    assert site.code("GET", "/object", {"key": "images/one", **query}) == code


def raw(site: StoreSite, head: str) -> ssl.SSLSocket:
    """A connection of a master on which something was said."""
    made = site.machines.identity(MachineRole.MASTER, "master")
    context = client_context(made, (MachineRole.MEDIA,))
    plain = socket.create_connection(("127.0.0.1", site.port), 10)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    wrapped = context.wrap_socket(plain)
    wrapped.settimeout(20)
    wrapped.sendall(head.replace("\n", "\r\n").encode())
    return wrapped


def test_a_body_that_stands_still_is_cut_off_and_kept_nowhere(site: StoreSite) -> None:
    target = f"/v1/store/{POOL}/object?key=images/one&seq=1&writer={WRITER}"
    with raw(site, f"PUT {target} HTTP/1.1\nHost: x\nContent-Length: 1000\n\nbegin") as slow:
        heard = slow.recv(1000)
    assert b" 408 " in heard.split(b"\r\n")[0]
    assert site.refusals == [("master", "too-slow")]


def test_a_body_that_ends_too_early_is_no_object(site: StoreSite) -> None:
    target = f"/v1/store/{POOL}/object?key=images/one&seq=1&writer={WRITER}"
    with raw(site, f"PUT {target} HTTP/1.1\nHost: x\nContent-Length: 1000\n\nbegin"):
        pass
    chunked = f"PUT {target} HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n1\nx\n0\n\n"
    with raw(site, chunked) as other:
        assert b" 400 " in other.recv(1000).split(b"\r\n")[0]


def test_who_does_not_read_an_answer_is_cut_off(site: StoreSite, tmp_path: Path) -> None:
    large = tmp_path / "disk" / "large"
    large.write_bytes(bytes(READ_BYTES))
    try:
        head = f"GET /v1/store/{POOL}/object?key=large HTTP/1.1\nHost: x\n\n"
        with raw(site, head) as lazy:
            # For long enough that its buffers are full, and longer than that is waited for.
            time.sleep(LIMITS.gap_s * 4)
            got = 0
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                while piece := lazy.recv(1 << 20):
                    got += len(piece)
        assert got < READ_BYTES
    finally:
        large.unlink()


def test_a_disk_that_stands_still_keeps_others_from_nothing(
    site: StoreSite, tmp_path: Path
) -> None:
    class Stuck(OpenDirectory):
        """A disk that answers when it is told to."""

        def size(self, key: str) -> int | None:
            assert go_on.wait(60)
            return super().size(key)

    go_on, pool = threading.Event(), "cd" * 16
    stuck = Stuck(str(tmp_path / "disk"))
    site.stores[pool] = stuck
    with contextlib.closing(site.remote(pool=pool)) as store:
        asking = [threading.Thread(target=store.size, args=("images/one",)) for _ in range(12)]
        for one in asking:
            one.start()
        try:
            with contextlib.closing(site.remote()) as other:
                for _ in range(20):
                    assert other.size("images/one") == 8
                    assert other.get("images/one") == b"an image"
            assert all(one.is_alive() for one in asking)
        finally:
            go_on.set()
            for one in asking:
                one.join(30)
    stuck.close()
