"""The media server's half of the data path: routes that take backups in and give chunks out.

An image of another pool of the site is taken in over the same routes, and adopted as it is.

Must not trust anything but the peer's certificate and the master's token, nor look into blocks:
the engine verifies those. Invariants: nothing is done for a request before its token was found to
be this peer's, in time, for this pool and this verb, which is one for machines of its role; memory
for bodies is bounded, in all and for each client; each refusal has a stable code and is told to
the host.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from holdfast.base.errors import (
    Fenced,
    Forbidden,
    HoldfastError,
    ImageMissing,
    InternalError,
    Invalid,
    NotAuthenticated,
    TooLarge,
)
from holdfast.movers.transfer.answers import status_of, to_body
from holdfast.movers.transfer.bodies import expected, length, read_body, while_alive
from holdfast.movers.transfer.budget import ByteBudget
from holdfast.movers.transfer.link_rates import LinkRates
from holdfast.movers.transfer.refusals import Refusal
from holdfast.movers.transfer.uploads import Upload, Uploads
from holdfast.wire.identity import MachineRole
from holdfast.wire.peer import name_shown
from holdfast.wire.transfer_tokens import (
    BACKUP,
    LONGEST,
    REPLICATE,
    RESTORE,
    TokenReader,
    TransferGrant,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from holdfast.movers.transfer.ports import Receiver, TransferHost
    from holdfast.wire.identity import Peer

    Handler = Callable[[web.Request, TransferGrant], Awaitable[web.StreamResponse]]

T = TypeVar("T")

PREFIX = "/v1/transfer"

RUNNER_OPTIONS: dict[str, Any] = {
    "max_field_size": LONGEST + 1024,
    "read_bufsize": 1 << 20,
    "access_log": None,
}
"""What an `aiohttp.web.AppRunner` of an application with these routes needs to be given: tokens
are long, and small pieces of a body cost twice as much as large ones."""

NAME_BYTES = 32
WANTED_BYTES = 37
"""Name, u32 length, u8 kind: see docs/formats/transfer.md."""

ROLES = {
    BACKUP: frozenset({MachineRole.AGENT}),
    RESTORE: frozenset({MachineRole.AGENT}),
    REPLICATE: frozenset({MachineRole.MEDIA, MachineRole.MASTER}),
}
"""As what a machine has to be known to the site, to do what its token is for."""

OPENING_BYTES = 4096
_BRINGING = frozenset({BACKUP, REPLICATE})
_PIECE_BYTES = 1 << 20
_ATTEMPT = re.compile(r"[0-9A-Za-z_-]{1,64}")
_NUMBER = re.compile(r"[0-9]{1,15}")
_BINARY = "application/octet-stream"
_LOG = logging.getLogger("holdfast.transfer")


def add_routes(app: web.Application, host: TransferHost) -> TransferServer:
    """Serve the data path in an application; its start and clean-up are hooked in."""
    server = TransferServer(host)
    routes: tuple[tuple[str, str, Handler, frozenset[str] | None], ...] = (
        ("POST", "/uploads", server.open_upload, _BRINGING),
        ("POST", "/uploads/{upload}/missing", server.missing, _BRINGING),
        ("POST", "/uploads/{upload}/blocks", server.blocks, _BRINGING),
        ("POST", "/uploads/{upload}/commit", server.commit, _BRINGING),
        ("DELETE", "/uploads/{upload}", server.abandon, _BRINGING),
        ("GET", "/terms", server.terms, None),
        ("POST", "/read", server.read, None),
        ("GET", "/images/{image}", server.image, None),
    )
    for method, path, handler, verbs in routes:
        app.router.add_route(
            method, PREFIX + path, server.guarded(handler, verbs), expect_handler=expected
        )
    app.cleanup_ctx.append(server.at_work)
    return server


class TransferServer:
    """The routes, and what they share."""

    def __init__(self, host: TransferHost) -> None:
        self._host = host
        self._limits = host.limits
        self._budget = ByteBudget(
            host.limits.memory_bytes, host.limits.client_memory_bytes, host.limits.client_bodies
        )
        # Two kinds, so that a full pipeline of one backup keeps nobody's small question waiting.
        self._takes = ThreadPoolExecutor(host.limits.threads, "transfer-take")
        self._asks = ThreadPoolExecutor(host.limits.threads, "transfer-ask")
        self._tokens = TokenReader(host.key)
        self.uploads = Uploads(host, self._ask)
        self._rates = LinkRates(host.now_s)

    async def at_work(self, _app: web.Application) -> AsyncIterator[None]:
        """Look after leases while the application runs; abandon what is left at its end."""
        sweeping = asyncio.create_task(self._sweep())
        yield
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping
        await self.uploads.close()
        self._takes.shutdown(wait=False)
        self._asks.shutdown(wait=False)

    def guarded(
        self, handler: Handler, verbs: frozenset[str] | None
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A handler behind the check of certificate and token, with errors as answers."""

        async def guard(request: web.Request) -> web.StreamResponse:
            name, job = name_shown(request.transport), None
            try:
                peer = self._host.peer(request)
                name = peer.name
                grant = self._grant(request)
                job = grant.job
                _require(grant, peer, verbs)
                return await handler(request, grant)
            except HoldfastError as error:
                refusal = Refusal(name, request.remote or "", error.code, error.message, job)
                return await self._refusal(refusal, error)
            except (ConnectionError, web.RequestPayloadError) as error:
                raise ConnectionResetError("the client is gone") from error
            except Exception:  # noqa: BLE001 - it is told, as every other error is
                _LOG.exception("%s %s of %s failed", request.method, request.path, name)
                return _answer(InternalError("the media server failed"))

        return guard

    async def open_upload(self, request: web.Request, grant: TransferGrant) -> web.Response:
        """Begin an upload."""
        read_all, attempt = _opening(await read_body(request, OPENING_BYTES, self._limits))
        pool = self._host.pool(grant.pool)
        # The master is asked, and a large pool looked through: that may take long.
        upload = await self._alive(request, self.uploads.open(grant, attempt, pool))
        parent = None
        if grant.brought is not None:
            parent = await self._alive(request, self._ask(_vouched, upload.receiver, grant))
        elif grant.parent is not None and not read_all:
            # One that is gone costs time and no data: everything is read.
            with suppress(ImageMissing):
                parent = await self._alive(request, self._ask(pool.manifest, grant.parent))
        said = {
            "upload": upload.id,
            "terms": _base64(upload.receiver.terms),
            "parent": None if parent is None else _base64(parent),
            "compresses": True,
            "awaits": True,
        }
        return web.json_response(said)

    async def missing(self, request: web.Request, grant: TransferGrant) -> web.Response:
        """Say which chunks the pool lacks."""
        upload = self.uploads.get(request.match_info["upload"], grant)
        size_bytes = length(request, self._limits.names_bytes)
        if size_bytes % NAME_BYTES:
            raise Invalid(f"{size_bytes} bytes are no list of names of {NAME_BYTES} bytes each")
        async with self._at(upload), self._room(grant, size_bytes):
            names = await read_body(request, self._limits.names_bytes, self._limits)
            bitmap = await self._alive(request, self._ask(upload.receiver.missing, names))
        return web.Response(body=bitmap, content_type=_BINARY)

    async def blocks(self, request: web.Request, grant: TransferGrant) -> web.Response:
        """Take a body of blocks in."""
        upload = self.uploads.get(request.match_info["upload"], grant)
        seq = _seq(request)
        upload.taken.require_near(seq)
        size_bytes = length(request, self._limits.body_bytes)
        if seq in upload.taken:
            return web.Response(status=204)
        async with self._at(upload), self._room(grant, size_bytes):
            body = await read_body(request, self._limits.body_bytes, self._limits)
            # It may have been given up while its body was on its way.
            self.uploads.get(upload.id, grant)
            await self._alive(request, upload.take(seq, body, self._take))
        return web.Response(status=204)

    async def commit(self, request: web.Request, grant: TransferGrant) -> web.Response:
        """Make an image of what was taken in."""
        upload = self.uploads.get(request.match_info["upload"], grant)
        size_bytes = length(request, self._limits.draft_bytes)
        if (after := _after(request)) > 0:
            # Not as one at work: who brings nothing for the time of the lease is given up.
            await self._alive(request, upload.wait_for(after, self._limits.lease_s))
        async with self._at(upload), self._room(grant, size_bytes):
            draft = await read_body(request, self._limits.draft_bytes, self._limits)
            self.uploads.get(upload.id, grant)
            work = partial(self._commit, upload, grant, draft)
            manifest = await self._alive(request, upload.commit(draft, work))
        return web.Response(body=manifest, content_type=_BINARY)

    async def _commit(self, upload: Upload, grant: TransferGrant, draft: bytes) -> bytes:
        if upload.image is None:
            if not await self._ask(self._host.may_commit, grant.job, grant.fence):
                raise Fenced(
                    f"job {grant.job} is not at work any more under fence {grant.fence}: "
                    "it commits nothing"
                )
            receiver, source = upload.receiver, grant.source
            if grant.brought is not None:
                commit = partial(receiver.adopt, draft, image=grant.brought, source=source)
            else:
                commit = partial(
                    receiver.commit,
                    draft,
                    source=source,
                    host=grant.host or grant.client,
                    labels=dict(grant.labels),
                    finished_ns=self._host.clock.now_ns(),
                )
            upload.image = await self._take(commit)
        manifest: bytes = await self._ask(upload.pool.manifest, upload.image.id)
        await self._ask(self._host.committed, grant, upload.image)
        return manifest

    async def abandon(self, request: web.Request, grant: TransferGrant) -> web.Response:
        """Give an upload up."""
        await self.uploads.abandon(self.uploads.get(request.match_info["upload"], grant))
        return web.Response(status=204)

    async def terms(self, _: web.Request, grant: TransferGrant) -> web.Response:
        """Tell what is needed to check and join chunks."""
        pool = self._host.pool(grant.pool)
        terms = await self._ask(lambda: pool.terms)
        return web.Response(body=terms, content_type=_BINARY)

    async def image(self, request: web.Request, grant: TransferGrant) -> web.Response:
        """Hand a manifest out, of an image that the token names."""
        image = request.match_info["image"]
        if image not in grant.readable:
            raise Forbidden(
                f"job {grant.job} of client '{grant.client}' may not read image '{image[:64]}'"
            )
        manifest = await self._ask(self._host.pool(grant.pool).manifest, image)
        return web.Response(body=manifest, content_type=_BINARY)

    async def read(self, request: web.Request, grant: TransferGrant) -> web.StreamResponse:
        """Hand blocks out. Their names are secrets: who has them has read what names them."""
        if not grant.readable:
            raise Forbidden(f"job {grant.job} of client '{grant.client}' may read no image")
        pool = self._host.pool(grant.pool)
        size_bytes = length(request, self._limits.wanted_bytes)
        async with self._room(grant, size_bytes):
            wanted = await read_body(request, self._limits.wanted_bytes, self._limits)
        async with self._room(grant, _wanted_bytes(wanted, self._limits.read_bytes)):
            self._rates.asked(grant.job)
            link = self._rates.bytes_per_s(grant.job)
            deliver = partial(pool.deliver, wanted, link_bytes_per_s=link)
            body = await self._alive(request, self._ask(deliver))
            answer = await self._send(request, body)
            self._rates.sent(grant.job, len(body))
            return answer

    async def _send(self, request: web.Request, body: bytes) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": _BINARY})
        answer.content_length = len(body)
        await answer.prepare(request)
        view = memoryview(body)
        for at in range(0, len(view), _PIECE_BYTES):
            try:
                async with asyncio.timeout(self._limits.gap_s):
                    await answer.write(view[at : at + _PIECE_BYTES])
            except TimeoutError as error:
                # Nothing can be said any more: the answer has begun.
                raise ConnectionResetError("the client stopped reading") from error
        await answer.write_eof()
        return answer

    def _grant(self, request: web.Request) -> TransferGrant:
        """What the token of a request says, whoever shows it."""
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not text:
            raise NotAuthenticated("the request has no transfer token")
        return self._tokens.check(text, self._host.clock.now_ns() / 1e9)

    async def _refusal(self, refusal: Refusal, error: HoldfastError) -> web.Response:
        if status_of(error) < 500:
            try:
                await self._ask(self._host.refused, refusal)
            except Exception:  # noqa: BLE001 - the client is answered all the same
                _LOG.exception("a refusal was not recorded")
        return _answer(error)

    def _room(self, grant: TransferGrant, size_bytes: int) -> Any:
        return self._budget.room(grant.client, size_bytes, self._limits.room_s)

    def _at(self, upload: Upload) -> _AtWork:
        return _AtWork(upload, self._host.now_s)

    async def _alive(self, request: web.Request, work: Awaitable[T]) -> T:
        return await while_alive(request, work, self._limits.sign_of_life_s)

    async def _ask(self, call: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._asks, call, *given)

    async def _take(self, call: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._takes, call, *given)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._limits.lease_s / 10)
            try:
                await self.uploads.sweep()
            except Exception:  # noqa: BLE001 - the next ones are to be looked at all the same
                _LOG.exception("an upload that was silent could not be abandoned")


