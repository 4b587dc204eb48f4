"""A request of a transfer that several connections may try, until there is an answer.

Must not act. Invariant: it ends once, with an answer or with an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import InternalError
from holdfast.base.units import KIB

if TYPE_CHECKING:
    from holdfast.base.errors import HoldfastError
    from holdfast.movers.transfer.connection import Request, Response
    from holdfast.movers.transfer.paths import PathState


_WANTED_BYTES = 37
_FEW_CHUNKS = 16
_FEW_BYTES = 64 * KIB


def is_small(wanted: bytes) -> bool:
    """Whether the answer to a question for these chunks is small: see `WANTED_BYTES` of the server.

    One directory, or one list of chunks, is read at a time, by one thread after another: what is
    small goes over all connections, so that few ways there and back add up.
    """
    if len(wanted) > _FEW_CHUNKS * _WANTED_BYTES:
        return False
    lengths = (wanted[at + 32 : at + 36] for at in range(0, len(wanted), _WANTED_BYTES))
    return sum(int.from_bytes(one, "little") for one in lengths) <= _FEW_BYTES


@dataclass(eq=False, slots=True)
class Call:
    """A request on its way to an answer. Guarded by the condition of its link.

    Attributes:
        request: What is asked.
        began_s: Since when.
        bulky: Whether it, or its answer, has many bytes.
        last: Whether it is made although everything else was stopped.
        waits: Whether its answer waits for bulky calls: it takes no connection from those.
        not_before_s: When it may be tried again.
        failing_since_s: When it first failed; None if it did not.
        tries: How often it was answered with "later".
        answer: What was answered.
        error: What it ended with otherwise.
        trouble: What it failed of last, and may yet end with.
        taken_s: Since when it is on its way; None while it waits.
        on: The path on which it is.
        doubled: Whether it was given to another path as well.
        signs: How often the media server said that it is at work on it.
    """

    request: Request
    began_s: float
    bulky: bool = False
    last: bool = False
    waits: bool = False
    not_before_s: float = 0.0
    failing_since_s: float | None = None
    tries: int = 0
    answer: Response | None = None
    error: HoldfastError | None = None
    trouble: HoldfastError | None = None
    taken_s: float | None = None
    on: PathState | None = None
    doubled: bool = False
    signs: int = 0

    @property
    def over(self) -> bool:
        """Whether it ended."""
        return self.answer is not None or self.error is not None

    def result(self) -> bytes:
        """What was answered; raises what it ended with otherwise."""
        if self.answer is None:
            raise self.error or InternalError("a request has neither an answer nor an error")
        return self.answer.body
