"""The audit log and the acts in it, on SQLite and on PostgreSQL."""

from __future__ import annotations

import multiprocessing
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from holdfast.base.errors import (
    Busy,
    KeyReused,
)
from holdfast.control.access import (
    ActBook,
    Answer,
    Attempt,
    AuditLog,
    Entry,
    Filter,
    Head,
    Outcome,
    Ticket,
)
from holdfast.control.database import Database
from tests.kit.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

HERE = "192.0.2.7"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def log(database: Database, clock: FakeClock) -> AuditLog:
    return AuditLog(database, clock)


@pytest.fixture
def acts(database: Database, clock: FakeClock, log: AuditLog) -> ActBook:
    return ActBook(database, clock, log)


def entry(who: str = "alice", what: str = "act", about: str = "things/1") -> Entry:
    return Entry.of(who, what, about, Outcome.DONE, {"a": "b"})


def test_rows_are_filtered_and_paged(log: AuditLog, clock: FakeClock) -> None:
    for number in range(6):
        log.append(entry("alice" if number % 2 else "bob", about=f"users/{number}"))
        clock.move(timedelta(minutes=1))
    log.append(entry(about="users"))

    def seqs(wanted: Filter) -> list[int]:
        return [row.seq for row in log.rows(wanted, limit=10)]

    assert seqs(Filter()) == [7, 6, 5, 4, 3, 2, 1]
    assert seqs(Filter(who="bob")) == [5, 3, 1]
    assert seqs(Filter(about="users/")) == [6, 5, 4, 3, 2, 1]
    assert seqs(Filter(about="users/3")) == [4]
    assert seqs(Filter(outcome=Outcome.FAILED)) == []
    assert seqs(Filter(until=clock.now() - timedelta(minutes=4))) == [2, 1]
    assert [row.seq for row in log.rows(limit=2, after=6)] == [5, 4]
    assert [row.seq for row in log.rows(limit=2, after=6, newest_first=False)] == [7]


def append_some(place: Path | str, count: int) -> None:
    database = Database(place)
    log = AuditLog(database, FakeClock())
    for _ in range(count):
        log.append(entry())
    database.close()


def test_rows_that_processes_and_threads_append_at_once_make_one_chain(
    database_place: Path | str, log: AuditLog
) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=append_some, args=(database_place, 15)) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda: [log.append(entry()) for _ in range(15)]) for _ in range(2)
    ]
    workers: list[Any] = [*processes, *threads]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = log.verify()
    assert found.broken is None
    assert found.rows == 60
    assert found.head == log.head()


def spoil(database: Database, *statements: str) -> None:
    with database.write() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


@pytest.mark.parametrize(
    ("statements", "seq"),
    [
        (["UPDATE audit SET who = 'eve' WHERE seq = 3"], 3),
        (["UPDATE audit SET at_ns = at_ns + 1 WHERE seq = 4"], 4),
        (["UPDATE audit SET outcome = 'nonsense' WHERE seq = 2"], 2),
        (["UPDATE audit SET hash = 'nonsense' WHERE seq = 2"], 2),
        (['UPDATE audit SET details = \'{"a": "b"}\' WHERE seq = 1'], 1),
        (["DELETE FROM audit WHERE seq = 2"], 2),
        (["DELETE FROM audit WHERE seq = 5"], 5),
        (["DELETE FROM audit"], 1),
        (["DELETE FROM audit_head"], 1),
        (
            [
                "UPDATE audit SET seq = 99 WHERE seq = 2",
                "UPDATE audit SET seq = 2 WHERE seq = 3",
                "UPDATE audit SET seq = 3 WHERE seq = 99",
            ],
            2,
        ),
    ],
)
def test_what_somebody_does_to_the_table_is_found(
    log: AuditLog, database: Database, statements: list[str], seq: int
) -> None:
    for number in range(5):
        log.append(entry(who=f"user{number}"))
    assert log.verify().broken is None
    spoil(database, *statements)
    found = log.verify()
    assert found.broken is not None
    assert found.broken.seq == seq
    assert log.rows(limit=10) is not None


def test_what_was_cut_off_neatly_is_found_by_a_head_that_was_kept(
    log: AuditLog, database: Database
) -> None:
    for _ in range(5):
        log.append(entry())
    kept = log.head()
    assert log.verify([kept, Head()]).broken is None
    spoil(
        database,
        "DELETE FROM audit WHERE seq > 3",
        "UPDATE audit_head SET seq = 3, hash = (SELECT hash FROM audit WHERE seq = 3)",
    )
    assert log.verify().broken is None
    found = log.verify([kept])
    assert found.broken is not None
    assert found.broken.seq == 4


