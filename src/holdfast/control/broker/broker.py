"""Grant queued jobs all that they need, or nothing.

Must not ask a clock, nor remember anything beyond this process: whoever restarts submits what is
queued and adopts what runs. Deterministic: the same calls give the same grants.

**Order.** A job's place is when it was queued, moved forward by `AGEING` for each point of its
priority. All jobs age alike, so places never change, and a job of any priority is overtaken only
by what is queued within 100 x `AGEING` of it. After that it is *aged*: nobody who comes later
can stand ahead of it.

**Going past.** A job that can't have all it needs is gone past by those behind it that can. So
that a large job is not gone past for ever, things are kept for aged jobs: in the order of
`Kind`, what it can have now, and the first that it can't. What is in use comes back as jobs end;
what is kept goes only to so many others as leave it room. Precious things come last in that
order: a slot of a storage unit does not stand idle for a job whose client is still busy.

Invariants: a grant never takes a resource over its limit; a job is queued, or granted, or
unknown; the first aged job that can be had at all begins when what runs ahead of it has ended.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from holdfast.base.clock import to_ns
from holdfast.base.errors import InternalError, Invalid
from holdfast.control.broker.account import Account
from holdfast.control.broker.needs import PRIORITIES, vector
from holdfast.control.broker.words import Wait, explain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from holdfast.base.ids import JobId
    from holdfast.control.broker.account import Place
    from holdfast.control.broker.needs import Need, Request, Resource

AGEING = timedelta(minutes=1)
"""Waiting so long is worth as much as a point of priority."""


@dataclass(slots=True, eq=False)
class _Bucket:
    """Queued jobs that need so much of one resource, the one they could not have when looked at.

    Each queued job is in one bucket of its needs. A bucket whose resource has no room is skipped
    whole. Newcomers are in a bucket without a resource.
    """

    account: Account | None
    amount: int
    places: list[Place]

    def is_of_use(self, at: int, aged_until: int) -> bool:
        """Whether the job at an index, or one behind it, can begin or have something kept."""
        if self.account is None or self.account.has_room(self.amount):
            return True
        return self.places[at][0] <= aged_until and self.account.can_keep(self.amount)


@dataclass(slots=True, eq=False)
class _Queued:
    request: Request
    place: Place
    needs: tuple[tuple[Account, int], ...]
    bucket: _Bucket


class Broker:
    """Who may begin. Not thread-safe; cheap to make anew.

    A round costs what it grants and keeps, and a look at each bucket: not at each job.
    """

    def __init__(self, ageing: timedelta = AGEING) -> None:
        """Begin with no jobs and no limits.

        Args:
            ageing: How long a wait is worth a point of priority; positive.

        Raises:
            Invalid: Jobs would not age.
        """
        if ageing <= timedelta():
            raise Invalid(f"jobs must age, and not by {ageing} a point of priority")
        self._ageing_ns = ageing // timedelta(microseconds=1) * 1000
        self._accounts: dict[Resource, Account] = {}
        self._queued: dict[JobId, _Queued] = {}
        self._granted: dict[JobId, list[tuple[Account, bool]]] = {}
        self._newcomers = _Bucket(None, 0, [])
        self._buckets: dict[tuple[Resource, int], _Bucket] = {}

    # -- what is there --------------------------------------------------------------------

    @property
    def queued(self) -> list[JobId]:
        """Jobs that wait, in their order."""
        return [one.place[1] for one in self._in_order()]

    @property
    def granted(self) -> list[JobId]:
        """Jobs that have what they need, in the order in which they got it."""
        return list(self._granted)

    def used(self, resource: Resource) -> int:
        """How much of a resource is in use."""
        account = self._accounts.get(resource)
        return 0 if account is None else account.used

    def limit(self, resource: Resource) -> int | None:
        """How much of a resource there is; None for no limit."""
        account = self._accounts.get(resource)
        return None if account is None else account.limit

    # -- what changes ---------------------------------------------------------------------

    def set_limit(self, resource: Resource, limit: int | None, why: str | None = None) -> None:
        """Say how much of a resource there is; of what nothing is said, there is no limit.

        Jobs that have more already keep it to their end.

        Args:
            resource: Which.
            limit: How much; 0 lets no new job begin, None sets no limit.
            why: What is said of a limit of 0 beside what a job waits for, in words that go on
                after it.

        Raises:
            Invalid: The limit is negative.
        """
        if limit is not None and limit < 0:
            raise Invalid(f"{resource} can't have {limit} {resource.kind.units}", "say 0 or more")
        account = self._account(resource)
        account.limit, account.why = limit, why

    def submit(self, request: Request) -> None:
        """Queue a job. One that is queued already has its request replaced.

        Raises:
            InternalError: It was granted what it needs, and not released.
        """
        job = request.job
        if job in self._granted:
            raise InternalError(f"job {job} was granted what it needs already")
        known = self._queued.get(job)
        if known is not None:
            if known.request == request:
                return
            self.withdraw(job)
        rank = to_ns(request.queued_at) - request.priority * self._ageing_ns
        place = (rank, job)
        needs = tuple((self._account(one.resource), one.amount) for one in request.needs)
        self._queued[job] = _Queued(request, place, needs, self._newcomers)
        insort(self._newcomers.places, place)

    def withdraw(self, job: JobId) -> bool:
        """Forget a queued job; False if it is not queued (it may be granted: see `release`)."""
        known = self._queued.pop(job, None)
        if known is None:
            return False
        self._leave_bucket(known)
        return True

    def adopt(self, job: JobId, needs: Iterable[Need]) -> None:
        """Count in a job that runs already, limit or no limit.

        Raises:
            InternalError: It was granted what it needs already.
        """
        if job in self._granted:
            raise InternalError(f"job {job} was granted what it needs already")
        self.withdraw(job)
        held = []
        for need in vector(needs):
            account = self._account(need.resource)
            account.take(job, need.amount, past=False)
            held.append((account, False))
        self._granted[job] = held

    def release(self, job: JobId) -> bool:
        """Take back what a job has; False if it has nothing (it may be queued)."""
        held = self._granted.pop(job, None)
        if held is None:
            return False
        for account, past in held:
            account.give_back(job, past=past)
        return True

    def round(self, now: datetime) -> list[JobId]:
        """Grant what can be granted.

        Args:
            now: The moment, aware; it decides only who has aged.

        Returns:
            Jobs that have all they need from now on, in the order in which they got it. Each
            keeps it until `release`.
        """
        aged_until = to_ns(now) - PRIORITIES[-1] * self._ageing_ns
        for account in self._accounts.values():
            if account.keepers:
                account.keep_nothing()
        granted: list[JobId] = []
        moved: list[tuple[_Queued, Account, int]] = []
        for one, blocked in self._looked_at(aged_until):
            if blocked is None:
                self._grant(one)
                granted.append(one.place[1])
                continue
            aged = one.place[0] <= aged_until
            account, amount = _keep(one, blocked) if aged else blocked
            if one.bucket.account is not account:
                moved.append((one, account, amount))
        for job in granted:
            self.withdraw(job)
        for one, account, amount in moved:
            self._move(one, account, amount)
        return granted

    # -- why ------------------------------------------------------------------------------

    def waits(self, job: JobId) -> Wait | None:
        """Say what a job waits for, as of the last round and all that was released since.

        Returns:
            None if it is not queued.
        """
        known = self._queued.get(job)
        return None if known is None else explain(known.needs, known.place)

    def waiting(self) -> Iterator[tuple[JobId, Wait]]:
        """Every queued job, in its order, and what it waits for."""
        return ((one.place[1], explain(one.needs, one.place)) for one in self._in_order())

    # -- inside ---------------------------------------------------------------------------

    def _looked_at(self, aged_until: int) -> Iterator[tuple[_Queued, tuple[Account, int] | None]]:
        """Jobs for which this round may do something, in their order, and what blocks each.

        Room only shrinks while a round goes on, so a bucket that is of no use stays so.
        """
        buckets = [self._newcomers, *self._buckets.values()]
        heap = [
            (bucket.places[0], 0, bucket)
            for bucket in buckets
            if bucket.places and bucket.is_of_use(0, aged_until)
        ]
        heapq.heapify(heap)
        while heap:
            place, at, bucket = heap[0]
            if not bucket.is_of_use(at, aged_until):
                heapq.heappop(heap)
                continue
            following = at + 1
            if following < len(bucket.places):
                heapq.heapreplace(heap, (bucket.places[following], following, bucket))
            else:
                heapq.heappop(heap)
            one = self._queued[place[1]]
            yield one, next((need for need in one.needs if not need[0].has_room(need[1])), None)

    def _grant(self, one: _Queued) -> None:
        job = one.place[1]
        held = []
        for account, amount in one.needs:
            past = account.kept > 0
            account.take(job, amount, past=past)
            held.append((account, past))
        self._granted[job] = held

    def _move(self, one: _Queued, account: Account, amount: int) -> None:
        self._leave_bucket(one)
        key = (account.resource, amount)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(account, amount, [])
        insort(bucket.places, one.place)
        one.bucket = bucket

    def _leave_bucket(self, one: _Queued) -> None:
        bucket = one.bucket
        del bucket.places[bisect_left(bucket.places, one.place)]
        if not bucket.places and bucket.account is not None:
            del self._buckets[bucket.account.resource, bucket.amount]

    def _account(self, resource: Resource) -> Account:
        account = self._accounts.get(resource)
        if account is None:
            account = self._accounts[resource] = Account(resource)
        return account

    def _in_order(self) -> list[_Queued]:
        return sorted(self._queued.values(), key=lambda one: one.place)


def _keep(one: _Queued, blocked: tuple[Account, int]) -> tuple[Account, int]:
    """Keep things for an aged job up to what blocks it; hand back what it waits for."""
    for account, amount in one.needs:
        if not account.can_keep(amount):
            # Others are to have this before it: whatever else it needs must not stand idle.
            return account, amount
    for account, amount in one.needs:
        account.keep(one.place, amount)
        if account is blocked[0]:
            break
    return blocked
