"""Changes of objects count once each and in order, and what is remembered of them is bounded."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import WrongState
from holdfast.movers.transfer.store_changes import Changes, Of

OF: Of = ("pool", "writer", "key")


async def change(changes: Changes, seq: int, of: Of = OF) -> str:
    """Make a change if it was not made; tell which of the two."""
    async with changes.turn(of, seq) as turn:
        if turn.made is not None:
            return "again"
        await asyncio.sleep(0)
        turn.made = True
        return "made"


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5)), max_size=30))
def test_each_change_is_made_once_and_never_after_a_later_one(said: list[tuple[str, int]]) -> None:
    async def run() -> None:
        changes = Changes()
        newest: dict[str, int] = {}
        for key, seq in said:
            before = newest.get(key, -1)
            of = ("pool", "writer", key)
            if seq < before:
                with pytest.raises(WrongState):
                    await change(changes, seq, of)
            else:
                assert await change(changes, seq, of) == ("again" if seq == before else "made")
                newest[key] = seq

    asyncio.run(run())


def test_of_many_that_come_at_once_one_is_made() -> None:
    async def run() -> list[str]:
        changes = Changes()
        return list(await asyncio.gather(*(change(changes, 7) for _ in range(20))))

    assert sorted(asyncio.run(run())) == ["again"] * 19 + ["made"]


def test_one_that_failed_may_be_made_again() -> None:
    async def run() -> str:
        changes = Changes()
        with pytest.raises(OSError, match="disk"):
            async with changes.turn(OF, 1):
                raise OSError("the disk fails")
        return await change(changes, 1)

    assert asyncio.run(run()) == "made"


def test_writers_and_pools_do_not_concern_each_other() -> None:
    async def run() -> None:
        changes = Changes()
        assert await change(changes, 5) == "made"
        assert await change(changes, 1, ("pool", "another", "key")) == "made"
        assert await change(changes, 1, ("another", "writer", "key")) == "made"

    asyncio.run(run())


def test_only_so_many_are_remembered_and_never_one_that_is_at_work_forgotten() -> None:
    async def run() -> None:
        changes = Changes(remembered=10)
        async with changes.turn(OF, 1) as turn:
            for number in range(50):
                await change(changes, 1, ("pool", "writer", str(number)))
                assert len(changes._turns) <= 11
            turn.made = True
        assert await change(changes, 1) == "again"

    asyncio.run(run())
