"""The machines' door: one listener of the master, for joining and for sessions.

Must not decide who may join: the book of machines does. Invariants: who has no certificate gets no
further than joining; strangers can't fill the audit log; nothing that a machine says keeps another
waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from aiohttp import WSMsgType, web

from holdfast.base.clock import to_ns
from holdfast.base.errors import (
    HoldfastError,
    InternalError,
    Invalid,
    NotAuthenticated,
    TooManyAttempts,
    TooSlow,
    Unreachable,
    storage_error,
)
from holdfast.control.jobs import LEASE
from holdfast.movers.transfer.server import RUNNER_OPTIONS
from holdfast.site.machines.machines import SEEN_EVERY_S
from holdfast.site.machines.refused_at_door import RefusedAtDoor
from holdfast.site.machines.sessions import Session, told
from holdfast.wire import sessions
from holdfast.wire.fields import Reader
from holdfast.wire.identity import MachineRole, machine_name, server_context, use, valid_between
from holdfast.wire.identity.authority import MAX_REQUEST_BYTES
from holdfast.wire.peer import IS_REVOKED, SITE_ID, name_shown, peer_of
from holdfast.wire.problem import as_problems, read_object
from holdfast.wire.sessions import Closed, Hello
from holdfast.wire.silent_connections import SilentConnections

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Sequence

    from holdfast.site.machines.machines import Machines
    from holdfast.wire.identity import Peer

Adder: TypeAlias = Callable[[web.Application], None]
"""Adds routes, such as those of data, to the door's application."""

T = TypeVar("T")

HELLO_S: Final = 10.0
JOINING_AT_ONCE: Final = 256
"""So many wait to join; whoever comes after is told to come again."""

LOOK_S: Final = 1.0
DRIVES_EVERY_S: Final = 600.0
THREADS: Final = 16
_BACKLOG: Final = 512
_START_S: Final = 30.0
_MOST_BYTES: Final = 64 << 10
_ASKED_AT_ONCE: Final = 64
_TLS_ENDS_S: Final = 0.25

_MACHINES = (MachineRole.AGENT, MachineRole.MEDIA)

_LOG = logging.getLogger("holdfast.machines")


