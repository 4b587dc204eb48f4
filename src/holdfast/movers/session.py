"""The one session that a machine holds to its master, for as long as it runs.

Must not work itself: see `remote_agent`. Invariants: the master is only ever dialled; what is at
work goes on while there is no session, and ends with its lease; a job's word that was not answered
counts as not heard; whoever was revoked stops at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp

from holdfast import __version__
from holdfast.base.clock import SystemClock
from holdfast.base.errors import (
    Cancelled,
    ClockDoubtful,
    HoldfastError,
    InternalError,
    NotAuthenticated,
    Unreachable,
    Unsupported,
    WorkerLost,
    from_code,
)
from holdfast.movers import dialling, joining, machine_home
from holdfast.movers.client_keys import ClientKeys
from holdfast.movers.drives import local_drives
from holdfast.movers.remote_agent import Hands, agent_answers, find_out, no_movers
from holdfast.wire import sessions
from holdfast.wire.identity import client_context, first_context, use
from holdfast.wire.messages import VERSION as WORK_VERSION
from holdfast.wire.messages import Answer, WorkEnded, WorkError, WorkProgress
from holdfast.wire.problem import error_of
from holdfast.wire.sessions import Closed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.base.clock import Clock
    from holdfast.movers.machine_home import MachineHome
    from holdfast.movers.remote_agent import Finder, Movers
    from holdfast.wire.identity import Identity
    from holdfast.wire.messages import WorkMessage
    from holdfast.wire.sessions import Message, Welcome

T = TypeVar("T")

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Between tries to reach a master; each wait is up to twice the one before."""

STEADY_S = 30.0
"""A session that lasted so long makes the next wait short again."""

ANSWERS_AT_ONCE = 32
"""Of what a master asks; more wait for these."""

RENEWAL_LOOK_S = 60.0
STOP_S = 60.0

_LOG = logging.getLogger("holdfast.agent")

_Socket = aiohttp.ClientWebSocketResponse


def _load() -> dict[str, float]:
    return {"load": os.getloadavg()[0]}


def _nothing(*_: object) -> None:
    return None


@dataclass(eq=False)
class _Open:
    """A session that is open."""

    socket: _Socket
    welcome: Welcome


