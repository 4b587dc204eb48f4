"""A path is divided by names that only its client knows, and nobody else is told them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import ClientKeyNeeded, Invalid
from holdfast.base.ids import ClientName
from holdfast.control.policies import SplitKey, require_fitting
from holdfast.control.policies.streams import Split, streams_of
from holdfast.movers.client_keys import ClientKeys
from holdfast.movers.remote_agent import agent_answers
from holdfast.movers.streams import divide_path
from holdfast.wire.dividing import VERSION, DivideOrder, DivideReport

if TYPE_CHECKING:
    from pathlib import Path

KEY = SplitKey(ClientName("web1"), "/data", (), False, 3)
SEALED = replace(KEY, sealed_by="office")


def order_of(path: Path) -> DivideOrder:
    order = DivideOrder(str(path), ("left out",), one_file_system=False, streams=3)
    return replace(order, sealed_by="office", by_prefix=True)


def as_heard(order: DivideOrder) -> dict[str, Any]:
    """After a way over the wire."""
    heard: dict[str, Any] = json.loads(json.dumps(order.to_json()))
    return heard


@pytest.fixture
def keys(tmp_path: Path) -> ClientKeys:
    found = ClientKeys(tmp_path / "home")
    found.add("office", bytes(range(32)))
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name in ("alpha", "beta", "gamma/deep", "gamma/other", "left out"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_bytes(bytes(50_000))
    return root


def test_a_client_says_directories_by_their_sealed_names(keys: ClientKeys, tree: Path) -> None:
    asked = json.loads(json.dumps(order_of(tree).to_json()))
    said = agent_answers(keys, tree / "scratch")["divide"](asked)
    report = DivideReport.from_json(json.loads(json.dumps(said)))
    assert len(report.taken) == 2
    assert not any(name in json.dumps(said) for name in ("alpha", "beta", "gamma", "deep", "left"))
    key = keys.find("office").key
    plain = {
        key.open_path(f"{tree}/{one}".encode()).decode().removeprefix(f"{tree}/")
        for directories in report.taken
        for one in directories
    }
    assert plain <= {"alpha", "beta", "gamma", "gamma/deep", "gamma/other"}
    assert len(plain) >= 2
    # In an order that tells nothing of the plain ones either.
    assert all(list(one) == sorted(one) for one in report.taken)
    rules = json.dumps([*streams_of(SEALED, Split(1, report.taken))])
    assert not any(name in rules for name in ("alpha", "beta", "gamma", "deep"))


def test_an_older_machine_refuses_to_divide_instead_of_telling_names(tree: Path) -> None:
    asked = order_of(tree).to_json()
    assert asked["version"] != VERSION
    # As such a machine looks at it.
    with pytest.raises(Invalid, match="another version"):
        DivideOrder.from_json(json.loads(json.dumps({**asked, "sealed_by": None})))
    assert DivideOrder.from_json(as_heard(order_of(tree))) == order_of(tree)
    open_order = replace(order_of(tree), sealed_by=None).to_json()
    assert open_order["version"] == VERSION
    assert "sealed_by" not in open_order


def test_without_the_key_nothing_is_divided(tree: Path, tmp_path: Path) -> None:
    answers = agent_answers(ClientKeys(tmp_path / "empty"), tmp_path / "scratch")
    with pytest.raises(ClientKeyNeeded):
        answers["divide"](as_heard(order_of(tree)))
    with pytest.raises(Invalid, match="machine that has their key"):
        divide_path(order_of(tree))


def test_a_site_takes_no_name_in_the_open_where_names_are_sealed() -> None:
    require_fitting(SEALED, (("sealed:aa/sealed:bb",), ("sealed:cc",)))
    for taken in ((("alpha",),), (("sealed:aa/plain",),), (("plain/sealed:aa",),)):
        with pytest.raises(Invalid, match="keep to itself"):
            require_fitting(SEALED, taken)
    with pytest.raises(Invalid, match="names are sealed"):
        require_fitting(SEALED, (("sealed:a\\*",),))
    require_fitting(KEY, (("alpha",),))


def test_streams_under_another_key_are_other_streams() -> None:
    prints = {one.fingerprint for one in (KEY, SEALED, replace(KEY, sealed_by="second"))}
    assert len(prints) == 3