class Door:
    """The door's routes. Belongs to one event loop."""

    def __init__(self, machines: Machines, protocols: tuple[int, int] = sessions.PROTOCOLS) -> None:
        self._machines = machines
        self._protocols = protocols
        self._refused = RefusedAtDoor(machines.master)
        self._waiting_to_join = 0
        self._threads = ThreadPoolExecutor(THREADS, "machines")
        # Strangers wait for each other, and for nobody else.
        self._strangers_threads = ThreadPoolExecutor(1, "machines-joining")

    def close(self) -> None:
        """Wait for what is under way."""
        self._threads.shutdown()
        self._strangers_threads.shutdown()

    async def authority(self, _request: web.Request) -> web.Response:
        """The certificate of the authority, for whoever asks."""
        pem = self._machines.authority.certificate_pem
        return web.Response(body=pem, content_type="application/x-pem-file")

    async def enroll(self, request: web.Request) -> web.Response:
        """Let a machine join that has a token."""
        details: dict[str, object] = {"from": request.remote or ""}
        try:
            given = Reader(await read_object(request), "the request")
            role = _role(given.text("role"))
            name = machine_name(given.text("name"))
            details["role"] = role.value
            act = functools.partial(
                self._machines.master.machines.enroll,
                self._machines.authority,
                secret=given.text("secret"),
                csr_pem=_csr(given),
                role=role,
                name=name,
                life=self._machines.life,
                details=details,
            )
        except HoldfastError as error:
            await self._refuse("enroll", error, request)
            raise
        if self._waiting_to_join >= JOINING_AT_ONCE:
            raise TooManyAttempts("too many machines want to join at once", "wait, then try again")
        self._waiting_to_join += 1
        try:
            noted = functools.partial(self._refused.note, "enroll", said=name, details=details)
            enroll = functools.partial(_noting, noted, request.remote or "", act)
            loop = asyncio.get_running_loop()
            pem = await loop.run_in_executor(self._strangers_threads, enroll)
        finally:
            self._waiting_to_join -= 1
        await self._in_thread(self._machines.refresh)
        _LOG.info("machine '%s' joined as %s from %s", name, role.value, request.remote)
        self._machines.master.news()
        site = self._machines.authority.site_id
        return web.json_response({"certificate": pem.decode("ascii"), "site": site})

    async def renew(self, request: web.Request) -> web.Response:
        """Give a machine its next certificate."""
        peer = await self._peer(request, "renew")
        try:
            given = Reader(await read_object(request), "the request")
            pem = await self._in_thread(
                self._machines.master.machines.renew,
                self._machines.authority,
                peer,
                _csr(given),
                self._machines.life,
            )
        except HoldfastError as error:
            await self._refuse("renew", error, request)
            raise
        await self._in_thread(self._machines.refresh)
        return web.json_response({"certificate": pem.decode("ascii")})

    async def session(self, request: web.Request) -> web.StreamResponse:
        """Hold a machine's session for as long as it lasts."""
        peer = await self._peer(request, "session")
        if self._machines.hear is None:
            raise Unreachable("this master does not give out work now", "it may do so in a moment")
        socket = web.WebSocketResponse(
            autoping=True, compress=False, max_msg_size=sessions.MAX_MESSAGE_BYTES
        )
        await socket.prepare(request)
        try:
            session = await self._greet(socket, peer)
        except (HoldfastError, TimeoutError) as error:
            why = TooSlow("it did not say who it is") if isinstance(error, TimeoutError) else error
            await self._refuse("session", why, request)
            await _shut(socket, Closed.NOT_UNDERSTOOD, why.message)
            return socket
        _LOG.info("machine '%s' is connected (%s)", peer.name, session.hello.software)
        try:
            await self._converse(session, socket, request)
        finally:
            self._gone(session)
        return socket

    def _gone(self, session: Session) -> None:
        if self._machines.sessions.closed(session):
            _LOG.info("machine '%s' is not connected any more", session.peer.name)

    async def _greet(self, socket: web.WebSocketResponse, peer: Peer) -> Session:
        """Hear who is there, and agree on a version.

        Raises:
            HoldfastError: That can't be.
            TimeoutError: Nothing is said.
        """
        hello = await _next(socket, HELLO_S)
        if not isinstance(hello, Hello):
            raise Invalid("a machine says who it is before anything else")
        if (hello.name, hello.role) != (peer.name, peer.role.value):
            raise NotAuthenticated(f"it says to be {hello.role} '{hello.name[:80]}'")
        protocol = sessions.agree(self._protocols, hello.protocols)
        session = Session(peer, hello, protocol, socket, asyncio.get_running_loop())
        beat_s = self._machines.heartbeat_s
        await session.say(sessions.Welcome(protocol, beat_s, LEASE.total_seconds()))
        await self._in_thread(self._machines.greeted, session)
        return session

    async def _converse(
        self, session: Session, socket: web.WebSocketResponse, request: web.Request
    ) -> None:
        beating = asyncio.create_task(self._beat(session))
        under_way: set[asyncio.Task[None]] = set()
        turn = asyncio.Semaphore(_ASKED_AT_ONCE)
        patience_s = self._machines.heartbeat_s * sessions.HEARTBEATS_LOST
        try:
            while True:
                message = await _next(socket, patience_s)
                if message is None and socket.closed:
                    return
                match message:
                    case sessions.Heartbeat(load):
                        session.load = load
                    case sessions.Report():
                        session.reported(message)
                    case sessions.Tell() | sessions.Ask():
                        # Who says more than can be heard is not read from meanwhile.
                        await turn.acquire()
                        task = asyncio.create_task(self._answer(session, message, request))
                        under_way.add(task)
                        task.add_done_callback(under_way.discard)
                        task.add_done_callback(lambda _: turn.release())
                    case _:
                        continue
        except TimeoutError:
            why = f"machine '{session.peer.name}' has been silent for {patience_s:.0f} s"
            _LOG.warning("%s", why)
            # At once: one that is cut off answers no farewell, and that is waited for long.
            self._gone(session)
            await session.shut(Closed.SILENT, why)
        except Invalid as error:
            await self._refuse("session", error, request)
            await session.shut(Closed.NOT_UNDERSTOOD, error.message)
        except ConnectionError:
            return
        finally:
            beating.cancel()

    async def _answer(
        self, session: Session, said: sessions.Tell | sessions.Ask, request: web.Request
    ) -> None:
        answer: sessions.Message
        try:
            if isinstance(said, sessions.Tell):
                heard = await self._in_thread(self._machines.told, session.peer, said.message)
                answer = sessions.Answered(said.id, heard)
            else:
                answer = sessions.Report(said.id, await self._found(session, said))
        except HoldfastError as error:
            await self._refuse("session", error, request)
            answer = _refusal(said, error)
        except Exception:  # noqa: BLE001 - the last edge: logged whole, told in a sentence
            _LOG.exception("a defect at a message of machine '%s'", session.peer.name)
            answer = _refusal(said, InternalError("this is a defect; the master's log tells more"))
        with contextlib.suppress(ConnectionError):
            await session.say(answer)

    async def _found(self, session: Session, asked: sessions.Ask) -> dict[str, Any]:
        return await self._in_thread(self._machines.answer, session, asked.order)

    async def _beat(self, session: Session) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(self._machines.heartbeat_s)
                await session.say(sessions.Heartbeat())

    async def _peer(self, request: web.Request, what: str) -> Peer:
        """Who makes a request; who may not make it is written down."""
        try:
            return peer_of(request, _MACHINES)
        except HoldfastError as error:
            await self._refuse(what, error, request)
            raise

    async def _refuse(self, what: str, error: HoldfastError, request: web.Request) -> None:
        note = functools.partial(self._refused.note, machine=name_shown(request.transport))
        await self._in_thread(note, what, error, request.remote or "")

    def was_silent(self, name: str, address: str, error: TooSlow) -> None:
        """Note that a connection was closed, as nothing was asked for over it."""
        note = functools.partial(self._refused.note, machine=name)
        self._threads.submit(note, "connection", error, address)

    async def _in_thread(self, work: Callable[..., T], *given: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(work, *given))

    async def look_after(self, context: ssl.SSLContext, ends_ns: int) -> None:
        """What is to be done again and again while the door is open."""
        machines = self._machines
        since_s = drives_s = 0.0
        life_ns = int(machines.life.total_seconds() * 1e9)
        while True:
            await asyncio.sleep(LOOK_S)
            await self._in_thread(machines.look_after)
            since_s += LOOK_S
            if since_s >= SEEN_EVERY_S:
                since_s = 0.0
                with contextlib.suppress(HoldfastError):
                    await self._in_thread(machines.note_seen)
            drives_s += LOOK_S
            if drives_s >= DRIVES_EVERY_S:
                drives_s = 0.0
                with contextlib.suppress(HoldfastError):
                    await self._in_thread(machines.ask_drives)
            if ends_ns - machines.master.clock.now_ns() < life_ns / 3:
                identity = machines.own_identity()
                use(context, identity)
                ends_ns = to_ns(valid_between(identity.certificate_pem)[1])


