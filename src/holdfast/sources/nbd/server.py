"""An NBD server, read-only, of whatever can be read at an offset: disks in images of a pool.

Must not know what it shows, nor write to it. What answers by itself is handed the socket once an
export was agreed on. Invariants: clients, their requests and the bytes that
are under way are bounded, so that no client takes what others need; one that says what it must not,
or does not take its answers, is left; nothing stays when it is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from holdfast.base.errors import HoldfastError, storage_error
from holdfast.sources.nbd.answers import Answers, Budget
from holdfast.sources.nbd.offers import Answering, offer
from holdfast.sources.nbd.peer import Gone, Peer
from holdfast.sources.nbd.wire import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from holdfast.sources.nbd.offers import Agreed, Readable

CLIENTS = 64
"""At once; the next is turned away."""
HANDSHAKE_S = 30.0
"""How long a client may take until it has an export."""
BYTES = 512 * 1024 * 1024
"""Of all clients together, in answers that are under way."""
WORKERS = 4
"""Threads that read."""


def _nobody_asks(_name: str, _error: Exception) -> None:
    pass


class NbdServer:
    """A server on one socket. To be used in one event loop."""

    def __init__(
        self,
        exports: Mapping[str, Readable],
        *,
        workers: int = WORKERS,
        clients: int = CLIENTS,
        handshake_s: float = HANDSHAKE_S,
        troubled: Callable[[str, Exception], None] = _nobody_asks,
        admits: Callable[[], bool] = lambda: True,
    ) -> None:
        """Nobody is served before `start`.

        Args:
            exports: What is shown, by name. A client that names none gets the only one there is.
            workers: Threads that read.
            clients: How many at once.
            handshake_s: How long a client may take until it has an export.
            troubled: Told of what could not be read: the export, and why; called in the loop.
            admits: Whether a client may come in now; called in the loop.
        """
        self._exports = dict(exports)
        self._clients = clients
        self._handshake_s = handshake_s
        self._troubled = troubled
        self._admits = admits
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="nbd")
        self._answering = ThreadPoolExecutor(clients, thread_name_prefix="nbd-client")
        self._bytes = Budget(BYTES)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None

    async def start(self, address: Address) -> Address:
        """Listen.

        Args:
            address: Where: a path that is not there yet, reached by this user alone; or a host and
                a port, which may be 0 for any.

        Returns:
            The same, with the port that it is.

        Raises:
            NoPermission, InputOutput: That can't be listened at.
        """
        try:
            self._listening = _listen(address)
        except OSError as error:
            raise storage_error(error)(
                f"no NBD server can listen for {address}: {error.strerror or error}"
            ) from error
        loop = asyncio.get_running_loop()
        loop.add_reader(self._listening, self._accept, self._listening)
        if address.path is not None:
            return address
        return Address(host=address.host, port=self._listening.getsockname()[1])

    async def close(self) -> None:
        """Leave all clients, and let what is being read come to its end."""
        if self._pause is not None:
            self._pause.cancel()
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._answering.shutdown)

    def _accept(self, listening: socket.socket) -> None:
        """Take the next client. No coroutine: what it took would be lost if it were cancelled."""
        loop = asyncio.get_running_loop()
        try:
            connected, _ = listening.accept()
        except BlockingIOError:
            return
        except OSError:
            # Too many files are open, most likely: who waits is served when some are closed.
            loop.remove_reader(listening)
            self._pause = loop.call_later(0.1, loop.add_reader, listening, self._accept, listening)
            return
        connected.setblocking(False)
        if len(self._tasks) >= self._clients or not self._admits():
            connected.close()
            return
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(connected)
        task = loop.create_task(self._serve(peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Whatever becomes of the task, and even if it never begins.
        task.add_done_callback(peer.left)

    async def _serve(self, peer: Peer) -> None:
        with contextlib.suppress(Gone, TimeoutError):
            async with asyncio.timeout(self._handshake_s):
                agreed = await offer(peer, self._exports)
            if agreed is not None and isinstance(agreed.disk, Answering):
                await self._hand_over(peer, agreed, agreed.disk)
            elif agreed is not None:
                answers = Answers(peer, agreed, self._threads, self._bytes, self._troubled)
                try:
                    await answers.run()
                except BaseExceptionGroup as group:
                    # Several requests find out at once that their client has left.
                    _, others = group.split(Gone)
                    if others is not None:
                        raise others from group

    async def _hand_over(self, peer: Peer, agreed: Agreed, disk: Answering) -> None:
        loop = asyncio.get_running_loop()
        fd, begun = peer.handed_over()

        def troubled(error: Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to tell
                loop.call_soon_threadsafe(self._troubled, agreed.name, error)

        def answer() -> None:
            with contextlib.suppress(HoldfastError):  # the socket can't be used: it has left
                disk.serve_nbd(
                    fd,
                    begun,
                    structured=agreed.structured,
                    allocation=agreed.allocation,
                    troubled=troubled,
                )

        answered = loop.run_in_executor(self._answering, answer)
        try:
            await asyncio.shield(answered)
        except asyncio.CancelledError:
            peer.hang_up()
            await asyncio.wait([answered])
            raise


@contextlib.contextmanager
def shown(
    exports: Mapping[str, Readable],
    address: Address,
    *,
    workers: int = WORKERS,
    clients: int = CLIENTS,
    handshake_s: float = HANDSHAKE_S,
    troubled: Callable[[str, Exception], None] = _nobody_asks,
    admits: Callable[[], bool] = lambda: True,
) -> Iterator[Address]:
    """Have a server in a thread of its own, for the time of the block.

    Args:
        exports: As `NbdServer` takes them, with what follows.
        address: As `NbdServer.start` takes it.
        workers: Threads that read.
        clients: How many at once.
        handshake_s: How long a client may take until it has an export.
        troubled: Told of what could not be read; called in the server's thread.
        admits: Whether a client may come in now; called in the server's thread.

    Raises:
        NoPermission, InputOutput: It can't listen there.
    """
    began = threading.Event()
    outcome: list[Address | BaseException] = []
    end: list[Callable[[], object]] = []

    async def serve() -> None:
        server = NbdServer(
            exports,
            workers=workers,
            clients=clients,
            handshake_s=handshake_s,
            troubled=troubled,
            admits=admits,
        )
        loop, finish = asyncio.get_running_loop(), asyncio.Event()
        try:
            outcome.append(await server.start(address))
            end.append(lambda: loop.call_soon_threadsafe(finish.set))
            began.set()
            await finish.wait()
        finally:
            await server.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - it is raised where the server was wanted
            outcome.append(error)
        finally:
            began.set()

    thread = threading.Thread(target=run, name="nbd-server")
    thread.start()
    began.wait()
    try:
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        yield outcome[0]
    finally:
        for stop in end:
            stop()
        thread.join()
        if address.path is not None and end:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address.path)


def _listen(address: Address) -> socket.socket:
    if address.path is None:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        made = socket.create_server((address.host, address.port), family=family)
    else:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Before it has a name, so that nobody else reaches it at any moment.
            os.fchmod(made.fileno(), 0o600)
            made.bind(address.path)
            made.listen(128)
        except BaseException:
            made.close()
            raise
    made.setblocking(False)
    return made
