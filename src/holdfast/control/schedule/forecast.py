"""What would start when over the coming days, and what it would queue for.

Must not grant anything: it only plays what the timetable hands out against a number of slots, as
if each backup took as long as was predicted. Invariants: no slot is given twice at a time; each
start lies in a window; the timetable that it is given stays as it is, unless that is let go.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from holdfast.base.ids import PolicyName
    from holdfast.control.schedule.due import Due
    from holdfast.control.schedule.timetable import Timetable


@dataclass(frozen=True, slots=True)
class Demand:
    """What a backup is expected to take.

    Attributes:
        duration: From its start to its end.
        needs: One slot of each of these, such as ``storage unit 'disk01'``.
        priority: Of those that wait, the one with the highest goes first.
    """

    duration: timedelta
    needs: tuple[str, ...] = ()
    priority: int = 50


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of an occurrence.

    Attributes:
        due: What the timetable would hand out.
        queued_at: When.
        starts_at: When it would start; None if it would not, until the end of what was asked.
        ends_at: When it would end.
        waits_for: Of what it needs, what it would find in use.
        missed: Whether its window would close before it could start.
    """

    due: Due
    queued_at: datetime
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    waits_for: tuple[str, ...] = ()
    missed: bool = False


def forecast(
    timetable: Timetable,
    since: datetime,
    until: datetime,
    demand: Callable[[Due], Demand],
    slots: Mapping[str, int],
    *,
    only: PolicyName | None = None,
    keeps: bool = True,
) -> Iterator[Expected]:
    """Play the timetable, from one moment to another.

    Args:
        timetable: As it stands at the first moment.
        since: From when on, aware.
        until: Until when.
        demand: Says of each backup what it will take.
        slots: How many there are of each need; one that is not named is never short.
        only: Tell of this policy alone; the others are in its way all the same.
        keeps: Whether the timetable is to stay as it is; else it is played itself, and nobody's
            any more.

    Yields:
        Occurrences, as it turns out what becomes of them; those that wait at the end come last.
    """
    played = timetable.copy() if keeps else timetable
    return _Play(played, demand, slots, only).run(since, until)


@dataclass(frozen=True, slots=True)
class _Needs:
    """What backups need of what can be short.

    Attributes:
        held: Each as often as they take one of it.
        counts: The same, counted.
    """

    held: tuple[str, ...]
    counts: tuple[tuple[str, int], ...]


@dataclass(slots=True, eq=False)
class _Job:
    """A backup that was handed out.

    Attributes:
        turn: Counts how often it was queued; what refers to an earlier turn is void.
    """

    due: Due
    needs: _Needs
    duration: timedelta
    priority: int
    queued_at: datetime
    number: int
    turn: int = 0
    waits_for: tuple[str, ...] = ()


_Turn = tuple[int, int, int, _Job]
"""What is queued: the highest priority first, then what came first; which turn of which job."""


class _Events:
    """What happens when: of one moment in the order in which it was told.

    Many happen at the same moments, so that each moment is put in its place once.
    """

    def __init__(self) -> None:
        self._moments: list[datetime] = []
        self._at: dict[datetime, deque[partial[None]]] = {}

    @property
    def next_moment(self) -> datetime | None:
        return self._moments[0] if self._moments else None

    def add(self, moment: datetime, event: partial[None]) -> None:
        there = self._at.get(moment)
        if there is None:
            there = self._at[moment] = deque()
            heappush(self._moments, moment)
        there.append(event)

    def happen(self, now: datetime) -> None:
        """Have happen what does until now, and what comes of that."""
        while self._moments and self._moments[0] <= now:
            moment = self._moments[0]
            there = self._at[moment]
            event = there.popleft()
            if not there:
                del self._at[heappop(self._moments)]
            event(now)


