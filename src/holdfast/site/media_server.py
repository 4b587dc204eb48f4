"""A media server on a machine of its own: takes data into its pools, and gives it out.

Its pools are the site's, if its home has the way to that, with those storage units that it reaches
as the master does, and those on its own disk. Must not
decide whose data it takes: the master's tokens say so. Invariants: nothing is committed that the
master does not want any more, or can't be asked about; the master has heard of an image before the
client has; a machine that the site lets in no more is refused as soon as that is told; objects of a
pool go to the master alone.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from holdfast.base.clock import SystemClock
from holdfast.base.errors import (
    Busy,
    HoldfastError,
    Invalid,
    Unreachable,
    Unsupported,
    storage_error,
)
from holdfast.base.ids import ImageId
from holdfast.movers.machine_load import MachineLoad
from holdfast.movers.remote_agent import Transfer
from holdfast.movers.session import MachineSession
from holdfast.movers.transfer.machine import FarMovers
from holdfast.movers.transfer.paths import local_addresses
from holdfast.movers.transfer.ports import TransferHost
from holdfast.movers.transfer.refusals import Refusal, Refusals
from holdfast.movers.transfer.server import RUNNER_OPTIONS, add_routes
from holdfast.movers.transfer.store_routes import StoreHost, add_store_routes
from holdfast.site import own_pool_orders
from holdfast.site.own_pools import OwnPools
from holdfast.site.pool_work import PoolWork
from holdfast.site.replication import REPLICATE
from holdfast.site.shared_pools import SharedPools
from holdfast.wire.fields import Reader
from holdfast.wire.identity import MachineRole, server_context, use
from holdfast.wire.messages import SiteWork, WorkEvent, WorkOffer
from holdfast.wire.peer import IS_REVOKED, SITE_ID, peer_of
from holdfast.wire.silent_connections import SilentConnections
from holdfast.wire.transfer_tokens import signing_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.base.errors import TooSlow
    from holdfast.engine import Image, Pool
    from holdfast.movers.drive import Reporter
    from holdfast.movers.machine_home import MachineHome
    from holdfast.site.site import Site
    from holdfast.wire.identity import Identity
    from holdfast.wire.transfer_tokens import TransferGrant

_BACKLOG: Final = 512
_SHUTDOWN_S: Final = 2.0
LOOK_EVERY_S: Final = 15.0
REFUSALS_EVERY_S: Final = 2.0

_LOG = logging.getLogger("holdfast.media")


def _nothing() -> None:
    return None


class MediaServer:
    """One media server. Its `run` belongs to one event loop."""

    def __init__(
        self,
        home: MachineHome,
        site: Site | None,
        listen: tuple[str, int],
        addresses: tuple[str, ...] = (),
        jobs: int | None = None,
        takes_data: Callable[[], None] = _nothing,
    ) -> None:
        """Prepare; the site's pool is opened.

        Args:
            home: Of a machine that has joined as a media server.
            site: With the site's pool; None where there are own ones alone.
            listen: Address and port; port 0 for any that is free.
            addresses: Where others reach it; none: wherever it listens.
            jobs: Of how many jobs it takes data at once; None for as many as come.
            takes_data: Called when it listens.

        Raises:
            NotAPool: It is gone.
            WrongKey: It does not open.
            ConfigInvalid: The list of own pools can't be read.
        """
        self._home = home
        self._identity = home.identity
        self._site = site
        self._pool: Pool | None = None if site is None else site.pool
        clock = SystemClock()
        self._own = OwnPools(home.home, clock)
        self._shared = SharedPools(home.home / "cache")
        self._movers = FarMovers(clock=clock, master=lambda: self.session.master_url)
        self._work = PoolWork(
            lambda pool: self._own.get(pool).pool, clock, more={REPLICATE: self._replicate}
        )
        self._tokens = _TokenKey()
        if site is not None:
            self._tokens.key = signing_key(site.pool_key()).public_key()
        self._told: dict[str, Any] | None = None
        self._telling = threading.Lock()
        self._listen = listen
        self._addresses = addresses
        self._jobs = jobs
        self._takes_data = takes_data
        self._refused: frozenset[str] = frozenset()
        self._refusals = Refusals(time.monotonic)
        self._context = server_context(home.identity, require_client=True)
        self._port = 0
        self.listening = threading.Event()
        self.session = MachineSession(
            home,
            answers={
                "refuse": self._refuse,
                "share": self._share,
                **own_pool_orders.answers(self._own),
                **self._work.answers,
            },
            opened=self._opened,
            renewed=self._renewed,
            load=MachineLoad(),
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
        add_store_routes(app, self._store_host())
        silent = SilentConnections(app, told=self._was_silent)
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
            looking = asyncio.create_task(self._look_after())
            telling = asyncio.create_task(self._tell_refusals())
            _LOG.info("taking data at %s", ", ".join(self.urls))
            self._takes_data()
            try:
                await self.session.run(stop)
            finally:
                self._work.stop()
                watching.cancel()
                looking.cancel()
                telling.cancel()
        finally:
            await runner.cleanup()

    def _host(self) -> TransferHost:
        return TransferHost(
            key=self._tokens,
            peer=peer_of,
            pool=self._pool_of,
            may_commit=self._may_commit,
            committed=self._committed,
            refused=self._note_refusal,
            clock=SystemClock(),
            now_s=time.monotonic,
        )

    def _store_host(self) -> StoreHost:
        masters = (MachineRole.MASTER,)
        return StoreHost(
            master=lambda request: peer_of(request, masters).name,
            store=lambda pool: self._own.get(pool).store,
            refused=self._note_refusal,
        )

    # -- for the data path ------------------------------------------------------------------

    def _pool_of(self, pool_id: str) -> Pool:
        if self._site is not None and self._pool is not None and pool_id == self._site.pool_id:
            return self._pool
        if self._shared.has(pool_id):
            return self._shared.get(pool_id)
        return self._own.get(pool_id).pool

    def _may_commit(self, job: int, fence: int) -> bool:
        said = self.session.ask({"ask": "may-commit", "job": job, "fence": fence})
        return said.get("may") is True

    def _committed(self, grant: TransferGrant, image: Image) -> None:
        order = {"ask": "committed", "job": grant.job, "fence": grant.fence, "image": image.id}
        self.session.ask(order)
        _LOG.info("image %s of machine '%s' is in the pool", image.id, grant.client)

    def _replicate(self, pool: Pool, given: Reader, report: Reporter) -> list[WorkEvent]:
        """Send an image of an own pool to the media server of another one."""
        job, fence, image = given.count("job"), given.count("fence"), given.text("image")
        order = {"ask": "replication", "job": job, "fence": fence, "image": image}
        base = given.maybe_text("base")
        if base is not None:
            order["base"] = base
        first = Reader(given.record("transfer"), "where an image goes")
        tokens = [first.text("token")]

        def token() -> str:
            if tokens:
                return tokens.pop()
            return Reader(self.session.ask(order), "the master's answer").text("token")

        offer = WorkOffer(job, fence, 0.0, SiteWork(REPLICATE, (image,)))
        urls, target = first.texts("urls"), first.text("pool")
        transfer = Transfer(offer, urls, target, token, self._identity)
        made = self._movers.replicate(transfer, pool, ImageId(image), report)
        return [WorkEvent("info", "replicated", f"image {made.id} was sent to pool {target}")]

    # -- for the master ---------------------------------------------------------------------

    def _opened(self) -> None:
        """Tell a master, in each session anew, that data is taken here, and open what it says."""
        self.listening.wait()
        self._own.look()
        self._tell()
        self._own.look()
        self._tell_news()
        self._shared.look()
        self._tell_news()

    def _tell(self) -> None:
        with self._telling:
            pools = self._standing()
            pool = None if self._site is None else self._site.pool_id
            order = {"ask": "serve-data", "pool": pool, "urls": list(self.urls), **pools}
            if self._jobs is not None:
                order["jobs"] = self._jobs
            self._told = pools
            try:
                said = Reader(self.session.ask(order), "the master's answer")
                self._refused = frozenset(said.texts("refused"))
                self._tokens.take(said)
                self._own.know(own_pool_orders.keys_in(said))
                self._know_shared(said)
            except Unreachable as error:
                # It is tried again, or done anew in the next session.
                self._told = None
                _LOG.info("the master was not told how pools are: %s", error.message)
            except HoldfastError as error:
                _LOG.error("the master gives this media server no work: %s", error.message)

    def _tell_news(self) -> None:
        """Tell the master how pools are, if they are otherwise than it heard last."""
        standing = self._standing()
        if standing == self._told:
            return
        for pool, problem in standing["problems"].items():
            _LOG.error("pool %s can't be used: %s", pool, problem)
        self._tell()

    def _standing(self) -> dict[str, Any]:
        """How the pools are, for the master."""
        told = own_pool_orders.told(self._own)
        if self._site is None:
            return told
        problems = {**told["problems"], **self._shared.problems}
        return {**told, "shared": list(self._shared.open), "problems": problems}

    def _know_shared(self, said: Reader) -> None:
        shared = own_pool_orders.shared_in(said)
        # Whoever has the site's own pool has the key that opens the keys of these.
        if shared is not None and self._site is not None:
            self._shared.know(shared)

    def _share(self, order: dict[str, Any]) -> dict[str, Any]:
        """Hear that there are other pools that all reach."""
        self._know_shared(Reader(order, "which pools all reach"))
        threading.Thread(target=self._look_and_tell, name="sharing", daemon=True).start()
        return {"answer": "share"}

    def _look_and_tell(self) -> None:
        self._shared.look()
        self._tell_news()

    async def _look_after(self) -> None:
        """See whether the disks of pools are there, again and again."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await asyncio.to_thread(self._own.look)
            await asyncio.to_thread(self._shared.look)
            if self.session.connected and self._standing() != self._told:
                await asyncio.to_thread(self._tell_news)

    def _note_refusal(self, refusal: Refusal) -> None:
        who = refusal.peer or "?"
        _LOG.warning("a request of machine '%s' was refused: %s", who, refusal.message)
        self._refusals.note(refusal)

    def _was_silent(self, name: str, address: str, error: TooSlow) -> None:
        self._note_refusal(Refusal(name, address, error.code, error.message))

    async def _tell_refusals(self) -> None:
        """Tell the master what was refused, for its audit log."""
        while True:
            await asyncio.sleep(REFUSALS_EVERY_S)
            if self.session.connected:
                await asyncio.to_thread(self._tell_refusals_now)

    def _tell_refusals_now(self) -> None:
        told, more = self._refusals.take()
        if not told and not more:
            return
        order: dict[str, Any] = {"ask": "refused", "refused": [one.to_json() for one in told]}
        try:
            self.session.ask({**order, "more": more})
        except Unreachable:
            self._refusals.put_back(told, more)
        except HoldfastError as error:
            _LOG.warning("the master does not take what was refused: %s", error.message)

    def _refuse(self, order: dict[str, Any]) -> dict[str, Any]:
        self._refused = frozenset(Reader(order, "whom to refuse").texts("serials"))
        return {"answer": "refuse"}

    def _renewed(self, identity: Identity) -> None:
        self._identity = identity
        use(self._context, identity)


class _TokenKey:
    """The key by which tokens of the master are told; known, at the latest, when it told it.

    Attributes:
        key: None while it is not known.
    """

    def __init__(self) -> None:
        self.key: Ed25519PublicKey | None = None

    def verify(self, signature: bytes, data: bytes) -> None:
        """See `wire.transfer_tokens.TokenKey`."""
        if self.key is None:
            raise Busy("this media server waits to be told how to know the master's tokens")
        self.key.verify(signature, data)

    def take(self, answer: Reader) -> None:
        """Learn it from what the master says, if it says it."""
        text = answer.maybe_text("token_key")
        if text is not None:
            try:
                raw = base64.b64decode(text, validate=True)
                self.key = Ed25519PublicKey.from_public_bytes(raw)
            except ValueError as error:
                raise Invalid("the master's key for tokens is none") from error


_ANY = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - to be recognised


def _own_addresses() -> tuple[str, ...]:
    found = tuple(str(one.ip) for one in local_addresses() if not one.ip.is_link_local)
    if not found:
        raise Unsupported(
            "this machine has no address",
            "say where it is reached: --address A, or HOLDFAST_MEDIA_ADDRESS",
        )
    return found


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
