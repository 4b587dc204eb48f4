"""A media server's data path at work in a thread, with a master that says what a test wants."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from holdfast.base.clock import SystemClock
from holdfast.base.errors import NotFound
from holdfast.movers.transfer.ports import TransferHost, TransferLimits
from holdfast.movers.transfer.refusals import Refusal
from holdfast.movers.transfer.server import RUNNER_OPTIONS, add_routes
from holdfast.wire.silent_connections import SilentConnections
from holdfast.wire.transfer_tokens import TransferGrant, sign
from tests.kit.audited import audited
from tests.kit.machine_identities import Machines, peer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.base.clock import Clock
    from holdfast.base.errors import TooSlow
    from holdfast.movers.transfer.server import TransferServer

POOL = "ab" * 16


class TransferSite:
    """The server, its authority, its master's key, and what it told the master."""

    def __init__(
        self,
        directory: Path,
        pool: Any,
        limits: TransferLimits,
        clock: Clock,
        pool_id: str = POOL,
        machines: Machines | None = None,
    ) -> None:
        self.directory = directory
        self.machines = machines or Machines(directory)
        self.key = Ed25519PrivateKey.generate()
        self.pool = pool
        self.pool_id = pool_id
        self.clock = clock
        self.fences: dict[int, int] = {}
        self.images: list[tuple[TransferGrant, Any]] = []
        self.refusals: list[Refusal] = []
        self.passed_s = 0.0
        self.silent_s = 20.0
        self.committed_failures: list[Exception] = []
        self.limits = limits
        self.server: TransferServer
        self.port = 0

    def grant(self, client: str = "alpha", **changes: Any) -> TransferGrant:
        """What a token of a backup says, unless it is to say something else."""
        grant = TransferGrant(
            job=1,
            fence=1,
            client=client,
            source=f"{client}:/data",
            pool=self.pool_id,
            verbs=frozenset({"backup"}),
            expires_s=int(self.clock.now_ns() / 1e9) + 900,
        )
        return replace(grant, **changes)

    def token(self, client: str = "alpha", **changes: Any) -> str:
        return sign(self.grant(client, **changes), self.key)

    def peer(self, name: str = "alpha", role: str = "agent") -> RawPeer:
        """Somebody with a certificate, who says whatever a test wants."""
        return RawPeer(self, name, role)

    def codes(self) -> list[tuple[str, str]]:
        """Who was refused, and with which code."""
        return [(one.peer, one.code) for one in self.refusals]

    def in_loop(self, work: Any) -> Any:
        """Run something in the server's own thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def host(self) -> TransferHost:
        return TransferHost(
            key=self.key.public_key(),
            peer=peer,
            pool=self._pool,
            may_commit=lambda job, fence: self.fences.get(job, fence) == fence,
            committed=self._committed,
            refused=self.refusals.append,
            clock=self.clock,
            now_s=lambda: time.monotonic() + self.passed_s,
            limits=self.limits,
        )

    def _committed(self, grant: TransferGrant, image: Any) -> None:
        if self.committed_failures:
            raise self.committed_failures.pop()
        self.images.append((grant, image))

    def _was_silent(self, name: str, address: str, error: TooSlow) -> None:
        self.refusals.append(Refusal(name, address, error.code, error.message))

    def assert_audited(self) -> None:
        """Each refusal ends in the master's audit log: with who, from where, and the code."""
        rows = audited(self.refusals, self.directory)
        told: Counter[tuple[object, ...]] = Counter()
        for one in rows:
            kind = one["who"], one["from"], one["code"], one.get("job")
            told[kind] += one.get("count", 1)
        assert told == Counter(
            (f"machine:{one.peer}" if one.peer else "(unknown)", one.address, one.code, one.job)
            for one in self.refusals
        )

    def _pool(self, pool_id: str) -> Any:
        if pool_id != self.pool_id:
            raise NotFound(f"this media server has no pool {pool_id}")
        return self.pool

    def start(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(address, port))
        self._ready = threading.Event()
        self._thread.start()
        assert self._ready.wait(30)
        assert self.port

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self, address: str, port: int) -> None:
        asyncio.set_event_loop(self._loop)
        self._ended = asyncio.Event()
        try:
            self._loop.run_until_complete(self._serve(address, port))
            # Connections that linger, as their peers did not end them.
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
                self._loop.run_until_complete(asyncio.wait({task}))
            self._loop.run_until_complete(end_connections(self._loop))
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self, address: str, port: int) -> None:
        app = web.Application()
        self.server = add_routes(app, self.host())
        silent = SilentConnections(app, self.silent_s, self._was_silent)
        runner = web.AppRunner(app, shutdown_timeout=0.2, **RUNNER_OPTIONS)
        await runner.setup()
        site = web.TCPSite(runner, address, port, ssl_context=self.machines.server())
        await site.start()
        self.port = runner.addresses[0][1]
        watching = asyncio.create_task(silent.watch(runner))
        self._ready.set()
        await self._ended.wait()
        watching.cancel()
        assert runner.server is not None
        transports = [one.transport for one in runner.server.connections]
        await runner.cleanup()
        # Nobody waits for peers that do not end their side.
        for transport in transports:
            if transport is not None:
                transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)


async def end_connections(loop: asyncio.AbstractEventLoop) -> None:
    """End what still has a socket in a loop, so that nothing is left to the garbage collector.

    A server knows of a connection only once its handshake is done.
    """
    for _ in range(10):
        for transport in list(loop._transports.values()):  # type: ignore[attr-defined]
            transport.abort()
        await asyncio.sleep(0)


class RawPeer:
    """Plain HTTP with a valid certificate. Each request goes over a connection of its own."""

    def __init__(self, site: TransferSite, name: str, role: str = "agent") -> None:
        self.site = site
        self.context = site.machines.client(name, role)
        self.name = name

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "127.0.0.1", self.site.port, timeout=30, context=self.context
        )

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of an answer."""
        token = self.site.token(self.name) if token is None else token
        sent = {"Authorization": f"Bearer {token}", **(headers or {})}
        connection = self.connection()
        try:
            connection.request(method, f"/v1/transfer{path}", body, sent)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def code(self, *given: Any, **more: Any) -> str:
        """The code with which a request is refused."""
        status, body = self.ask(*given, **more)
        assert status >= 400, (status, body)
        return str(json.loads(body)["code"])

    def open(self, token: str | None = None, attempt: str = "a", **changes: Any) -> str:
        """Open an upload."""
        said = {"read_all": False, "attempt": attempt, **changes}
        status, body = self.ask("POST", "/uploads", json.dumps(said).encode(), token)
        assert status == 200, body
        return str(json.loads(body)["upload"])


@contextmanager
def transfer_site(
    directory: Path,
    pool: Any,
    limits: TransferLimits | None = None,
    clock: Clock | None = None,
    silent_s: float | None = None,
    address: str = "127.0.0.1",
    **more: Any,
) -> Iterator[TransferSite]:
    """Serve the data path of a pool on a port of this machine."""
    site = TransferSite(directory, pool, limits or TransferLimits(), clock or SystemClock(), **more)
    if silent_s is not None:
        site.silent_s = silent_s
    site.start(address)
    try:
        yield site
    finally:
        site.stop()
