"""Holds and locks against those who let images go, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import Busy, HoldfastError, ImageMissing, ImageProtected
from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog
from holdfast.control.database import Database
from holdfast.control.database.exclusion import PROTECTION, exclusively
from tests.kit.catalog_model import fed
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakePool, Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CLOCK = FakeClock()
TREE = {b"/": Node("dir"), b"/a": Node()}


@pytest.fixture
def catalog(database: Database, tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path / "catalog", CLOCK, database) as opened:
        yield opened


@pytest.fixture
def other(catalog: Catalog, database_place: Path | str, tmp_path: Path) -> Iterator[Catalog]:
    """The same catalog as another process has it."""
    database = Database(database_place)
    with Catalog.open(tmp_path / "catalog", CLOCK, database) as opened:
        yield opened
    database.close()


def hold(catalog: Catalog, image: ImageId) -> None:
    catalog.hold(image, "an audit")


def lock(catalog: Catalog, image: ImageId) -> None:
    catalog.lock(image, CLOCK.now() + timedelta(days=1))


@pytest.mark.parametrize("keep", [hold, lock])
def test_who_comes_while_an_image_goes_is_told_that_it_went(
    catalog: Catalog, other: Catalog, keep: Callable[[Catalog, ImageId], None]
) -> None:
    image = ImageId(fed(catalog, FakePool(), TREE).id)
    answers: list[HoldfastError | None] = []

    def ask() -> None:
        try:
            keep(other, image)
        except HoldfastError as error:
            answers.append(error)
        else:
            answers.append(None)

    asking = threading.Thread(target=ask)
    with catalog.letting_go(image):
        asking.start()
        asking.join(0.3)
        assert answers == []
        catalog.expire(image)
    asking.join(20)
    assert [type(one) for one in answers] == [ImageMissing]


@pytest.mark.parametrize("keep", [hold, lock])
def test_who_comes_before_keeps_the_image(
    catalog: Catalog, other: Catalog, keep: Callable[[Catalog, ImageId], None]
) -> None:
    image = ImageId(fed(catalog, FakePool(), TREE).id)
    keep(other, image)
    with pytest.raises(ImageProtected), catalog.letting_go(image):
        raise AssertionError


def test_who_fails_to_let_an_image_go_keeps_nobody_waiting(
    catalog: Catalog, other: Catalog
) -> None:
    image = ImageId(fed(catalog, FakePool(), TREE).id)
    with pytest.raises(ZeroDivisionError), catalog.letting_go(image):
        raise ZeroDivisionError
    hold(other, image)


def test_who_waits_too_long_is_told(catalog: Catalog, database: Database) -> None:
    assert catalog.images() == []
    with (
        exclusively(database, PROTECTION),
        pytest.raises(Busy, match="protection"),
        exclusively(database, PROTECTION, wait_s=0.1),
    ):
        raise AssertionError
