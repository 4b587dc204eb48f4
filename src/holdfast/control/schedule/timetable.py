"""What is due, of all policies, at a moment.

Must not ask a clock or a database: it is fed with history, and the caller remembers what it hands
out. Invariants: an occurrence is handed out once, however often and with whatever clock one
asks, and none is lost; of a policy's schedules one backup of a source starts at a time, of the
greatest kind; it looks only at sources of which something may have changed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from holdfast.control.schedule.due import Due, History, Satisfied
from holdfast.control.schedule.occurrences import usual_distance
from holdfast.control.schedule.patterns import Patterns
from holdfast.control.schedule.standing import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import tzinfo

    from holdfast.base.ids import PolicyName, SourceName
    from holdfast.control.schedule.due import Entry
    from holdfast.control.schedule.openings import Span
    from holdfast.control.schedule.schedule import BackupKind, Schedule
    from holdfast.control.schedule.standing import Pattern, Standing

SHARES = 256
"""Sources that are spread start at so many different moments, so that many stand alike."""

_FIRST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Line:
    """One schedule of a policy."""

    schedule: str
    kind: BackupKind
    pattern: Pattern


@dataclass(slots=True, eq=False)
class _Place:
    """One source of a policy.

    Attributes:
        lines: The schedules, greatest first.
        states: What was handled of each.
        share: Where it starts in the time over which sources are spread.
        wake: When it is to be looked at; None for never.
        is_occupied: Whether a backup of it is under way.
        is_due_a_look: Whether its moment came meanwhile.
    """

    policy: PolicyName
    source: SourceName
    lines: Sequence[_Line]
    states: list[State]
    share: float
    wake: datetime | None = None
    is_occupied: bool = False
    is_due_a_look: bool = False


class Timetable:
    """All active policies and what was handled of them. Not thread-safe."""

    def __init__(
        self, site_zone: tzinfo, entries: Iterable[Entry] = (), histories: Iterable[History] = ()
    ) -> None:
        """Make a timetable.

        Args:
            site_zone: The zone of schedules that name none.
            entries: The active policies.
            histories: What was handled of them, in any order; others are passed over.
        """
        self._site_zone = site_zone
        self._patterns = Patterns(site_zone)
        self._places: dict[PolicyName, dict[SourceName, _Place]] = {}
        self._moments: list[datetime] = []
        self._at: dict[datetime, dict[_Place, None]] = {}
        of_policy: dict[PolicyName, list[History]] = defaultdict(list)
        for one in histories:
            of_policy[one.policy].append(one)
        for entry in entries:
            self.put(entry, of_policy[entry.policy])

    def put(self, entry: Entry, histories: Iterable[History] = ()) -> None:
        """Add a policy, or replace it; what this timetable handled of it stays handled.

        Args:
            entry: The policy as it is now.
            histories: What was handled of it.
        """
        old = self._places.get(entry.policy, {})
        self.drop(entry.policy)
        known = {(one.source, one.schedule): one for one in histories}
        schedules = sorted(entry.schedules, key=lambda one: _rank(one, entry), reverse=True)
        lines = tuple(_Line(one.name, one.kind, self._patterns.of(one)) for one in schedules)
        places = self._places[entry.policy] = {}
        for source in entry.sources:
            before = old.get(source)
            states = [
                _state(entry, known.get((source, line.schedule)), _state_of(before, line.schedule))
                for line in lines
            ]
            place = _Place(entry.policy, source, lines, states, share_of(source))
            place.is_occupied = before is not None and before.is_occupied
            places[source] = place
            self._visit(place, _FIRST, [])

    def drop(self, policy: PolicyName) -> None:
        """Forget a policy and what was handled of it; nothing of it is due any more."""
        for place in self._places.pop(policy, {}).values():
            self._wake_at(place, None)

    def due(self, now: datetime, most: int | None = None) -> list[Due]:
        """Hand out what has become due or was missed until now.

        What is handed out counts as handled, and as started now, so it has to be recorded before
        anything else happens. If that fails, drop the policies and put them again with the
        histories that are recorded.

        Args:
            now: The moment, aware. One before an earlier one makes nothing due again.
            most: Stop after about so many; the others come with the next call.
        """
        now = now.astimezone(UTC)
        found: list[Due] = []
        while self._moments and self._moments[0] <= now:
            moment = self._moments[0]
            waiting = self._at[moment]
            while waiting:
                if most is not None and len(found) >= most:
                    return found
                place, _ = waiting.popitem()
                place.wake = None
                if place.is_occupied:
                    place.is_due_a_look = True
                else:
                    self._visit(place, now, found)
            del self._at[moment]
            heappop(self._moments)
        return found

    def next_moment(self) -> datetime | None:
        """When to ask again if nothing else happens; None if nothing will ever be due.

        It may be past: then there is something to look at now.
        """
        return self._moments[0] if self._moments else None

    def started(self, policy: PolicyName, schedule: str, source: SourceName, at: datetime) -> None:
        """Tell when a backup that was handed out started: distances count from then."""
        place = self._places.get(policy, {}).get(source)
        state = _state_of(place, schedule)
        if state is not None:
            state.start(at.astimezone(UTC))

    def occupy(self, policy: PolicyName, source: SourceName) -> None:
        """Hand out nothing more of a source until it is released: a backup of it is under way."""
        place = self._places.get(policy, {}).get(source)
        if place is not None:
            place.is_occupied = True

    def occupied(self) -> set[tuple[PolicyName, SourceName]]:
        """What nothing is handed out of until it is released."""
        return {
            (policy, source)
            for policy, places in self._places.items()
            for source, place in places.items()
            if place.is_occupied
        }

    def release(self, policy: PolicyName, source: SourceName) -> None:
        """Hand out again what is due of a source, and what became due meanwhile."""
        place = self._places.get(policy, {}).get(source)
        if place is not None and place.is_occupied:
            place.is_occupied = False
            # Else nothing of it is due before the moment that it waits for anyway: that a backup
            # started later than it was handed out makes nothing due earlier.
            if place.is_due_a_look:
                self._wake_at(place, _FIRST)

    def next_chance(self, due: Due, now: datetime) -> Span | None:
        """When a backup may start that was handed out and could not until its window closed.

        Returns:
            The window that is open, from where the source starts in it by its stagger, or the
            next one; None if the backup is missed, or its policy gone.
        """
        place = self._places.get(due.policy, {}).get(due.source)
        for line in () if place is None else place.lines:
            if line.schedule == due.schedule and line.pattern.run_missed:
                return line.pattern.chance(now.astimezone(UTC), share_of(due.source))
        return None

    def histories(self) -> Iterator[History]:
        """What was handled, of each schedule of each source."""
        for places in self._places.values():
            for place in places.values():
                for line, state in zip(place.lines, place.states, strict=True):
                    yield History(
                        place.policy,
                        line.schedule,
                        place.source,
                        state.handled,
                        state.last_start,
                        state.since,
                    )

    def copy(self) -> Timetable:
        """Another one that goes its own way from here."""
        twin = Timetable(self._site_zone)
        twin._patterns = self._patterns
        for policy, places in self._places.items():
            twin._places[policy] = {
                source: replace(place, states=[one.copy() for one in place.states])
                for source, place in places.items()
            }
            for place in twin._places[policy].values():
                wake, place.wake = place.wake, None
                twin._wake_at(place, wake)
        return twin

    def _visit(self, place: _Place, now: datetime, found: list[Due]) -> None:
        """Hand out what a source has, and see when to look at it again."""
        place.is_due_a_look = False
        share, lines, states = place.share, place.lines, place.states
        standings = [
            line.pattern.look(state, now, share) for line, state in zip(lines, states, strict=True)
        ]
        # Most often nothing more is to be handed out, which is seen at a glance.
        while _is_something_up(standings, now):
            changed = self._step(place, standings, now, found)
            if not changed:
                break
            for number in changed:
                standings[number] = lines[number].pattern.look(states[number], now, share)
        first: datetime | None = None
        for one in standings:
            wake = one.wake
            if wake is not None and wake > now and (first is None or wake < first):
                first = wake
        self._wake_at(place, first)

    def _step(
        self, place: _Place, standings: Sequence[Standing], now: datetime, found: list[Due]
    ) -> list[int]:
        """Hand out some of what a source has; tell of which lines something was handled."""
        changed: list[int] = []
        # A greater one that starts soon is waited for, by lesser ones that would not be due again
        # before: it does for them.
        held_until: datetime | None = None
        for number, one in enumerate(standings):
            ready = one.ready
            if held_until is not None and (
                ready is None or one.again is None or held_until <= one.again
            ):
                continue
            if one.missed_at is not None:
                self._take_missed(place, number, one, found)
                changed.append(number)
            if ready is None:
                continue
            if ready <= now:
                changed.append(number)
                changed += self._start(place, number, standings, now, found)
                break
            held_until = ready if held_until is None else min(held_until, ready)
        return changed

    def _start(
        self,
        place: _Place,
        best: int,
        standings: Sequence[Standing],
        now: datetime,
        found: list[Due],
    ) -> list[int]:
        """Hand one out, and settle the lesser ones that it does for; tell which."""
        winner = standings[best]
        if winner.due_at is None or winner.since is None:
            raise AssertionError(winner)
        satisfied, changed = [], []
        for number in range(best + 1, len(standings)):
            latest = standings[number].latest
            if latest is None:
                continue
            changed.append(number)
            line, state = place.lines[number], place.states[number]
            if not line.pattern.run_missed:
                # What was over before the greater one could start is missed all the same.
                before = line.pattern.look(state, winner.since, place.share)
                if before.missed_at is not None:
                    self._take_missed(place, number, before, found)
            if latest > state.floor:
                satisfied.append(Satisfied(line.schedule, latest))
                state.handle(latest, now)
        place.states[best].handle(winner.due_at, now)
        line = place.lines[best]
        found.append(
            Due(
                place.policy,
                line.schedule,
                place.source,
                line.kind,
                winner.due_at,
                winner.closes,
                missed=False,
                collapsed=winner.collapsed,
                satisfies=tuple(satisfied),
            )
        )
        return changed

    def _take_missed(
        self, place: _Place, number: int, standing: Standing, found: list[Due]
    ) -> None:
        if standing.missed_at is None:
            return
        line = place.lines[number]
        place.states[number].handle(standing.missed_at)
        found.append(
            Due(
                policy=place.policy,
                schedule=line.schedule,
                source=place.source,
                kind=line.kind,
                due_at=standing.missed_at,
                missed=True,
                collapsed=standing.missed - 1,
            )
        )

    def _wake_at(self, place: _Place, moment: datetime | None) -> None:
        """Have a source looked at at a moment, and no more at another one."""
        if place.wake is not None:
            self._at[place.wake].pop(place, None)
        place.wake = moment
        if moment is None:
            return
        waiting = self._at.get(moment)
        if waiting is None:
            waiting = self._at[moment] = {}
            heappush(self._moments, moment)
        waiting[place] = None


def share_of(source: SourceName) -> float:
    """Where in the time over which sources are spread one starts: from 0 to just under 1.

    Always the same for the same name, on every machine.
    """
    digest = hashlib.blake2b(source.encode("utf-8", "backslashreplace"), digest_size=4).digest()
    return int.from_bytes(digest) % SHARES / SHARES


def _is_something_up(standings: Iterable[Standing], now: datetime) -> bool:
    for one in standings:
        if one.missed_at is not None or (one.ready is not None and one.ready <= now):
            return True
    return False


def _rank(schedule: Schedule, entry: Entry) -> tuple[object, ...]:
    """Which of several schedules that are due at once starts: the one for which this is highest.

    Of one kind it is the rarer one, whose images are meant to be kept for longer.
    """
    distance = schedule.every
    if schedule.calendar is not None:
        distance = usual_distance(schedule.calendar)
    priority = entry.priority if schedule.priority is None else schedule.priority
    return schedule.kind.greatness, distance, priority


def _state_of(place: _Place | None, schedule: str) -> State | None:
    if place is None:
        return None
    for line, state in zip(place.lines, place.states, strict=True):
        if line.schedule == schedule:
            return state
    return None


def _state(entry: Entry, history: History | None, before: State | None) -> State:
    """What was handled: of what is recorded and what this timetable knows, the later."""
    since = entry.since if before is None else before.since
    if history is not None and history.since is not None:
        since = history.since
    state = State(since.astimezone(UTC))
    if history is not None:
        _add(state, history.handled_until, history.last_start)
    if before is not None:
        _add(state, before.handled, before.last_start)
    return state


def _add(state: State, handled: datetime | None, last_start: datetime | None) -> None:
    if handled is not None:
        state.handle(handled.astimezone(UTC))
    if last_start is not None:
        state.start(last_start.astimezone(UTC))
