"""Hypervisors and their virtual machines in the control database, on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from holdfast.base.errors import AlreadyExists, Invalid, NotFound, WrongKey
from holdfast.base.ids import ClientName
from holdfast.control.hypervisors import HypervisorBook
from holdfast.control.hypervisors.schema import hypervisors
from holdfast.sources.machines.machine import State
from tests.kit.clock import FakeClock
from tests.kit.virtual_machines import hypervisor, machine, uuid

if TYPE_CHECKING:
    from holdfast.control.database import Database

SITE_KEY = b"s" * 32
SECRET = {"user": "backup", "password": "s3cret"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def book(database: Database, clock: FakeClock) -> HypervisorBook:
    return HypervisorBook(database, clock)


def test_a_hypervisor_is_kept_with_its_credentials_sealed(
    book: HypervisorBook, database: Database
) -> None:
    made = book.add(hypervisor(proxy=ClientName("p1"), per_host=3), SECRET, SITE_KEY)
    assert made == book.hypervisor("esx")
    assert (made.proxy, made.per_host, made.has_credentials) == ("p1", 3, True)
    assert (made.looked_at, made.tried_at, made.problem) == (None, None, None)
    assert book.credentials("esx", SITE_KEY) == SECRET
    with database.read() as connection:
        sealed = connection.scalar(sa.select(hypervisors.c.sealed_credentials))
    assert sealed is not None
    assert b"s3cret" not in sealed
    book.add(hypervisor("lab"), {}, SITE_KEY)
    assert not book.hypervisor("lab").has_credentials
    assert book.credentials("lab", SITE_KEY) == {}
    assert list(book.estate().hypervisors) == ["esx", "lab"]


def test_credentials_open_for_their_own_hypervisor_and_site_alone(
    book: HypervisorBook, database: Database
) -> None:
    book.add(hypervisor(), SECRET, SITE_KEY)
    with pytest.raises(WrongKey, match="credentials of hypervisor 'esx'"):
        book.credentials("esx", b"x" * 32)
    # Whoever can write the database can't have them sent elsewhere.
    with database.write() as connection:
        connection.execute(sa.update(hypervisors).values(url="qemu+tcp://evil/system"))
    with pytest.raises(WrongKey):
        book.credentials("esx", SITE_KEY)


def test_what_is_changed_keeps_the_credentials(book: HypervisorBook) -> None:
    book.add(hypervisor(), SECRET, SITE_KEY)
    moved = replace(book.hypervisor("esx"), url="qemu+tls://esx/system", per_datastore=9)
    assert book.change(moved, SITE_KEY).per_datastore == 9
    assert book.credentials("esx", SITE_KEY) == SECRET
    book.change(moved, SITE_KEY, {"user": "other"})
    assert book.credentials("esx", SITE_KEY) == {"user": "other"}
    assert not book.change(moved, SITE_KEY, {}).has_credentials


def test_what_can_not_be_is_refused(book: HypervisorBook) -> None:
    book.add(hypervisor(), {}, SITE_KEY)
    with pytest.raises(AlreadyExists, match="'esx'"):
        book.add(hypervisor(), {}, SITE_KEY)
    for wrong in (
        hypervisor("Not Plain"),
        hypervisor("a", per_host=0),
        hypervisor("a", per_datastore=10**6),
    ):
        with pytest.raises(Invalid):
            book.add(wrong, {}, SITE_KEY)
    for missing in (
        lambda: book.hypervisor("other"),
        lambda: book.credentials("other", SITE_KEY),
        lambda: book.change(hypervisor("other"), SITE_KEY),
        lambda: book.remove("other"),
        lambda: book.found("other", []),
        lambda: book.not_found("other", "why"),
    ):
        with pytest.raises(NotFound, match="there is no hypervisor 'other'"):
            missing()


def test_machines_are_kept_as_they_were_found(book: HypervisorBook, clock: FakeClock) -> None:
    book.add(hypervisor(), {}, SITE_KEY)
    one, other = machine("web1", 1), machine("db1", 2, state=State.OFF)
    book.found("esx", [one, other])
    first = book.estate()
    assert [each.machine for each in first.select()] == [other, one]
    assert book.estate() is first
    clock.move(timedelta(hours=1))
    renamed = replace(one, name="web-1", host="esx8")
    book.found("esx", [renamed])
    later = book.estate()
    assert [each.machine for each in later.select()] == [renamed]
    gone = later.machines[uuid(2)]
    assert (gone.is_there, gone.machine) == (False, other)
    kept = later.machines[uuid(1)]
    assert kept.first_seen_at == first.machines[uuid(1)].first_seen_at
    assert kept.last_seen_at == clock.now()
    assert later.hypervisors["esx"].looked_at == clock.now()


def test_who_does_not_answer_leaves_what_is_known(book: HypervisorBook, clock: FakeClock) -> None:
    book.add(hypervisor(), {}, SITE_KEY)
    book.found("esx", [machine()])
    looked_at = clock.now()
    clock.move(timedelta(hours=1))
    book.not_found("esx", "nobody answers")
    after = book.hypervisor("esx")
    assert (after.looked_at, after.tried_at, after.problem) == (
        looked_at,
        clock.now(),
        "nobody answers",
    )
    assert len(book.estate().select()) == 1
    book.found("esx", [machine()])
    assert book.hypervisor("esx").problem is None


def test_a_machine_is_followed_by_its_uuid_to_where_it_runs(book: HypervisorBook) -> None:
    for name in ("esx", "kvm"):
        book.add(hypervisor(name), {}, SITE_KEY)
    book.found("esx", [machine("web1")])
    book.found("kvm", [machine("web1", state=State.OFF)])
    estate = book.estate()
    assert estate.machines[uuid(1)].hypervisor == "esx"
    assert [one.hypervisor for one in estate.elsewhere[uuid(1)]] == ["kvm"]
    # It was moved: the other host runs it now, and the first has it no more.
    book.found("kvm", [machine("web1")])
    book.found("esx", [])
    estate = book.estate()
    assert estate.machines[uuid(1)].hypervisor == "kvm"
    assert estate.elsewhere == {}
    assert [one.machine.name for one in estate.named("WEB1")] == ["web1"]
    assert estate.named(uuid(1)) == estate.named("web1")


def test_what_is_forgotten_takes_its_machines_along(book: HypervisorBook) -> None:
    book.add(hypervisor(), SECRET, SITE_KEY)
    book.found("esx", [machine()])
    book.remove("esx")
    assert (book.estate().hypervisors, book.estate().machines) == ({}, {})
    book.add(hypervisor(), {}, SITE_KEY)
    assert book.estate().machines == {}