def test_ten_thousand_rows_are_verified_without_holding_them(
    log: AuditLog, database: Database
) -> None:
    with database.write() as connection:
        for number in range(10_500):
            log.append_on(connection, entry(who=str(number)))
    assert log.verify([log.head()]).rows == 10_500


def attempt(key: str | None = None, request: str = "a") -> Attempt:
    return Attempt("alice", "create_thing", "things", {"from": HERE}, key, request)


def begun(book: ActBook, what: Attempt) -> Ticket:
    ticket = book.begin(what)
    assert isinstance(ticket, Ticket)
    return ticket


def test_an_act_is_told_when_it_has_ended(acts: ActBook, log: AuditLog) -> None:
    ticket = begun(acts, attempt())
    assert log.rows(limit=10) == []
    acts.end(ticket, Outcome.FAILED, {"code": "busy"}, about="things/7")
    (row,) = log.rows(limit=10)
    assert row.entry == Entry.of(
        "alice", "create_thing", "things/7", Outcome.FAILED, {"from": HERE, "code": "busy"}
    )


def test_a_key_stands_for_one_request_and_its_answer_for_a_day(
    acts: ActBook, log: AuditLog, clock: FakeClock
) -> None:
    answer = Answer(201, {"location": "/x"}, b"\x00body\xff")
    acts.end(begun(acts, attempt("k")), Outcome.DONE, {}, answer)
    assert acts.begin(attempt("k")) == answer
    with pytest.raises(KeyReused):
        acts.begin(attempt("k", "another"))
    other = Attempt("bob", "create_thing", "things", {}, "k", "a")
    begun(acts, other)
    clock.move(timedelta(days=1))
    assert acts.begin(attempt("k")) == answer
    clock.move(timedelta(seconds=1))
    assert isinstance(acts.begin(attempt("k")), Ticket)


def test_a_key_under_way_is_busy_and_one_that_failed_is_free(acts: ActBook) -> None:
    ticket = begun(acts, attempt("k"))
    with pytest.raises(Busy):
        acts.begin(attempt("k"))
    acts.end(ticket, Outcome.FAILED, {})
    assert isinstance(acts.begin(attempt("k")), Ticket)


def test_of_many_with_one_key_one_begins(acts: ActBook) -> None:
    found: list[object] = []

    def begin() -> None:
        try:
            found.append(acts.begin(attempt("k")))
        except Busy as error:
            found.append(error)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(one, Ticket) for one in found) == 1
    assert len(found) == 8


def test_an_act_whose_process_died_is_told_once_and_its_key_stays_unclear(
    acts: ActBook, log: AuditLog, clock: FakeClock
) -> None:
    begun(acts, attempt("k"))
    begun(acts, attempt())
    clock.move(timedelta(hours=1, seconds=1))
    for _ in range(2):
        acts.end(begun(acts, attempt()), Outcome.DONE, {})
    outcomes = [row.entry.outcome for row in log.rows(limit=10, newest_first=False)]
    assert outcomes == ["unknown", "unknown", "done", "done"]
    with pytest.raises(Busy, match="not known"):
        acts.begin(attempt("k"))
    clock.move(timedelta(days=1))
    assert isinstance(acts.begin(attempt("k")), Ticket)


def test_an_act_that_ends_after_it_was_given_up_is_told_again(
    acts: ActBook, log: AuditLog, clock: FakeClock
) -> None:
    slow = begun(acts, attempt())
    clock.move(timedelta(hours=2))
    acts.end(begun(acts, attempt()), Outcome.DONE, {})
    acts.end(slow, Outcome.DONE, {})
    outcomes = [row.entry.outcome for row in log.rows(limit=10, newest_first=False)]
    assert outcomes == ["unknown", "done", "done"]


@pytest.mark.parametrize("text", ["\0", "\ud800", "x" * 10_000, "ä", "\x1b[31m"])
def test_no_text_fails_the_log(acts: ActBook, log: AuditLog, text: str) -> None:
    said = {"query": [(text, text)], text: text}
    ticket = begun(acts, Attempt(text, text, text, said, text, "h"))
    acts.end(ticket, Outcome.REFUSED, {"message": text}, Answer(200, {}, b""))
    assert log.verify().rows == 1
    assert isinstance(acts.begin(Attempt(text, text, text, said, text, "h")), Answer)
