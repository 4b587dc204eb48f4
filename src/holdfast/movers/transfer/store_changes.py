"""Changes of objects that count once each, in the order in which their writer made them.

Must not touch a store, nor be used by several threads: it belongs to one event loop. A writer makes
its changes of one key one after the other and numbers them; it says one again where it does not
know what became of it. Invariants: one that was made is answered as it was then, however often it
comes; one that comes after a later one of the same key, as its connection was given up long ago, is
refused. What a server forgets when it ends, no connection to it survives either.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from holdfast.base.errors import WrongState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REMEMBERED = 50_000
"""Keys. No request is on its way for as long as it takes to change so many others."""

_LOOKED_AT = 16

Of: TypeAlias = tuple[str, str, str]
"""A pool, a writer and a key."""


@dataclass(eq=False, slots=True)
class Turn:
    """The last change of a key.

    Attributes:
        seq: Its number; -1 for none yet.
        made: What came of it; None while it has not been made.
    """

    seq: int = -1
    made: bool | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Changes:
    """The last changes of all writers."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._turns: OrderedDict[Of, Turn] = OrderedDict()

    @asynccontextmanager
    async def turn(self, of: Of, seq: int) -> AsyncIterator[Turn]:
        """Wait for the turn of a change, which `made` tells the outcome of if it was made already.

        Raises:
            WrongState: A later one was made.
        """
        turn = self._turns.setdefault(of, Turn())
        self._turns.move_to_end(of)
        turn.users += 1
        try:
            async with turn.lock:
                if seq < turn.seq:
                    raise WrongState(f"change {seq} of '{of[2]}' came after change {turn.seq}")
                if seq > turn.seq:
                    turn.seq, turn.made = seq, None
                yield turn
        finally:
            turn.users -= 1
            self._forget()

    def _forget(self) -> None:
        for _ in range(_LOOKED_AT):
            if len(self._turns) <= self._remembered:
                return
            of, oldest = next(iter(self._turns.items()))
            if oldest.users:
                # A disk may stand still for long, and others go on.
                self._turns.move_to_end(of)
            else:
                del self._turns[of]
