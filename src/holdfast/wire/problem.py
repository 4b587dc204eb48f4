"""Errors between machines: one form over HTTP, and the same error again at the other end.

Must not tell what only a developer needs. Invariant: an answer of 400 or more has a JSON object
with a stable code of `base.errors`, a message, and a hint.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web

from holdfast.base import errors

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

_STATUS: dict[type[errors.HoldfastError], int] = {
    errors.HoldfastError: 500,
    errors.UsageError: 422,
    errors.KeyReused: 409,
    errors.TooLarge: 413,
    errors.NotFound: 404,
    errors.CatalogError: 503,
    errors.StorageError: 503,
    errors.NoSpace: 507,
    errors.AccessError: 403,
    errors.NotAuthenticated: 401,
    errors.TooManyAttempts: 429,
    errors.AlreadyExists: 409,
    errors.WrongState: 409,
    errors.Fenced: 409,
    errors.Busy: 409,
    errors.Unsupported: 501,
}
"""From class to status; a class that is not in it has its parent's."""

_OF_STATUS = {400: errors.Invalid, 404: errors.NotFound, 413: errors.TooLarge}

_LOG = logging.getLogger("holdfast.wire")

MAX_MESSAGE = 2000


def answer(error: errors.HoldfastError) -> web.Response:
    """The answer that tells of an error."""
    status = next(_STATUS[one] for one in type(error).__mro__ if one in _STATUS)
    body = {"code": error.code, "message": error.message, "hint": error.hint}
    return web.json_response(body, status=status)


@web.middleware
async def as_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Have an application answer every error so; for ``web.Application(middlewares=[…])``."""
    try:
        return await handler(request)
    except errors.HoldfastError as error:
        return answer(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        kind = _OF_STATUS.get(error.status, errors.Invalid)
        return answer(kind(f"{request.method} {request.path}: {error.reason}"))
    except Exception:  # noqa: BLE001 - the last edge: logged whole, told in a sentence
        _LOG.exception("a defect at %s %s", request.method, request.path)
        return answer(errors.InternalError("this is a defect; the other end's log tells more"))


async def read_object(request: web.Request) -> dict[str, Any]:
    """The JSON object that a request has for its body.

    Raises:
        Invalid: It has none.
        TooLarge: It is longer than the application takes.
    """
    try:
        given = await request.json()
    except web.HTTPRequestEntityTooLarge as error:
        raise errors.TooLarge("the body is too long") from error
    except ValueError as error:
        raise errors.Invalid("the body is not JSON") from error
    if not isinstance(given, dict):
        raise errors.Invalid("the body is not a JSON object")
    return given


def error_of(status: int, body: bytes) -> errors.HoldfastError:
    """The error that an answer tells of, not yet raised; never trusts what it reads."""
    try:
        told: Any = json.loads(body)
        code, message, hint = told["code"], told["message"], told.get("hint")
    except (ValueError, KeyError, TypeError, AttributeError):
        return errors.Unreachable(f"the other end answers {status}, and not as Holdfast does")
    if not isinstance(code, str) or not isinstance(message, str):
        return errors.Unreachable(f"the other end answers {status}, and not as Holdfast does")
    shown = hint[:MAX_MESSAGE] if isinstance(hint, str) else None
    return errors.from_code(code, message[:MAX_MESSAGE], shown)
