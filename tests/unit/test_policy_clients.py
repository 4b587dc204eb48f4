"""Which clients a policy is for, and the sources that it stands for on them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.base.ids import ClientName
from holdfast.control.policies import ALL_LOCAL_DRIVES, KnownClients, Selection, sources
from holdfast.control.policies.clients import outermost
from holdfast.movers.backup_run import absolute_paths
from tests.kit.policies import policy

KNOWN = KnownClients(
    ClientName(name) for name in ("web1", "web2", "web10", "db1", "Web3", "wéb", "a[1]")
)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("web*", ["web1", "web10", "web2"]),
        ("web?", ["web1", "web2"]),
        ("web1", ["web1"]),
        ("*", ["Web3", "a[1]", "db1", "web1", "web10", "web2", "wéb"]),
        ("db*, web1", ["db1", "web1"]),
        ("web*,!web1*", ["web2"]),
        ("[dw]*,!w?b[!2]", ["db1", "web10", "web2", "wéb"]),
        ("!web1", []),
        ("a[[]1]", ["a[1]"]),
        ("nothing*", []),
    ],
)
def test_a_query_names_clients(query: str, names: list[str]) -> None:
    assert list(KNOWN.matching(query)) == names


def test_a_policy_is_for_those_that_it_names_or_asks_for() -> None:
    named = policy(clients=(ClientName("new"),))
    assert KNOWN.of(named) == ("new",)
    asking = policy(clients=(), client_query="db*")
    assert KNOWN.of(asking) == ("db1",)
    assert ClientName("db1") in KNOWN
    assert ClientName("new") not in KNOWN
    assert len(KNOWN) == 7


def test_a_policy_is_taken_apart_by_client_selection_and_drive() -> None:
    whole = policy(
        selections=(
            Selection("system", ("/srv/", "/etc", "/srv/a"), exclude=("*.tmp",)),
            Selection("drives", ALL_LOCAL_DRIVES),
        )
    )
    clients = (ClientName("web1"), ClientName("web2"))
    drives = {"web1": ["/", "/home"], "web2": ["/"]}
    found = list(sources(whole, clients, lambda client: drives[client]))
    assert [one.source for one in found] == [
        "web1:/etc,/srv",
        "web1:/",
        "web1:/home",
        "web2:/etc,/srv",
        "web2:/",
    ]
    assert [one.one_file_system for one in found] == [False, True, True, False, True]
    assert found[0].exclude == ("*.tmp",)
    assert found[0].selection == "system"


def test_paths_are_joined_as_those_of_a_backup_given_by_hand(tmp_path: Path) -> None:
    for name in ("b", "a-b", "a/d"):
        (tmp_path / name).mkdir(parents=True)
    given = [f"{tmp_path}/{rest}" for rest in ("b", "a-b", "a/d/..", "/a/d/", "b", "a/d")]
    by_hand = absolute_paths([os.fsencode(path) for path in given], b"/")
    assert [os.fsencode(path) for path in outermost(given)] == list(by_hand)
    assert outermost(["//", "/a"]) == ("/",)
    by_hand = absolute_paths([os.fsencode(path) for path in given], b"/", nested=True)
    assert [os.fsencode(path) for path in outermost(given, nested=True)] == list(by_hand)
