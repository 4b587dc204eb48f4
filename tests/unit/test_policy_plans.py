"""What a document would change, and the book that carries it out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from holdfast.base.errors import CatalogError, EditConflict, PolicyMissing
from holdfast.base.ids import ClientName, PolicyName
from holdfast.control.database import Database
from holdfast.control.policies import (
    Act,
    FieldChange,
    Filter,
    Policy,
    PolicyBook,
    Selection,
    field_changes,
    schema,
)
from holdfast.control.retention import Rules
from tests.kit.clock import FakeClock
from tests.kit.policies import NIGHTLY, policy

SERVERS, OTHERS = PolicyName("servers"), PolicyName("others")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def book(database: Database, clock: FakeClock) -> PolicyBook:
    return PolicyBook(database, clock)


def put(book: PolicyBook, *policies: Policy, who: str = "ann", prune: bool = False) -> None:
    book.apply(book.plan(policies, prune=prune), who)


def changed(old: Policy, new: Policy) -> dict[str, tuple[object, object]]:
    return {one.place: (one.old, one.new) for one in field_changes(old, new)}


def test_differences_are_told_field_by_field() -> None:
    old = policy()
    assert changed(old, old) == {}
    assert changed(old, replace(old, priority=70, active=False)) == {
        "active": (True, False),
        "priority": (50, 70),
    }
    assert changed(old, replace(old, clients=(), client_query="web*")) == {
        "clients": (["web1"], []),
        "client_query": (None, "web*"),
    }
    later = replace(NIGHTLY, every=timedelta(hours=12), retention=Rules(last=3))
    hourly = replace(NIGHTLY, name="hourly")
    assert changed(old, replace(old, schedules=(later, hourly))) == {
        "schedules[nightly].every": ("1d", "12h"),
        "schedules[nightly].retention": (None, {"last": 3}),
        "schedules[hourly]": (
            None,
            {
                "name": "hourly",
                "kind": "differential",
                "every": "1d",
                "windows": ["22:00-06:00"],
                "run_missed": True,
                "stagger": "0s",
            },
        ),
    }
    assert changed(old, replace(old, retention=Rules(daily=7, monthly=1))) == {
        "retention.weekly": (4, None),
        "retention.monthly": (None, 1),
    }


def test_another_order_is_a_difference() -> None:
    one, other = Selection("one", ("/srv",)), Selection("other", ("/etc",))
    assert field_changes(policy(selections=(one, other)), policy(selections=(other, one))) == (
        FieldChange("selections", ["one", "other"], ["other", "one"]),
    )


def test_a_plan_tells_what_it_would_do(book: PolicyBook) -> None:
    put(book, policy(), policy("others"), policy("third"))
    wanted = [policy(priority=70), policy("third"), policy("fourth")]
    plan = book.plan(wanted)
    assert [one.name for one in plan.creates] == ["fourth"]
    assert [(one.new.name, one.fields) for one in plan.changes] == [
        ("servers", (FieldChange("priority", 50, 70),))
    ]
    assert (plan.removals, plan.unchanged, plan.others) == ((), ("third",), ("others",))
    pruning = book.plan(wanted, prune=True)
    assert [one.policy.name for one in pruning.removals] == ["others"]
    assert pruning.others == ()
    assert not plan.is_empty
    assert book.plan([policy()]).is_empty


def test_a_plan_is_carried_out_and_then_there_is_nothing_to_do(
    book: PolicyBook, clock: FakeClock
) -> None:
    put(book, policy(), policy("others"), who="ann")
    clock.move(timedelta(hours=1))
    plan = book.plan([policy(priority=70), policy("third")], prune=True)
    applied = book.apply(plan, "bob")
    assert applied.created == ("third",)
    assert applied.changed == ("servers",)
    assert applied.removed == ("others",)
    stored = book.get(SERVERS)
    assert (stored.policy, stored.revision) == (policy(priority=70), 2)
    assert (stored.changed_by, stored.changed_at) == ("bob", clock.now())
    with pytest.raises(PolicyMissing):
        book.get(OTHERS)
    again = book.apply(plan, "bob")
    assert (again.created, again.changed, again.removed) == ((), (), ())
    assert book.get(SERVERS) == stored


def test_every_change_keeps_what_was_before(book: PolicyBook, clock: FakeClock) -> None:
    put(book, policy(), who="ann")
    began = clock.now()
    clock.move(timedelta(days=1))
    put(book, policy(priority=1), who="bob")
    book.remove(SERVERS, "eve")
    put(book, policy(priority=2), who="ann")
    revisions = book.revisions(SERVERS, limit=10)
    assert [(one.number, one.act, one.who) for one in revisions] == [
        (4, Act.CREATED, "ann"),
        (3, Act.REMOVED, "eve"),
        (2, Act.CHANGED, "bob"),
        (1, Act.CREATED, "ann"),
    ]
    assert [one.policy.priority for one in revisions if one.policy] == [2, 1, 1, 50]
    assert revisions[-1].at == began
    assert [one.number for one in book.revisions(SERVERS, limit=1, before=3)] == [2]


def conflict(book: PolicyBook, plan: Any, *words: str) -> None:
    before = book.page(limit=100)
    with pytest.raises(EditConflict) as refused:
        book.apply(plan, "late")
    for word in words:
        assert word in refused.value.message
    assert book.page(limit=100) == before


def test_what_somebody_else_changed_meanwhile_is_not_undone(book: PolicyBook) -> None:
    put(book, policy(), policy("others"))
    change = book.plan([policy(priority=70), policy("new")])
    create = book.plan([policy("fresh")])
    prune = book.plan([policy()], prune=True)
    put(
        book,
        policy(priority=60),
        policy("others", priority=1),
        policy("fresh", priority=9),
        who="eve",
    )
    conflict(book, change, "'servers'", "eve", "revision 2")
    conflict(book, create, "'fresh'")
    conflict(book, prune, "'others'")
    book.remove(SERVERS, "eve")
    conflict(book, change, "'servers' was removed")
    put(book, policy())
    conflict(book, change, "'servers'")


def test_a_plan_that_is_in_the_way_of_many_names_some(book: PolicyBook) -> None:
    names = [f"p{number}" for number in range(9)]
    plan = book.plan([policy(name) for name in names])
    put(book, *(policy(name, priority=1) for name in names))
    conflict(book, plan, "'p0'", "and 6 more")


def test_what_is_wanted_and_was_done_by_somebody_else_is_no_conflict(book: PolicyBook) -> None:
    put(book, policy())
    plan = book.plan([policy(priority=70), policy("others")])
    put(book, policy(priority=70), who="eve")
    assert book.apply(plan, "ann").created == ("others",)
    assert book.get(SERVERS).changed_by == "eve"


def test_a_policy_is_switched_off_and_on(book: PolicyBook) -> None:
    put(book, policy())
    off = book.set_active(SERVERS, False, "bob", revision=1)
    assert (off.policy.active, off.revision) == (False, 2)
    assert book.set_active(SERVERS, False, "eve").revision == 2
    with pytest.raises(EditConflict):
        book.set_active(SERVERS, True, "eve", revision=1)
    with pytest.raises(EditConflict):
        book.remove(SERVERS, "eve", revision=1)
    with pytest.raises(PolicyMissing):
        book.set_active(OTHERS, True, "eve")
    assert book.set_active(SERVERS, True, "bob", revision=2).policy == policy()


def names(found: Sequence[Any]) -> list[str]:
    return [one.policy.name for one in found]


def test_lists_come_in_pages_and_are_filtered(book: PolicyBook) -> None:
    put(
        book,
        policy("a", storage_unit="vault"),
        policy("b", active=False, clients=(ClientName("db1"), ClientName("web1"))),
        policy("c_1", clients=(), client_query="web*,!web2"),
        policy("d", type="machines", clients=(ClientName("db1"),)),
    )
    assert names(book.page(limit=2)) == ["a", "b"]
    assert names(book.page(limit=9, after=PolicyName("b"))) == ["c_1", "d"]
    for only, expected in (
        (Filter(storage_unit="vault"), ["a"]),
        (Filter(active=False), ["b"]),
        (Filter(active=True), ["a", "c_1", "d"]),
        (Filter(type="machines"), ["d"]),
        (Filter(text="_"), ["c_1"]),
        (Filter(client=ClientName("web1")), ["a", "b", "c_1"]),
        (Filter(client=ClientName("web2")), []),
        (Filter(client=ClientName("db1"), active=True), ["d"]),
    ):
        assert names(book.page(limit=9, only=only)) == expected, only


def test_a_snapshot_is_the_same_until_something_changes(book: PolicyBook) -> None:
    assert book.snapshot().policies == {}
    put(book, policy(), policy("others"))
    first = book.snapshot()
    assert book.snapshot() is first
    assert list(first.policies) == ["others", "servers"]
    book.remove(OTHERS, "ann")
    second = book.snapshot()
    assert second.generation > first.generation
    assert list(second.policies) == ["servers"]
    assert second.policies[SERVERS] is first.policies[SERVERS]


def test_what_was_removed_is_known_for_the_sake_of_its_images(book: PolicyBook) -> None:
    put(book, policy(), policy("others", priority=3))
    book.remove(OTHERS, "ann")
    book.remove(SERVERS, "ann")
    put(book, policy(priority=5))
    assert book.last_known() == {
        "servers": policy(priority=5),
        "others": policy("others", priority=3),
    }


def spoil(database: Database, name: str) -> None:
    """Make a policy what another machine might have written: of a zone that is unknown here."""
    of_it = schema.policies.c.name == name
    with database.write() as connection:
        text = connection.scalar(sa.select(schema.policies.c.document).where(of_it))
        assert isinstance(text, str)
        strange = text.replace('"every"', '"zone":"Mars/Olympus","every"')
        connection.execute(sa.update(schema.policies).where(of_it).values(document=strange))


def test_a_policy_that_can_not_be_read_stops_no_other_and_can_be_given_anew(
    book: PolicyBook, database: Database
) -> None:
    put(book, policy(), policy("others"))
    spoil(database, "others")
    fresh = PolicyBook(database, FakeClock())
    assert list(fresh.snapshot().policies) == ["servers"]
    assert "Mars/Olympus" in fresh.snapshot().unreadable[OTHERS]
    outline, servers = fresh.page(limit=9)
    assert (outline.policy.name, servers.unreadable) == ("others", None)
    assert "Mars/Olympus" in (outline.unreadable or "")
    with pytest.raises(CatalogError, match="Mars/Olympus"):
        fresh.get(OTHERS)
    put(fresh, policy("others"))
    assert fresh.get(OTHERS).policy == policy("others")


def test_of_editors_at_once_one_wins_and_the_others_are_told(book: PolicyBook) -> None:
    put(book, policy())
    plans = [book.plan([policy(priority=number)]) for number in range(6)]
    lost: list[EditConflict] = []

    def edit(number: int) -> None:
        try:
            book.apply(plans[number], f"editor{number}")
        except EditConflict as error:
            lost.append(error)

    threads = [threading.Thread(target=edit, args=(number,)) for number in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(lost) == 5
    stored = book.get(SERVERS)
    assert stored.revision == 2
    assert stored.changed_by == f"editor{stored.policy.priority}"


def test_the_clients_of_the_catalog_are_known(book: PolicyBook, database: Database) -> None:
    with database.write() as connection:
        connection.execute(sa.text("INSERT INTO clients (id, name) VALUES (1, 'web1'), (2, 'db1')"))
    assert book.known_clients().names == ("db1", "web1")
    own = PolicyBook(database, FakeClock(), [ClientName("here"), ClientName("db1")])
    assert own.known_clients().names == ("db1", "here", "web1")


def test_a_great_many_policies_are_made_at_once(book: PolicyBook) -> None:
    wanted = [policy(f"p{number:05}") for number in range(1500)]
    put(book, *wanted)
    assert len(book.snapshot().policies) == 1500
    put(book, prune=True)
    assert book.snapshot().policies == {}
