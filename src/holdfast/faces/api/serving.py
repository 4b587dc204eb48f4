"""The application on the local socket of a home, and over HTTPS.

Must not know what it answers. Invariant: only the kernel says who is at the other end of the local
socket, and nobody says it of a connection over the network.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from holdfast.base.errors import InternalError, Invalid, storage_error
from holdfast.faces.api.visitors import Peer, announce
from holdfast.site import local_socket

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from pathlib import Path

    from fastapi import FastAPI

_BACKLOG = 512
_START_S = 30.0
_GRACE_S = 5
_LOOK_S = 0.01
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Https:
    """Where to listen on the network.

    Attributes:
        address: Of this machine: a name or number.
        port: 0 for any that is free.
        certificate: A PEM file.
        key: Its key, a PEM file.
    """

    address: str
    port: int
    certificate: Path
    key: Path


class _Protocol(H11Protocol):
    """HTTP that knows who is at the other end of a local socket."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        end = transport.get_extra_info("socket")
        if end is None or end.family != socket.AF_UNIX:
            return
        raw = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user_id, _ = _CREDENTIALS.unpack(raw)
        # A dictionary of this connection's own: the one given is the whole server's.
        self.app_state = dict(self.app_state)
        announce(self.app_state, Peer(user_id))


@contextlib.contextmanager
def serving_locally(app: FastAPI, home: Path) -> Iterator[Path]:
    """Answer on the local socket of a home while the block lasts.

    Raises:
        Busy: Somebody answers there already.
        StorageError: The socket can't be made.
    """
    path = home / local_socket.NAME
    with local_socket.listening(path) as end, _running(_config(app), end, "api-local"):
        yield path


@contextlib.contextmanager
def serving_https(app: FastAPI, https: Https) -> Iterator[int]:
    """Answer on the network while the block lasts.

    Yields:
        The port.

    Raises:
        Invalid: The certificate or its key can't be used, or there is no such address.
        StorageError: The port can't be had.
    """
    config = _config(app, https)
    end = _listen(https)
    with _running(config, end, "api-https"):
        yield end.getsockname()[1]


def _config(app: FastAPI, https: Https | None = None) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        # What a proxy says of the other end is nobody's word here.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        ssl_certfile=None if https is None else https.certificate,
        ssl_keyfile=None if https is None else https.key,
    )
    try:
        config.load()
    except OSError as error:
        # Of the ssl module too: a file that is none is an error of that kind.
        named = "" if https is None else f" {https.certificate} or its key {https.key}"
        raise Invalid(
            f"the certificate{named} can't be used: {error.strerror or error}",
            "both are PEM files, and the key is of that certificate",
        ) from error
    return config


def _listen(https: Https) -> socket.socket:
    try:
        family, *_, place = socket.getaddrinfo(
            https.address or None, https.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise Invalid(f"'{https.address}' is not an address of this machine: {error}") from error
    try:
        end = socket.create_server(cast("tuple[str, int]", place), family=family, backlog=_BACKLOG)
        # Connections inherit it. asyncio sets it only where a socket names its protocol, which this
        # one does not; without it each answer waits 40 ms for the client to confirm its head.
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return end
    except OSError as error:
        words = error.strerror or str(error)
        raise storage_error(error)(
            f"can't listen on {https.address}:{https.port}: {words}"
        ) from error


@contextlib.contextmanager
def _running(config: uvicorn.Config, end: socket.socket, name: str) -> Iterator[None]:
    server = uvicorn.Server(config)
    # uvicorn leaves signals to whoever has the main thread, when it runs in another.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [end]}, name=name)
    thread.start()
    try:
        _await_start(server, thread)
        yield
    finally:
        server.should_exit = True
        thread.join()
        end.close()


def _await_start(server: uvicorn.Server, thread: threading.Thread) -> None:
    waited_s = 0.0
    while not server.started:
        thread.join(_LOOK_S)
        waited_s += _LOOK_S
        if not thread.is_alive() or waited_s > _START_S:
            raise InternalError("the API did not start; the log of the server tells more")