def make_door(
    machines: Machines, adders: Sequence[Adder] = (), door: Door | None = None
) -> web.Application:
    """Make the application that answers machines.

    Args:
        machines: Whom it speaks for.
        adders: Add more routes, such as those of data.
        door: Its own routes.
    """
    door = door or Door(machines)
    app = web.Application(middlewares=[as_problems], client_max_size=_MOST_BYTES)
    app[SITE_ID] = machines.authority.site_id
    app[IS_REVOKED] = machines.is_revoked
    app.router.add_get("/v1/authority", door.authority)
    app.router.add_post("/v1/enroll", door.enroll)
    app.router.add_post("/v1/renew", door.renew)
    app.router.add_get("/v1/session", door.session)
    for add in adders:
        add(app)
    return app


@contextlib.contextmanager
def serving(
    machines: Machines,
    listen: str,
    adders: Sequence[Adder] = (),
    protocols: tuple[int, int] = sessions.PROTOCOLS,
) -> Iterator[str]:
    """Answer machines while the block lasts.

    Args:
        machines: Whom it is for.
        listen: ``address:port``; port 0 for any that is free.
        adders: Add more routes.
        protocols: Versions of the session that are spoken.

    Yields:
        Address and port.

    Raises:
        Invalid: There is no such address.
        StorageError: The port can't be had.
    """
    address, port = _place(listen)
    door = Door(machines, protocols)
    started: list[int | BaseException] = []
    ready = threading.Event()
    stop: list[Callable[[], None]] = []

    async def serve() -> None:
        loop, told_to = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            loop.call_soon_threadsafe(told_to.set)

        stop.append(end)
        identity = machines.own_identity()
        context = server_context(identity, require_client=False)
        app = make_door(machines, adders, door)
        silent = SilentConnections(app, told=door.was_silent)
        runner = web.AppRunner(app, shutdown_timeout=2.0, **RUNNER_OPTIONS)
        await runner.setup()
        try:
            site = web.TCPSite(runner, address or None, port, ssl_context=context, backlog=_BACKLOG)
            await site.start()
            started.append(runner.addresses[0][1])
            ready.set()
            ends_ns = to_ns(valid_between(identity.certificate_pem)[1])
            looking = asyncio.create_task(door.look_after(context, ends_ns))
            watching = asyncio.create_task(silent.watch(runner))
            await told_to.wait()
            looking.cancel()
            watching.cancel()
            for one in machines.sessions.all():
                await one.shut(Closed.STOPPING, "the master server is stopping")
        finally:
            await runner.cleanup()
            # What TLS has still to say is said in this loop.
            await asyncio.sleep(_TLS_ENDS_S)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - handed to who waits for the start
            started.append(error)
            if len(started) > 1:
                _LOG.exception("the door for machines is shut")
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="machines-door")
    thread.start()
    try:
        ready.wait(_START_S)
        found = started[0] if started else None
        if not isinstance(found, int):
            raise _did_not_start(found, listen)
        yield f"{address}:{found}"
    finally:
        for tell in stop:
            with contextlib.suppress(RuntimeError):
                tell()
        thread.join()
        door.close()


