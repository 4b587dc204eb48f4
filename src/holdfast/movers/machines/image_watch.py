"""Whether an image that a machine runs from can be read now: somebody asks for it all the time.

Must not decide what follows from that. Invariant: an answer that does not come is no answer,
however long whoever was asked takes over it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from holdfast.base.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

AWAY_S = 8.0
"""An image that nobody told of for so long can't be read. With the time for which QEMU then waits,
that is less than the 30 s after which guests with IDE and SCSI disks give a read up."""

EVERY_S = 1.5


class ImageWatch:
    """Asks in a thread of its own, for the time of the block.

    Attributes:
        why: What was in the way last, in words.
    """

    def __init__(
        self,
        ask: Callable[[], object],
        away_s: float = AWAY_S,
        now_s: Callable[[], float] = time.monotonic,
        every_s: float = EVERY_S,
    ) -> None:
        """Nobody is asked before the block.

        Args:
            ask: Reads something of the image that nobody keeps in memory; raises `HoldfastError`.
            away_s: After how long without an answer the image counts as one that can't be read.
            now_s: A clock that only goes forward.
            every_s: How often it is asked.
        """
        self.why = "nobody answers"
        self._ask = ask
        self._away_s = away_s
        self._now_s = now_s
        self._every_s = every_s
        self._well_s = now_s()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="image-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        # Who waits for an answer is not waited for.
        self._ended.set()

    @property
    def away_s(self) -> float:
        """For how long it could not be read; 0 where it can."""
        since_s = self._now_s() - self._well_s
        return since_s if since_s > self._away_s else 0.0

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self._ask()
            except HoldfastError as error:
                self.why = error.message
            else:
                self._well_s = self._now_s()
                self.why = "nobody answers"
