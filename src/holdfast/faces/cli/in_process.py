"""Speak HTTP to an ASGI application in this process, without a socket.

Must not know what is spoken. Invariants: a response's body comes as it is made, so one that never
ends can be read too; what the application raises, whoever asked gets; when the transport is closed,
no thread of it is left.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

    Message = MutableMapping[str, Any]
    App = Callable[
        [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
        Awaitable[None],
    ]

_AHEAD = 16


class InProcess(httpx.BaseTransport):
    """Hands requests to an application that runs in a thread of its own.

    Thread-safe.
    """

    def __init__(self, app: App, state: MutableMapping[str, Any]) -> None:
        """Start.

        Args:
            app: The application.
            state: What every request's ``scope["state"]`` begins with.
        """
        self._app = app
        self._state = state
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="api-in-process")
        self._thread.start()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        exchange = Exchange(self._loop, request.read())
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": request.url.raw_path.partition(b"?")[0],
            "query_string": request.url.query,
            "root_path": "",
            "server": None,
            "client": None,
            "state": dict(self._state),
        }
        status, headers = exchange.begin(self._app, scope)
        return httpx.Response(status, headers=headers, stream=exchange)

    def close(self) -> None:
        """Stop, and wait until that is done."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            pending = asyncio.all_tasks(self._loop)
            for task in pending:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()


class Exchange(httpx.SyncByteStream):
    """One request and its response: the application fills it, whoever asked reads it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, body: bytes) -> None:
        self._loop = loop
        self._body: bytes | None = body
        self._said: queue.SimpleQueue[Message | BaseException | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(_AHEAD)
        self._gone = asyncio.Event()
        self._early: list[Message] = []
        self._running: concurrent.futures.Future[None] | None = None

    def begin(self, app: App, scope: Message) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Ask the application, and wait for the head of its response.

        Raises:
            Exception: What the application raised.
        """
        self._running = asyncio.run_coroutine_threadsafe(self._run(app, scope), self._loop)
        head = self._next()
        if head is None:
            raise httpx.RemoteProtocolError("the application did not answer")
        if head["status"] == HTTPStatus.INTERNAL_SERVER_ERROR:
            # A defect is answered, then raised: here it is better raised.
            self._early = list(iter(self._next, None))
        return head["status"], [*head["headers"]]

    def __iter__(self) -> Iterator[bytes]:
        """The body, as it comes."""
        yield from (message.get("body", b"") for message in self._early)
        if not self._early:
            for message in iter(self._next, None):
                yield message.get("body", b"")

    def close(self) -> None:
        """Let the application know that nobody reads any more."""
        if self._running is not None and not self._running.done():
            self._loop.call_soon_threadsafe(self._gone.set)
            self._running.cancel()

    def _next(self) -> Message | None:
        said = self._said.get()
        if isinstance(said, BaseException):
            raise said
        if said is not None:
            self._loop.call_soon_threadsafe(self._room.release)
        return said

    async def _run(self, app: App, scope: Message) -> None:
        try:
            await app(scope, self._receive, self._send)
        except BaseException as error:
            self._said.put(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._said.put(None)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self._room.acquire()
        self._said.put(message)
