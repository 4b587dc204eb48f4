"""Take the body of a request in: whole, of a length that was said before, in time.

Must not hold more than what was said. Invariant: a client that waits to be told to go on (``Expect:
100-continue``) is told only when there is room for what it brings, so that a body never stands
still half-way because the media server is busy.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from holdfast.base.errors import Invalid, TooLarge, TooSlow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from aiohttp import web

    from holdfast.movers.transfer.ports import TransferLimits

T = TypeVar("T")

_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
_AT_WORK = b"HTTP/1.1 102 Processing\r\n\r\n"


async def expected(_request: web.Request) -> None:
    """Leave ``Expect: 100-continue`` to `read_body`, which is there for each route."""


def length(request: web.Request, limit_bytes: int) -> int:
    """How long a body says it is.

    Raises:
        Invalid: It does not say so in plain, or is packed.
        TooLarge: It is longer than the limit.
    """
    if request.content_length is None or "Transfer-Encoding" in request.headers:
        raise Invalid("the request does not say how long its body is", "send Content-Length")
    if "Content-Encoding" in request.headers:
        raise Invalid("the body of the request is packed", "send it without Content-Encoding")
    if request.content_length > limit_bytes:
        raise TooLarge(
            f"the body has {request.content_length} bytes of at most {limit_bytes}",
        )
    return request.content_length


async def read_body(request: web.Request, limit_bytes: int, limits: TransferLimits) -> bytes:
    """Take a body in.

    Raises:
        Invalid: See `length`.
        TooLarge: See `length`.
        TooSlow: It stood still, or comes too slowly.
        ConnectionError: The client is gone.
    """
    return b"".join([piece async for piece in pieces(request, limit_bytes, limits)])


async def pieces(
    request: web.Request, limit_bytes: int, limits: TransferLimits
) -> AsyncIterator[bytes]:
    """Take a body in piece by piece, as it comes. Whole, if this comes to its end.

    Raises:
        HoldfastError, ConnectionError: See `read_body`.
    """
    size_bytes = length(request, limit_bytes)
    if request.headers.get("Expect", "").lower() == "100-continue":
        await interim(request, _GO_ON)
    got_bytes = 0
    waited_s = 0.0
    while True:
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(limits.gap_s):
                piece = await request.content.readany()
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and request.transport is not None:
                raise
            if isinstance(error, TimeoutError) and error.errno is None:
                raise TooSlow(
                    f"after {got_bytes} of {size_bytes} bytes nothing came for {limits.gap_s:.0f} s"
                ) from error
            # A network that is cut ends a connection with many an errno: EHOSTUNREACH, ETIMEDOUT;
            # reading when it is over already is a RuntimeError.
            raise ConnectionResetError(
                f"the connection broke after {got_bytes} of {size_bytes} bytes: {error}"
            ) from error
        if not piece:
            break
        got_bytes += len(piece)
        # What is done with a piece meanwhile is not the client's fault.
        waited_s += time.monotonic() - began_s
        if waited_s > limits.gap_s and got_bytes < limits.slowest_bytes_per_s * waited_s:
            raise TooSlow(f"{got_bytes} of {size_bytes} bytes took {waited_s:.0f} s to arrive")
        yield piece
    if got_bytes != size_bytes:
        raise ConnectionResetError(f"the body ended after {got_bytes} of {size_bytes} bytes")


async def interim(request: web.Request, line: bytes = _AT_WORK) -> None:
    """Tell the client that its request is worked on.

    Raises:
        ConnectionError: It is gone.
    """
    await request.writer.write(line)
    # What was written so far is no part of the answer.
    request.writer.output_size = 0


async def while_alive(request: web.Request, work: Awaitable[T], sign_of_life_s: float) -> T:
    """Wait for work, and tell the client again and again that there is some.

    Also where the client is gone: what the work uses counts until it is done.
    """
    task = asyncio.ensure_future(work)
    every_s: float | None = sign_of_life_s
    while not (await asyncio.wait({task}, timeout=every_s))[0]:
        try:
            await interim(request)
        except ConnectionError:
            every_s = None
    return task.result()
