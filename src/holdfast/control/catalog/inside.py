"""Which images of machines have an index of the files inside, and which wait for one.

Must not read images. An index is an image of its own in the pool, and a row of `images` that no
list shows; its file rows are a source of their own, with versions that are told as the machine's.
Invariants: an image of a machine is *pending* from the moment it is recorded until its index is
recorded, or *failed* with the reason; what is found in an index names the image that it is of.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast.base import labels
from holdfast.base.ids import FILES_OF, ImageId, source_of_files
from holdfast.control.catalog.rows import CatalogState
from holdfast.control.catalog.schema import images, indexings
from holdfast.control.database.upsert import insert

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holdfast.control.catalog.rows import FileVersion, Manifest
    from holdfast.control.database import Database

SHOWN = images.c.index_of.is_(None)
"""Images that lists show."""

_KNOWN = 10_000
_THERE = images.c.catalog_state != CatalogState.EXPIRING.value


class IndexingState(enum.StrEnum):
    """How far the index of the files inside of a machine's image is."""

    PENDING = "pending"
    INDEXED = "indexed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Indexing:
    """The same, with the reason.

    Attributes:
        detail: Why it failed; or what of the machine is not in it.
    """

    state: IndexingState
    detail: str | None = None


def note(connection: sa.Connection, image: Manifest) -> None:
    """Have an image of a machine wait for its index; a second time changes nothing."""
    if labels.MACHINE in image.labels and labels.INDEX_OF not in image.labels:
        connection.execute(
            insert(connection, indexings)
            .values(image_id=image.id, state=IndexingState.PENDING.value)
            .on_conflict_do_nothing()
        )


def forget(connection: sa.Connection, image: str) -> None:
    """Forget what is known of an image's index."""
    connection.execute(sa.delete(indexings).where(indexings.c.image_id == image))


class InnerIndexes:
    """The part of the catalog about indexes of files inside of machines. Thread-safe."""

    _database: Database

    def unindexed(self) -> list[ImageId]:
        """Images of machines that wait for their index, oldest first."""
        index = images.alias()
        query = (
            sa.select(images.c.id)
            .join(indexings, indexings.c.image_id == images.c.id)
            .where(
                _THERE,
                indexings.c.state != IndexingState.FAILED.value,
                ~sa.exists().where(index.c.index_of == images.c.id),
            )
            .order_by(images.c.number, images.c.started_ns, images.c.id)
        )
        with self._database.read() as connection:
            return [ImageId(one) for one in connection.scalars(query)]

    def indexing(self, image: ImageId) -> Indexing | None:
        """How far the index of an image is; None for an image of no machine."""
        query = sa.select(indexings).where(indexings.c.image_id == image)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return _indexing(row.state, row.detail, has=bool(self.indexes_of(image)))

    def indexings(self) -> dict[ImageId, Indexing]:
        """How far the index of each image of a machine is."""
        index = images.alias()
        has = sa.exists().where(index.c.index_of == indexings.c.image_id)
        with self._database.read() as connection:
            return {
                ImageId(row.image_id): _indexing(row.state, row.detail, has=bool(row.has))
                for row in connection.execute(sa.select(indexings, has.label("has")))
            }

    def set_indexing(self, image: ImageId, state: IndexingState, detail: str | None = None) -> None:
        """Say how far the index of an image of a machine is."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(indexings)
                .where(indexings.c.image_id == image)
                .values(state=state.value, detail=detail)
            )

    def retry_indexing(self) -> None:
        """Have images whose index failed wait for another try: its cause may be put right."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(indexings)
                .where(indexings.c.state == IndexingState.FAILED.value)
                .values(state=IndexingState.PENDING.value)
            )

    def indexes_of(self, image: ImageId) -> list[ImageId]:
        """The index images of an image; more than one only after a crash."""
        query = sa.select(images.c.id).where(images.c.index_of == image, _THERE)
        with self._database.read() as connection:
            return [ImageId(one) for one in connection.scalars(query.order_by(images.c.number))]

    def stray_indexes(self) -> list[ImageId]:
        """Indexes of images that are gone."""
        of = images.alias()
        query = sa.select(images.c.id).where(
            _THERE, images.c.index_of.is_not(None), ~sa.exists().where(of.c.id == images.c.index_of)
        )
        with self._database.read() as connection:
            return [ImageId(one) for one in connection.scalars(query)]

    def of_machines(self, found: Iterable[FileVersion]) -> Iterator[FileVersion]:
        """Versions of files, those in indexes as those of the images that the indexes are of."""
        known: dict[ImageId, ImageId] = {}
        for one in found:
            if not one.source.startswith(FILES_OF):
                yield one
                continue
            if len(known) > _KNOWN:
                known.clear()
            for image in (one.first_image, one.last_image):
                if image not in known:
                    known[image] = self.index_of(image) or image
            yield one._replace(
                source=source_of_files(one.source),
                first_image=known[one.first_image],
                last_image=known[one.last_image],
            )

    def index_of(self, image: ImageId) -> ImageId | None:
        """The image that an index is of; None for what is no index, or not known."""
        query = sa.select(images.c.index_of).where(images.c.id == image)
        with self._database.read() as connection:
            found = connection.scalar(query)
        return None if found is None else ImageId(found)


def _indexing(state: str, detail: str | None, *, has: bool) -> Indexing:
    if has:
        return Indexing(IndexingState.INDEXED, detail)
    if state == IndexingState.INDEXED:
        # its index went before it, when it could not go itself
        return Indexing(IndexingState.PENDING)
    return Indexing(IndexingState(state), detail)