class _AtWork:
    """While a request of an upload is at work the upload is not silent."""

    def __init__(self, upload: Upload, now_s: Callable[[], float]) -> None:
        self._upload = upload
        self._now_s = now_s

    async def __aenter__(self) -> None:
        self._upload.busy += 1

    async def __aexit__(self, *_: object) -> None:
        self._upload.busy -= 1
        self._upload.heard_s = self._now_s()


def _require(grant: TransferGrant, peer: Peer, verbs: frozenset[str] | None) -> None:
    """Refuse whoever shows a token that is not theirs, or not for this."""
    if grant.client != peer.name:
        raise Forbidden(
            f"the transfer token is client '{grant.client}''s, and '{peer.name}' came with it"
        )
    allowed = ", ".join(sorted(grant.verbs))
    if not all(peer.role in ROLES[verb] for verb in grant.verbs):
        raise Forbidden(
            f"the transfer token of job {grant.job} is for {allowed}, which is not what "
            f"the {peer.role} '{peer.name}' does"
        )
    if verbs is not None and not verbs & grant.verbs:
        raise Forbidden(
            f"the transfer token of job {grant.job} is for {allowed}, "
            f"and not for {' or '.join(sorted(verbs))}"
        )


def _answer(error: HoldfastError) -> web.Response:
    answer = web.Response(
        status=status_of(error), body=to_body(error), content_type="application/json"
    )
    # What of the body did not come yet is not waited for.
    answer.force_close()
    return answer


