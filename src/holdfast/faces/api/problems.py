"""How errors leave the API: one status for each class, one form for all (RFC 9457).

Must not tell what only a developer needs: of a defect, only a reference goes out. Invariant: every
answer that is not what was asked for is a problem with a stable code.
"""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from holdfast.base import errors
from holdfast.faces.api.models import Model
from holdfast.faces.api.statuses import status_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

MEDIA_TYPE = "application/problem+json"

_OF_HTTP: dict[int, type[errors.HoldfastError]] = {
    400: errors.Invalid,
    404: errors.NotFound,
    405: errors.UsageError,
    413: errors.TooLarge,
}

_ERRORS_TOLD = 100


class Fault(Model):
    """One thing that is wrong with a request."""

    where: str = Field(description="The part of the request.", examples=["body.name"])
    message: str = Field(description="What is wrong with it.", examples=["Field required"])
    hint: str | None = Field(default=None, description="What can be done about it.")


class Problem(Model):
    """Why a request was not served (RFC 9457)."""

    type: str = Field(description="A name for the kind.", examples=["urn:holdfast:error:not-found"])
    title: str = Field(
        description="The kind in words.", examples=["What was asked for is not there"]
    )
    status: int = Field(description="The status of the answer.", examples=[404])
    detail: str = Field(description="One sentence that names the object and the numbers.")
    code: str = Field(description="The stable code of the error.", examples=["not-found"])
    hint: str | None = Field(default=None, description="What can be done about it.")
    errors: list[Fault] | None = Field(
        default=None, description="All that is wrong, where it is several things."
    )


EXAMPLE = {
    "type": "urn:holdfast:error:not-found",
    "title": "What was asked for is not there",
    "status": 404,
    "detail": "there is no user 'alicia'",
    "code": "not-found",
    "hint": "check the spelling",
}


def problem(
    error: errors.HoldfastError,
    *,
    status: int | None = None,
    faults: list[Fault] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The answer that tells of an error.

    Args:
        error: What went wrong.
        status: Another status than the table's.
        faults: All single things that are wrong, if there are several.
        headers: More headers.
    """
    number = status or status_of(error)
    body = Problem(
        type=f"urn:holdfast:error:{error.code}",
        title=(type(error).__doc__ or error.code).split("\n")[0].rstrip("."),
        status=number,
        detail=error.message,
        code=error.code,
        hint=error.hint,
        errors=faults,
    )
    told = dict(headers or {})
    if number == HTTPStatus.UNAUTHORIZED:
        told["WWW-Authenticate"] = 'Bearer realm="holdfast"'
    if isinstance(error, errors.TooManyAttempts) and error.wait_s is not None:
        told["Retry-After"] = str(max(1, round(error.wait_s)))
    content = body.model_dump(exclude_none=True)
    return JSONResponse(content, number, headers=told, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let an application answer every error so."""
    app.add_exception_handler(errors.HoldfastError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_defect)


def faults_of(error: RequestValidationError) -> list[Fault]:
    """What is wrong with a request; never the value itself, which may be a secret."""
    found: list[dict[str, Any]] = list(error.errors())[:_ERRORS_TOLD]
    return [
        Fault(where=".".join(str(part) for part in one["loc"]), message=str(one["msg"]))
        for one in found
    ]


def _on_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.HoldfastError)  # noqa: S101 - narrows the type
    if isinstance(error, errors.PolicyInvalid) and error.faults:
        faults = [
            Fault(where=where, message=message, hint=hint)
            for where, message, hint in error.faults[:_ERRORS_TOLD]
        ]
        return problem(error, faults=faults)
    return problem(error)


def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - narrows the type
    faults = faults_of(error)
    first = f"{faults[0].where}: {faults[0].message}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    hint = "'/api/v1/openapi.json' says what each request may be"
    return problem(errors.Invalid(f"the request is not valid: {first}{more}", hint), faults=faults)


def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - narrows the type
    kind = _OF_HTTP.get(error.status_code)
    if kind is None:
        kind = errors.UsageError if error.status_code < 500 else errors.InternalError
    hint = "'/api/v1/openapi.json' says what there is"
    said = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.method} is not for {request.url.path}",
    }.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # Each route knows its own methods only.
        headers["Allow"] = ", ".join(request.app.methods_of(request.url.path))
    return problem(kind(said, hint), status=error.status_code, headers=headers)


def _on_defect(_request: Request, error: Exception) -> JSONResponse:
    # Whoever runs the application gets the exception too, and logs it with this note.
    reference = uuid.uuid4().hex
    error.add_note(f"reference {reference}")
    return problem(
        errors.InternalError(
            f"this is a defect in Holdfast; the log of the server tells more, under {reference}"
        )
    )