async def _next(socket: web.WebSocketResponse, patience_s: float) -> sessions.Message | None:
    """The next message; None for one that is not known here, or where the socket is closed."""
    got = await socket.receive(patience_s)
    if got.type is WSMsgType.TEXT:
        return sessions.from_text(got.data)
    if got.type is WSMsgType.BINARY:
        raise Invalid("messages of the session are text")
    if got.type is WSMsgType.ERROR:
        raise ConnectionError(str(socket.exception()))
    if not socket.closed:
        raise ConnectionError("the session is being closed")
    return None


async def _shut(socket: web.WebSocketResponse, code: Closed, why: str) -> None:
    with contextlib.suppress(ConnectionError, RuntimeError):
        await socket.close(code=code, message=why.encode()[:120])


def _refusal(said: sessions.Tell | sessions.Ask, error: HoldfastError) -> sessions.Message:
    if isinstance(said, sessions.Tell):
        return sessions.Answered(said.id, None, told(error))
    return sessions.Report(said.id, None, told(error))


def _noting(noted: Callable[..., None], address: str, act: Callable[[], T]) -> T:
    """Do what notes itself when it is done; have it noted that it was refused."""
    try:
        return act()
    except HoldfastError as error:
        noted(error, address)
        raise


def _role(text: str) -> MachineRole:
    if text not in {one.value for one in _MACHINES}:
        raise Invalid(f"no machine can join as '{text[:40]}'", "it may be agent or media")
    return MachineRole(text)


def _csr(given: Reader) -> bytes:
    csr = given.text("csr")
    if len(csr) > MAX_REQUEST_BYTES or not csr.isascii():
        raise Invalid("this is no request for a certificate")
    return csr.encode("ascii")


def _place(listen: str) -> tuple[str, int]:
    address, _, port = listen.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise Invalid(
            f"serve.machines is '{listen}', which is no address and port",
            "write for example 0.0.0.0:8444 or [::]:8444",
        )
    return address.strip("[]"), int(port)


def _did_not_start(error: BaseException | None, listen: str) -> HoldfastError:
    if isinstance(error, HoldfastError):
        return error
    if isinstance(error, OSError):
        words = error.strerror or str(error)
        return storage_error(error)(f"can't listen on {listen} for machines: {words}")
    return InternalError(f"the door for machines did not open: {error}")
