"""Pools that a media server reaches as the master does: opened as the master says, tried again."""

from __future__ import annotations

import base64
import threading
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import Busy, Invalid, NotAPool, Unreachable
from holdfast.base.ids import pool_id
from holdfast.site import own_pool_orders, shared_pools
from holdfast.site.shared_pools import SharedPool, SharedPools
from holdfast.vault import PoolKey, create_pool, open_pool
from holdfast.wire.fields import Reader

if TYPE_CHECKING:
    from pathlib import Path

KEY, OTHER_KEY = PoolKey(bytes(range(32))), PoolKey(bytes(range(1, 33)))


@pytest.fixture
def pools(tmp_path: Path) -> SharedPools:
    return SharedPools(tmp_path / "cache")


def standing(pools: SharedPools) -> tuple[tuple[str, ...], dict[str, str]]:
    return pools.open, pools.problems


def made(place: Path) -> str:
    return str(pool_id(create_pool(str(place), secret=KEY, clock=SystemClock()).id))


def test_what_the_master_says_is_opened_and_what_it_says_no_more_is_closed(
    pools: SharedPools, tmp_path: Path
) -> None:
    one, two = made(tmp_path / "one"), made(tmp_path / "two")
    said = {
        one: SharedPool(str(tmp_path / "one"), KEY),
        two: SharedPool(str(tmp_path / "two"), KEY),
    }
    pools.know(said)
    with pytest.raises(Busy):
        pools.get(one)
    pools.look()
    assert pools.open == tuple(sorted((one, two)))
    opened = pools.get(one)
    pools.know(said)
    # The same again changes nothing.
    assert pools.get(one) is opened
    pools.know({two: said[two]})
    assert pools.open == (two,)
    assert not pools.has(one)
    with pytest.raises(NotAPool):
        pools.get(one)


def test_one_that_can_not_be_opened_says_why_and_is_tried_again(
    pools: SharedPools, tmp_path: Path
) -> None:
    pool, other = made(tmp_path / "one"), made(tmp_path / "other")
    pools.know({pool: SharedPool(str(tmp_path / "nowhere"), KEY)})
    pools.look()
    assert standing(pools)[0] == ()
    assert "nowhere" in pools.problems[pool]
    with pytest.raises(Unreachable, match="nowhere"):
        pools.get(pool)
    (tmp_path / "one").rename(tmp_path / "nowhere")
    pools.look()
    assert standing(pools) == ((pool,), {})
    # Another pool, and another key.
    pools.know({pool: SharedPool(str(tmp_path / "other"), KEY)})
    pools.look()
    assert pools.problems == {pool: "another pool is in its place"}
    pools.know({other: SharedPool(str(tmp_path / "other"), OTHER_KEY)})
    pools.look()
    assert (pools.open, list(pools.problems)) == ((), [other])


def test_a_store_that_stands_still_keeps_nobody_waiting(
    pools: SharedPools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = made(tmp_path / "one")
    goes_on = threading.Event()

    def slow(*words: object, **more: object) -> object:
        assert goes_on.wait(60)
        return open_pool(*words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(shared_pools, "open_pool", slow)
    pools.know({pool: SharedPool(str(tmp_path / "one"), KEY)})
    pools.look(0.05)
    assert pools.problems == {pool: "what it lies in does not answer"}
    goes_on.set()
    pools.look()
    assert standing(pools) == ((pool,), {})


def test_what_the_master_says_of_them_is_read_and_what_is_none_refused() -> None:
    key = base64.b64encode(bytes(range(32))).decode()
    said = [{"pool": "a" * 32, "place": "s3://x/y", "key": key}]
    found = own_pool_orders.shared_in(Reader({"shared": said}, "x"))
    assert found == {"a" * 32: SharedPool("s3://x/y", KEY)}
    assert own_pool_orders.shared_in(Reader({}, "x")) is None
    assert "bytes" not in repr(found)
    wrongs: list[Any] = [[{}], {}, "x", [{**said[0], "key": "short"}], [{**said[0], "place": 7}]]
    for wrong in wrongs:
        with pytest.raises(Invalid):
            own_pool_orders.shared_in(Reader({"shared": wrong}, "x"))