class _Play:
    """The state of the simulation."""

    def __init__(
        self,
        timetable: Timetable,
        demand: Callable[[Due], Demand],
        slots: Mapping[str, int],
        only: PolicyName | None,
    ) -> None:
        self._timetable = timetable
        self._only = only
        self._demand = demand
        self._free = dict(slots)
        self._needs: dict[tuple[str, ...], _Needs] = {}
        self._numbers = count()
        self._events = _Events()
        self._queue: list[_Turn] = []
        self._short: dict[str, list[_Turn]] = defaultdict(list)
        self._freed: set[str] = set()
        self._waiting: dict[int, _Job] = {}
        self._told: list[Expected] = []

    def run(self, since: datetime, until: datetime) -> Iterator[Expected]:
        now = since
        while True:
            following = self._timetable.next_moment()
            event = self._events.next_moment
            if event is not None and (following is None or event < following):
                following = event
            if following is None or max(now, following) >= until:
                break
            now = max(now, following)
            self._events.happen(now)
            for due in sorted(self._timetable.due(now), key=_order):
                self._take(due, now)
            if self._queue or self._freed:
                self._grant(now)
            if self._told:
                yield from self._told
                self._told.clear()
        for job in self._waiting.values():
            if self._is_asked_for(job.due):
                yield Expected(job.due, job.queued_at, waits_for=job.waits_for)

    def _is_asked_for(self, due: Due) -> bool:
        return self._only is None or due.policy == self._only

    def _take(self, due: Due, now: datetime) -> None:
        if due.missed:
            if self._is_asked_for(due):
                self._told.append(Expected(due, now, missed=True))
            return
        demand = self._demand(due)
        needs = self._needs.get(demand.needs)
        if needs is None:
            needs = self._needs[demand.needs] = self._counted(demand.needs)
        number = next(self._numbers)
        job = _Job(due, needs, demand.duration, demand.priority, now, number)
        self._waiting[number] = job
        self._timetable.occupy(due.policy, due.source)
        self._enqueue(job, due.closes_at)

    def _counted(self, needs: Sequence[str]) -> _Needs:
        held = tuple(need for need in needs if need in self._free)
        return _Needs(held, tuple(Counter(held).items()))

    def _enqueue(self, job: _Job, closes_at: datetime | None) -> None:
        heappush(self._queue, (-job.priority, job.number, job.turn, job))
        if closes_at is not None:
            self._events.add(closes_at, partial(self._close, job, job.turn))

    def _reopen(self, job: _Job, closes_at: datetime | None, _now: datetime) -> None:
        self._enqueue(job, closes_at)

    def _close(self, job: _Job, turn: int, now: datetime) -> None:
        """A window closes: a job that has not started waits for the next one, or is missed."""
        if job.turn != turn:
            return
        job.turn += 1
        span = self._timetable.next_chance(job.due, now)
        if span is not None:
            self._events.add(span.opens, partial(self._reopen, job, span.closes))
            return
        del self._waiting[job.number]
        self._timetable.release(job.due.policy, job.due.source)
        if self._is_asked_for(job.due):
            missed = Expected(job.due, job.queued_at, waits_for=job.waits_for, missed=True)
            self._told.append(missed)

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
        free, needs = self._free, job.needs
        for need, taken in needs.counts:
            if free[need] < taken:
                self._put_back(queued)
                return
        job.turn += 1
        del self._waiting[job.number]
        for need in needs.held:
            free[need] -= 1
        due, ends_at = job.due, now + job.duration
        if now != job.queued_at:
            # Else the timetable took it for started when it handed it out.
            self._timetable.started(due.policy, due.schedule, due.source, now)
        self._events.add(ends_at, partial(self._end, job))
        if self._is_asked_for(due):
            self._told.append(Expected(due, job.queued_at, now, ends_at, job.waits_for))

    def _put_back(self, queued: _Turn) -> None:
        job = queued[3]
        short = [need for need, taken in job.needs.counts if self._free[need] < taken]
        # One that needs several slots is not overtaken by those behind it that need one.
        self._freed.discard(short[0])
        job.waits_for = job.waits_for or tuple(short)
        heappush(self._short[short[0]], queued)

    def _end(self, job: _Job, _now: datetime) -> None:
        held = job.needs.held
        for need in held:
            self._free[need] += 1
        self._freed.update(held)
        self._timetable.release(job.due.policy, job.due.source)


def _order(due: Due) -> tuple[datetime, str, str]:
    """What is due at once queues in an order that is always the same."""
    return due.due_at, due.policy, due.source