def _opening(body: bytes) -> tuple[bool, str]:
    try:
        said = json.loads(body)
        read_all, attempt = said["read_all"], said["attempt"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Invalid("what opens an upload is not understood") from error
    if not isinstance(read_all, bool):
        raise Invalid("'read_all' is neither true nor false")
    if not isinstance(attempt, str) or not _ATTEMPT.fullmatch(attempt):
        raise Invalid("'attempt' is not a word of up to 64 letters and digits")
    return read_all, attempt


def _vouched(receiver: Receiver, grant: TransferGrant) -> bytes | None:
    """The manifest of what need not come again: of the image itself if it is here, or of a base."""
    for image in (grant.brought, grant.parent):
        found = None if image is None else receiver.vouch(image)
        if found is not None:
            return found
    return None


def _seq(request: web.Request) -> int:
    text = request.query.get("seq", "")
    if not _NUMBER.fullmatch(text):
        raise Invalid("a body of blocks has no number", "send it to …/blocks?seq=0, 1, 2, …")
    return int(text)


def _after(request: web.Request) -> int:
    """After how many bodies a commit is to be done."""
    text = request.query.get("after", "0")
    if not _NUMBER.fullmatch(text):
        raise Invalid("a commit comes after a number of bodies", "send it to …/commit?after=N")
    return int(text)


def _wanted_bytes(wanted: bytes, limit_bytes: int) -> int:
    if not wanted or len(wanted) % WANTED_BYTES:
        raise Invalid(f"{len(wanted)} bytes are no list of chunks of {WANTED_BYTES} bytes each")
    total = sum(
        int.from_bytes(wanted[at + NAME_BYTES : at + NAME_BYTES + 4], "little")
        for at in range(0, len(wanted), WANTED_BYTES)
    )
    if total > limit_bytes:
        raise TooLarge(f"chunks of {total} bytes are wanted at once, of at most {limit_bytes}")
    return total


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
