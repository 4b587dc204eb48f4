"""How much of one resource there is, who has it, and for whom it is kept.

Must not decide who comes first: see broker. Invariants: what is used is what the holders have;
`used` exceeds the limit only where the limit was lowered, or jobs were adopted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.base.ids import JobId
    from holdfast.control.broker.needs import Resource

Place = tuple[int, "JobId"]
"""Where a job stands among all that wait: lower goes first."""


class Account:
    """The state of one resource. Not thread-safe.

    Attributes:
        resource: Which.
        limit: How much there is; None for no limit.
        why: Why there is nothing of it, where that is known.
        used: How much is in use.
        past: How much of that went to jobs that came past one for which it is kept.
        kept: How much is kept, in the round that goes on, for jobs ahead of whoever asks.
        holders: Which jobs have how much.
        keepers: For which jobs how much is kept, in their order.
    """

    __slots__ = ("holders", "keepers", "kept", "limit", "past", "resource", "used", "why")

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.limit: int | None = None
        self.why: str | None = None
        self.used = 0
        self.past = 0
        self.kept = 0
        self.holders: dict[JobId, int] = {}
        self.keepers: list[tuple[Place, int]] = []

    def has_room(self, amount: int) -> bool:
        """Whether so much may be taken now, by a job behind those for whom something is kept."""
        if self.limit is None:
            return True
        if self.used + amount > self.limit:
            return False
        # Those who were there before the keepers come to an end; only who comes past is bounded.
        return not self.kept or self.past + self.kept + amount <= self.limit

    def can_keep(self, amount: int) -> bool:
        """Whether so much can be kept beside all that is kept already."""
        return self.limit is None or self.kept + amount <= self.limit

    def keep(self, place: Place, amount: int) -> None:
        """Keep so much for the job at a place, against all behind it."""
        self.kept += amount
        self.keepers.append((place, amount))

    def keep_nothing(self) -> None:
        """Begin a new round."""
        self.kept = 0
        self.keepers.clear()

    def kept_ahead_of(self, place: Place) -> int:
        """How much is kept for jobs ahead of a place."""
        return sum(amount for keeper, amount in self.keepers if keeper < place)

    def take(self, job: JobId, amount: int, *, past: bool) -> None:
        """Give so much to a job."""
        self.used += amount
        self.holders[job] = amount
        if past:
            self.past += amount

    def give_back(self, job: JobId, *, past: bool) -> None:
        """Take back what a job has."""
        amount = self.holders.pop(job)
        self.used -= amount
        if past:
            self.past -= amount
