"""Under which status of HTTP an error of the data path is answered; `wire.problem` reads it again.

Must not tell a client more of a defect than that there was one. Invariant: whether the same request
may go well later is told by the status alone: see `AGAIN`.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from holdfast.base import errors
from holdfast.base.errors import HoldfastError, Retry

if TYPE_CHECKING:
    from collections.abc import Iterator

_STATUS: dict[type[HoldfastError], HTTPStatus] = {
    errors.NotAuthenticated: HTTPStatus.UNAUTHORIZED,
    errors.AccessError: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.TooSlow: HTTPStatus.REQUEST_TIMEOUT,
    errors.UsageError: HTTPStatus.BAD_REQUEST,
    errors.IntegrityError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NoSpace: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.Fenced: HTTPStatus.CONFLICT,
    errors.WrongState: HTTPStatus.CONFLICT,
    errors.Cancelled: HTTPStatus.CONFLICT,
    errors.Busy: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.Unsupported: HTTPStatus.NOT_IMPLEMENTED,
    errors.InternalError: HTTPStatus.INTERNAL_SERVER_ERROR,
}

AGAIN = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""What a client tries again by itself."""


def status_of(error: HoldfastError) -> HTTPStatus:
    """The status under which an error is answered."""
    for known in _classes(type(error)):
        if known in _STATUS:
            return _STATUS[known]
    if error.retry is Retry.SAME_TARGET:
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.UNPROCESSABLE_ENTITY


def to_body(error: HoldfastError) -> bytes:
    """What is said of an error."""
    said = {"code": error.code, "message": error.message, "hint": error.hint}
    return json.dumps(said).encode()


def _classes(kind: type[HoldfastError]) -> Iterator[type[HoldfastError]]:
    for one in kind.__mro__:
        if issubclass(one, HoldfastError):
            yield one
