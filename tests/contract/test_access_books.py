"""Users, tokens, acts and the audit log, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa

from holdfast.base.errors import (
    AlreadyExists,
    Busy,
    Invalid,
    NotAuthenticated,
    NotFound,
    TooManyAttempts,
)
from holdfast.control.access import (
    AccessBook,
    ActBook,
    AuditLog,
    Cost,
    Entry,
    Outcome,
    Principal,
    Role,
    Scope,
    Verb,
    Way,
    throttle,
    token_key,
)
from holdfast.control.access.passwords import Passwords
from holdfast.control.access.schema import tokens, users
from holdfast.control.database import Database
from tests.kit.clock import FakeClock

QUICK = Cost(memory_kib=32, passes=1, lanes=1)
GOOD = "four words nobody guesses"
HERE = "192.0.2.7"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def book(database: Database, clock: FakeClock) -> AccessBook:
    return AccessBook(database, clock, QUICK)


@pytest.fixture
def log(database: Database, clock: FakeClock) -> AuditLog:
    return AuditLog(database, clock)


@pytest.fixture
def acts(database: Database, clock: FakeClock, log: AuditLog) -> ActBook:
    return ActBook(database, clock, log)


def entry(who: str = "alice", what: str = "act", about: str = "things/1") -> Entry:
    return Entry.of(who, what, about, Outcome.DONE, {"a": "b"})


# users


def test_users_come_back_as_they_were_made_and_in_pages(book: AccessBook) -> None:
    scope = Scope.of(["web*", "mail1"])
    for name in ("bob", "alice", "carol"):
        made = book.add_user(
            name,
            role=Role.OPERATOR,
            display_name=" Bob  the\tBuilder\u200b ",
            scope=scope,
            subject=("https://id.example.org", name),
        )
        assert made == book.user(name)
    assert made.display_name == "Bob the Builder"
    assert (made.scope.globs, made.subject) == (
        ("mail1", "web*"),
        ("https://id.example.org", "carol"),
    )
    assert [user.name for user in book.users(limit=2)] == ["alice", "bob"]
    assert [user.name for user in book.users(limit=2, after="bob")] == ["carol"]
    assert book.count_users() == 3
    with pytest.raises(AlreadyExists, match="alice"):
        book.add_user("alice", role=Role.AUDITOR)
    with pytest.raises(AlreadyExists, match="'bob' is who that is"):
        book.add_user("dan", role=Role.AUDITOR, subject=("https://id.example.org", "bob"))


@pytest.mark.parametrize("name", ["", "Bob", "a b", "a:b", "x" * 65, "\0", ".a", "\ud800"])
def test_what_cannot_be_a_name_is_refused_and_not_found(book: AccessBook, name: str) -> None:
    with pytest.raises(Invalid):
        book.add_user(name, role=Role.OPERATOR)
    with pytest.raises(NotFound):
        book.user(name)
    with pytest.raises(NotAuthenticated):
        book.log_in(name, GOOD, HERE)
    assert not book.has_user(name)


def test_a_user_who_is_removed_takes_tokens_along(book: AccessBook, database: Database) -> None:
    book.add_user("bob", role=Role.OPERATOR)
    book.create_token("bob", "ci")
    book.remove_user("bob")
    with database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tokens)) == 0
    with pytest.raises(NotFound):
        book.remove_user("bob")
    with pytest.raises(NotFound):
        book.set_password("bob", GOOD)


def test_a_password_is_the_same_however_it_is_typed(book: AccessBook) -> None:
    book.add_user("bob", role=Role.OPERATOR, password="vier Wörter ohne Sinn")
    assert book.log_in("bob", "vier Wo\u0308rter ohne Sinn", HERE)[0].user == "bob"


def test_a_dated_hash_is_renewed_by_the_login_that_fits(
    book: AccessBook, database: Database, clock: FakeClock
) -> None:
    book.add_user("bob", role=Role.OPERATOR, password=GOOD)

    def kept() -> str:
        with database.read() as connection:
            return str(connection.scalar(sa.select(users.c.password_hash)))

    first = kept()
    book.log_in("bob", GOOD, HERE)
    assert kept() == first
    dearer = AccessBook(database, clock, Cost(memory_kib=64, passes=1, lanes=1))
    dearer.log_in("bob", GOOD, HERE)
    assert "$m=64,t=1,p=1$" in kept()
    assert book.log_in("bob", GOOD, HERE)[0].user == "bob"


# tokens


def test_a_token_stands_for_its_user_as_that_one_is_now(book: AccessBook, clock: FakeClock) -> None:
    book.add_user("bob", role=Role.OPERATOR, scope=Scope.of(["web*"]))
    token, secret = book.create_token("bob", "ci", role=Role.AUDITOR, scope=Scope.of(["*1"]))
    who = book.principal_of(secret)
    assert who == Principal(
        "bob",
        Way.TOKEN,
        (Role.OPERATOR, Role.AUDITOR),
        (Scope(("web*",)), Scope(("*1",))),
        token.id,
    )
    assert [client for client in ("web1", "web2", "mail1") if who.sees(client)] == ["web1"]
    assert who.may(Verb.SEE)
    assert not who.may(Verb.RUN_POLICIES)
    book.change_user("bob", role=Role.RESTORE_OPERATOR)
    assert book.principal_of(secret).roles[0] is Role.RESTORE_OPERATOR
    book.change_user("bob", disabled=True)
    with pytest.raises(NotAuthenticated, match="'bob' is disabled"):
        book.principal_of(secret)
    book.change_user("bob", disabled=False)
    assert book.principal_of(secret).name == "bob"
    for wrong in ("", "hf_", secret + "x", secret.lower(), "\0", "\ud800", "x" * 100_000):
        with pytest.raises(NotAuthenticated):
            book.principal_of(wrong)


def test_tokens_are_listed_in_pages_and_forgotten_when_they_are_long_over(
    book: AccessBook, clock: FakeClock
) -> None:
    book.add_user("bob", role=Role.OPERATOR)
    for number in range(5):
        book.create_token("bob", f"{number}", expires_at=clock.now() + timedelta(days=1))
        if number % 2:
            clock.move(timedelta(seconds=1))
    found = []
    after = None
    while page := book.tokens(limit=2, after=after):
        found += page
        after = token_key(page[-1])
    assert {token.name for token in found} == {"0", "1", "2", "3", "4"}
    assert len(found) == 5
    clock.move(timedelta(days=30))
    book.create_token("bob", "new")
    assert len(book.tokens(limit=10)) == 6
    clock.move(timedelta(days=2))
    book.create_token("bob", "newer")
    assert {token.name for token in book.tokens(limit=10)} == {"new", "newer"}


def test_the_last_use_of_a_token_is_kept_to_the_minute(book: AccessBook, clock: FakeClock) -> None:
    book.add_user("bob", role=Role.OPERATOR)
    token, secret = book.create_token("bob", "ci")
    begun = clock.now()
    for moved_s, expected_s in ((0, 0), (59, 0), (1, 60)):
        clock.move(timedelta(seconds=moved_s))
        book.principal_of(secret)
        assert book.token(token.id).last_used_at == begun + timedelta(seconds=expected_s)


# failed logins


def fail(book: AccessBook, name: str = "bob", address: str = HERE) -> bool:
    """Whether a wrong password was compared at all."""
    try:
        book.log_in(name, "wrong wrong wrong", address)
    except NotAuthenticated:
        return True
    except TooManyAttempts:
        return False
    raise AssertionError


def test_waiting_doubles_up_to_a_quarter_of_an_hour(book: AccessBook, clock: FakeClock) -> None:
    book.add_user("bob", role=Role.OPERATOR, password=GOOD)
    assert [fail(book) for _ in range(7)] == [True] * 5 + [False] * 2
    waits = []
    for _ in range(15):
        with pytest.raises(TooManyAttempts) as caught:
            book.log_in("bob", GOOD, HERE)
        assert caught.value.wait_s is not None
        waits.append(caught.value.wait_s)
        clock.move(timedelta(seconds=caught.value.wait_s))
        assert fail(book)
    assert waits[:4] == [1, 2, 4, 8]
    assert max(waits) == waits[-1] == 900
    clock.move(timedelta(hours=1, seconds=1))
    assert [fail(book) for _ in range(6)] == [True] * 5 + [False]


def test_others_log_in_while_one_has_to_wait(book: AccessBook) -> None:
    for name in ("bob", "eve"):
        book.add_user(name, role=Role.OPERATOR, password=GOOD)
    while fail(book):
        pass
    assert book.log_in("bob", GOOD, "198.51.100.9")[0].user == "bob"
    assert book.log_in("eve", GOOD, HERE)[0].user == "eve"


def test_an_address_that_tries_many_names_has_to_wait(book: AccessBook) -> None:
    tried = sum(fail(book, f"user{number}") for number in range(100))
    assert tried == throttle.ADDRESS.free
    assert sum(fail(book, f"user{number}", "2001:db8::1") for number in range(3)) == 3
    many = sum(fail(book, f"u{number}", f"2001:db8::{number:x}") for number in range(100))
    assert many == throttle.ADDRESS.free - 3


def test_many_addresses_that_try_one_name_have_to_wait_for_half_a_minute_at_most(
    book: AccessBook, clock: FakeClock
) -> None:
    book.add_user("bob", role=Role.OPERATOR, password=GOOD)
    assert sum(fail(book, address=f"192.0.2.{number}") for number in range(100)) == (
        throttle.USER.free
    )
    for number in range(100, 120):
        clock.move(timedelta(seconds=30))
        assert fail(book, address=f"192.0.2.{number}")
    clock.move(timedelta(seconds=30))
    assert book.log_in("bob", GOOD, "192.0.2.200")[0].user == "bob"


def test_attempts_side_by_side_do_not_get_around_the_count(book: AccessBook) -> None:
    book.add_user("bob", role=Role.OPERATOR, password=GOOD)
    compared: list[bool] = []
    threads = [threading.Thread(target=lambda: compared.append(fail(book))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compared.count(True) == throttle.BOTH.free


def test_more_logins_than_can_wait_are_sent_away() -> None:
    passwords = Passwords(QUICK, at_a_time=1)
    kept = passwords.hash(GOOD)
    waiting = 0
    while passwords._room.acquire(blocking=False):
        waiting += 1
    assert waiting == 3
    with pytest.raises(Busy, match="too many passwords"):
        passwords.fits(GOOD, kept)
    passwords._room.release()
    assert passwords.fits(GOOD, kept)
    assert not passwords.fits(GOOD + "!", kept)


def test_a_clock_that_was_put_back_shuts_nobody_out(book: AccessBook, clock: FakeClock) -> None:
    book.add_user("bob", role=Role.OPERATOR, password=GOOD)
    while fail(book):
        pass
    clock.set_by(timedelta(days=-400))
    with pytest.raises(TooManyAttempts) as caught:
        book.log_in("bob", GOOD, HERE)
    assert caught.value.wait_s is not None
    clock.move(timedelta(seconds=caught.value.wait_s + 400 * 86_400))
    assert book.log_in("bob", GOOD, HERE)[0].user == "bob"


# scopes


def test_python_and_the_database_agree_on_what_a_scope_covers(database: Database) -> None:
    names = ["web1", "web2", "WEB1", "we_b", "we%b", "w\\eb", "mail", "m", "", "weab", "wéb"]
    with database.write() as connection:
        table = sa.Table("names", sa.MetaData(), sa.Column("name", sa.Text))
        table.create(connection)
        connection.execute(sa.insert(table), [{"name": name} for name in names])
        for glob in ("*", "web*", "web?", "we_b", "we%b", "w\\eb", "?", "??", "w*b", "**b*", "w?b"):
            scope = Scope.of([glob, "m"])
            condition = scope.condition(connection, table.c.name)
            found = set(connection.scalars(sa.select(table.c.name).where(condition)))
            assert found == {name for name in names if scope.covers(name)}, glob
        table.drop(connection)


@pytest.mark.parametrize("globs", [[], ["a b"], ["a:b"], [""], ["[ab]"], ["\0"], ["x"] * 0])
def test_a_scope_that_can_cover_nothing_is_refused(globs: list[str]) -> None:
    with pytest.raises(Invalid):
        Scope.of(globs)


def test_a_scope_with_a_star_is_all() -> None:
    assert Scope.of(["web*", "*"]).is_all
    assert not Scope.of(["web*"]).is_all
