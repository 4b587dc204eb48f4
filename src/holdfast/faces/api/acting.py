"""What becomes of an act: noted before it begins and when it has ended, done once for one key.

Must not do the act. Invariants: nothing secret is noted: bodies go through their models, which know
what is; strangers can't fill the audit log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import Response, StreamingResponse

from holdfast.base.errors import AlreadyExists, HoldfastError, Invalid
from holdfast.control.access import Answer, Attempt, Entry, Outcome, Ticket
from holdfast.faces.api import visitors
from holdfast.faces.api.problems import faults_of
from holdfast.faces.api.statuses import is_refusal

if TYPE_CHECKING:
    from pydantic import BaseModel
    from starlette.requests import Request

    from holdfast.control.access import ActBook, AuditLog, Principal

KEY_HEADER = "idempotency-key"
MAX_KEY = 255

MAX_NOTED = 64 << 10
"""Of a longer body the log has length and hash."""

STRANGER = "(unknown)"
"""Who the audit log has where nobody knows."""

_PREFIX = "/api/v1/"
_KEPT_HEADERS = ("content-type", "location")


@dataclass(slots=True)
class Note:
    """What a route may add to the audit log's row of its act.

    Attributes:
        who: Who it was, where the route is the one to find out.
        about: The thing, where the path does not name it.
        details: Fit for JSON, without secrets.
        nothing_yet: A stranger's act has not come to anything, and will be asked for again.
    """

    who: str | None = None
    about: str | None = None
    details: dict[str, object] = field(default_factory=dict)
    nothing_yet: bool = False


def attempt(
    request: Request, what: str, who: Principal, body: bytes, model: type[BaseModel] | None
) -> Attempt:
    """What is about to be tried, for the book of acts.

    Raises:
        Invalid: The idempotency key can't be one.
    """
    key = request.headers.get(KEY_HEADER)
    # A space in it is refused as well, as the document says.
    if key is not None and not (0 < len(key) <= MAX_KEY and all("!" <= one <= "~" for one in key)):
        raise Invalid(
            f"an idempotency key has 1 to {MAX_KEY} printable ASCII characters and no space",
            "make one for each act, such as a UUID",
        )
    details = circumstances(request, who) | _content(body, model)
    # A token of the same user may see less: its keys are its own.
    whose = None if key is None else f"{who.token or ''} {key}"
    return Attempt(who.name, what, about(request), details, whose, _hash(request, body))


def refuse(
    audit: AuditLog,
    request: Request,
    what: str,
    who: str,
    error: Exception,
    details: dict[str, object],
) -> None:
    """Note what was not let in, or went wrong, without having been noted as begun."""
    outcome, why = ending(error)
    note: Note = request.state.note
    audit.append(Entry.of(who, what, note.about or about(request), outcome, details | why))


def end(
    book: ActBook,
    ticket: Ticket,
    note: Note,
    *,
    error: Exception | None = None,
    response: Response | None = None,
    secret: bool = False,
) -> None:
    """Note how an act ended.

    Args:
        book: Where.
        ticket: What it gave.
        note: What the route adds.
        error: What it failed of.
        response: What it answered.
        secret: Whether there is a secret in that.
    """
    if error is not None:
        outcome, details = ending(error)
        book.end(ticket, outcome, note.details | details, about=note.about)
        return
    made, answer = None, None
    if response is not None:
        # What was made has a name now.
        made = response.headers.get("location", "").removeprefix(_PREFIX)
        answer = _answer(response, secret=secret)
    book.end(ticket, Outcome.DONE, note.details, answer, about=made or note.about)


def again(answer: Answer) -> Response:
    """The answer to a request whose act was done before.

    Raises:
        AlreadyExists: It held a secret, or was too long, and was not kept.
    """
    if answer.body is None:
        place = answer.headers.get("location", "")
        raise AlreadyExists(
            f"this was done before with the same idempotency key {place}".rstrip(),
            "what it answered was not kept; look at what was made",
        )
    headers = dict(answer.headers) | {"Idempotent-Replay": "true"}
    return Response(answer.body, answer.status, headers=headers)


def about(request: Request) -> str:
    """The thing that a request is about: its path."""
    return request.url.path.removeprefix(_PREFIX).strip("/")


def circumstances(request: Request, who: Principal | None = None) -> dict[str, object]:
    """Where a request came from, and how."""
    said: dict[str, object] = {"from": visitors.address(request)}
    if who is not None and who.token is not None:
        said["token"] = who.token
    if request.url.query:
        said["query"] = parse_qsl(request.url.query, keep_blank_values=True)
    return said


def ending(error: Exception) -> tuple[Outcome, dict[str, object]]:
    """How an error ends an act, in the audit log's words."""
    if isinstance(error, HoldfastError):
        told = {"code": error.code, "message": error.message}
        return (Outcome.REFUSED if is_refusal(error) else Outcome.FAILED), {**told}
    if isinstance(error, RequestValidationError):
        where = [f"{one.where}: {one.message}" for one in faults_of(error)]
        return Outcome.REFUSED, {"code": Invalid.code, "faults": where}
    return Outcome.FAILED, {"code": "internal", "message": type(error).__name__}


def _content(body: bytes, model: type[BaseModel] | None) -> dict[str, object]:
    if not body:
        return {}
    if model is None or len(body) > MAX_NOTED:
        return {"body_bytes": len(body), "body_sha256": sha256(body).hexdigest()}
    try:
        read = model.model_validate_json(body)
    except ValidationError:
        # It is refused in a moment, and the row will say why.
        return {}
    return {"body": read.model_dump(mode="json", exclude_unset=True)}


def _hash(request: Request, body: bytes) -> str:
    state = sha256()
    for part in (
        request.method.encode(),
        request.url.path.encode(),
        request.url.query.encode(),
        request.headers.get("content-type", "").encode(),
        body,
    ):
        state.update(len(part).to_bytes(8, "big") + part)
    return state.hexdigest()


def _answer(response: Response, *, secret: bool) -> Answer | None:
    if isinstance(response, StreamingResponse) or response.status_code >= 400:
        return None
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return Answer(response.status_code, headers, None if secret else bytes(response.body))
