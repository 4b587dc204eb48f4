"""Bodies that do not arrive: who is slow is told so, and a network that is cut is no failure."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from holdfast.base.errors import TooSlow
from holdfast.movers.transfer.bodies import read_body
from holdfast.movers.transfer.ports import TransferLimits

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = b"a part"
SIZE = 100


def read(then: Callable[[StreamReader], None], *, connected: bool = True) -> bytes:
    """Read a body of which a part is there, and with the rest of which something happens."""

    async def run() -> bytes:
        loop = asyncio.get_running_loop()
        protocol = BaseProtocol(loop)
        protocol.transport = asyncio.Transport() if connected else None
        payload = StreamReader(protocol, 2**16, loop=loop)
        payload.feed_data(HERE)
        loop.call_later(0.01, then, payload)
        headers = {"Content-Length": str(SIZE)}
        request = make_mocked_request("PUT", "/", headers=headers, payload=payload)
        request.protocol.transport = protocol.transport
        return await read_body(request, SIZE, TransferLimits(gap_s=0.1))

    return asyncio.run(run())


@pytest.mark.parametrize(
    "number", [errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT, errno.ECONNRESET]
)
def test_a_network_that_is_cut_means_that_the_client_is_gone(number: int) -> None:
    broken = OSError(number, os.strerror(number))
    with pytest.raises(ConnectionResetError, match=f"6 of {SIZE} bytes"):
        read(lambda payload: payload.set_exception(broken))


def test_a_connection_that_is_over_before_it_is_read_is_no_failure() -> None:
    with pytest.raises(ConnectionResetError, match=f"6 of {SIZE} bytes"):
        read(lambda _: None, connected=False)


def test_nothing_for_too_long_is_too_slow() -> None:
    with pytest.raises(TooSlow, match=f"6 of {SIZE} bytes"):
        read(lambda _: None)
