"""Writes of several threads share commits, and each has what is its own."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from holdfast.base.errors import Busy, WrongState
from holdfast.control.database.commits import Commits

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.control.database import Database

PATIENCE_S = 30


def named(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.scalars(sa.text("SELECT name FROM clients ORDER BY id")))


def adding(name: str, then: BaseException | None = None) -> Callable[[sa.Connection], str]:
    def act(connection: sa.Connection) -> str:
        connection.execute(sa.text("INSERT INTO clients (name) VALUES (:name)"), {"name": name})
        if then is not None:
            raise then
        return name

    return act


def failing(connection: sa.Connection) -> str:
    connection.execute(sa.text("INSERT INTO nowhere VALUES (1)"))
    return "never"


class Crowd:
    """Threads that want to write while another one is at it, in a known order."""

    def __init__(self, database: Database) -> None:
        self.commits = Commits(database)
        self.pool = ThreadPoolExecutor(20)
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.first = self.pool.submit(self.commits.write, self.hold)
        assert self.begun.wait(PATIENCE_S)

    def hold(self, connection: sa.Connection) -> None:
        self.begun.set()
        assert self.go_on.wait(PATIENCE_S)

    def join(self, act: Callable[[sa.Connection], str]) -> Future[str]:
        there = len(self.commits._waiting) + 1
        future = self.pool.submit(self.commits.write, act)
        while len(self.commits._waiting) < there:
            pass
        return future

    def release(self) -> None:
        self.go_on.set()
        self.first.result(PATIENCE_S)
        self.pool.shutdown()


@pytest.fixture
def commits_made(database: Database) -> list[None]:
    """Grows with each commit."""
    made: list[None] = []
    sa.event.listen(database._engine, "commit", lambda _: made.append(None))
    return made


def test_what_waits_while_one_is_written_shares_the_next_commit(
    database: Database, commits_made: list[None]
) -> None:
    crowd = Crowd(database)
    futures = [crowd.join(adding(f"c{number}")) for number in range(15)]
    crowd.release()
    assert [one.result() for one in futures] == [f"c{number}" for number in range(15)]
    assert len(commits_made) == 2
    assert named(database) == [f"c{number}" for number in range(15)]


def test_one_that_is_refused_takes_nothing_of_the_others_along(database: Database) -> None:
    crowd = Crowd(database)
    first = crowd.join(adding("first"))
    refused = crowd.join(adding("refused", WrongState("no")))
    last = crowd.join(adding("last"))
    crowd.release()
    assert (first.result(), last.result()) == ("first", "last")
    with pytest.raises(WrongState):
        refused.result()
    assert named(database) == ["first", "last"]


def test_what_the_database_fails_of_concerns_all_and_leaves_nothing(database: Database) -> None:
    crowd = Crowd(database)
    futures = [
        crowd.join(adding("first")),
        crowd.join(failing),
        crowd.join(adding("last")),
    ]
    crowd.release()
    for one in futures:
        with pytest.raises(Exception, match="nowhere"):
            one.result()
    assert named(database) == []
    assert crowd.commits.write(adding("after")) == "after"


def test_a_thread_that_is_interrupted_leaves_the_others_their_writes(database: Database) -> None:
    crowd = Crowd(database)
    interrupted = crowd.join(adding("interrupted", KeyboardInterrupt()))
    other = crowd.join(adding("other"))
    crowd.release()
    results: list[object] = []
    for one in (interrupted, other):
        try:
            results.append(one.result())
        except KeyboardInterrupt as error:
            results.append(type(error))
    # whichever of the two led the batch was interrupted; what the other wrote is there
    assert KeyboardInterrupt in results
    assert named(database) == [one for one in results if isinstance(one, str)]


def test_alone_it_is_a_transaction_like_any_other(database: Database) -> None:
    commits = Commits(database)
    assert commits.write(adding("one")) == "one"
    for error in (Busy("no"), ZeroDivisionError(), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            commits.write(adding("gone", error))
    assert commits.write(adding("two")) == "two"
    assert named(database) == ["one", "two"]
