"""What a media server refused on its data path, for the master: gathered, so that it is little.

Must not speak: whoever tells the master asks here what there is to tell. Invariants: of one kind
of refusal (who, from where, with which code, for which job) there is something to tell at once, and
then once a minute, with how often; there are never more than `KINDS` of them; what is one too many
is counted all the same. So a client that is refused without end costs a bounded number of lines.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from holdfast.wire.fields import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS: Final = 128
AGAIN_S: Final = 60.0
AT_ONCE: Final = 32
"""So many are told at a time."""

_LONGEST: Final = 300


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was refused.

    Attributes:
        peer: The machine that its certificate names, also where that counts no more; empty if it
            showed none.
        address: Where it came from; empty if that is not known any more.
        code: The error's stable code.
        message: The same in words.
        job: Which job the token that it showed is for; None if it showed none of the master.
    """

    peer: str
    address: str
    code: str
    message: str
    job: int | None = None

    @property
    def kind(self) -> tuple[object, ...]:
        """What refusals that are told as one have in common."""
        return self.peer, self.address, self.code, self.job


@dataclass(frozen=True, slots=True)
class Told:
    """A refusal as the master hears of it.

    Attributes:
        refusal: The last of its kind.
        count: How many there were since the kind was told of before.
    """

    refusal: Refusal
    count: int

    def to_json(self) -> dict[str, Any]:
        """As an object of a message."""
        one = self.refusal
        said = {"peer": one.peer, "address": one.address, "code": one.code, "count": self.count}
        job = {} if one.job is None else {"job": one.job}
        return {**said, **job, "message": one.message[:_LONGEST]}


def refusals_from(order: dict[str, Any]) -> tuple[list[Told], int]:
    """What a media server tells, and of how many more it could not.

    Raises:
        Invalid: It is not understood.
    """
    given = Reader(order, "what a media server refused")
    found = []
    for one in given.records("refused", AT_ONCE):
        job = one.count("job") if one.has("job") else None
        peer, address = one.text("peer")[:_LONGEST], one.text("address")[:_LONGEST]
        code, message = one.text("code")[:_LONGEST], one.text("message")[:_LONGEST]
        found.append(Told(Refusal(peer, address, code, message, job), one.count("count")))
    return found, given.count("more") if given.has("more") else 0


@dataclass(eq=False)
class _Kind:
    last: Refusal
    count: int = 0
    told_s: float | None = None


class Refusals:
    """Those that the master has not heard of. Thread-safe."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """There are none.

        Args:
            now_s: A clock that only goes forward, in seconds.
        """
        self._now_s = now_s
        self._turn = threading.Lock()
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        self._more = 0

    def note(self, refusal: Refusal) -> None:
        """Take one in."""
        with self._turn:
            kind = self._kinds.get(refusal.kind)
            if kind is None:
                if len(self._kinds) >= KINDS and not self._forget():
                    self._more += 1
                    return
                kind = self._kinds[refusal.kind] = _Kind(refusal)
            kind.last = refusal
            kind.count += 1

    def take(self) -> tuple[list[Told], int]:
        """What is to be told now, and of how many more nothing but that is known."""
        now_s = self._now_s()
        with self._turn:
            due = [
                kind
                for kind in self._kinds.values()
                if kind.count and (kind.told_s is None or now_s - kind.told_s >= AGAIN_S)
            ][:AT_ONCE]
            told = [Told(kind.last, kind.count) for kind in due]
            for kind in due:
                kind.count, kind.told_s = 0, now_s
            more, self._more = self._more, 0
        return told, more

    def put_back(self, told: list[Told], more: int) -> None:
        """The master did not hear."""
        with self._turn:
            self._more += more
            for one in told:
                kind = self._kinds.get(one.refusal.kind)
                if kind is None:
                    self._more += one.count
                else:
                    kind.count += one.count
                    kind.told_s = None

    def _forget(self) -> bool:
        """Make room by forgetting a kind of which all was told; whether there is one."""
        for key, kind in self._kinds.items():
            if not kind.count:
                del self._kinds[key]
                return True
        return False
