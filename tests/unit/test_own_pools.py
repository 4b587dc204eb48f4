"""Where pools of a media server's own may be, and what orders about them are refused."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import ConfigInvalid, HoldfastError, Invalid, NotAPool
from holdfast.site import own_pool_orders
from holdfast.site.own_pools import OwnPools, places
from holdfast.vault import PoolKey
from holdfast.wire.fields import Reader

KEY, OTHER_KEY = PoolKey(bytes(range(32))), PoolKey(bytes(range(1, 33)))


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    found = tmp_path / "there" / "home"
    (found / "machine").mkdir(parents=True)
    return found


@pytest.fixture
def pools(home: Path) -> OwnPools:
    return OwnPools(home, SystemClock())


@pytest.mark.parametrize(
    "path",
    [
        "relative",
        "",
        "/",
        "HERE/../here",
        "HERE/",
        "HERE//x",
        "HERE/a\nb",
        "HERE/a\0b",
        "HERE/\udcff",
        "HOME",
        "HOME/machine",
        "HOME/machine/pool",
        "ABOVE",
        "DISK/inside",
        "HERE/link/inside",
        "HERE/full",
        "file:///x",
        "s3://bucket/x",
        "/x://y",
    ],
)
def test_a_pool_is_made_nowhere_but_in_a_directory_of_its_own(
    pools: OwnPools, home: Path, tmp_path: Path, path: str
) -> None:
    disk, here = tmp_path / "disk", tmp_path / "here"
    (here / "full").mkdir(parents=True)
    (here / "full" / "letter").write_text("somebody's")
    (here / "link").symlink_to(disk)
    pool = pools.make(str(disk), KEY, None, None)
    before = sorted(tmp_path.rglob("*"))
    meant = {"HERE": here, "HOME": home, "ABOVE": home.parent, "DISK": disk}
    for name, place in meant.items():
        path = path.replace(name, str(place))
    with pytest.raises(Invalid):
        pools.make(path, OTHER_KEY, None, None)
    assert sorted(tmp_path.rglob("*")) == before
    assert (pools.standing().open, places(home)) == ((pool,), [str(disk)])


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"key": "x"},
        {"key": text(b"short")},
        {"key": 7},
        {"key": text(KEY.key), "path": None},
        {"key": text(KEY.key), "naming": text(KEY.key)},
        {"key": text(KEY.key), "config": {"unheard_of": 1}},
        {"key": text(KEY.key), "config": {"pack_bytes": "x"}},
        {"key": text(KEY.key), "config": {"pack_bytes": 1}},
        {"key": text(KEY.key), "config": {"chunk_min": 2**40}},
    ],
)
def test_an_order_that_is_not_as_it_should_be_makes_nothing(
    pools: OwnPools, home: Path, tmp_path: Path, order: dict[str, Any]
) -> None:
    make = own_pool_orders.answers(pools)["make-pool"]
    with pytest.raises(HoldfastError) as caught:
        make({"ask": "make-pool", "path": str(tmp_path / "disk"), **order})
    assert caught.value.code == "invalid"
    assert text(KEY.key) not in str(caught.value)
    assert places(home) == []
    assert not (tmp_path / "disk" / "pool").exists()


@pytest.mark.parametrize(
    "keys", [{"a": 1}, {"a": "x"}, {"a": None}, [], "x", {"a": text(b"short")}, {"a": {}}]
)
def test_keys_that_are_none_are_not_taken(keys: Any) -> None:
    with pytest.raises(Invalid):
        own_pool_orders.keys_in(Reader({"keys": keys}, "an answer"))


def test_keys_of_pools_that_are_not_here_are_not_kept(pools: OwnPools) -> None:
    pools.know({"ab" * 16: KEY})
    assert not pools.has("ab" * 16)
    with pytest.raises(NotAPool):
        pools.get("ab" * 16)


def test_a_pool_that_is_let_go_of_leaves_its_disk_free(
    pools: OwnPools, home: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    pool = pools.make(str(disk), KEY, None, None)
    forget = own_pool_orders.answers(pools)["forget-pool"]
    for _ in range(2):
        assert forget({"ask": "forget-pool", "pool": pool})["pool"] == pool
        links = (Path(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd"))
        targets = [str(one.readlink()) for one in links if one.is_symlink()]
        assert [one for one in targets if one.startswith(str(disk))] == []
        assert (places(home), pools.has(pool), pools.standing().there) == ([], False, ())
    pools.look()
    # Another disk may come in its place, and so may the same one again.
    disk.rename(tmp_path / "away")
    other = pools.make(str(disk), OTHER_KEY, None, None)
    pools.open(pool, KEY, str(tmp_path / "away"))
    assert set(pools.standing().open) == {pool, other}


@pytest.mark.parametrize(
    "written",
    ["no toml [", "version = 2\n[pools]\n", "version = 1\npools = 3", "version=1\n[pools]\na=1"],
)
def test_a_list_of_pools_that_is_not_understood_is_said_so(home: Path, written: str) -> None:
    (home / "pools.toml").write_text(written)
    with pytest.raises(ConfigInvalid, match=r"pools\.toml"):
        OwnPools(home, SystemClock())
