"""The pools of a site: which is opened when, and what is said of those that are away."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

import pytest

from holdfast.base.errors import ImageMissing, NotAPool, NotFound, Unreachable, WrongKey
from holdfast.base.ids import ClientName, ImageId, PoolId, SourceName
from holdfast.control.catalog import Catalog
from holdfast.control.storage import StorageBook, StorageUnit
from holdfast.site.pools import Pools
from tests.kit.clock import FakeClock
from tests.kit.databases import new_file
from tests.kit.fake_pool import FakePool, tree_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = b"k" * 32


class Stage:
    """A site with its own pool, and one of a media server."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.database = new_file(directory / "control.db")
        self.catalog = Catalog.open(directory / "catalog", self.clock, self.database)
        self.own, self.far = FakePool("own"), FakePool("far")
        self.units = StorageBook(self.database)
        self.unit = StorageUnit(
            "branch",
            PoolId(self.far.pool_id),
            "/srv/pool",
            ClientName("media1"),
            4,
            self.clock.now(),
        )
        self.units.add(self.unit, KEY, KEY)
        self.opened: list[str] = []
        self.pools = Pools(
            own=PoolId(self.own.pool_id),
            open_own=lambda: self.open("own"),
            site_key=lambda: KEY,
            units=lambda: self.units,
            catalog=lambda: self.catalog,
            cache=directory / "cache",
        )
        self.pools.open_owned = lambda unit, key, _: self.open(unit.name, key)

    def open(self, name: str, key: bytes = KEY) -> Any:
        assert key == KEY
        self.opened.append(name)
        return self.own if name == "own" else self.far

    def put(self, pool: FakePool, *paths: bytes) -> ImageId:
        image = pool.backup(tree_of(*paths))
        self.catalog.record_image(image, pool.pool_id)
        return ImageId(image.id)

    def close(self) -> None:
        self.catalog.close()
        self.database.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


def test_each_is_opened_once_and_when_it_is_needed(stage: Stage) -> None:
    assert stage.opened == []
    for _ in range(3):
        assert cast("Any", stage.pools.of(stage.own.pool_id)) is stage.own
        assert cast("Any", stage.pools.of(stage.far.pool_id)) is stage.far
    assert stage.opened == ["own", "branch"]
    stage.pools.forget(stage.far.pool_id)
    stage.pools.of(stage.far.pool_id)
    assert stage.opened == ["own", "branch", "branch"]


def test_nobody_waits_for_another_pool(stage: Stage) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(*_: object) -> Any:
        begun.set()
        assert go_on.wait(30)
        return stage.far

    stage.pools.open_owned = slowly
    opening = threading.Thread(target=stage.pools.of, args=(stage.far.pool_id,))
    opening.start()
    assert begun.wait(30)
    assert cast("Any", stage.pools.of(stage.own.pool_id)) is stage.own
    go_on.set()
    opening.join(30)
    assert not opening.is_alive()


def test_what_is_away_is_said_at_once(stage: Stage) -> None:
    stage.pools.of(stage.far.pool_id)
    stage.pools.is_away = lambda unit: unit.name == "branch"
    with pytest.raises(Unreachable, match=r"media1.*branch"):
        stage.pools.of(stage.far.pool_id)
    stage.pools.of(stage.own.pool_id)
    stage.pools.is_away = lambda _: False
    stage.pools.of(stage.far.pool_id)
    assert stage.opened == ["branch", "own"]


def test_names_are_those_of_units(stage: Stage) -> None:
    pools = stage.pools
    assert pools.of_unit(None) == pools.of_unit("default") == stage.own.pool_id
    assert pools.of_unit("branch") == stage.far.pool_id
    assert [pools.unit_of(one) for one in (stage.own.pool_id, stage.far.pool_id)] == [
        "default",
        "branch",
    ]
    assert [pools.is_near(one) for one in (stage.own.pool_id, stage.far.pool_id)] == [True, False]
    assert pools.known("f" * 32) is None
    with pytest.raises(NotFound):
        pools.of_unit("nowhere")
    with pytest.raises(NotAPool):
        pools.of("f" * 32)


def test_an_image_is_read_where_it_is(stage: Stage) -> None:
    here, there = stage.put(stage.own, b"/a"), stage.put(stage.far, b"/b")
    assert cast("Any", stage.pools.holding(here)) is stage.own
    assert cast("Any", stage.pools.holding(there)) is stage.far
    with pytest.raises(ImageMissing):
        stage.pools.holding(here, there)
    with pytest.raises(ImageMissing):
        stage.pools.holding(ImageId("f" * 32))
    # Of one that both have the near one counts.
    stage.catalog.record_image(stage.own.image(here), stage.far.pool_id)
    assert stage.pools.with_copy(here) == [stage.own.pool_id, stage.far.pool_id]
    stage.pools.is_away = lambda _: True
    with pytest.raises(Unreachable):
        stage.pools.holding(there)


def test_another_pool_in_its_place_is_refused(stage: Stage) -> None:
    stage.pools.open_owned = lambda *_: cast("Any", FakePool("another"))
    for _ in range(2):
        with pytest.raises(WrongKey, match="branch"):
            stage.pools.of(stage.far.pool_id)


def test_images_go_on_counting_from_other_pools(stage: Stage) -> None:
    image = stage.put(stage.own, b"/a")
    above: list[int] = []
    stage.far.go_on_above = above.append  # type: ignore[attr-defined]
    stage.own.go_on_above = above.append  # type: ignore[attr-defined]
    row = stage.catalog.image(image)
    stage.pools.prepare(PoolId(stage.far.pool_id), row.source)
    assert above == [row.number]
    # Where all of them are in one pool, that counts by itself.
    stage.pools.prepare(PoolId(stage.own.pool_id), row.source)
    stage.pools.prepare(PoolId(stage.far.pool_id), SourceName("new:/x"))
    assert above == [row.number]
