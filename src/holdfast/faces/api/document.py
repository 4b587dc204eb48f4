"""What the API's own document (OpenAPI) says of every route alike: problems, security, keys.

Must not know any noun. Invariant: whatever a route may answer is in the document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.faces.api.problems import EXAMPLE, MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from holdfast.control.access import Verb

SCHEME = "token"

KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": (
        "A new value for each act, such as a UUID. Repeated within a day with the same request, "
        "it gets the first answer, and the act is done once."
    ),
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}

_SAID = {
    400: "The body can't be read.",
    401: "Nobody knows who asks: no token, or one that is not valid.",
    403: "Who asks may not do that.",
    404: "What was asked for is not there.",
    409: "It can't be done as things are.",
    413: "The request is too large.",
    416: "The file has nothing in this range; `Content-Range` says how long it is.",
    422: "Something in the request is not valid; `errors` says what.",
    429: "Too many attempts; `Retry-After` says how many seconds to wait.",
    500: "A defect in Holdfast, or damaged data.",
    501: "This can't be done here.",
    503: "Storage or database does not answer, or can't.",
}


@dataclass(frozen=True, slots=True)
class Traits:
    """What can be told from how a route was made.

    Attributes:
        known: It has to be known who asks.
        verbs: What they have to be allowed, one of these.
        act: It does something.
        names: Its path names something, or a cursor does.
        has_body: It takes a body.
    """

    known: bool
    verbs: tuple[Verb, ...]
    act: bool
    names: bool
    has_body: bool


def problems(traits: Traits) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that tell what went wrong."""
    statuses = {422, 500, 503}
    statuses |= {401, 403} if traits.known else set()
    statuses |= {404} if traits.names else set()
    statuses |= {409} if traits.act else set()
    statuses |= {400, 413} if traits.has_body else set()
    return {status: response(status) for status in sorted(statuses)}


def response(status: int) -> dict[str, Any]:
    """One such answer; more of them can be named in a route's ``responses``."""
    return {
        "description": _SAID[status],
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": EXAMPLE | {"status": status},
            }
        },
    }


def busy() -> dict[str, Any]:
    """The answer to too many attempts."""
    header = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
    return response(429) | {"headers": {"Retry-After": header}}


def more(traits: Traits) -> dict[str, Any]:
    """What else the document says of a route."""
    said: dict[str, Any] = {"security": [{SCHEME: []}] if traits.known else []}
    if traits.verbs:
        said["x-holdfast-permissions"] = [verb.value for verb in traits.verbs]
    if traits.act and traits.known:
        said["parameters"] = [KEY_PARAMETER]
    return said


def complete(document: dict[str, Any]) -> None:
    """Add what all routes refer to."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    components["securitySchemes"] = {
        SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": "A token, or what a login gave. Not needed on the site's own socket.",
        }
    }
