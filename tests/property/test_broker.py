"""The broker under any sequence of calls: within limits, nobody starves, nobody is lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from holdfast.base.clock import to_ns
from holdfast.base.ids import JobId
from holdfast.control.broker import AGEING, Broker, Kind, Need, Request, Resource
from holdfast.control.broker.needs import PRIORITIES, vector

START = datetime(2026, 3, 1, tzinfo=UTC)
AGEING_NS = AGEING // timedelta(microseconds=1) * 1000
RESOURCES = [Resource(kind, name) for kind in Kind for name in ("a", "b")]
NEEDS = st.lists(
    st.builds(Need, st.sampled_from(RESOURCES), st.sampled_from([1, 1, 1, 2, 3])), max_size=4
)
LIMITS = st.none() | st.integers(0, 4)
ALL_LIMITS = st.lists(LIMITS, min_size=len(RESOURCES), max_size=len(RESOURCES))
PRIORITY = st.sampled_from([0, 1, 49, 50, 50, 51, 99, 100])
WAITS = st.sampled_from([0, 1, 30, 60, 101, 300]).map(lambda steps: AGEING * steps)


@dataclass
class Slow:
    """The broker as it is described: each round looks at every job in its order."""

    limits: dict[Resource, int | None] = field(default_factory=dict)
    queued: dict[int, Request] = field(default_factory=dict)
    granted: dict[int, dict[Resource, tuple[int, bool]]] = field(default_factory=dict)

    def used(self, resource: Resource, *, past: bool = False) -> int:
        return sum(
            amount
            for held in self.granted.values()
            for one, (amount, came_past) in held.items()
            if one == resource and (came_past or not past)
        )

    def round(self, now: datetime) -> list[int]:
        kept: Counter[Resource] = Counter()
        begun = []
        in_order = sorted(
            (to_ns(one.queued_at) - one.priority * AGEING_NS, job)
            for job, one in self.queued.items()
        )
        for rank, job in in_order:
            needs = self.queued[job].needs
            blocked = next((one for one in needs if not self._room(one, kept)), None)
            if blocked is None:
                self.granted[job] = {
                    one.resource: (one.amount, kept[one.resource] > 0) for one in needs
                }
                del self.queued[job]
                begun.append(job)
            elif rank <= to_ns(now) - PRIORITIES[-1] * AGEING_NS and all(
                self.limits.get(one.resource) is None
                or kept[one.resource] + one.amount <= (self.limits[one.resource] or 0)
                for one in needs
            ):
                for one in needs[: needs.index(blocked) + 1]:
                    kept[one.resource] += one.amount
        return begun

    def _room(self, need: Need, kept: Counter[Resource]) -> bool:
        limit = self.limits.get(need.resource)
        if limit is None:
            return True
        if self.used(need.resource) + need.amount > limit:
            return False
        keeping = kept[need.resource]
        return not keeping or self.used(need.resource, past=True) + keeping + need.amount <= limit


class Brokering(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker()
        self.slow = Slow()
        self.now = START
        self.next = 1

    @initialize(limits=st.lists(LIMITS, min_size=len(RESOURCES), max_size=len(RESOURCES)))
    def set_up(self, limits: list[int | None]) -> None:
        for resource, limit in zip(RESOURCES, limits, strict=True):
            self.set_limit(resource, limit)

    @rule(resource=st.sampled_from(RESOURCES), limit=LIMITS)
    def set_limit(self, resource: Resource, limit: int | None) -> None:
        self.broker.set_limit(resource, limit)
        self.slow.limits[resource] = limit

    @rule(needs=st.lists(NEEDS, min_size=1, max_size=6), priority=PRIORITY, waited=WAITS)
    def submit(self, needs: list[list[Need]], priority: int, waited: timedelta) -> None:
        for vector_of_one in needs:
            request = Request(JobId(self.next), tuple(vector_of_one), priority, self.now - waited)
            self.next += 1
            self.broker.submit(request)
            self.slow.queued[request.job] = request

    @precondition(lambda self: self.slow.queued)
    @rule(data=st.data(), needs=NEEDS, priority=PRIORITY)
    def submit_anew(self, data: st.DataObject, needs: list[Need], priority: int) -> None:
        job = data.draw(st.sampled_from(sorted(self.slow.queued)))
        request = Request(JobId(job), tuple(needs), priority, self.slow.queued[job].queued_at)
        self.broker.submit(request)
        self.slow.queued[job] = request

    @rule(needs=NEEDS)
    def adopt(self, needs: list[Need]) -> None:
        job = JobId(self.next)
        self.next += 1
        self.broker.adopt(job, needs)
        self.slow.granted[job] = {one.resource: (one.amount, False) for one in vector(needs)}

    @precondition(lambda self: self.slow.queued)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.slow.queued)))
        assert self.broker.withdraw(JobId(job))
        del self.slow.queued[job]

    @precondition(lambda self: self.slow.granted)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        for job in data.draw(st.sets(st.sampled_from(sorted(self.slow.granted)), min_size=1)):
            assert self.broker.release(JobId(job))
            del self.slow.granted[job]

    @rule(waited=WAITS)
    def wait(self, waited: timedelta) -> None:
        self.now += waited

    @rule()
    def broker_a_round(self) -> None:
        before = {resource: self.slow.used(resource) for resource in RESOURCES}
        begun = self.broker.round(self.now)
        assert begun == self.slow.round(self.now)
        for resource in RESOURCES:
            limit = self.slow.limits.get(resource)
            used = self.broker.used(resource)
            assert limit is None or used <= max(limit, before[resource])
            wanted = any(
                one.resource == resource for job in begun for one in vector_of(self.slow, job)
            )
            assert limit is None or not wanted or used <= limit

    @invariant()
    def nobody_is_lost_or_twice_there(self) -> None:
        assert sorted(self.broker.queued) == sorted(self.slow.queued)
        assert sorted(self.broker.granted) == sorted(self.slow.granted)
        for resource in RESOURCES:
            assert self.broker.used(resource) == self.slow.used(resource)

    @invariant()
    def everybody_who_waits_is_told_something_true(self) -> None:
        for job, wait in self.broker.waiting():
            assert wait == self.broker.waits(job)
            if wait.on is None:
                continue
            need = next(one for one in self.slow.queued[job].needs if one.resource == wait.on)
            limit = self.slow.limits[wait.on]
            assert limit is not None
            used = self.slow.used(wait.on)
            if need.amount > limit:
                said = ("limit is 0", "in all", "to connect")
                assert any(one in wait.words for one in said)
            elif used + need.amount > limit:
                assert f"{used} of {limit}" in wait.words
            else:
                assert "which" in wait.words
                assert "waited longer" in wait.words


def vector_of(slow: Slow, job: int) -> list[Need]:
    return [Need(resource, amount) for resource, (amount, _) in slow.granted[job].items()]


TestBrokering = Brokering.TestCase
TestBrokering.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@dataclass(frozen=True)
class Stream:
    """What a large job needs, and small jobs that never cease to come; durations in minutes."""

    limits: dict[Resource, int]
    large: list[Need]
    small: list[list[Need]]
    durations: list[int]


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    limits = {resource: draw(st.integers(1, 4)) for resource in RESOURCES}
    wanted = draw(st.lists(st.sampled_from(RESOURCES), min_size=1, max_size=4, unique=True))
    one = st.lists(st.sampled_from(RESOURCES).map(Need), min_size=1, max_size=3, unique=True)
    return Stream(
        limits,
        [Need(resource, draw(st.integers(1, limits[resource]))) for resource in wanted],
        draw(st.lists(one, min_size=1, max_size=6)),
        draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)),
    )


AGED_AFTER_MINUTES = 10


@given(streams(), st.sampled_from([0, 50, 100]))
@settings(deadline=None, max_examples=200)
def test_a_large_job_behind_a_stream_of_small_ones_begins(case: Stream, priority: int) -> None:
    """Once it is the first of all and has aged, each of its needs costs one duration at most."""
    broker = Broker(timedelta(minutes=AGED_AFTER_MINUTES) / 100)
    for resource, limit in case.limits.items():
        broker.set_limit(resource, limit)
    ends: dict[JobId, int] = {}
    large = JobId(0)
    numbers = count(1)
    is_first_since: int | None = None
    longest = max(case.durations)
    for minute in count():
        now = START + timedelta(minutes=minute)
        if minute == longest:
            broker.submit(Request(large, tuple(case.large), priority, now))
        for needs in case.small * 2:
            broker.submit(Request(JobId(next(numbers)), tuple(needs), 100, now))
        for job in [job for job, end in ends.items() if end <= minute]:
            broker.release(job)
            del ends[job]
        if minute >= longest + AGED_AFTER_MINUTES and is_first_since is None:
            if broker.queued[0] == large:
                is_first_since = minute
            # those ahead of it are bounded: they come to an end one by one at worst
            assert minute < 2 * AGED_AFTER_MINUTES * (1 + 2 * len(case.small)) * longest
        begun = broker.round(now)
        if large in begun:
            return
        for job in begun:
            ends[job] = minute + case.durations[job % len(case.durations)]
        if is_first_since is not None:
            assert minute <= is_first_since + len(case.large) * longest


@given(st.lists(st.tuples(NEEDS, PRIORITY), max_size=30), ALL_LIMITS)
def test_the_order_of_the_calls_does_not_matter(
    jobs: list[tuple[list[Need], int]], limits: list[int | None]
) -> None:
    requests = [
        Request(JobId(number), tuple(needs), priority, START)
        for number, (needs, priority) in enumerate(jobs)
    ]
    brokers = [Broker(), Broker()]
    for broker, order in zip(brokers, (requests, requests[::-1]), strict=True):
        for request in order:
            broker.submit(request)
        for resource, limit in zip(RESOURCES, limits, strict=True):
            broker.set_limit(resource, limit)
    assert brokers[0].round(START) == brokers[1].round(START)
    assert list(brokers[0].waiting()) == list(brokers[1].waiting())
