"""The door of the API: who asks, and whether they may.

Every route is a `Guarded` one. Before FastAPI looks at a request at all, it is found out who asks
and whether the verb of the route is allowed; acts are noted for the audit log, see `acting`. Must
not know any noun. Invariant: a route that does not say who may use it can't be made.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from holdfast.base.errors import Forbidden, HoldfastError, NotAuthenticated
from holdfast.control.access import Answer, Entry, Outcome, Principal, Strangers, Ticket, Verb
from holdfast.faces.api import acting, document, visitors
from holdfast.faces.api.acting import Note
from holdfast.faces.api.limits import lower_limit
from holdfast.faces.api.paging import Pages
from holdfast.site.master import Master

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.responses import Response

    from holdfast.faces.api.metrics import Requests

    Handler = Callable[[Request], Coroutine[Any, Any, Response]]

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

PUBLIC_BODY_BYTES = 64 << 10
"""What a stranger may send."""


@dataclass(frozen=True)
class Gate:
    """Who may use a route; a dependency that gives the principal.

    Attributes:
        verbs: What they have to be allowed, one of these; none: whoever is known.
        act: Whether the route does something, if its method may.
        secret: Whether there is a secret in its answer.
    """

    verbs: tuple[Verb, ...] = ()
    act: bool = True
    secret: bool = False

    def __call__(self, request: Request) -> Principal:
        """Who asks."""
        principal: Principal = request.state.principal
        return principal


@dataclass(frozen=True)
class Open:
    """Whoever asks may use the route; a dependency that gives nothing.

    Attributes:
        act: Whether it does something, if its method may.
    """

    act: bool = False

    def __call__(self) -> None:
        """Nothing to say."""


def may(*verbs: Verb, act: bool = True, secret: bool = False) -> Any:
    """Say who may use a route.

    As in ``who: Annotated[Principal, may(Verb.SEE)]``.

    Args:
        verbs: What they have to be allowed, one of these; none: whoever is known.
        act: False for a POST that changes nothing, such as a preview: it is not audited.
        secret: There is a secret in the answer: it is kept for no idempotency key.
    """
    return Depends(Gate(verbs, act, secret))


def anybody(*, act: bool = False) -> Any:
    """Say that a stranger may use a route.

    As in ``_: Annotated[None, anybody()]``.

    Args:
        act: The route does something, and is audited.
    """
    return Depends(Open(act))


def _master(request: Request) -> Master:
    master: Master = request.app.state.master
    return master


def _note(request: Request) -> Note:
    note: Note = request.state.note
    return note


TheMaster = Annotated[Master, Depends(_master)]
"""The master server that the API speaks for."""

TheNote = Annotated[Note, Depends(_note)]
"""What the audit log will have of this act, beside what it always has."""


class Guarded(APIRoute):
    """A route that says who may use it."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
        hints = get_type_hints(endpoint, include_extras=True)
        hints.pop("return", None)
        self.gate = _gate(endpoint.__name__, hints)
        self.body_model = _body_model(hints)
        methods = {method.upper() for method in given.get("methods") or {"GET"}}
        self.is_act = self.gate.act and not methods <= SAFE
        self.what: str = given.get("operation_id") or endpoint.__name__
        traits = document.Traits(
            known=isinstance(self.gate, Gate),
            verbs=self.gate.verbs if isinstance(self.gate, Gate) else (),
            act=self.is_act,
            names="{" in path or Pages in hints.values(),
            has_body=not methods <= SAFE | {"DELETE"},
        )
        given["operation_id"] = self.what
        given["responses"] = document.problems(traits) | (given.get("responses") or {})
        given["openapi_extra"] = document.more(traits) | (given.get("openapi_extra") or {})
        super().__init__(path, endpoint, **given)

    def get_route_handler(self) -> Handler:
        """What FastAPI calls for a request."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            request.state.note = Note()
            requests: Requests = request.app.state.requests
            started = time.monotonic()
            try:
                response = await self._pass(request, handle)
            except Exception as error:
                requests.failed(self.what, error, time.monotonic() - started)
                raise
            requests.answered(self.what, response.status_code, time.monotonic() - started)
            return response

        return guarded

    async def _pass(self, request: Request, handle: Handler) -> Response:
        if isinstance(self.gate, Open):
            lower_limit(request, PUBLIC_BODY_BYTES)
            return await (self._stranger(request, handle) if self.is_act else handle(request))
        request.state.principal = await run_in_threadpool(self._let_in, request, self.gate)
        return await (self._act(request, handle) if self.is_act else handle(request))

    def _let_in(self, request: Request, gate: Gate) -> Principal:
        try:
            who = visitors.recognise(request)
        except NotAuthenticated as error:
            if self.is_act:
                self._note_vain(request, error)
            raise
        try:
            if gate.verbs:
                who.require(*gate.verbs)
        except Forbidden as error:
            said = acting.circumstances(request, who)
            acting.refuse(_master(request).audit, request, self.what, who.name, error, said)
            raise
        return who

    async def _act(self, request: Request, handle: Handler) -> Response:
        who: Principal = request.state.principal
        note: Note = request.state.note
        book = _master(request).acts
        body = await request.body()
        ticket = await run_in_threadpool(self._begin, request, who, body)
        if isinstance(ticket, Answer):
            return acting.again(ticket)
        try:
            response = await handle(request)
        except Exception as error:
            failure = error
            await run_in_threadpool(lambda: acting.end(book, ticket, note, error=failure))
            raise
        secret = isinstance(self.gate, Gate) and self.gate.secret
        await run_in_threadpool(
            lambda: acting.end(book, ticket, note, response=response, secret=secret)
        )
        _master(request).news()
        return response

    def _begin(self, request: Request, who: Principal, body: bytes) -> Ticket | Answer:
        master = _master(request)
        try:
            tried = acting.attempt(request, self.what, who, body, self.body_model)
            return master.acts.begin(tried)
        except HoldfastError as error:
            said = acting.circumstances(request, who)
            acting.refuse(master.audit, request, self.what, who.name, error, said)
            raise

    async def _stranger(self, request: Request, handle: Handler) -> Response:
        note: Note = request.state.note
        try:
            response = await handle(request)
        except Exception as error:
            await run_in_threadpool(self._note_vain, request, error)
            raise
        if note.nothing_yet:
            return response
        said = acting.circumstances(request) | note.details
        who = note.who or acting.STRANGER
        about = note.about or acting.about(request)
        entry = Entry.of(who, self.what, about, Outcome.DONE, said)
        await run_in_threadpool(_master(request).audit.append, entry)
        return response

    def _note_vain(self, request: Request, error: Exception) -> None:
        master = _master(request)
        strangers: Strangers = request.app.state.strangers
        row = strangers.row(master.clock.now_ns())
        if row is None:
            return
        note: Note = request.state.note
        said = acting.circumstances(request) | note.details | row
        who = note.who or acting.STRANGER
        acting.refuse(master.audit, request, self.what, who, error, said)


def make_router(tag: str) -> APIRouter:
    """A router whose routes are all guarded.

    Args:
        tag: What its routes are listed under in the document.
    """
    return APIRouter(route_class=Guarded, tags=[tag], redirect_slashes=False)


def _gate(name: str, hints: dict[str, Any]) -> Gate | Open:
    for hint in hints.values():
        for extra in get_args(hint)[1:]:
            found = getattr(extra, "dependency", None)
            if isinstance(found, Gate | Open):
                return found
    raise TypeError(f"the route {name} does not say who may use it: see may() and anybody()")


def _body_model(hints: dict[str, Any]) -> type[BaseModel] | None:
    for hint in hints.values():
        plain = get_args(hint)[0] if get_args(hint) else hint
        if isinstance(plain, type) and issubclass(plain, BaseModel):
            return plain
    return None
