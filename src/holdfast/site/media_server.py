"""A media server on a machine of its own: takes data into the site's pool, and gives it out.

Must not decide whose data it takes: the master's tokens say so. Invariants: nothing is committed
that the master does not want any more, or can't be asked about; the master has heard of an image
before the client has; a machine that the site lets in no more is refused as soon as that is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from holdfast.base.clock import SystemClock
from holdfast.base.errors import HoldfastError, NotAPool, Unsupported, storage_error
from holdfast.movers.session import MachineSession
from holdfast.movers.transfer.paths import local_addresses
from holdfast.movers.transfer.ports import TransferHost
from holdfast.movers.transfer.server import RUNNER_OPTIONS, add_routes
from holdfast.wire.fields import Reader
from holdfast.wire.identity import MachineRole, server_context, use
from holdfast.wire.peer import IS_REVOKED, SITE_ID, peer_of
from holdfast.wire.silent_connections import SilentConnections
from holdfast.wire.transfer_tokens import signing_key

if TYPE_CHECKING:
    from holdfast.engine import Image, Pool
    from holdfast.movers.machine_home import MachineHome
    from holdfast.site.site import Site
    from holdfast.wire.identity import Identity
    from holdfast.wire.transfer_tokens import TransferGrant

_BACKLOG: Final = 512
_SHUTDOWN_S: Final = 2.0

_LOG = logging.getLogger("holdfast.media")


class MediaServer:
    """One media server. Its `run` belongs to one event loop."""

    def __init__(
        self,
        home: MachineHome,
        site: Site,
        listen: tuple[str, int],
        addresses: tuple[str, ...] = (),
    ) -> None:
        """Prepare; the pool is opened.

        Args:
            home: Of a machine that has joined as a media server.
            site: With the site's pool.
            listen: Address and port; port 0 for any that is free.
            addresses: Where others reach it; none: wherever it listens.

        Raises:
            NotAPool: It is gone.
            WrongKey: It does not open.
        """
        self._home = home
        self._site = site
        self._pool: Pool = site.pool
        self._listen = listen
        self._addresses = addresses
        self._refused: frozenset[str] = frozenset()
        self._context = server_context(home.identity, require_client=True)
        self._port = 0
        self.listening = threading.Event()
        self.session = MachineSession(
            home,
            answers={"refuse": self._refuse},
            opened=self._opened,
            renewed=self._renewed,
            load=_load,
        )

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it takes data, once it listens."""
        host = self._listen[0]
        found = self._addresses or ((host,) if host not in _ANY else _own_addresses())
        return tuple(f"https://{_bracketed(one)}:{self._port}" for one in found)

    async def run(self, stop: asyncio.Event) -> None:
        """Take data and give it out until told to stop.

        Raises:
            NotAuthenticated: The site lets this machine in no more.
            StorageError: The port can't be had.
        """
        app = web.Application()
        app[SITE_ID] = self._home.identity.site_id
        app[IS_REVOKED] = lambda serial: serial in self._refused
        add_routes(app, self._host())
        silent = SilentConnections(app)
        runner = web.AppRunner(app, shutdown_timeout=_SHUTDOWN_S, **RUNNER_OPTIONS)
        await runner.setup()
        try:
            host, port = self._listen
            place = web.TCPSite(
                runner, host or None, port, ssl_context=self._context, backlog=_BACKLOG
            )
            try:
                await place.start()
            except OSError as error:
                words = error.strerror or str(error)
                raise storage_error(error)(f"can't listen on {host}:{port}: {words}") from error
            self._port = runner.addresses[0][1]
            self.listening.set()
            watching = asyncio.create_task(silent.watch(runner))
            _LOG.info("taking data at %s", ", ".join(self.urls))
            try:
                await self.session.run(stop)
            finally:
                watching.cancel()
        finally:
            await runner.cleanup()

    def _host(self) -> TransferHost:
        agents = (MachineRole.AGENT,)
        return TransferHost(
            key=signing_key(self._site.pool_key()).public_key(),
            peer_name=lambda request: peer_of(request, agents).name,
            pool=self._pool_of,
            may_commit=self._may_commit,
            committed=self._committed,
            refused=lambda peer, _, message: _LOG.warning(
                "data of machine '%s' was refused: %s", peer or "?", message
            ),
            clock=SystemClock(),
            now_s=time.monotonic,
        )

    # -- for the data path ------------------------------------------------------------------

    def _pool_of(self, pool_id: str) -> Pool:
        if pool_id != self._site.pool_id:
            raise NotAPool(f"pool {pool_id} is not the one of this media server")
        return self._pool

    def _may_commit(self, job: int, fence: int) -> bool:
        said = self.session.ask({"ask": "may-commit", "job": job, "fence": fence})
        return said.get("may") is True

    def _committed(self, grant: TransferGrant, image: Image) -> None:
        order = {"ask": "committed", "job": grant.job, "fence": grant.fence, "image": image.id}
        self.session.ask(order)
        _LOG.info("image %s of machine '%s' is in the pool", image.id, grant.client)

    # -- for the master ---------------------------------------------------------------------

    def _opened(self) -> None:
        """Tell a master, in each session anew, that data is taken here."""
        self.listening.wait()
        order = {"ask": "serve-data", "pool": self._site.pool_id, "urls": list(self.urls)}
        try:
            said = self.session.ask(order)
            self._refused = frozenset(Reader(said, "the master's answer").texts("refused"))
        except HoldfastError as error:
            _LOG.error("the master gives this media server no work: %s", error.message)

    def _refuse(self, order: dict[str, Any]) -> dict[str, Any]:
        self._refused = frozenset(Reader(order, "whom to refuse").texts("serials"))
        return {"answer": "refuse"}

    def _renewed(self, identity: Identity) -> None:
        use(self._context, identity)


_ANY = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - to be recognised


def _own_addresses() -> tuple[str, ...]:
    found = tuple(str(one.ip) for one in local_addresses() if not one.ip.is_link_local)
    if not found:
        raise Unsupported("this machine has no address", "say where it is reached: --address A")
    return found


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _load() -> dict[str, float]:
    """How busy this machine is: processors and memory, 1 for all of them."""
    said = {"cpu": os.getloadavg()[0] / (os.cpu_count() or 1)}
    with contextlib.suppress(OSError, ValueError, KeyError):
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        known = {name: int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable")}
        said["memory"] = 1 - known["MemAvailable"] / max(known["MemTotal"], 1)
    return said
