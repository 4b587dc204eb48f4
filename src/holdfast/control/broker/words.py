"""What a queued job waits for, in words.

Must not change an account.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.control.broker.needs import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.base.ids import JobId
    from holdfast.control.broker.account import Account, Place
    from holdfast.control.broker.needs import Resource

_NAMED = 5
"""So many jobs are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a job has not begun.

    Attributes:
        on: The first resource that it can't have now; None if its turn just has not come.
        words: One sentence for a person, with names and numbers.
    """

    on: Resource | None
    words: str


NEXT = Wait(None, "nothing: it is looked at next")


def explain(needs: Iterable[tuple[Account, int]], place: Place) -> Wait:
    """Say what the job at a place waits for.

    Args:
        needs: The accounts of what it needs, and how much, in the order of taking.
        place: Where it stands.
    """
    known = tuple(needs)
    for account, amount in known:
        if account.limit is not None and amount > account.limit:
            return Wait(account.resource, _never(account, amount))
    for account, amount in known:
        if account.limit is None:
            continue
        if account.used + amount > account.limit:
            return Wait(account.resource, _in_use(account, amount))
        kept = account.kept_ahead_of(place)
        if kept and account.past + kept + amount > account.limit:
            return Wait(account.resource, _kept(account, place))
    return NEXT


def _never(account: Account, amount: int) -> str:
    if account.resource.kind is Kind.MACHINE_SESSION:
        if account.why is not None:
            return f"{account.resource} to join anew, {account.why}"
        return f"{account.resource} to connect"
    units = account.resource.kind.units
    if account.limit == 0:
        return f"{account.resource} takes no jobs: its limit is 0 {units}"
    return f"{account.resource} has {account.limit} {units} in all, and {amount} are needed"


def _in_use(account: Account, amount: int) -> str:
    needed = f" and {amount} are needed" if amount > 1 else ""
    kind = account.resource.kind
    return (
        f"{account.resource} has {account.used} of {account.limit} {kind.units} {kind.taken}"
        f"{needed}: {_jobs(account.holders)}"
    )


def _kept(account: Account, place: Place) -> str:
    ahead = [job for (rank, job), _ in account.keepers if (rank, job) < place]
    verb = "has" if len(ahead) == 1 else "have"
    units = account.resource.kind.units
    return f"{account.resource} keeps {units} free for {_jobs(ahead)}, which {verb} waited longer"


def _jobs(jobs: Iterable[JobId]) -> str:
    ordered = sorted(jobs)
    named = ", ".join(str(job) for job in ordered[:_NAMED])
    if len(ordered) == 1:
        return f"job {named}"
    more = len(ordered) - _NAMED
    return f"jobs {named} and {more} more" if more > 0 else f"jobs {named}"
