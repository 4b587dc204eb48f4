"""Bring what the control database knows of images and what the sources' rows hold together.

The only place that writes both. Must not answer questions. The order of writing makes it safe to
be killed anywhere: an image is fed before it is called indexed, and it is called expiring before
the rows shrink; both steps change nothing when they are done again.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    Busy,
    Cancelled,
    DatabaseLost,
    HoldfastError,
    NotFound,
    StorageError,
)
from holdfast.base.ids import ImageId, PoolId, pool_id
from holdfast.control.catalog import registry, whereabouts
from holdfast.control.catalog.cleaning import replace_by_nothing
from holdfast.control.catalog.ingest import ingest, is_of_image, shifted
from holdfast.control.catalog.rows import CatalogState, RebuildResult, is_catalog, is_index

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from holdfast.base.clock import Clock
    from holdfast.control.catalog.file_rows import RestorePoint, Source, SourceRows, WritableRows
    from holdfast.control.catalog.ingest import Elsewhere
    from holdfast.control.catalog.rows import Manifest, PoolReader
    from holdfast.control.database import Database


def passes(error: Exception) -> bool:
    """Whether an image goes on waiting after an error: a full disk, a lost store or server."""
    return isinstance(error, StorageError | Busy | DatabaseLost)


class Indexer:
    """Feeds, expires and rebuilds. Thread-safe: sources are worked on one writer at a time."""

    def __init__(
        self,
        database: Database,
        files: WritableRows,
        clock: Clock,
        elsewhere: Elsewhere = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            database: Of the catalog.
            files: Rows of its sources.
            clock: The clock by which it works.
            elsewhere: Other pools than one that is named, by their ids.
        """
        self._elsewhere = elsewhere
        self._database = database
        self._files = files
        self._clock = clock

    def put_off(self, image: ImageId, reason: str) -> None:
        """Say why an image waits."""
        with self._database.write() as connection:
            registry.set_state(connection, image, CatalogState.PENDING, reason)

    def ingest(
        self, pool: PoolReader, image: ImageId, progress: Callable[[int], None] | None
    ) -> int:
        """Feed an image; see `Catalog.ingest`."""
        holder = pool_id(pool.id)
        source = whereabouts.source_of(self._database, image)
        with self._files.exclusive(source.id) as stored:
            with self._database.read() as connection:
                source = registry.source_of(connection, image)
                point = registry.restore_point(connection, image, holder)
            try:
                rows = self._feed(stored, source, pool, point, progress)
            except Cancelled:
                raise
            except Exception as error:
                detail = error.message if isinstance(error, HoldfastError) else repr(error)
                state = CatalogState.PENDING if passes(error) else CatalogState.FAILED
                with contextlib.suppress(HoldfastError), self._database.write() as connection:
                    registry.set_state(connection, image, state, detail)
                raise
        return rows

    def _feed(
        self,
        stored: SourceRows,
        source: Source,
        pool: PoolReader,
        point: RestorePoint,
        progress: Callable[[int], None] | None,
    ) -> int:
        generation = source.generation
        # a first file is made aside, which is quicker, and is there whole or not at all
        place = stored.writing(generation) if generation else stored.building(1)
        with place as writer:
            rows = ingest(writer, pool, point, progress, self._elsewhere)
        with self._database.write() as connection:
            if not generation:
                registry.set_generation(connection, source.id, 1)
            registry.set_state(connection, point.image, CatalogState.INDEXED)
        return rows

    def expire(self, image: ImageId, pool: str | None) -> None:
        """Drop copies of an image; see `Catalog.expire`."""
        with self._database.write() as connection:
            source = registry.source_of(connection, image)
            going = registry.drop_copy(connection, image, pool)
        if going:
            self._finish_expiration(source.id, image)

    def finish_expirations(self) -> None:
        """Complete what was begun when a process was killed."""
        with self._database.read() as connection:
            left_over = registry.expiring(connection)
        for source, image in left_over:
            # a damaged file must not keep the catalog from being opened, and so rebuilt
            with contextlib.suppress(HoldfastError):
                self._finish_expiration(source, image)

    def _finish_expiration(self, number: int, image: ImageId) -> None:
        with self._files.exclusive(number) as stored:
            with self._database.read() as connection:
                source = registry.source_by_id(connection, number)
            if source is not None and source.generation:
                with stored.writing(source.generation) as writer:
                    held = {one.image for one in writer.points().values()}
                    if held != {image}:
                        writer.expire([image])
                if held == {image}:
                    # quicker than to take out each row, and gives the space back
                    replace_by_nothing(self._database, stored, source)
            with self._database.write() as connection:
                registry.forget(connection, image)

    def rebuild(
        self, pools: Sequence[PoolReader], progress: Callable[[int], None] | None
    ) -> RebuildResult:
        """Feed everything again; see `Catalog.rebuild`."""
        by_id = {pool_id(one.id): one for one in pools}
        affected: set[int] = set()
        manifests: dict[str, Manifest] = {}
        dropped: list[ImageId] = []
        for holder, pool in by_id.items():
            there = [one for one in pool.images() if not is_catalog(one)]
            manifests |= {one.id: one for one in there}
            theirs, gone = self._take_stock(pool, holder, there)
            affected.update(theirs)
            dropped += gone
        rows = 0
        failed: dict[ImageId, str] = {}
        for source in sorted(affected):
            report = shifted(progress, rows)
            rows += self._rebuild_source(source, by_id, failed, report)
        with self._database.write() as connection:
            for image in dropped:
                registry.forget(connection, image)
        return RebuildResult(
            sources=len({one.source for one in manifests.values() if not is_index(one)}),
            images=sum(not is_index(one) for one in manifests.values()) - len(failed),
            rows=rows,
            dropped=len(dropped),
            failed=failed,
        )

    def _take_stock(
        self, pool: PoolReader, holder: PoolId, there: Sequence[Manifest]
    ) -> tuple[list[int], list[ImageId]]:
        """Note what a pool has, and has no more.

        Returns:
            Sources of its images, by id; and images that have no copy left, which expire.
        """
        with self._database.write() as connection:
            for one in there:
                registry.record(connection, one, holder, self._clock.now_ns())
            believed = registry.copies_in(connection, holder)
        vanished = believed.difference(ImageId(one.id) for one in there)
        # a backup may have ended since the manifests were listed
        vanished = {image for image in vanished if not _pool_has(pool, image)}
        with self._database.write() as connection:
            theirs = registry.sources_with_copies(connection, holder)
            gone = [each for each in vanished if registry.drop_copy(connection, each, holder)]
        return theirs, gone

    def _rebuild_source(
        self,
        source: int,
        pools: Mapping[PoolId, PoolReader],
        failed: dict[ImageId, str],
        progress: Callable[[int], None],
    ) -> int:
        rows = 0
        indexed: list[ImageId] = []
        broken: dict[ImageId, str] = {}
        with self._files.exclusive(source) as stored:
            with self._database.read() as connection:
                generation = registry.generation_of(connection, source)
                points = registry.restore_points_in(connection, source, list(pools))
            with stored.building(generation + 1) as writer:
                for point in points:
                    report = shifted(progress, rows)
                    try:
                        rows += ingest(writer, pools[PoolId(point.pool)], point, report)
                    except HoldfastError as error:
                        if not is_of_image(error):
                            raise
                        broken[point.image] = error.message
                    else:
                        indexed.append(point.image)
            with self._database.write() as connection:
                registry.replace_file(connection, source, generation + 1, indexed, broken)
            stored.remove_others(generation + 1)
        failed.update(broken)
        return rows


def _pool_has(pool: PoolReader, image: ImageId) -> bool:
    try:
        pool.image(image)
    except NotFound:
        return False
    return True
