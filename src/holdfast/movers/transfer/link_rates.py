"""How many bytes a second get through to whoever reads, measured while they are sent.

Must not be used by several threads: it belongs to one event loop. Invariants: what is sent over
several connections at once counts together, over the time in which any of it was on its way; old
measurements count ever less; of jobs that are long over nothing is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JOBS_KEPT = 1000
SHORTEST_BYTES = MIB
"""A shorter answer goes into buffers of the system at once, whatever the link is like."""

KNOWN_BYTES = 16 * MIB
"""So much has to have been sent before anything is concluded."""

REMEMBERED_BYTES = 128 * MIB
"""Of what was sent this much counts, about."""


@dataclass(slots=True)
class _Rate:
    sent_bytes: float = 0.0
    busy_s: float = 0.0
    at_work: int = 0
    since_s: float = 0.0

    def pass_time(self, now_s: float) -> None:
        if self.at_work:
            self.busy_s += now_s - self.since_s
        self.since_s = now_s


class LinkRates:
    """Of each job that reads, how fast its answers go out."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._rates: OrderedDict[int, _Rate] = OrderedDict()

    def bytes_per_s(self, job: int) -> int | None:
        """What is known of a job's link; None for nothing yet."""
        rate = self._rates.get(job)
        if rate is None or rate.sent_bytes < KNOWN_BYTES or rate.busy_s <= 0:
            return None
        return int(rate.sent_bytes / rate.busy_s)

    @contextmanager
    def sending(self, job: int, size_bytes: int) -> Iterator[None]:
        """While an answer is sent. One that fails tells nothing."""
        if size_bytes < SHORTEST_BYTES:
            yield
            return
        rate = self._rates.setdefault(job, _Rate())
        self._rates.move_to_end(job)
        while len(self._rates) > JOBS_KEPT:
            self._rates.popitem(last=False)
        rate.pass_time(self._now_s())
        rate.at_work += 1
        try:
            yield
            rate.sent_bytes += size_bytes
        finally:
            rate.pass_time(self._now_s())
            rate.at_work -= 1
        if rate.sent_bytes > REMEMBERED_BYTES:
            rate.sent_bytes /= 2
            rate.busy_s /= 2
