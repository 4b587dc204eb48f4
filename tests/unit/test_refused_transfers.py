"""What is refused on a data path comes to the audit log: soon, with what is known, and bounded."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Forbidden, Invalid
from holdfast.control.access.strangers import ROWS_A_MINUTE
from holdfast.movers.transfer.refusals import (
    AGAIN_S,
    AT_ONCE,
    KINDS,
    Refusal,
    Refusals,
    refusals_from,
)
from holdfast.site.machines.refusals import RefusedTransfers
from holdfast.wire.identity import MachineRole


class Time:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def refusal(number: int = 0, job: int | None = 7) -> Refusal:
    return Refusal("web1", f"10.0.0.{number}", "forbidden", f"may not do that ({number})", job)


def test_a_kind_is_told_at_once_and_then_once_a_minute_with_how_often() -> None:
    clock = Time()
    kept = Refusals(clock)
    kept.note(refusal())
    assert [(one.refusal, one.count) for one in kept.take()[0]] == [(refusal(), 1)]
    for _ in range(1000):
        kept.note(refusal())
        clock.now_s += AGAIN_S / 1001
        assert kept.take() == ([], 0)
    clock.now_s += 1
    assert [one.count for one in kept.take()[0]] == [1000]
    assert kept.take() == ([], 0)


def test_what_the_master_did_not_hear_is_told_again() -> None:
    kept = Refusals(Time())
    kept.note(refusal())
    told = kept.take()
    kept.note(refusal())
    kept.put_back(*told)
    assert [one.count for one in kept.take()[0]] == [2]


@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.floats(0, 30), st.booleans(), st.booleans()), max_size=600
    )
)
def test_every_refusal_is_counted_once_and_little_is_kept(
    steps: list[tuple[int, float, bool, bool]],
) -> None:
    clock = Time()
    kept = Refusals(clock)
    told = 0
    for number, passed_s, takes, hears in steps:
        kept.note(refusal(number))
        clock.now_s += passed_s
        if takes:
            found, more = kept.take()
            assert len(found) <= AT_ONCE
            if hears:
                told += sum(one.count for one in found) + more
            else:
                kept.put_back(found, more)
        assert len(kept._kinds) <= KINDS
    for _ in range(KINDS // AT_ONCE + 1):
        clock.now_s += AGAIN_S
        found, more = kept.take()
        told += sum(one.count for one in found) + more
    assert told == len(steps)


class Place:
    """A master that hears of refusals."""

    def __init__(self) -> None:
        self.entries: list[Any] = []
        self.answers: dict[str, Any] = {}
        self.now_ns = 0
        master = SimpleNamespace(
            clock=SimpleNamespace(now_ns=lambda: self.now_ns),
            audit=SimpleNamespace(append=self.entries.append),
        )
        self.refused = RefusedTransfers(SimpleNamespace(master=master, answers=self.answers))  # type: ignore[arg-type]

    def hear(self, *noted: Refusal, name: str = "media1", role: str = "media") -> None:
        kept = Refusals(Time())
        for one in noted:
            kept.note(one)
        told, more = kept.take()
        session = SimpleNamespace(peer=SimpleNamespace(name=name, role=MachineRole(role)))
        order = {"refused": [one.to_json() for one in told], "more": more}
        self.answers["refused"](session, json.loads(json.dumps(order)))


def test_a_media_servers_refusals_are_told_with_code_client_address_and_job() -> None:
    place = Place()
    place.hear(refusal(1), refusal(1), Refusal("", "10.0.0.9", "not-authenticated", "nobody"))
    first, second = place.entries
    assert (first.who, first.what, first.about) == ("machine:web1", "transfer", "machines/web1")
    assert first.outcome == "refused"
    assert json.loads(first.details) == {
        "code": "forbidden",
        "count": 2,
        "from": "10.0.0.1",
        "job": 7,
        "media_server": "media1",
        "message": "may not do that (1)",
    }
    assert (second.who, second.about) == ("(unknown)", "machines/")


def test_one_that_is_flooded_fills_neither_the_log_nor_anothers_share() -> None:
    place = Place()
    for round_ in range(20):
        place.hear(*(refusal(number, round_) for number in range(AT_ONCE)))
    assert len(place.entries) == ROWS_A_MINUTE
    place.hear(refusal(1), name="media2")
    place.refused.note(refusal(2))
    assert len(place.entries) == ROWS_A_MINUTE + 2
    place.now_ns += 60_000_000_000
    place.hear(refusal(1))
    told = json.loads(place.entries[-1].details)
    assert told["more_not_written"] == 20 * AT_ONCE - ROWS_A_MINUTE


def test_nobody_but_a_media_server_tells_of_refusals_and_no_more_than_so_many() -> None:
    place = Place()
    with pytest.raises(Forbidden):
        place.hear(refusal(), role="agent")
    assert place.entries == []
    with pytest.raises(Invalid):
        refusals_from({"refused": [{}] * (AT_ONCE + 1)})
    with pytest.raises(Invalid):
        refusals_from({"refused": [{"peer": 1}]})
