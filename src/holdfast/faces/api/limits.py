"""How much a request may send.

Must not look into it. Invariant: no more than the limit is ever held in memory, whatever the
request says of its length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.errors import TooLarge
from holdfast.base.units import format_size
from holdfast.faces.api.problems import problem

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 16 << 20

_STATE = "holdfast_body_limit"


class BodyLimit:
    """Refuses what is too large, before or while it comes."""

    def __init__(self, app: ASGIApp, limit_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state[_STATE] = self._limit_bytes
        if (stated := _stated(scope)) > self._limit_bytes:
            await problem(_error(stated, self._limit_bytes))(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > state[_STATE]:
                raise _error(taken, state[_STATE])
            return message

        await self._app(scope, counted, send)


def lower_limit(request: Request, limit_bytes: int) -> None:
    """Let a request send less than others may, before any of it was read.

    Raises:
        TooLarge: It says itself that it is larger.
    """
    stated = _stated(request.scope)
    if stated > limit_bytes:
        raise _error(stated, limit_bytes)
    request.scope["state"][_STATE] = limit_bytes


def _stated(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


def _error(size_bytes: int, limit_bytes: int) -> TooLarge:
    return TooLarge(
        f"the request has {format_size(size_bytes)} or more; it may have {format_size(limit_bytes)}"
    )
