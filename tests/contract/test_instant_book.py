"""Instant recoveries in the control database, on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import AlreadyExists, ImageMissing, ImageProtected, NotFound
from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog
from holdfast.control.instant import Ending, InstantBook, NewInstant
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakePool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.control.database import Database


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
def book(database: Database) -> InstantBook:
    return InstantBook(database, FakeClock())


def new(image: ImageId, name: str = "web1") -> NewInstant:
    return NewInstant(
        image=image,
        hypervisor="kvm1",
        machine=f"uuid of {name}",
        name=name,
        label="site-1234",
        begun_by="ann",
        networks=("office",),
        storage="/srv",
        format="raw",
    )


def test_what_is_noted_is_found(book: InstantBook, image: ImageId) -> None:
    made = book.add(new(image))
    assert book.get(made.id) == made
    assert made.new == new(image)
    book.note(made.id, serve_job=7, was_up=True)
    found = book.get(made.id)
    assert (found.serve_job, found.was_up, found.migrate_job) == (7, True, None)
    assert book.all(ended=False) == [found]
    with pytest.raises(NotFound, match="instant recovery 99"):
        book.get(99)


def test_an_image_is_held_until_all_that_run_from_it_have_ended(
    book: InstantBook, catalog: Catalog, image: ImageId
) -> None:
    first, second = book.add(new(image)), book.add(new(image, "web2"))
    book.end(first, Ending.OWN)
    with pytest.raises(ImageProtected, match=f"instant recovery {second.id}"):
        catalog.require_unprotected(image)
    book.end(second, Ending.DISCARDED)
    catalog.require_unprotected(image)
    assert [one.ending for one in book.all()] == [Ending.DISCARDED, Ending.OWN]
    assert book.all(ended=False) == []


def test_what_has_ended_stays_as_it_is(book: InstantBook, image: ImageId) -> None:
    made = book.add(new(image))
    book.end(made, Ending.FAILED)
    ended = book.get(made.id)
    book.end(made, Ending.OWN)
    book.note(made.id, was_up=True)
    assert book.get(made.id) == ended


def test_two_of_a_name_or_uuid_are_not_on_one_hypervisor(book: InstantBook, image: ImageId) -> None:
    made = book.add(new(image))
    for other in (
        replace(new(image), machine="another"),
        replace(new(image), name="another"),
    ):
        with pytest.raises(AlreadyExists, match=f"instant recovery {made.id}"):
            book.add(other)
    elsewhere = book.add(replace(new(image), hypervisor="kvm2"))
    assert elsewhere.id > made.id
    book.end(made, Ending.DISCARDED)
    assert book.add(new(image)).id > elsewhere.id


def test_an_image_that_is_gone_is_told(book: InstantBook, image: ImageId) -> None:
    with pytest.raises(ImageMissing):
        book.add(new(ImageId("f" * 32)))
    assert book.all() == []
    assert image
