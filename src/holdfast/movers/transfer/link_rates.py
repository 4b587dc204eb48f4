"""How many bytes a second surely get through to whoever reads, measured while they are sent.

Must not be used by several threads: it belongs to one event loop. Invariants: a link is never
taken for faster than it is, since all the time counts that passed, with that in which nobody asked
for anything; old measurements count ever less; of jobs that are long over nothing is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

JOBS_KEPT = 1000

KNOWN_BYTES = 64 * MIB
"""So much has to have been sent before anything is concluded: buffers of the system take a part of
it at once, whatever the link is like."""

REMEMBERED_BYTES = 256 * MIB
"""Of what was sent this much counts, about."""


@dataclass(slots=True)
class _Sent:
    since_s: float
    sent_bytes: float = 0.0


class LinkRates:
    """Of each job that reads, how fast its answers go out at least."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._jobs: OrderedDict[int, _Sent] = OrderedDict()

    def bytes_per_s(self, job: int) -> int | None:
        """What a job's link surely does; None for nothing yet."""
        known = self._jobs.get(job)
        if known is None or known.sent_bytes < KNOWN_BYTES:
            return None
        passed_s = self._now_s() - known.since_s
        return int(known.sent_bytes / passed_s) if passed_s > 0 else None

    def asked(self, job: int) -> None:
        """A job asks for something: from the first time on its time counts."""
        if job not in self._jobs:
            self._jobs[job] = _Sent(self._now_s())
            while len(self._jobs) > JOBS_KEPT:
                self._jobs.popitem(last=False)
        self._jobs.move_to_end(job)

    def sent(self, job: int, size_bytes: int) -> None:
        """An answer went out whole."""
        known = self._jobs.get(job)
        if known is None:
            return
        known.sent_bytes += size_bytes
        if known.sent_bytes > REMEMBERED_BYTES:
            now_s = self._now_s()
            known.sent_bytes /= 2
            known.since_s = now_s - (now_s - known.since_s) / 2
