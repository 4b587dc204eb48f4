"""Hold what is at work in an event loop, in a thread that has none.

Must not know what that is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Runs(Protocol):
    """Something that is at work in an event loop."""

    async def run(self, stop: asyncio.Event) -> None:
        """Be at work until told to stop."""
        ...


def run_until(session: Runs, stop: Callable[[asyncio.Event], None]) -> None:
    """Hold a session in this thread.

    Args:
        session: Which, such as a `session.MachineSession`.
        stop: Is given an event, to be set from this thread's loop when it is to end.

    Raises:
        HoldfastError: What it ended with.
    """

    async def run() -> None:
        told = asyncio.Event()
        stop(told)
        await session.run(told)

    asyncio.run(run())
