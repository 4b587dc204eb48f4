"""Jobs are filtered, sorted and paged, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import Invalid
from holdfast.base.ids import PolicyName
from holdfast.control.access.scope import Scope
from holdfast.control.jobs import (
    Job,
    JobBook,
    JobKind,
    JobState,
    Outcome,
    Result,
    Retrying,
    Sort,
    Wanted,
    lists,
)
from holdfast.control.jobs.job import counted
from holdfast.control.jobs.lists import SORTS
from holdfast.control.jobs.questions import NEWEST_FIRST
from holdfast.control.jobs.rows import values_of
from tests.kit.booked_jobs import add, backup, begin, family
from tests.kit.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.control.database import Database


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def book(database: Database, clock: FakeClock) -> JobBook:
    return JobBook(database, clock, Retrying(attempts=2))


@pytest.fixture
def history(book: JobBook, clock: FakeClock) -> JobBook:
    """Jobs in every state, with equal values in many columns."""
    for number in range(40):
        client = f"c{number % 7}"
        (job,) = add(
            book,
            backup(
                client,
                f"/p{number % 3}",
                kind=list(JobKind)[number % 2],
                priority=number % 5,
                policy=PolicyName(f"policy{number % 4}") if number % 4 else None,
            ),
        )
        clock.move(timedelta(minutes=number % 3))
        if number % 5 == 0:
            continue
        fence = begin(book, job)
        clock.move(timedelta(minutes=number % 4))
        if number % 5 == 1:
            continue
        outcome = list(Outcome)[number % 3]
        counters = {name: number % (place + 2) for place, name in enumerate(counted())}
        book.end(job, fence, Result(outcome, counters=counters))
    add(book, family(), family("web2"))
    return book


@pytest.mark.parametrize("descending", [False, True])
def test_every_column_sorts_and_pages_without_loss(history: JobBook, descending: bool) -> None:
    everything = list(history.each())
    assert len(everything) == 48
    for name, column in SORTS.items():
        sort = Sort(name, descending)
        found: list[Job] = []
        while page := history.page(None, sort, 11, lists.place(found[-1], sort) if found else None):
            assert len(page) <= 11
            assert tuple(map(type, lists.place(page[-1], sort))) == lists.kinds(sort)
            found.extend(page)
        expected = sorted(
            everything,
            key=lambda job: ((values_of(job) | {"id": job.id})[str(column.key)], job.id),
            reverse=descending,
        )
        assert [one.id for one in found] == [one.id for one in expected], name


def test_filters_hold_all_at_once(history: JobBook, clock: FakeClock) -> None:
    everything = list(history.each())
    middle = sorted(job.started_at or job.queued_at for job in everything)[20]

    def at(job: Job) -> datetime:
        return job.started_at or job.queued_at

    checks: list[tuple[Wanted, Callable[[Job], bool]]] = [
        (Wanted(since=middle), lambda job: at(job) >= middle),
        (Wanted(until=middle), lambda job: at(job) < middle),
        (Wanted(since=middle, until=middle), lambda _: False),
        (Wanted(since=middle, until=middle - timedelta(days=1)), lambda _: False),
        (Wanted(clients=("c1", "web2")), lambda job: job.client in {"c1", "web2"}),
        (Wanted(policies=("policy1",)), lambda job: job.policy == "policy1"),
        (Wanted(sources=("c1:/p1",)), lambda job: job.source == "c1:/p1"),
        (Wanted(states=(JobState.ACTIVE,)), lambda job: job.state is JobState.ACTIVE),
        (Wanted(outcomes=(Outcome.COMPLETED,)), lambda job: job.outcome is Outcome.COMPLETED),
        (Wanted(kinds=(JobKind.RESTORE,)), lambda job: job.kind is JobKind.RESTORE),
        (Wanted(tops=True), lambda job: job.parent_id is None),
        (Wanted(leaves=True), lambda job: job.children == 0),
        (Wanted(begun=True), lambda job: job.state is not JobState.QUEUED),
        (Wanted(begun=False), lambda job: job.state is JobState.QUEUED),
        (
            Wanted(clients=("c1",), kinds=(JobKind.BACKUP,), begun=True),
            lambda job: (
                job.client == "c1"
                and job.kind is JobKind.BACKUP
                and job.state is not JobState.QUEUED
            ),
        ),
    ]
    for wanted, holds in checks:
        expected = [job.id for job in everything if holds(job)]
        assert [job.id for job in history.each(wanted)] == expected, wanted
        assert history.count(wanted) == len(expected)


def test_jobs_that_come_meanwhile_neither_shift_nor_repeat_pages(book: JobBook) -> None:
    old = add(book, *(backup() for _ in range(10)))
    first = book.page(limit=4)
    add(book, *(backup() for _ in range(5)))
    rest = book.page(limit=100, after=lists.place(first[-1], NEWEST_FIRST))
    assert [one.id for one in rest] == old[:6][::-1]


def test_orders_and_places_that_can_not_be_are_refused(book: JobBook) -> None:
    (job,) = add(book, backup())
    with pytest.raises(Invalid, match="sorted by 'color'"):
        book.page(sort=Sort("color"))
    with pytest.raises(Invalid, match="place"):
        book.events(job, sort=Sort("path"), after=("not hexadecimal", 1))


def test_whoever_may_not_see_a_client_sees_none_of_its_jobs(
    history: JobBook, clock: FakeClock
) -> None:
    visible = Scope.of(["c?", "web2"]).condition
    seen = list(history.each(Wanted(visible=visible)))
    assert seen == [job for job in history.each() if job.client != "web1"]
    start, end = clock.now() - timedelta(days=9), clock.now() + timedelta(days=9)
    numbers = history.numbers(start, end, visible)
    assert sum(numbers.states.values()) + sum(numbers.outcomes.values()) == sum(
        not job.children for job in seen
    )
