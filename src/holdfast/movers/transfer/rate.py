"""How many bytes a second may go over all connections of a transfer together.

Must not know about time of day or networks: whoever has such rules sets the rate, at any time.
Invariant: over any longer while no more than the rate passes, however many threads take.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid
from holdfast.base.units import KIB

if TYPE_CHECKING:
    from collections.abc import Callable

SLOWEST_BYTES_PER_S = 64 * KIB
"""Less than this and a media server takes the connections for dead ones."""

_BURST_S = 0.1


class RateLimit:
    """A bucket into which bytes run at the rate, and from which threads take. Thread-safe."""

    def __init__(
        self, bytes_per_s: float | None = None, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with a rate; None for as fast as it goes."""
        self._changed = threading.Condition()
        self._now_s = now_s
        self._rate: float | None = None
        self._left = 0.0
        self._at_s = now_s()
        self.set(bytes_per_s)

    @property
    def bytes_per_s(self) -> float | None:
        """The rate as it is now."""
        return self._rate

    def set(self, bytes_per_s: float | None) -> None:
        """Change the rate, also for those who wait already.

        Raises:
            Invalid: It is so low that nothing would get through.
        """
        if bytes_per_s is not None and bytes_per_s < SLOWEST_BYTES_PER_S:
            raise Invalid(
                f"{bytes_per_s:.0f} bytes a second are too few for a transfer",
                f"allow at least {SLOWEST_BYTES_PER_S // KIB} KiB a second, or none at that time",
            )
        with self._changed:
            self._fill()
            self._rate = bytes_per_s
            self._left = 0.0
            self._changed.notify_all()

    def take(self, size_bytes: int, stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait until so many bytes may go; return at once when stopped.

        One who takes more than there is goes, and those who come after wait for it.
        """
        if self.bytes_per_s is None:
            return
        with self._changed:
            while not stopped():
                rate = self._rate
                self._fill()
                if rate is None or self._left > 0:
                    self._left -= size_bytes
                    return
                # Woken now and then: nobody tells a thread in here that it is to stop.
                self._changed.wait(min(0.5, (1 - self._left) / rate))

    def _fill(self) -> None:
        now_s = self._now_s()
        if self._rate is not None:
            more = (now_s - self._at_s) * self._rate
            self._left = min(self._left + more, self._rate * _BURST_S)
        self._at_s = now_s
