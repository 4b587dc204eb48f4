"""Holds and locks: placed, lifted, made longer, never shortened, gone with their image."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import ImageMissing, ImageProtected
from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog, Protection
from holdfast.control.database import Database
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakePool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY = timedelta(days=1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def catalog(tmp_path: Path, clock: FakeClock, database: Database) -> Iterator[Catalog]:
    with Catalog.open(tmp_path, clock, database) as opened:
        yield opened


@pytest.fixture
def image(catalog: Catalog) -> ImageId:
    pool = FakePool()
    made = pool.backup({})
    catalog.record_image(made, pool.pool_id)
    return ImageId(made.id)


def test_an_image_is_held_until_the_last_reason_is_lifted(
    catalog: Catalog, image: ImageId, clock: FakeClock
) -> None:
    catalog.require_unprotected(image)
    catalog.hold(image, "a case")
    clock.move(DAY)
    catalog.hold(image, "a case")
    catalog.hold(image, "an audit")
    assert catalog.protections() == {image: Protection(("a case", "an audit"), None)}
    assert catalog.unhold(image, "a case") == 1
    with pytest.raises(ImageProtected, match="is held: an audit"):
        catalog.require_unprotected(image)
    assert catalog.unhold(image) == 1
    assert catalog.unhold(image) == 0
    catalog.require_unprotected(image)
    assert catalog.protections() == {}


def test_a_lock_is_made_longer_and_never_shorter(
    catalog: Catalog, image: ImageId, clock: FakeClock
) -> None:
    end = clock.now() + 10 * DAY
    catalog.lock(image, end)
    catalog.lock(image, end)
    with pytest.raises(ImageProtected, match=r"locked until .* already"):
        catalog.lock(image, end - timedelta(seconds=1))
    catalog.lock(image, end + DAY)
    assert catalog.protections() == {image: Protection((), end + DAY)}
    clock.move(11 * DAY - timedelta(seconds=1))
    with pytest.raises(ImageProtected, match="locked until"):
        catalog.require_unprotected(image)
    clock.move(timedelta(seconds=1))
    catalog.require_unprotected(image)


def test_only_what_is_there_is_protected(catalog: Catalog, clock: FakeClock) -> None:
    unknown = ImageId("0" * 32)
    for act in (
        lambda: catalog.hold(unknown, "a case"),
        lambda: catalog.unhold(unknown),
        lambda: catalog.lock(unknown, clock.now() + DAY),
    ):
        with pytest.raises(ImageMissing):
            act()


def test_what_protected_an_image_goes_with_it(
    catalog: Catalog, image: ImageId, clock: FakeClock
) -> None:
    catalog.lock(image, clock.now() + DAY)
    catalog.hold(image, "a case")
    # The pool lost it, and said so: no hold brings it back.
    catalog.expire(image)
    assert catalog.protections() == {}
    assert catalog.images() == []


def test_a_rebuild_keeps_what_protects(tmp_path: Path, clock: FakeClock) -> None:
    pool = FakePool()
    made = pool.backup({})
    image = ImageId(made.id)
    with Catalog.open(tmp_path / "catalog", clock) as catalog:
        catalog.record_image(made, pool.pool_id)
        catalog.hold(image, "a case")
        catalog.lock(image, clock.now() + DAY)
        before = catalog.protections()
        catalog.rebuild(pool)
        assert catalog.protections() == before


def test_the_clock_is_remembered(catalog: Catalog, clock: FakeClock) -> None:
    assert catalog.clock_mark() is None
    for _ in range(2):
        clock.move(DAY)
        catalog.set_clock_mark(clock.mark())
        assert catalog.clock_mark() == clock.mark()
