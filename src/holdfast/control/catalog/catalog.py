"""The catalog of a site: which images there are, where they are, and every file in them.

A derived index with two exceptions: what a pool no longer has but another place does, and what is
held or locked, are known here only. Must not read or write backup data, and must not be needed
by a restore.

Invariants: an image is *pending* from the moment it is recorded until its files are fed, then
*indexed*, or *failed* with the reason; feeding an image again changes nothing; a process killed
at any point leaves a catalog that the next `Catalog.open` and `Catalog.ingest` complete.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast.base import clock as clocks
from holdfast.base.clock import ClockMark
from holdfast.base.errors import Invalid
from holdfast.base.ids import FILES_OF, ImageId, PoolId, SourceName, clean_path
from holdfast.control.catalog import pattern, registry, whereabouts
from holdfast.control.catalog.cleaning import CleanUp
from holdfast.control.catalog.damage import DATABASE, FILES
from holdfast.control.catalog.holding import Holding
from holdfast.control.catalog.indexer import Indexer
from holdfast.control.catalog.inside import InnerIndexes
from holdfast.control.catalog.lane import Lane
from holdfast.control.catalog.missing import no_directory, not_indexed, path_missing
from holdfast.control.catalog.on_sqlite import SourceFiles
from holdfast.control.catalog.rows import CatalogState
from holdfast.control.catalog.schema import clock_marks
from holdfast.control.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from holdfast.base.clock import Clock
    from holdfast.control.catalog.file_rows import FileRows, RowsReader, WritableRows
    from holdfast.control.catalog.rows import (
        CleanUpResult,
        CopyRow,
        FileRow,
        FileVersion,
        FoundRow,
        ImageRow,
        Manifest,
        PoolReader,
        RebuildResult,
        TreeBatch,
        Visible,
        WaitingImage,
    )

_AT_ONCE = 500
"""So many images are read at once, where there may be a million."""


class Catalog(Holding, InnerIndexes):
    """One site's catalog. Thread-safe; several processes may have it open.

    What it records is durable on return.

    Attributes:
        pool_of: Pools of the site by their ids, where an image that comes late has newer ones in
            other pools; None for one that there is not.
    """

    def __init__(
        self, database: Database, files: FileRows, clock: Clock, *, owns: bool = True
    ) -> None:
        super().__init__(database, clock)
        self._owns = owns
        self._files = files
        self.pool_of: Callable[[str], PoolReader | None] = lambda _: None
        self._indexer = Indexer(database, files, clock, self._elsewhere)

    @classmethod
    def open(cls, directory: Path, clock: Clock, database: Database | None = None) -> Catalog:
        """Open the catalog in a directory; make one where there is none.

        Args:
            directory: Where the files of sources are.
            clock: The clock by which it works.
            database: The control database, which stays open when the catalog is closed; None for
                one of SQLite in the directory.

        Raises:
            CatalogError: It was written by a newer Holdfast.
            CatalogDamaged: Its database is broken; see `set_aside`.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        owns = database is None
        if database is None:
            database = Database(directory / DATABASE)
        catalog = cls(database, _file_rows(database, directory), clock, owns=owns)
        try:
            database.migrate()
            catalog._indexer.finish_expirations()
        except BaseException:
            catalog.close()
            raise
        return catalog

    def close(self) -> None:
        """Close every file; the catalog is of no use afterwards."""
        self._files.close()
        if self._owns:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- images ---------------------------------------------------------------------------

    def record_image(self, image: Manifest, pool_id: str) -> None:
        """Note an image and its copy in a pool; its files are pending. Repeating is harmless."""
        now_ns = self._clock.now_ns()
        self._database.together.write(
            lambda connection: registry.record(connection, image, PoolId(pool_id), now_ns)
        )

    def images(self, source: str | None = None) -> list[ImageRow]:
        """Every image, or those of one source, newest last."""
        return self.images_of(None if source is None else [source])

    def image_ids(self, source: str | None = None) -> list[ImageId]:
        """The id of every image, or of those of one source, newest last."""
        with self._database.read() as connection:
            return registry.image_ids(connection, source)

    def each_image(self, some: Sequence[ImageId]) -> Iterator[ImageRow]:
        """Images by their ids, however many; those that are gone by then are left out."""
        for at in range(0, len(some), _AT_ONCE):
            ids = some[at : at + _AT_ONCE]
            with self._database.read() as connection:
                found = registry.some_images(connection, ids)
            yield from (found[one] for one in ids if one in found)

    def images_of(self, sources: Collection[str] | None) -> list[ImageRow]:
        """The images of some sources, or of all, newest last."""
        with self._database.read() as connection:
            return registry.list_images(connection, sources)

    def image(self, image_id: ImageId) -> ImageRow:
        """One image.

        Raises:
            ImageMissing: The catalog does not have it.
        """
        with self._database.read() as connection:
            return registry.one_image(connection, image_id)

    def copies(self, image_id: ImageId) -> list[CopyRow]:
        """Where an image is stored."""
        with self._database.read() as connection:
            return registry.list_copies(connection, image_id)

    def count_copies(self, pool_id: PoolId) -> int:
        """How many images have a copy in a pool."""
        with self._database.read() as connection:
            return registry.count_copies(connection, pool_id)

    def sources(self, visible: Visible | None = None) -> list[SourceName]:
        """Every source that has, or had, images; by name.

        Args:
            visible: Of which clients they may be seen; None: of all.
        """
        with self._database.read() as connection:
            found = registry.list_sources(connection, visible=visible)
        return [one.name for one in found if not one.name.startswith(FILES_OF)]

    def resolve(self, text: str, source: str | None = None) -> ImageId:
        """The image that a person means by an id, a unique prefix of one, or ``latest``.

        Raises:
            ImageMissing: There is none.
            ImageAmbiguous: A prefix names several.
            Invalid: The text can't be the beginning of an id.
        """
        with self._database.read() as connection:
            return registry.resolve(connection, text, source)

    def as_of(self, source: str, moment: datetime) -> ImageId:
        """The image that shows a source as it was at a moment: the newest begun by then.

        Raises:
            ImageMissing: The source has no image that old.
        """
        with self._database.read() as connection:
            return registry.as_of(connection, source, clocks.to_ns(moment), moment)

    def newest_of(
        self, sources: Collection[SourceName], pool: PoolId | None = None
    ) -> dict[SourceName, ImageId]:
        """The newest image of each of some sources that has one; in one pool, if it is named."""
        with self._database.read() as connection:
            return registry.newest_of(connection, sorted(sources), pool)

    def newest_of_kind(self, source: str, kinds: Collection[str]) -> ImageId | None:
        """The newest image of a source that was ordered as one of some kinds of backup."""
        with self._database.read() as connection:
            return registry.newest_of_kind(connection, source, kinds)

    def of_jobs(self, jobs: Collection[str]) -> dict[str, ImageId]:
        """The images that some jobs made, by the label of the job; see `base.labels`."""
        with self._database.read() as connection:
            return registry.of_jobs(connection, jobs)

    # -- the clock ------------------------------------------------------------------------

    def clock_mark(self) -> ClockMark | None:
        """What `set_clock_mark` was last told."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(clock_marks)).first()
        return None if row is None else ClockMark(row.wall_ns, row.since_boot_ns, row.boot)

    def set_clock_mark(self, mark: ClockMark) -> None:
        """Remember what the clocks showed, in place of what was remembered."""
        with self._database.write() as connection:
            connection.execute(sa.delete(clock_marks))
            connection.execute(sa.insert(clock_marks).values(id=1, **asdict(mark)))

    # -- feeding --------------------------------------------------------------------------

    def pending(self) -> list[ImageId]:
        """Images whose files wait to be fed, oldest first."""
        with self._database.read() as connection:
            return registry.in_state(connection, CatalogState.PENDING)

    def states(self) -> dict[CatalogState, int]:
        """How many images are in each state."""
        with self._database.read() as connection:
            return registry.count_states(connection)

    def waiting_sources(self) -> list[int]:
        """Sources of images that wait to be fed, by number; the one that waits longest first."""
        with self._database.read() as connection:
            return registry.waiting_sources(connection)

    def waiting(self, source: int) -> list[WaitingImage]:
        """Images of a source that wait to be fed, oldest first, each with a pool that has it."""
        with self._database.read() as connection:
            return registry.waiting(connection, source)

    @contextlib.contextmanager
    def lane(self) -> Iterator[Lane]:
        """A way to feed for one thread, that may have a processor for itself."""
        with self._files.apart() as files:
            yield Lane(self._indexer, self._indexer_of(files), files)

    def _indexer_of(self, files: WritableRows) -> Indexer:
        return Indexer(self._database, files, self._clock, self._elsewhere)

    def _elsewhere(self, pool: str) -> PoolReader | None:
        return self.pool_of(pool)

    def ingest(
        self,
        pool: PoolReader,
        image_id: ImageId,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Feed the files of a recorded image from a pool that has it.

        Args:
            pool: The pool.
            image_id: The image; it becomes indexed, or failed if its tree can't be read. After
                an error that passes (a full disk, a lost store) it stays pending.
            progress: Called with the rows fed so far; may raise to stop, the image then stays
                as it was.

        Returns:
            Rows fed; 0 if it was indexed already.

        Raises:
            ImageMissing: The image is not recorded as being in this pool.
            HoldfastError: Its tree can't be read, or the catalog can't be written.
        """
        return self._indexer.ingest(pool, image_id, progress)

    # -- questions about files ------------------------------------------------------------

    def list_directory(self, image_id: ImageId, path: bytes) -> list[FileRow]:
        """Names in a directory as an image has it, sorted by their bytes.

        Of a machine's image, also those of directories inside of its disks, as far as they are
        indexed.

        Raises:
            PathMissing: The image has no directory at this path.
            CatalogError: The files of the image are not indexed.
        """
        cleaned = clean_path(path)
        with self._at(image_id) as (rows, sequence):
            found = rows.list_directory(sequence, cleaned)
            missing = None
            if found is None:
                missing = no_directory(rows, sequence, image_id, cleaned)
        if found is not None and cleaned != b"/":
            return found
        names = found or []
        for index in self._readable_indexes(image_id)[:1]:
            names = [*names, *self.list_directory(index, cleaned)]
            missing = None
        if missing is not None:
            raise missing
        return sorted(names, key=lambda one: one.name)

    def entry(self, image_id: ImageId, path: bytes) -> FileRow:
        """The name at a path, other than the root, as an image has it.

        Raises:
            PathMissing: The image has nothing at this path.
            CatalogError: The files of the image are not indexed.
        """
        cleaned = clean_path(path)
        if cleaned == b"/":
            raise Invalid("the root has no entry of its own", "name something in it")
        with self._at(image_id) as (rows, sequence):
            found = rows.entry(sequence, cleaned)
        if found is None:
            for index in self._readable_indexes(image_id)[:1]:
                return self.entry(index, cleaned)
            raise path_missing(image_id, cleaned)
        return found

    def tree(self, image_id: ImageId, path: bytes = b"/") -> Iterator[TreeBatch]:
        """Everything below a directory as an image has it, in batches, in no promised order.

        Raises:
            PathMissing: The image has no directory at this path; raised at once.
            CatalogError: The files of the image are not indexed.
        """
        cleaned = clean_path(path)
        with contextlib.ExitStack() as stack:
            rows, sequence = stack.enter_context(self._at(image_id))
            found = rows.tree(sequence, cleaned)
            if found is None:
                raise no_directory(rows, sequence, image_id, cleaned)
            return _held_open(found, stack.pop_all())

    def versions(self, source: str, path: bytes) -> list[FileVersion]:
        """Every version of a path that an image shows, oldest first; none for an unknown path.

        Raises:
            NotFound: There is no such source.
        """
        found = whereabouts.sources(self._database, source, None)
        versions: list[FileVersion] = []
        for one in found:
            if one.generation:
                with self._files.reading(one) as rows:
                    versions += self.of_machines(rows.versions(clean_path(path)))
        return versions

    def find(
        self,
        pattern_text: str,
        *,
        source: str | None = None,
        versions: bool = False,
        limit: int | None = None,
        visible: Visible | None = None,
    ) -> Iterator[FoundRow]:
        """Search names in every image of every source, without regard to case.

        Args:
            pattern_text: A glob over names if it has one of ``* ? [``, else a part of a name;
                with a ``/`` in it about paths, see `pattern`.
            source: Only in this source.
            versions: Every version of what matches, oldest first, instead of its newest.
            limit: Stop after so many.
            visible: Only in sources of clients that may be seen; None: of all.

        Returns:
            What was found, while it is being found; in no promised order.

        Raises:
            NotFound: There is no such source.
            Invalid: The pattern can't match anything.
        """
        wanted = pattern.parse(pattern_text)
        places = whereabouts.sources(self._database, source, visible)
        found = self._files.find(places, wanted, versions=versions, limit=limit)
        return self.of_machines(itertools.islice(found, limit))

    # -- expiration ---------------------------------------------------------------------------

    def expire(self, image_id: ImageId, pool_id: str | None = None) -> None:
        """Forget the copy of an image in a pool, or all; with the last one goes the image.

        The caller has the pool forget it first: the catalog never knows less than the pools.

        Raises:
            ImageMissing: The catalog does not have the image.
        """
        self._indexer.expire(image_id, pool_id)

    def clean_up(self) -> CleanUpResult:
        """Put right what nobody names any more, and what is named and not there.

        Waits for those who feed.

        Raises:
            HoldfastError: Something can't be read or written; what was done stays done.
        """
        self._indexer.finish_expirations()
        return CleanUp(self._database, self._files).run()

    # -- rebuilding -----------------------------------------------------------------------

    def rebuild(
        self,
        pool: PoolReader,
        progress: Callable[[int], None] | None = None,
        others: Sequence[PoolReader] = (),
    ) -> RebuildResult:
        """Bring back everything about the images of pools, from these pools alone.

        Images that a pool no longer has lose their copy there. Each source's file is made
        anew beside the old one and then takes its place, so searches go on meanwhile.

        Args:
            pool: The pool.
            progress: Called with the rows fed so far; may raise to stop: sources that are done
                stay done.
            others: More pools. Of an image that several have, the first counts.

        Returns:
            What was brought back, and which images could not be read.
        """
        return self._indexer.rebuild([pool, *others], progress)

    # -- inside ---------------------------------------------------------------------------

    def _readable_indexes(self, image: ImageId) -> list[ImageId]:
        """Indexes of the files inside of an image that the catalog was fed."""
        return [
            one
            for one in self.indexes_of(image)
            if self.image(one).catalog_state is CatalogState.INDEXED
        ]

    @contextlib.contextmanager
    def _at(self, image: ImageId) -> Iterator[tuple[RowsReader, int]]:
        """The rows of an image's source, and the image's sequence number among them."""
        source_of = partial(whereabouts.source_of, self._database, image)
        with self._files.showing(image, source_of) as found:
            if found is None:
                raise not_indexed(self.image(image))
            yield found


def _file_rows(database: Database, directory: Path) -> FileRows:
    if database.file is None:
        # its driver is not needed elsewhere
        from holdfast.control.catalog.on_postgresql import SourceTables

        return SourceTables(database)
    (directory / FILES).mkdir(mode=0o700, exist_ok=True)

    def generation_of(source: int) -> int:
        with database.read() as connection:
            return registry.generation_of(connection, source)

    return SourceFiles(directory / FILES, generation_of)


def _held_open(
    batches: Iterator[TreeBatch], rows: contextlib.ExitStack[bool | None]
) -> Iterator[TreeBatch]:
    with rows:
        yield from batches
