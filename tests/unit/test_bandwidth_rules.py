"""What bandwidth rules leave to each machine, on each kind of database and through the API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Invalid, NotFound
from holdfast.base.ids import ClientName
from holdfast.control.bandwidth import BandwidthBook, BandwidthRule, rates
from holdfast.control.bandwidth.rules import LEAST_BYTES_PER_S, read_network
from holdfast.control.policies.texts import read_window
from holdfast.faces.api.bandwidth import NETWORK, WINDOW

if TYPE_CHECKING:
    from holdfast.control.database import Database
    from tests.kit.api import Api

MONDAY_NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
WEB1, WEB2, DB1 = map(ClientName, ("web1", "web2", "db1"))
BUSY = {WEB1: ("10.1.0.5", "fe80::1"), WEB2: ("10.1.0.6",), DB1: ("2001:db8::7",)}


def rule(name: str, kib: int, network: str = "", window: str = "") -> BandwidthRule:
    return BandwidthRule(
        name,
        kib * 1024,
        (read_network(network),) if network else (),
        (read_window(window),) if window else (),
    )


def test_machines_of_a_network_share_what_it_has() -> None:
    found = rates([rule("office", 1000, "10.1.0.0/16")], BUSY, BUSY, MONDAY_NOON)
    assert found == {WEB1: 512_000, WEB2: 512_000}


def test_who_has_nothing_to_move_takes_nothing_and_knows_its_part() -> None:
    found = rates([rule("office", 1000, "10.1.0.0/16")], BUSY, {WEB1}, MONDAY_NOON)
    assert found == {WEB1: 1_024_000, WEB2: 512_000}


def test_the_rule_that_leaves_least_counts() -> None:
    rules = [rule("all", 900), rule("office", 1000, "10.1.0.0/16"), rule("one", 400, "10.1.0.6")]
    found = rates(rules, BUSY, BUSY, MONDAY_NOON)
    assert found == {WEB1: 300 * 1024, WEB2: 300 * 1024, DB1: 300 * 1024}
    assert rates(rules[1:], BUSY, BUSY, MONDAY_NOON)[WEB2] == 400 * 1024


@pytest.mark.parametrize(
    ("window", "holds"),
    [
        ("Mon-Fri 08:00-18:00", True),
        ("Sat,Sun 00:00-24:00", False),
        ("Sun 22:00-12:00", False),
        ("Sun 22:00-12:01", True),
        ("12:00-12:01", True),
    ],
)
def test_a_rule_holds_in_its_windows(window: str, holds: bool) -> None:
    assert bool(rates([rule("w", 100, window=window)], BUSY, BUSY, MONDAY_NOON)) is holds


def test_what_a_machine_says_of_itself_need_not_be_an_address() -> None:
    odd = {WEB1: ("no address", "", "10.1.0.0/16")}
    assert rates([rule("office", 100, "10.1.0.0/16")], odd, odd, MONDAY_NOON) == {}
    assert rates([rule("all", 100)], odd, odd, MONDAY_NOON) == {WEB1: 100 * 1024}


@given(
    st.lists(
        st.tuples(st.integers(64, 10_000), st.sampled_from(["", "10.0.0.0/8", "10.1.0.0/16"])),
        max_size=4,
    ),
    st.dictionaries(
        st.sampled_from([ClientName(f"c{n}") for n in range(9)]),
        st.sampled_from([("10.1.0.1",), ("10.2.0.1",), ("192.0.2.1",)]),
    ),
    st.sets(st.integers(0, 8)),
)
def test_no_network_has_more_than_its_rule_allows(
    given_rules: list[tuple[int, str]], machines: dict[ClientName, tuple[str, ...]], idle: set[int]
) -> None:
    busy = {name for name in machines if int(name[1:]) not in idle}
    rules = [rule(f"r{n}", kib, network) for n, (kib, network) in enumerate(given_rules)]
    found = rates(rules, machines, busy, MONDAY_NOON)
    for one in rules:
        theirs = [name for name in busy if one.is_for(machines[name])]
        assert sum(found[name] for name in theirs) <= one.bytes_per_s
    assert found.keys() == {
        name for name, addresses in machines.items() if any(one.is_for(addresses) for one in rules)
    }


def test_what_can_be_no_rule_is_refused() -> None:
    with pytest.raises(Invalid, match="name of a bandwidth rule"):
        rule("", 100)
    with pytest.raises(Invalid, match="too little"):
        BandwidthRule("slow", LEAST_BYTES_PER_S - 1)
    for wrong in ("", "office", "300.1.1.1", "10.1.0.0/33"):
        with pytest.raises(Invalid, match="not a network"):
            read_network(wrong)


def test_rules_are_kept(database: Database) -> None:
    book = BandwidthBook(database)
    first = rule("b", 100, "10.1.0.0/16", "Mon-Fri 08:00-18:00")
    book.put(first)
    book.put(rule("a", 200, "2001:db8::/32"))
    assert book.rules() == [rule("a", 200, "2001:db8::/32"), first]
    book.put(rule("b", 300))
    assert book.rules()[1] == rule("b", 300)
    book.remove("b")
    assert [one.name for one in book.rules()] == ["a"]
    with pytest.raises(NotFound):
        book.remove("b")


def test_rules_are_set_by_the_api(api: Api) -> None:
    client = api.client()
    body = {"bytes_per_s": 100_000, "networks": ["10.1.0.9/16"], "windows": ["Mon-Fri 08:00-18:00"]}
    made = client.put("/bandwidth-rules/office", body)
    assert made == {
        "name": "office",
        "bytes_per_s": 100_000,
        "networks": ["10.1.0.0/16"],
        "windows": ["Mon-Fri 08:00-18:00"],
    }
    assert client.get("/bandwidth-rules") == {"items": [made]}
    for wrong in ({"networks": ["here"]}, {"windows": ["by day"]}, {"bytes_per_s": 7}):
        with pytest.raises(Invalid):
            client.put("/bandwidth-rules/other", {**body, **wrong})
    client.delete("/bandwidth-rules/office")
    assert client.get("/bandwidth-rules") == {"items": []}
    with pytest.raises(NotFound):
        client.delete("/bandwidth-rules/office")


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0/0", "10.1.0.0/16", "255.255.255.255", "::/0", "::1", "2001:db8::/32", "fe80::1"],
)
def test_networks_of_either_kind_go_through_the_api(api: Api, text: str) -> None:
    made = api.client().put("/bandwidth-rules/any", {"bytes_per_s": 65536, "networks": [text]})
    assert made["networks"] == [str(read_network(text))]


@given(st.from_regex(WINDOW, fullmatch=True))
def test_what_the_document_calls_a_window_is_one(text: str) -> None:
    if len(text) <= 80:
        read_window(text)


@given(st.from_regex(NETWORK, fullmatch=True))
def test_what_the_document_calls_a_network_is_one(text: str) -> None:
    read_network(text)
