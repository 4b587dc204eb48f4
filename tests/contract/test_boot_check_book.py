"""Boot checks in the control database, on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import ImageMissing, NotFound
from holdfast.base.ids import ImageId
from holdfast.control.boot_checks import BootCheckBook, NewBootCheck
from holdfast.control.boot_checks.book import KEPT
from holdfast.control.catalog import Catalog
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakePool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.control.database import Database

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


@pytest.fixture
def catalog(database: Database, tmp_path: Path) -> Iterator[Catalog]:
    made = Catalog.open(tmp_path / "catalog", FakeClock(), database)
    yield made
    made.close()


@pytest.fixture
def image(catalog: Catalog) -> ImageId:
    pool = FakePool()
    made = pool.backup({}, "web1:/")
    catalog.record_image(made, pool.pool_id)
    return ImageId(made.id)


@pytest.fixture
def book(database: Database) -> BootCheckBook:
    return BootCheckBook(database)


def new(image: ImageId) -> NewBootCheck:
    return NewBootCheck(
        image,
        FakeClock().now(),
        passed=True,
        took_s=12.5,
        met={"'login:' on the serial console": 12.25},
        missed=("an answer at TCP port 22 not within 12 s",),
        said="Debian\0 web1 login: ä",
        screenshot=PNG,
    )


def test_a_check_is_kept_with_its_picture(book: BootCheckBook, image: ImageId) -> None:
    made = book.add(new(image))
    kept = replace(new(image), screenshot=None, said="Debian web1 login: ä")
    (found,) = book.of(image)
    assert found.check == kept
    assert (found.id, found.has_screenshot) == (made.id, True)
    assert book.screenshot(made.id) == (image, PNG)
    assert book.newest_of([image]) == {image: found}


def test_the_newest_come_first_and_old_ones_go(book: BootCheckBook, image: ImageId) -> None:
    ids = [book.add(replace(new(image), took_s=float(one))).id for one in range(KEPT + 3)]
    assert [one.id for one in book.of(image)] == ids[::-1][:KEPT]
    assert book.newest_of([image])[image].id == ids[-1]
    with pytest.raises(NotFound):
        book.screenshot(ids[0])


def test_checks_go_with_their_image(book: BootCheckBook, catalog: Catalog, image: ImageId) -> None:
    made = book.add(new(image))
    catalog.expire(image)
    assert book.of(image) == []
    with pytest.raises(NotFound):
        book.screenshot(made.id)


def test_of_an_image_that_is_not_there_nothing_is_kept(book: BootCheckBook) -> None:
    with pytest.raises(ImageMissing):
        book.add(new(ImageId("0" * 32)))
    assert book.of(ImageId("0" * 32)) == []
    assert book.newest_of([]) == {}


def test_a_check_without_a_picture_has_none(book: BootCheckBook, image: ImageId) -> None:
    made = book.add(replace(new(image), screenshot=None))
    assert not book.of(image)[0].has_screenshot
    with pytest.raises(NotFound, match="no screenshot"):
        book.screenshot(made.id)
