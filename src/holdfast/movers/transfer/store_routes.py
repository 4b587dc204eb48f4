"""Objects of a media server's own pools, for the master server of its site.

A media server owns the disk; the master reads and keeps the pool on it through these. Must not look
into objects, nor answer anybody but a master: every request's certificate is looked at before all
else. Invariants: a key that the engine would not use touches no disk; an object is put whole or not
at all; no body and no object is held in memory whole; a disk that stands still keeps nobody waiting
but those who want something of it; each refusal has a stable code and is told to the host.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aiohttp import web

from holdfast.base.errors import (
    HoldfastError,
    InputOutput,
    IntegrityError,
    InternalError,
    Invalid,
    ObjectMissing,
    TooLarge,
    WrongState,
    storage_error,
)
from holdfast.base.units import GIB, MIB
from holdfast.movers.transfer.answers import status_of, to_body
from holdfast.movers.transfer.bodies import expected, length, pieces, while_alive
from holdfast.movers.transfer.ports import TransferLimits
from holdfast.movers.transfer.refusals import Refusal
from holdfast.movers.transfer.store_changes import Changes
from holdfast.vault.backends.names import MAX_KEY_BYTES, is_key
from holdfast.wire.peer import name_shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Handler = Callable[["_Asked"], Awaitable[web.StreamResponse]]

T = TypeVar("T")

PREFIX = "/v1/store"
SIZE_HEADER, VERSION_HEADER = "Holdfast-Size", "Holdfast-Version"

PAGE = 2000
OBJECT_BYTES = 64 * GIB
READ_BYTES = 16 * MIB
"""The most that one answer has of an object."""

THREADS_A_POOL = 8
_PIECE_BYTES = MIB
_NUMBER = re.compile(r"[0-9]{1,18}")
_WRITER = re.compile(r"[0-9a-f]{32}")
_POOL = re.compile(r"[0-9a-f]{32}")
_BINARY = "application/octet-stream"
_LOG = logging.getLogger("holdfast.transfer")


class ObjectBeingRead(Protocol):
    """See `vault.backends.open_directory.OpenObject`."""

    @property
    def size_bytes(self) -> int:
        """How long it is."""
        ...

    @property
    def version(self) -> str:
        """Another text for each object under the key."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes."""
        ...

    def close(self) -> None:
        """Free it."""
        ...


class ObjectBeingPut(Protocol):
    """See `vault.backends.open_directory.StagedObject`."""

    def write(self, data: bytes) -> None:
        """Append."""
        ...

    def publish(self, key: str) -> None:
        """Put it."""
        ...

    def publish_if_absent(self, key: str) -> bool:
        """Put it unless the key is taken."""
        ...

    def is_same_as(self, key: str) -> bool:
        """Whether the object of this key has the same bytes."""
        ...

    def discard(self) -> None:
        """Give it up, unless it was published."""
        ...


class ServedStore(Protocol):
    """A store as it is served: see `vault.backends.open_directory.OpenDirectory`."""

    def require_there(self) -> None:
        """Raise if all of it is gone."""
        ...

    def open(self, key: str) -> ObjectBeingRead:
        """Open an object."""
        ...

    def stage(self) -> ObjectBeingPut:
        """Begin an object."""
        ...

    def size(self, key: str) -> int | None:
        """How long one is."""
        ...

    def delete(self, key: str) -> None:
        """Remove one."""
        ...

    def page(self, prefix: str, after: str | None, count: int) -> list[tuple[str, int]]:
        """Some of them."""
        ...


@dataclass(frozen=True, slots=True)
class StoreHost:
    """What the routes are given by whoever serves them.

    Attributes:
        master: The name of the master that sent a request; raises if it was anybody else. Must not
            block.
        store: The store of a pool; raises if this media server has none, or not now.
        refused: Is told of each request that was refused. Must not block.
        limits: How long bodies are waited for.
    """

    master: Callable[[web.Request], str]
    store: Callable[[str], ServedStore]
    refused: Callable[[Refusal], None]
    limits: TransferLimits = field(default_factory=TransferLimits)


def add_store_routes(app: web.Application, host: StoreHost) -> StoreServer:
    """Serve stores in an application; its clean-up is hooked in."""
    server = StoreServer(host)
    routes: tuple[tuple[str, str, Handler], ...] = (
        ("GET", "/object", server.get),
        ("PUT", "/object", server.put),
        ("DELETE", "/object", server.delete),
        ("GET", "/size", server.size),
        ("GET", "/list", server.list),
    )
    for method, path, handler in routes:
        app.router.add_route(
            method, f"{PREFIX}/{{pool}}{path}", server.guarded(handler), expect_handler=expected
        )
    app.cleanup_ctx.append(server.at_work)
    return server