class MachineSession:
    """A machine's end of its session. `run` belongs to one event loop; the rest is thread-safe."""

    def __init__(
        self,
        home: MachineHome,
        movers: Movers = no_movers,
        clock: Clock | None = None,
        protocols: tuple[int, int] = sessions.PROTOCOLS,
        *,
        answers: Mapping[str, Finder] | None = None,
        load: Callable[[], dict[str, float]] = _load,
        opened: Callable[[], None] = _nothing,
        renewed: Callable[[Identity], None] = _nothing,
        addresses: tuple[str, ...] = (),
    ) -> None:
        """Prepare.

        Args:
            home: Which site, and who this machine is there.
            movers: How data travels.
            clock: By which certificates are renewed.
            protocols: Versions of the session that are spoken.
            answers: Find out what a master asks, by its kind; None for what an agent knows.
            load: Tells how busy this machine is.
            opened: Called, in a thread of its own, whenever a session was opened.
            renewed: Called with each new certificate.
            addresses: Of this machine, that data comes from, beside that of the session.
        """
        self._home = home
        if answers is None:
            answers = agent_answers(ClientKeys(home.home), home.home / "scratch")
        self._answers = answers
        self._load = load
        self._opened = opened
        self._renewed = renewed
        self._addresses = addresses
        self._clock = clock or SystemClock()
        self._protocols = protocols
        self._context = client_context(home.identity)
        self._hands = Hands(self, movers, self._fresh, lambda: self._home.identity)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: _Open | None = None
        self._url = home.masters[0]
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._numbers = iter(range(1, 2**62))
        self._told_to_stop: set[tuple[int, int]] = set()
        self._stopping = False
        self._out = False
        self._reopens = False
        self._background: set[asyncio.Task[None]] = set()
        # An answer may take as long as it likes, and keeps nothing else waiting.
        self._answering = ThreadPoolExecutor(ANSWERS_AT_ONCE, "answer")

    # -- for threads ----------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """Who this machine is."""
        return self._home.identity

    @property
    def master_url(self) -> str:
        """Where this machine reached its master last."""
        return self._url

    @property
    def connected(self) -> bool:
        """Whether there is a session now."""
        return self._open is not None

    def hear(self, message: WorkMessage) -> Answer:
        """Tell the master of a job; see `wire.messages.Master`."""
        key = message.job_id, message.fence
        if self._out:
            return Answer.FENCED
        if isinstance(message, WorkProgress) and self._stopping:
            return Answer.STOP
        if isinstance(message, WorkEnded):
            message = self._as_it_was(message)
        number = next(self._numbers)
        answer: Answer = self._answer_to(number, sessions.Tell(number, message))
        if answer is Answer.STOP:
            self._told_to_stop.add(key)
        elif isinstance(message, WorkEnded):
            self._told_to_stop.discard(key)
        return answer

    def _as_it_was(self, message: WorkEnded) -> WorkEnded:
        """Nobody cancelled a job that stopped because this machine does."""
        key = message.job_id, message.fence
        error = message.error
        ours = self._stopping and key not in self._told_to_stop
        if not ours or error is None or error.code != Cancelled.code:
            return message
        why = f"Holdfast on '{self.identity.name}' was stopped while the job was at work"
        return replace(message, error=WorkError(WorkerLost.code, why, WorkerLost.advice))

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Ask the master something.

        Raises:
            Unreachable: There is no session, or no answer in time.
            HoldfastError: What the master says is in the way.
        """
        number = next(self._numbers)
        found: dict[str, Any] = self._answer_to(number, sessions.Ask(number, order))
        return found

    def _fresh(self, job_id: int, fence: int) -> dict[str, Any]:
        return self.ask({"ask": "transfer", "job": job_id, "fence": fence})

    def _answer_to(self, number: int, message: Message) -> Any:
        loop, session = self._loop, self._open
        if loop is None or session is None:
            raise Unreachable("there is no session with the master", "it is being opened anew")
        waiting: Future[Any] = Future()
        with self._lock:
            self._waiting[number] = waiting
        try:
            asyncio.run_coroutine_threadsafe(_say(session.socket, message), loop)
            return waiting.result(session.welcome.heartbeat_s * sessions.HEARTBEATS_LOST)
        except (NoAnswer, RuntimeError) as error:
            raise Unreachable("the master does not answer in time") from error
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    # -- the session ----------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Hold the session, and open it anew whenever it breaks, until told to stop.

        Raises:
            NotAuthenticated: The site lets this machine in no more.
            Unsupported: The master speaks no version that this machine does.
        """
        self._loop = asyncio.get_running_loop()
        renewing = asyncio.create_task(self._keep_renewed())
        stopped = asyncio.create_task(stop.wait())
        try:
            holding = asyncio.create_task(self._hold())
            await asyncio.wait((holding, stopped), return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                await self._wind_up()
            else:
                self._out = True
            holding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await holding
        finally:
            self._out = True
            for one in (renewing, stopped):
                one.cancel()
            await asyncio.to_thread(self._hands.join, STOP_S)
            self._answering.shutdown(wait=False, cancel_futures=True)
            await asyncio.sleep(dialling.TLS_ENDS_S)

    async def _wind_up(self) -> None:
        """Stop what is at work, and tell the master of that as long as it hears."""
        self._stopping = True
        if self._hands.working:
            _LOG.info("stopping %d jobs", len(self._hands.working))
        await asyncio.to_thread(self._hands.join, STOP_S)

    async def _hold(self) -> None:
        wait_s = FIRST_WAIT_S
        told = ""
        number = 0
        while True:
            url = self._home.masters[number % len(self._home.masters)]
            number += 1
            began_s = asyncio.get_running_loop().time()
            try:
                await self._one(url)
            except (NotAuthenticated, Unsupported):
                raise
            except HoldfastError as error:
                if self._reopens:
                    self._reopens = False
                    continue
                if error.message != told:
                    _LOG.warning("%s; trying again", error.message)
                told = error.message
            if asyncio.get_running_loop().time() - began_s > STEADY_S:
                wait_s, told = FIRST_WAIT_S, ""
            # All machines of a site lose their session at the same moment when its master ends.
            await asyncio.sleep(wait_s * (0.5 + secrets.randbelow(1000) / 1000))
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    async def _one(self, url: str) -> None:
        """One session, to its end.

        Raises:
            HoldfastError: Why it ended, or was not opened.
        """
        try:
            async with aiohttp.ClientSession(timeout=dialling.timeout(None)) as http:
                async with asyncio.timeout(dialling.ANSWER_S):
                    socket = await self._dial(http, url)
                    welcome = await self._greet(socket, url)
                self._url = url
                self._open = _Open(socket, welcome)
                _LOG.info("joined to %s as '%s'", url, self.identity.name)
                beating = asyncio.create_task(self._beat(self._open))
                self._keep(asyncio.create_task(asyncio.to_thread(self._opened)))
                try:
                    await self._listen(self._open, url)
                finally:
                    beating.cancel()
                    self._lost(f"the session with {url} ended")
                    await socket.close()
        except aiohttp.ClientConnectorCertificateError as error:
            # Somebody else is there: the master may be so again, and has not sent us away.
            found = dialling.in_words(error, url)
            raise Unreachable(found.message, found.hint) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise dialling.in_words(error, url) from error

    async def _dial(self, http: aiohttp.ClientSession, url: str) -> _Socket:
        """Open the connection.

        A door that does not take our certificate says so in TLS 1.3 only after the handshake, and
        all that is seen here is that it hangs up. So does a master that is killed just then: that
        it hangs up twice, and answers who shows nothing, tells the one from the other.
        """
        try:
            return await self._connect(http, url)
        except (aiohttp.ServerDisconnectedError, ConnectionResetError) as error:
            who = self.identity
            await dialling.require_answer(http, url, first_context(who.authority_pem, who.site_id))
            try:
                return await self._connect(http, url)
            except (aiohttp.ServerDisconnectedError, ConnectionResetError):
                raise dialling.not_taken(url) from error

    async def _connect(self, http: aiohttp.ClientSession, url: str) -> _Socket:
        # A refusal is told in the body of the answer, which a WebSocket's client does not read.
        try:
            return await http.ws_connect(
                f"{url}/v1/session",
                ssl=self._context,
                autoping=True,
                max_msg_size=sessions.MAX_MESSAGE_BYTES,
            )
        except aiohttp.WSServerHandshakeError as refused:
            async with http.get(f"{url}/v1/session", ssl=self._context) as answer:
                raise error_of(answer.status, await dialling.body_of(answer)) from refused

    async def _greet(self, socket: _Socket, url: str) -> Welcome:
        who = self.identity
        here = socket.get_extra_info("sockname") or ()
        hello = sessions.Hello(
            protocols=self._protocols,
            software=f"holdfast {__version__}",
            role=who.role.value,
            name=who.name,
            boot_id=self._clock.mark().boot,
            working=self._hands.working[: sessions.MAX_WORKING],
            addresses=tuple(dict.fromkeys((*map(str, here[:1]), *self._addresses))),
            drives=_drives(),
            work=WORK_VERSION,
        )
        await _say(socket, hello)
        answer = await self._next(socket, url, dialling.ANSWER_S)
        if not isinstance(answer, sessions.Welcome):
            raise Unreachable(f"{url} does not answer as a master does")
        sessions.agree((answer.protocol, answer.protocol), self._protocols)
        return answer

    async def _beat(self, session: _Open) -> None:
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            while True:
                load = {**self._load(), "jobs": float(len(self._hands.working))}
                await _say(session.socket, sessions.Heartbeat(load))
                await asyncio.sleep(session.welcome.heartbeat_s)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _listen(self, session: _Open, url: str) -> None:
        patience_s = session.welcome.heartbeat_s * sessions.HEARTBEATS_LOST
        while True:
            message = await self._next(session.socket, url, patience_s)
            match message:
                case sessions.Offer():
                    self._hands.take(message)
                case sessions.Answered(number, answer, error):
                    self._settle(number, answer, error)
                case sessions.Report(number, report, error):
                    self._settle(number, report, error)
                case sessions.Ask():
                    self._keep(asyncio.create_task(self._report(session.socket, message)))
                case _:
                    continue

    async def _next(self, socket: _Socket, url: str, patience_s: float) -> Message | None:
        try:
            got = await socket.receive(patience_s)
        except TimeoutError as error:
            raise Unreachable(f"{url} has been silent for {patience_s:.0f} s") from error
        if got.type is aiohttp.WSMsgType.TEXT:
            return sessions.from_text(got.data)
        reason = str(got.extra or "")
        match socket.close_code:
            case Closed.REVOKED:
                self._out = True
                raise NotAuthenticated(
                    reason or f"{url} lets this machine in no more",
                    "join anew with a token that was made for its name: "
                    f"holdfast machine token --name {self.identity.name}",
                )
            case Closed.NOT_UNDERSTOOD:
                raise Unsupported(reason or f"{url} does not understand this Holdfast")
            case _:
                raise Unreachable(reason or f"{url} ended the session")

    def _settle(self, number: int, found: object, error: WorkError | None) -> None:
        with self._lock:
            waiting = self._waiting.get(number)
        if waiting is None or waiting.done():
            return
        if error is not None:
            waiting.set_exception(from_code(error.code, error.message, error.hint))
        elif found is None:
            waiting.set_exception(InternalError("the master answered nothing"))
        else:
            waiting.set_result(found)

    def _lost(self, why: str) -> None:
        self._open = None
        with self._lock:
            waiting = list(self._waiting.values())
        for one in waiting:
            if not one.done():
                one.set_exception(Unreachable(why))

    async def _report(self, socket: _Socket, asked: sessions.Ask) -> None:
        """Find something out, and tell it; a defect is told too."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._answering, find_out, asked.order, self._answers
            )
            report = sessions.Report(asked.id, found)
        except HoldfastError as error:
            told = WorkError(error.code, error.message, error.hint)
            report = sessions.Report(asked.id, None, told)
        except Exception as defect:  # noqa: BLE001 - it is told to who asked
            told = WorkError(InternalError.code, f"{type(defect).__name__}: {defect}", None)
            report = sessions.Report(asked.id, None, told)
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            await _say(socket, report)

    # -- certificates ---------------------------------------------------------------------

    async def _keep_renewed(self) -> None:
        while True:
            due, ends = joining.renewal_due(self._home.identity.certificate_pem)
            now = self._clock.now()
            if now >= due:
                try:
                    await self._renew()
                except HoldfastError as error:
                    left = "" if now < ends else "; it has ended"
                    _LOG.warning("the certificate could not be renewed%s: %s", left, error.message)
            await asyncio.sleep(
                RENEWAL_LOOK_S
                if now >= due
                else min(RENEWAL_LOOK_S, max((due - now).total_seconds(), 0.1))
            )

    async def _renew(self) -> None:
        failed: HoldfastError = ClockDoubtful("the certificate is to be renewed")
        for url in self._home.masters:
            try:
                pem = await joining.renew(url, self._home.identity)
            except HoldfastError as error:
                failed = error
                continue
            self._home = await asyncio.to_thread(machine_home.renewed, self._home, pem)
            # The site lets the certificate of the open session live until the next one is shown.
            use(self._context, self._home.identity)
            self._renewed(self._home.identity)
            _LOG.info("the certificate was renewed")
            session = self._open
            if session is not None:
                self._reopens = True
                await session.socket.close()
            return
        raise failed


async def _say(socket: _Socket, message: Message) -> None:
    await socket.send_str(sessions.to_text(message))


def _drives() -> tuple[str, ...]:
    try:
        return tuple(os.fsdecode(one) for one in local_drives())
    except (HoldfastError, OSError):
        return ()
