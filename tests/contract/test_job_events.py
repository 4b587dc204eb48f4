"""Events of jobs are kept, bounded and listed, on SQLite and on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast.control.jobs import (
    Event,
    JobBook,
    JobError,
    Outcome,
    Result,
    Retrying,
    Severity,
    Sort,
    WantedEvents,
)
from holdfast.control.jobs import events as event_log
from tests.kit.booked_jobs import COMPLETED, add, backup, begin, remark
from tests.kit.clock import FakeClock

if TYPE_CHECKING:
    from holdfast.control.database import Database


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def book(database: Database, clock: FakeClock) -> JobBook:
    return JobBook(database, clock, Retrying(attempts=2))


def test_events_keep_the_bytes_of_paths_and_any_text(book: JobBook) -> None:
    (job,) = add(book, backup())
    fence = begin(book, job)
    odd = "a\0b \udcff \U0001f600"
    book.progress(job, fence, remarks=[remark(1, message=odd, matters=True)])
    book.end(job, fence, COMPLETED, [remark(2, message="x" * 9999, path=None)], left_out=7)
    first, second = book.events(job)
    assert (first.seq, first.path, first.matters) == (1, b"/srv/\xff\x001", True)
    assert first.message == "a\\x00b \\udcff \U0001f600"
    assert (second.seq, second.path, len(second.message)) == (2, None, event_log.LONGEST)
    assert (book.job(job).events, book.job(job).events_left_out) == (2, 7)


def test_a_flood_of_events_is_bounded_and_leaves_room_for_what_matters(
    book: JobBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "MOST", 50)
    monkeypatch.setattr(event_log, "FOR_WHAT_MATTERS", 10)
    (job,) = add(book, backup())
    fence = begin(book, job)
    book.progress(job, fence, remarks=[remark(number) for number in range(30)])
    book.progress(job, fence, remarks=[remark(number) for number in range(30, 60)])
    book.progress(job, fence, remarks=[remark(number, matters=True) for number in range(15)])
    failed = book.end(job, fence, Result(Outcome.FAILED, error=JobError("internal", "broke")))
    assert (failed.events, failed.events_left_out) == (51, 25)
    everything = book.events(job)
    assert [one.seq for one in everything] == list(range(1, 52))
    assert sum(one.matters for one in everything) == 11
    assert everything[-1].message == "broke"


def test_events_are_filtered_sorted_and_paged(book: JobBook) -> None:
    (job,) = add(book, backup())
    fence = begin(book, job)
    remarks = [
        remark(number, severity=list(Severity)[number % 3], matters=number % 2 == 0)
        for number in range(30)
    ]
    book.end(job, fence, COMPLETED, remarks)
    (other,) = add(book, backup())
    book.end(other, begin(book, other), COMPLETED, remarks)
    errors = WantedEvents(severities=(Severity.ERROR,), matters=True)
    assert len(book.events(job, errors)) == 5
    assert book.events(job, WantedEvents(causes=("in use",))) == []
    assert book.events(job, WantedEvents(files=False)) == []
    assert len(book.events(job, WantedEvents(files=True))) == 30
    everything = book.events(job)
    for name in event_log.SORTS:
        for descending in (False, True):
            sort = Sort(name, descending)
            found: list[Event] = []
            while len(found) < 30:
                after = event_log.place(found[-1], sort) if found else None
                assert after is None or tuple(map(type, after)) == event_log.kinds(sort)
                found.extend(book.events(job, None, sort, 7, after))
            assert book.events(job, None, sort, 7, event_log.place(found[-1], sort)) == []
            expected = sorted(
                everything,
                key=lambda one: (
                    getattr(one, name) or b"" if name == "path" else getattr(one, name),
                    one.seq,
                ),
                reverse=descending,
            )
            assert found == expected, name
