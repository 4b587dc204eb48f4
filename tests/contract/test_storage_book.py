"""Storage units in the control database, on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from holdfast.base.errors import AlreadyExists, Invalid, NotAPool, NotFound, WrongKey
from holdfast.base.ids import ClientName, PoolId
from holdfast.control.database.schema import facts
from holdfast.control.storage import MOST_SLOTS, StorageBook, StorageUnit
from holdfast.control.storage.schema import storage_units
from tests.kit.clock import FakeClock

if TYPE_CHECKING:
    from holdfast.control.database import Database

SITE_KEY, KEY = b"s" * 32, b"k" * 32


def unit(name: str = "branch", number: int = 1, **others: object) -> StorageUnit:
    plain = StorageUnit(name, PoolId(f"{number:032x}"), "/srv/pool", None, 4, FakeClock().now())
    return replace(plain, **others)  # type: ignore[arg-type]


@pytest.fixture
def book(database: Database) -> StorageBook:
    return StorageBook(database)


def test_units_are_kept_with_their_keys_sealed(book: StorageBook, database: Database) -> None:
    first, second = unit("b", 1), unit("a", 2, server=ClientName("media1"), place="/data")
    book.add(first, KEY, SITE_KEY)
    book.add(second, KEY, SITE_KEY)
    assert book.units() == [second, first]
    assert book.unit("b") == first
    assert book.of_pool(second.pool) == second
    assert book.key(first.pool, SITE_KEY) == KEY
    with database.read() as connection:
        sealed = connection.scalars(sa.select(storage_units.c.sealed_key)).all()
    assert len(set(sealed)) == 2
    assert not any(KEY in one for one in sealed)


def test_a_key_opens_for_its_own_unit_and_site_alone(book: StorageBook, database: Database) -> None:
    book.add(unit("a", 1), b"1" * 32, SITE_KEY)
    book.add(unit("b", 2), b"2" * 32, SITE_KEY)
    with pytest.raises(WrongKey, match="storage unit 'a'"):
        book.key(f"{1:032x}", b"x" * 32)
    # Whoever can write the database can't have the site take one unit's key for another's.
    columns = storage_units.c
    with database.write() as connection:
        query = sa.select(columns.sealed_key).where(columns.name == "a")
        of_a = connection.scalar(query)
        connection.execute(
            sa.update(storage_units).where(columns.name == "b").values(sealed_key=of_a)
        )
    with pytest.raises(WrongKey, match="storage unit 'b'"):
        book.key(f"{2:032x}", SITE_KEY)


def test_the_key_of_what_was_begun_is_the_same_until_its_unit_is_there(
    book: StorageBook, database: Database
) -> None:
    assert book.begin("media1", "/disk", b"1" * 32, SITE_KEY) == b"1" * 32
    assert book.begin("media1", "/disk", b"2" * 32, SITE_KEY) == b"1" * 32
    assert book.begin("media2", "/disk", b"3" * 32, SITE_KEY) == b"3" * 32
    assert book.begin("media1", "/other", b"4" * 32, SITE_KEY) == b"4" * 32
    with pytest.raises(WrongKey, match="'/disk' on 'media1'"):
        book.begin("media1", "/disk", b"5" * 32, b"x" * 32)
    with database.read() as connection:
        kept = connection.scalars(sa.select(facts.c.value)).all()
    assert not any((number * 32).encode().hex() in one for number in "134" for one in kept)
    book.add(unit("b", 1, server=ClientName("media1"), place="/disk"), b"1" * 32, SITE_KEY)
    # What is made there next is another pool; what was begun elsewhere still stands.
    assert book.begin("media1", "/disk", b"6" * 32, SITE_KEY) == b"6" * 32
    assert book.begin("media2", "/disk", b"7" * 32, SITE_KEY) == b"3" * 32


@pytest.mark.parametrize("other", [unit("branch", 2), unit("other", 1)])
def test_of_a_name_and_of_a_pool_there_is_one(book: StorageBook, other: StorageUnit) -> None:
    book.add(unit(), KEY, SITE_KEY)
    with pytest.raises(AlreadyExists, match="'branch' already"):
        book.add(other, KEY, SITE_KEY)
    assert book.units() == [unit()]


@pytest.mark.parametrize("name", ["", "default", "Branch", "a b", "x" * 64, "-a"])
def test_not_everything_is_a_name(book: StorageBook, name: str) -> None:
    with pytest.raises(Invalid):
        book.add(unit(name), KEY, SITE_KEY)


@pytest.mark.parametrize("slots", [0, -1, MOST_SLOTS + 1])
def test_slots_have_bounds(book: StorageBook, slots: int) -> None:
    with pytest.raises(Invalid):
        book.add(unit(slots=slots), KEY, SITE_KEY)
    book.add(unit(), KEY, SITE_KEY)
    with pytest.raises(Invalid):
        book.set_slots("branch", slots)
    assert book.set_slots("branch", MOST_SLOTS).slots == MOST_SLOTS


def test_what_is_not_there_is_said(book: StorageBook) -> None:
    for act in (book.unit, book.remove, book.urls, lambda name: book.set_slots(name, 2)):
        with pytest.raises(NotFound, match="no storage unit 'nowhere'"):
            act("nowhere")
    with pytest.raises(NotAPool):
        book.of_pool("0" * 32)
    with pytest.raises(NotAPool):
        book.key("0" * 32, SITE_KEY)


def test_where_an_owner_is_reached_is_remembered(book: StorageBook) -> None:
    owner = ClientName("media1")
    book.add(unit("a", 1, server=owner), KEY, SITE_KEY)
    book.add(unit("b", 2), KEY, SITE_KEY)
    book.reached(owner, ["https://192.0.2.1:8444"])
    book.reached("media2", ["https://192.0.2.2:8444"])
    assert book.urls("a") == ("https://192.0.2.1:8444",)
    assert book.urls("b") == ()
    book.remove("a")
    assert [one.name for one in book.units()] == ["b"]
