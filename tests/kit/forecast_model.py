"""A slow and simple forecast: one event at a time, and every source that ends is looked at anew."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

from holdfast.control.schedule import Demand, Due, Expected, Timetable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from holdfast.base.ids import PolicyName, SourceName


START = datetime.min.replace(tzinfo=UTC)


class Eager(Timetable):
    """A timetable that looks at a source as soon as a backup of it has ended."""

    def release(self, policy: PolicyName, source: SourceName) -> None:
        place = self._places.get(policy, {}).get(source)
        if place is not None and place.is_occupied:
            place.is_occupied = False
            self._wake_at(place, START)


def slow_forecast(
    timetable: Timetable,
    since: datetime,
    until: datetime,
    demand: Callable[[Due], Demand],
    slots: Mapping[str, int],
) -> Iterator[Expected]:
    """What `forecast` says of a timetable that nobody needs any more."""
    return _Play(timetable, demand, slots).run(since, until)


@dataclass(slots=True, eq=False)
class _Job:
    """A backup that was handed out.

    Attributes:
        turn: Counts how often it was queued; what refers to an earlier turn is void.
    """

    due: Due
    demand: Demand
    queued_at: datetime
    number: int
    turn: int = 0
    waits_for: tuple[str, ...] = ()


_Turn = tuple[int, int, int, _Job]
"""What is queued: the highest priority first, then what came first; which turn of which job."""


class _Play:
    """The state of the simulation."""

    def __init__(
        self, timetable: Timetable, demand: Callable[[Due], Demand], slots: Mapping[str, int]
    ) -> None:
        self._timetable = timetable
        self._demand = demand
        self._free = dict(slots)
        self._numbers = count()
        self._events: list[tuple[datetime, int, Callable[[datetime], None]]] = []
        self._queue: list[_Turn] = []
        self._short: dict[str, list[_Turn]] = defaultdict(list)
        self._freed: set[str] = set()
        self._waiting: dict[int, _Job] = {}
        self._told: list[Expected] = []

    def run(self, since: datetime, until: datetime) -> Iterator[Expected]:
        now = since
        while True:
            following = self._timetable.next_moment()
            if self._events:
                event = self._events[0][0]
                following = event if following is None else min(following, event)
            if following is None or max(now, following) >= until:
                break
            now = max(now, following)
            while self._events and self._events[0][0] <= now:
                heappop(self._events)[2](now)
            for due in sorted(self._timetable.due(now), key=_order):
                self._take(due, now)
            self._grant(now)
            yield from self._told
            self._told.clear()
        for job in self._waiting.values():
            yield Expected(job.due, job.queued_at, waits_for=job.waits_for)

    def _at(self, moment: datetime, happen: Callable[[datetime], None]) -> None:
        heappush(self._events, (moment, next(self._numbers), happen))

    def _take(self, due: Due, now: datetime) -> None:
        if due.missed:
            self._told.append(Expected(due, now, missed=True))
            return
        job = _Job(due, self._demand(due), now, next(self._numbers))
        self._waiting[job.number] = job
        self._timetable.occupy(due.policy, due.source)
        self._enqueue(job, due.closes_at)

    def _enqueue(self, job: _Job, closes_at: datetime | None) -> None:
        heappush(self._queue, (-job.demand.priority, job.number, job.turn, job))
        if closes_at is not None:
            self._at(closes_at, partial(self._close, job, job.turn))

    def _close(self, job: _Job, turn: int, now: datetime) -> None:
        """A window closes: a job that has not started waits for the next one, or is missed."""
        if job.turn != turn:
            return
        job.turn += 1
        span = self._timetable.next_chance(job.due, now)
        if span is not None:
            self._at(span.opens, lambda _: self._enqueue(job, span.closes))
            return
        del self._waiting[job.number]
        self._timetable.release(job.due.policy, job.due.source)
        self._told.append(Expected(job.due, job.queued_at, waits_for=job.waits_for, missed=True))

    def _grant(self, now: datetime) -> None:
        """Start all that finds what it needs, the first in the queue first."""
        while True:
            self._freed = {one for one in self._freed if self._free[one] > 0 and self._short[one]}
            for need in sorted(self._freed):
                # Those behind it come when it has started, or is short of something else.
                heappush(self._queue, heappop(self._short[need]))
            if not self._queue:
                return
            while self._queue:
                self._try(heappop(self._queue), now)

    def _try(self, queued: _Turn, now: datetime) -> None:
        _, _, turn, job = queued
        if job.turn != turn:
            return
        free = self._free
        held = [need for need in job.demand.needs if need in free]
        short = [need for need in dict.fromkeys(held) if free[need] < held.count(need)]
        if short:
            # One that needs several slots is not overtaken by those behind it that need one.
            self._freed.discard(short[0])
            job.waits_for = job.waits_for or tuple(short)
            heappush(self._short[short[0]], queued)
            return
        job.turn += 1
        del self._waiting[job.number]
        for need in held:
            free[need] -= 1
        due, ends_at = job.due, now + job.demand.duration
        self._timetable.started(due.policy, due.schedule, due.source, now)
        self._at(ends_at, partial(self._end, job, held))
        self._told.append(Expected(due, job.queued_at, now, ends_at, job.waits_for))

    def _end(self, job: _Job, held: Sequence[str], _now: datetime) -> None:
        for need in held:
            self._free[need] += 1
        self._freed.update(held)
        self._timetable.release(job.due.policy, job.due.source)


def _order(due: Due) -> tuple[datetime, str, str]:
    """What is due at once queues in an order that is always the same."""
    return due.due_at, due.policy, due.source