class StoreServer:
    """The routes, and what they share. Belongs to one event loop."""

    def __init__(self, host: StoreHost) -> None:
        self._host = host
        self._changes = Changes()
        self._threads: dict[str, ThreadPoolExecutor] = {}

    async def at_work(self, _app: web.Application) -> AsyncIterator[None]:
        """Let threads go when the application ends."""
        yield
        for one in self._threads.values():
            one.shutdown(wait=False)

    def guarded(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A handler behind the check of the certificate, with errors as answers."""

        async def guard(request: web.Request) -> web.StreamResponse:
            peer = name_shown(request.transport)
            try:
                peer = self._host.master(request)
                return await handler(self._asked(request))
            except HoldfastError as error:
                return self._refusal(peer, request.remote or "", error)
            except (ConnectionError, web.RequestPayloadError) as error:
                raise ConnectionResetError("the master is gone") from error
            except Exception:  # noqa: BLE001 - it is told, as every other error is
                _LOG.exception("%s %s of %s failed", request.method, request.path, peer)
                return self._refusal(peer, "", InternalError("the media server failed"))

        return guard

    async def get(self, asked: _Asked) -> web.StreamResponse:
        """Hand out an object, or a part of it: as much as one answer has at most."""
        key = asked.key()
        offset, size_bytes = asked.number("offset", 0), asked.maybe_number("length")
        if size_bytes is not None and size_bytes > READ_BYTES:
            raise TooLarge(f"{size_bytes} bytes are wanted at once, of at most {READ_BYTES}")
        version = asked.request.query.get("version")
        found, first, wanted = await asked.alive(
            _begin, asked.store, key, version, offset, size_bytes
        )
        try:
            return await self._send(asked, found, first, offset, wanted)
        finally:
            if len(first) < wanted:
                await asked.in_thread(found.close)

    async def _send(
        self, asked: _Asked, found: ObjectBeingRead, piece: bytes, offset: int, wanted: int
    ) -> web.StreamResponse:
        end = offset + wanted
        answer = web.StreamResponse(headers={"Content-Type": _BINARY})
        answer.headers[SIZE_HEADER] = str(found.size_bytes)
        answer.headers[VERSION_HEADER] = found.version
        answer.content_length = wanted
        await answer.prepare(asked.request)
        while True:
            try:
                async with asyncio.timeout(self._host.limits.gap_s):
                    await answer.write(piece)
            except TimeoutError as error:
                # Nothing can be said any more: the answer has begun.
                raise ConnectionResetError("the master stopped reading") from error
            offset += len(piece)
            if offset == end:
                break
            try:
                piece = await asked.in_thread(found.read, offset, min(_PIECE_BYTES, end - offset))
            except HoldfastError as error:
                _LOG.error("an object could not be read to its end: %s", error.message)
                raise ConnectionResetError("the answer can't be ended") from error
        await answer.write_eof()
        return answer

    async def put(self, asked: _Asked) -> web.Response:
        """Take an object in."""
        key, seq, of = asked.key(), asked.number("seq"), asked.change()
        absent, again = asked.flag("absent"), asked.flag("again")
        length(asked.request, OBJECT_BYTES)
        staged = await asked.alive(asked.store.stage)
        try:
            await self._fill(asked, staged)
            async with self._changes.turn(of, seq) as turn:
                if turn.made is None:
                    publish = staged.publish_if_absent if absent else staged.publish
                    made = await asked.alive(publish, key)
                    if made is False and again:
                        # It may be this very change that a server made which is no more.
                        made = await asked.alive(staged.is_same_as, key)
                    turn.made = made is not False
                return web.json_response({"made": turn.made})
        finally:
            await asked.in_thread(staged.discard)

    async def _fill(self, asked: _Asked, staged: ObjectBeingPut) -> None:
        coming = pieces(asked.request, OBJECT_BYTES, self._host.limits)
        async for piece in coming:
            try:
                await asked.alive(staged.write, piece)
            except HoldfastError:
                # Who is still sending would not hear why.
                async for _ in coming:
                    continue
                raise

    async def delete(self, asked: _Asked) -> web.Response:
        """Remove an object."""
        key, seq, of = asked.key(), asked.number("seq"), asked.change()
        async with self._changes.turn(of, seq) as turn:
            if turn.made is None:
                await asked.alive(asked.store.delete, key)
                turn.made = True
        return web.Response(status=204)

    async def size(self, asked: _Asked) -> web.Response:
        """Tell how long an object is."""
        found = await asked.alive(asked.store.size, asked.key())
        if found is None:
            await asked.alive(asked.store.require_there)
        return web.json_response({"size": found})

    async def list(self, asked: _Asked) -> web.Response:
        """Name objects, a page at a time."""
        query = asked.request.query
        prefix, after = query.get("prefix", ""), query.get("after")
        if prefix and not (prefix.endswith("/") and is_key(prefix[:-1])):
            raise Invalid(f"{prefix[:80]!r} is not a prefix of keys")
        if after is not None and not (is_key(after) and after.startswith(prefix)):
            raise Invalid(f"{after[:80]!r} is no key under {prefix!r}")
        found = await asked.alive(asked.store.page, prefix, after, PAGE)
        if not found:
            await asked.alive(asked.store.require_there)
        return web.json_response({"objects": found, "more": len(found) == PAGE})

    def _asked(self, request: web.Request) -> _Asked:
        pool = request.match_info["pool"]
        if not _POOL.fullmatch(pool):
            raise Invalid(f"{pool[:64]!r} is no id of a pool")
        store = self._host.store(pool)
        threads = self._threads.get(pool)
        if threads is None:
            threads = ThreadPoolExecutor(THREADS_A_POOL, f"store-{pool[:8]}")
            self._threads[pool] = threads
        return _Asked(request, pool, store, threads, self._host.limits)

    def _refusal(self, peer: str, address: str, error: HoldfastError) -> web.Response:
        status = status_of(error)
        if status < 500 and not isinstance(error, ObjectMissing):
            self._host.refused(Refusal(peer, address, error.code, error.message))
        answer = web.Response(status=status, body=to_body(error), content_type="application/json")
        if not isinstance(error, ObjectMissing):
            # What of the body did not come yet is not waited for.
            answer.force_close()
        return answer


def _begin(
    store: ServedStore, key: str, version: str | None, offset: int, wanted: int | None
) -> tuple[ObjectBeingRead, bytes, int]:
    """Open an object and read the first piece of what is wanted; closed if that is all.

    Returns:
        The object, the piece, and how much of it is wanted.

    Raises:
        WrongState: It is another one than that of the version.
        IntegrityError: There is not as much.
    """
    found = store.open(key)
    piece: bytes | None = None
    try:
        if version not in (None, found.version):
            raise WrongState(f"another object was put at '{key}'")
        if wanted is None:
            wanted = min(READ_BYTES, max(0, found.size_bytes - offset))
        if offset + wanted > found.size_bytes:
            raise IntegrityError(
                f"'{key}' is too short: it has {found.size_bytes} bytes, wanted were {wanted} at "
                f"{offset}"
            )
        piece = found.read(offset, min(_PIECE_BYTES, wanted))
        return found, piece, wanted
    finally:
        if piece is None or len(piece) == wanted:
            found.close()


class _Asked:
    """One request of a master."""

    def __init__(
        self,
        request: web.Request,
        pool: str,
        store: ServedStore,
        threads: ThreadPoolExecutor,
        limits: TransferLimits,
    ) -> None:
        self.request = request
        self.store = store
        self._pool = pool
        self._threads = threads
        self._limits = limits

    def key(self) -> str:
        """The object that it is about.

        Raises:
            Invalid: None can have that key.
        """
        key = self.request.query.get("key", "")
        if not is_key(key):
            raise Invalid(f"{key[:80]!r} can't be the key of an object, of {MAX_KEY_BYTES} bytes")
        return key

    def change(self) -> tuple[str, str, str]:
        """Whose change of what it is."""
        writer = self.request.query.get("writer", "")
        if not _WRITER.fullmatch(writer):
            raise Invalid("a change says who makes it: 32 digits, a to f among them")
        return self._pool, writer, self.key()

    def flag(self, name: str) -> bool:
        """Whether it says so."""
        given = self.request.query.get(name, "0")
        if given not in ("0", "1"):
            raise Invalid(f"'{name}' is neither 0 nor 1")
        return given == "1"

    def number(self, name: str, default: int | None = None) -> int:
        """A number of it."""
        found = self.maybe_number(name)
        if found is None:
            found = default
        if found is None:
            raise Invalid(f"the request does not say its '{name}'")
        return found

    def maybe_number(self, name: str) -> int | None:
        """A number of it, if it says one."""
        text = self.request.query.get(name)
        if text is None:
            return None
        if not _NUMBER.fullmatch(text):
            raise Invalid(f"'{name}' is no number")
        return int(text)

    async def alive(self, call: Callable[..., T], *given: Any) -> T:
        """Have the disk do something, and the client know that it is worked on."""
        return await while_alive(
            self.request, self.in_thread(call, *given), self._limits.sign_of_life_s
        )

    async def in_thread(self, call: Callable[..., T], *given: Any) -> T:
        """Have the disk do something."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._told, call, *given)

    def _told(self, call: Callable[..., T], *given: Any) -> T:
        """Do it, with the errors of the system in words."""
        try:
            return call(*given)
        except FileNotFoundError as error:
            if call is not _begin:
                raise InputOutput(f"the directory of pool {self._pool} is not whole") from error
            self._require_there()
            raise ObjectMissing(f"'{self.key()}' is not there") from error
        except OSError as error:
            raise self._in_words(error) from error

    def _require_there(self) -> None:
        try:
            self.store.require_there()
        except OSError as error:
            raise self._in_words(error) from error

    def _in_words(self, error: OSError) -> HoldfastError:
        why = error.strerror or str(error)
        if error.errno == errno.EBADMSG:
            return IntegrityError(f"an object of pool {self._pool} is too short: {why}")
        return storage_error(error)(f"the disk of pool {self._pool} fails: {why}")
