"""The sessions that machines hold, for the threads of the master.

Must not judge who may have one: see `door`. Invariants: a machine has one session at most, the one
that was opened last; a question is answered, or ends with its time or its session.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import HoldfastError, Unreachable, Unsupported, from_code
from holdfast.wire import sessions
from holdfast.wire.messages import WorkError
from holdfast.wire.sessions import Closed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiohttp import web

    from holdfast.base.ids import ClientName
    from holdfast.wire.identity import Peer
    from holdfast.wire.sessions import Hello, Message, Offer

SEND_S = 10.0

_LOG = logging.getLogger("holdfast.machines")


class Session:
    """One machine's session. Thread-safe, but for `say`.

    Attributes:
        peer: Who it is.
        hello: What it said first.
        protocol: The version that is spoken.
        load: What it said last of how busy it is.
        limit: How many bytes a second it was told to move at most, None if as many as it can;
            -1 while it was told nothing in this session.
        limiting: Held while it is told.
    """

    def __init__(
        self,
        peer: Peer,
        hello: Hello,
        protocol: int,
        socket: web.WebSocketResponse,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.peer = peer
        self.hello = hello
        self.protocol = protocol
        self.load: dict[str, float] = {}
        self.limit: int | None = -1
        self.limiting = threading.Lock()
        self._socket = socket
        self._loop = loop
        self._lock = threading.Lock()
        self._numbers = iter(range(1, 2**62))
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._over: str | None = None

    async def say(self, message: Message) -> None:
        """Send a message; from the loop that the session belongs to."""
        await self._socket.send_str(sessions.to_text(message))

    def send(self, message: Message) -> None:
        """Send a message, from any other thread.

        Raises:
            Unreachable: The machine does not take it.
        """
        if self._over is not None:
            raise Unreachable(self._over)
        sending = asyncio.run_coroutine_threadsafe(self.say(message), self._loop)
        try:
            sending.result(SEND_S)
        except (NoAnswer, OSError, RuntimeError) as error:
            sending.cancel()
            raise Unreachable(f"machine '{self.peer.name}' takes no message") from error

    def ask(self, order: dict[str, Any], within_s: float) -> dict[str, Any]:
        """Have the machine find something out, from any other thread.

        Raises:
            Unreachable: It does not answer in time.
            HoldfastError: What it says is in the way.
        """
        waiting: Future[dict[str, Any]] = Future()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = waiting
        try:
            self.send(sessions.Ask(number, order))
            return waiting.result(within_s)
        except NoAnswer as error:
            raise Unreachable(
                f"machine '{self.peer.name}' gave no answer within {within_s:.0f} s"
            ) from error
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    def reported(self, report: sessions.Report) -> None:
        """Take an answer to what was asked."""
        with self._lock:
            waiting = self._waiting.get(report.id)
        if waiting is None or waiting.done():
            return
        if report.error is not None:
            told = report.error
            waiting.set_exception(from_code(told.code, told.message, told.hint))
        else:
            waiting.set_result(report.report or {})

    def close(self, code: Closed, why: str) -> None:
        """End it, from any thread."""
        self.ended(why)
        with contextlib.suppress(RuntimeError):
            asyncio.run_coroutine_threadsafe(self.shut(code, why), self._loop)

    async def shut(self, code: Closed, why: str) -> None:
        """End it, from the loop that it belongs to."""
        self.ended(why)
        # A reason has 123 bytes at most (RFC 6455, 5.5).
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self._socket.close(code=code, message=why.encode()[:120], drain=False)

    def ended(self, why: str) -> None:
        """Nothing is said here any more."""
        self._over = why
        with self._lock:
            waiting = list(self._waiting.values())
        for one in waiting:
            if not one.done():
                one.set_exception(Unreachable(why))


class Sessions:
    """All sessions of a master. Thread-safe."""

    def __init__(self, news: Callable[[], None]) -> None:
        """Nobody is there.

        Args:
            news: Called when a machine comes or goes.
        """
        self._news = news
        self._lock = threading.Lock()
        self._open: dict[ClientName, Session] = {}

    @property
    def names(self) -> frozenset[ClientName]:
        """The machines that are there."""
        with self._lock:
            return frozenset(self._open)

    def all(self) -> list[Session]:
        """Every session."""
        with self._lock:
            return list(self._open.values())

    def get(self, name: ClientName) -> Session | None:
        """The session of a machine, if it has one."""
        with self._lock:
            return self._open.get(name)

    def opened(self, session: Session) -> None:
        """Take a session in; one that its machine had before ends."""
        name = session.peer.name
        with self._lock:
            before = self._open.get(name)
            self._open[name] = session
        if before is not None:
            same = before.hello.boot_id == session.hello.boot_id
            _LOG.info(
                "machine '%s' opened another session%s",
                name,
                "" if same else "; it was started anew, or its key is in use on two machines",
            )
            before.close(Closed.REPLACED, "this machine opened another session")
        self._news()

    def closed(self, session: Session) -> bool:
        """Let a session go; whether it was its machine's last."""
        with self._lock:
            last = self._open.get(session.peer.name) is session
            if last:
                del self._open[session.peer.name]
        session.ended(f"machine '{session.peer.name}' is not connected")
        if last:
            self._news()
        return last

    def offer(self, name: ClientName, offer: Offer) -> None:
        """Give a machine a job.

        Raises:
            Unreachable: It is not there, or takes nothing.
            Unsupported: It does not know work of that kind.
        """
        session = self._there(name)
        if offer.offer.work.to_json()["version"] > session.hello.work:
            raise Unsupported(
                f"job {offer.offer.job_id} can't be done by '{name}': what runs there, "
                f"{session.hello.software}, does not know such work",
                f"update Holdfast on '{name}'",
            )
        session.send(offer)

    def ask(self, name: ClientName, order: dict[str, Any], within_s: float) -> dict[str, Any]:
        """Have a machine find something out.

        Raises:
            Unreachable: It is not there, or does not answer.
            HoldfastError: What it says is in the way.
        """
        return self._there(name).ask(order, within_s)

    def close_all(self, code: Closed, why: str, some: Iterable[Session] | None = None) -> None:
        """End sessions: some, or all."""
        for one in self.all() if some is None else some:
            one.close(code, why)

    def _there(self, name: ClientName) -> Session:
        found = self.get(name)
        if found is None:
            raise Unreachable(
                f"machine '{name}' is not connected",
                "see there that it runs: systemctl status 'holdfast*'",
            )
        return found


def told(error: HoldfastError) -> WorkError:
    """An error as it travels."""
    return WorkError(error.code, error.message, error.hint)
