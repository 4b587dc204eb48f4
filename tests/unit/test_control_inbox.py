"""The inbox: an image that was noted is one that the catalog hears of, exactly as it is."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import CatalogError, InputOutput, NoSpace
from holdfast.control.catalog import Catalog
from holdfast.control.inbox import Inbox
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakePool, tree_of

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.control.catalog import Manifest


class Torn:
    """A catalog that a full disk stops."""

    def record_image(self, image: Manifest, pool_id: str) -> None:
        raise CatalogError(f"no room for {image.id} of {pool_id}")


def test_the_catalog_hears_of_every_image_as_if_it_had_been_told(tmp_path: Path) -> None:
    pool = FakePool()
    made = [pool.backup(tree_of(b"a", b"b/c"), f"host:/{n}") for n in range(3)]
    inbox = Inbox(tmp_path / "inbox")
    with Catalog.open(tmp_path / "told", FakeClock()) as told:
        for image in made:
            told.record_image(image, pool.pool_id)
            inbox.leave(image, pool.pool_id)
            inbox.leave(image, pool.pool_id)
        with Catalog.open(tmp_path / "noted", FakeClock()) as noted:
            inbox.hand_over(noted)
            inbox.hand_over(noted)
            assert noted.images() == told.images()
            assert [noted.copies(one.id) for one in noted.images()] == [
                told.copies(one.id) for one in told.images()
            ]
    assert list((tmp_path / "inbox").iterdir()) == []


def test_a_note_stays_until_the_catalog_has_its_image(tmp_path: Path) -> None:
    pool = FakePool()
    image = pool.backup({}, "host:/")
    inbox = Inbox(tmp_path / "inbox")
    inbox.leave(image, pool.pool_id)
    with pytest.raises(CatalogError, match="no room"):
        inbox.hand_over(Torn())
    with Catalog.open(tmp_path / "catalog", FakeClock()) as catalog:
        inbox.hand_over(catalog)
        assert [one.id for one in catalog.images()] == [image.id]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"id": "a"}', b"\xff"])
def test_a_damaged_note_is_named_and_can_be_forgotten(tmp_path: Path, content: bytes) -> None:
    inbox = Inbox(tmp_path)
    (tmp_path / ("ab" * 16 + ".json")).write_bytes(content)
    with Catalog.open(tmp_path / "catalog", FakeClock()) as catalog:
        with pytest.raises(CatalogError, match=r"abab\.json of an image is damaged"):
            inbox.hand_over(catalog)
        inbox.forget(inbox.notes())
        inbox.hand_over(catalog)
    assert inbox.notes() == []


def test_an_inbox_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "inbox").write_text("in the way")
    with pytest.raises(InputOutput, match="inbox"):
        Inbox(tmp_path / "inbox").leave(FakePool().backup({}, "host:/"), "00" * 16)


def test_a_full_disk_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    inbox = Inbox(tmp_path / "inbox")
    with pytest.raises(NoSpace, match="inbox"):
        inbox.leave(FakePool().backup({}, "host:/"), "00" * 16)
    assert list((tmp_path / "inbox").iterdir()) == []
