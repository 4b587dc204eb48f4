"""Memory for bodies is bounded for all and for each, and nobody waits for another's greed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Busy, TooLarge
from holdfast.movers.transfer.budget import ByteBudget


def test_a_client_who_has_his_share_keeps_nobody_else_waiting() -> None:
    async def story() -> None:
        budget = ByteBudget(100, 50, 8)
        async with budget.room("alpha", 50, 1):
            with pytest.raises(Busy, match="had no room for a body of 1 bytes"):
                async with budget.room("alpha", 1, 0.01):
                    raise AssertionError
            async with budget.room("beta", 50, 0.01):
                assert budget.out_bytes == 100
        assert budget.out_bytes == 0

    asyncio.run(story())


def test_a_client_holds_only_so_many_bodies_however_small() -> None:
    async def story() -> None:
        budget = ByteBudget(100, 50, 2)
        async with budget.room("alpha", 0, 1), budget.room("alpha", 0, 1):
            with pytest.raises(Busy):
                async with budget.room("alpha", 0, 0.01):
                    raise AssertionError
            async with budget.room("beta", 0, 0.01):
                pass
        async with budget.room("alpha", 50, 0.01):
            pass

    asyncio.run(story())


def test_a_large_body_is_not_kept_out_by_small_ones_that_come_later() -> None:
    async def story() -> None:
        budget = ByteBudget(100, 100, 8)
        order: list[str] = []

        async def one(name: str, size_bytes: int) -> None:
            async with budget.room(name, size_bytes, 5):
                order.append(name)

        async with budget.room("first", 60, 5):
            waiting = [asyncio.create_task(one("large", 100))]
            await asyncio.sleep(0)
            waiting.append(asyncio.create_task(one("small", 10)))
            await asyncio.sleep(0)
            assert order == []
        await asyncio.gather(*waiting)
        assert order == ["large", "small"]

    asyncio.run(story())


def test_what_never_fits_is_refused_at_once() -> None:
    async def story() -> None:
        with pytest.raises(TooLarge, match="a body of 51 bytes"):
            async with ByteBudget(100, 50, 8).room("alpha", 51, 5):
                raise AssertionError

    asyncio.run(story())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.booleans()), max_size=40))
def test_bounds_hold_and_all_is_given_back(asked: list[tuple[str, int, bool]]) -> None:
    async def story() -> None:
        budget = ByteBudget(100, 60, 3)
        out: dict[str, int] = dict.fromkeys("abc", 0)
        held = dict.fromkeys("abc", 0)

        async def one(name: str, size_bytes: int) -> None:
            async with budget.room(name, size_bytes, 5):
                out[name] += size_bytes
                held[name] += 1
                assert sum(out.values()) == budget.out_bytes <= 100
                assert out[name] <= 60
                assert held[name] <= 3
                await asyncio.sleep(0)
                out[name] -= size_bytes
                held[name] -= 1

        async with AsyncExitStack():
            tasks = [asyncio.create_task(one(name, size)) for name, size, _ in asked]
            await asyncio.sleep(0)
            for task, (_, _, given_up) in zip(tasks, asked, strict=True):
                if given_up and task.cancel():
                    out_of = [asked[tasks.index(task)]]
                    assert out_of
            await asyncio.gather(*tasks, return_exceptions=True)
        assert budget.out_bytes == 0

    asyncio.run(story())
