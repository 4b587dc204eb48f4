"""A media server's store routes in a thread, on a directory, for whoever has a certificate."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import web

from holdfast.base.errors import NotAPool
from holdfast.movers.transfer.machine import require_media
from holdfast.movers.transfer.ports import TransferLimits
from holdfast.movers.transfer.remote_store import RemoteStore
from holdfast.movers.transfer.server import RUNNER_OPTIONS
from holdfast.movers.transfer.store_routes import PREFIX, StoreHost, add_store_routes
from holdfast.wire.identity import MachineRole, client_context
from holdfast.wire.peer import IS_REVOKED, SITE_ID, peer_of
from tests.kit.real_machines import SITE, RealMachines
from tests.kit.transfer_site import end_connections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.movers.transfer.refusals import Refusal
    from holdfast.movers.transfer.store_routes import ServedStore

POOL = "ab" * 16
WRITER = "0f" * 16


class StoreSite:
    """The server, who may come to it, and whom it refused."""

    def __init__(self, store: ServedStore, limits: TransferLimits) -> None:
        self.machines = RealMachines()
        self.stores = {POOL: store}
        self.limits = limits
        self.refusals: list[tuple[str, str]] = []
        self.revoked: set[str] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def remote(self, pool: str = POOL, **more: Any) -> RemoteStore:
        """The store as the master has it."""
        me = self.machines.identity(MachineRole.MASTER, "master")
        context = client_context(me, (MachineRole.MEDIA,))
        return RemoteStore((self.url,), context, partial(require_media, me), pool, **more)

    def ask(
        self,
        method: str,
        path: str,
        query: dict[str, Any],
        body: bytes | None = None,
        *,
        role: MachineRole = MachineRole.MASTER,
        pool: str = POOL,
        headers: dict[str, str] | None = None,
        machines: RealMachines | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of the answer to whoever asks whatever."""
        made = (machines or self.machines).identity(role, "somebody")
        context = client_context(made, (MachineRole.MEDIA,))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=30, context=context
        )
        try:
            target = f"{PREFIX}/{pool}{path}?{urlencode(query)}"
            connection.request(method, target, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def code(self, *given: Any, **more: Any) -> str:
        """The code with which a request is refused."""
        status, body = self.ask(*given, **more)
        assert status >= 400, (status, body)
        return str(json.loads(body)["code"])

    def host(self) -> StoreHost:
        def master(request: web.Request) -> str:
            return peer_of(request, (MachineRole.MASTER,)).name

        def store(pool: str) -> ServedStore:
            if pool not in self.stores:
                raise NotAPool(f"there is no pool {pool}")
            return self.stores[pool]

        def refused(refusal: Refusal) -> None:
            self.refusals.append((refusal.peer, refusal.code))

        return StoreHost(master, store, refused, self.limits)

    def start(self, port: int = 0) -> None:
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(port,))
        self._thread.start()
        assert self._ready.wait(30)
        assert self.port

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def restart(self) -> None:
        """End it and begin it anew at the same place: it has forgotten everything."""
        port = self.port
        self.stop()
        self.start(port)

    def _run(self, port: int) -> None:
        asyncio.set_event_loop(self._loop)
        self._ended = asyncio.Event()
        try:
            self._loop.run_until_complete(self._serve(port))
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
                self._loop.run_until_complete(asyncio.wait({task}))
            self._loop.run_until_complete(end_connections(self._loop))
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self, port: int) -> None:
        app = web.Application()
        app[SITE_ID] = SITE
        app[IS_REVOKED] = self.revoked.__contains__
        self.server = add_store_routes(app, self.host())
        runner = web.AppRunner(app, shutdown_timeout=0.05, **RUNNER_OPTIONS)
        await runner.setup()
        site = web.TCPSite(
            runner, "127.0.0.1", port, ssl_context=self.machines.server(), reuse_address=True
        )
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._ended.wait()
        assert runner.server is not None
        transports = [one.transport for one in runner.server.connections]
        await runner.cleanup()
        for transport in transports:
            if transport is not None:
                transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)


@contextmanager
def store_site(store: ServedStore, limits: TransferLimits | None = None) -> Iterator[StoreSite]:
    """Serve a store on a port of this machine."""
    site = StoreSite(store, limits or TransferLimits())
    site.start()
    try:
        yield site
    finally:
        site.stop()
