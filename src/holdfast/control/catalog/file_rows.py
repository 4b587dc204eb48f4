"""What the catalog asks of a place for file rows: the one interface with two implementations.

Must not know SQL. `on_sqlite` keeps one file a source, `on_postgresql` tables in the control
database; one suite of tests holds for both.

Invariants that both keep:

* A row is one version of one name in one directory, seen by the images whose sequence number is
  in ``first <= sequence < last``. ``last`` is `OPEN_END` while the newest image shows it.
* ``first`` and ``last`` only ever name images that the source holds (or `OPEN_END`), and every
  row is seen by at least one of them. So the rows are a function of the live images' trees,
  however many others came and went between.
* A source has one *generation* of rows that counts; a rebuild makes the next one beside it,
  which counts from the moment the control database names it. A number never comes again.
* One image is fed, or expired, in one transaction; one writer at a time per source, across
  processes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from contextlib import AbstractContextManager

    from holdfast.base.ids import ImageId, SourceName
    from holdfast.control.catalog.pattern import Pattern
    from holdfast.control.catalog.rows import (
        ChangeRow,
        ChangeRows,
        FileRow,
        FileVersion,
        FoundRow,
        TreeBatch,
    )

OPEN_END = 0x7FFF_FFFF
"""``last`` of what still exists; larger than any sequence number, four bytes on disk."""

ROOT = 1
"""Id of the directory ``/``, which has no row."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source and which of its generations counts; 0 means that it has no rows yet."""

    id: int
    name: SourceName
    generation: int


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """An image as the rows of a source know it; they sort by age."""

    number: int
    started_ns: int
    image: ImageId
    pool: str

    @property
    def age(self) -> tuple[int, int, str]:
        """What orders the images of a source, oldest first."""
        return (self.number, self.started_ns, self.image)


class Mode(enum.Enum):
    """What the change rows of a feed are differences to; all three leave the same rows.

    FRESH: there are no rows yet.
    DELTA: differences to the newest image that is held.
    COMPARE: differences to something else, or to nothing. States equal to the open ones are
        dropped, so an unchanged file keeps its version; the end of the feed then settles the
        names that no row mentioned.
    """

    FRESH = "fresh"
    DELTA = "delta"
    COMPARE = "compare"


NewName: TypeAlias = tuple[int, bytes, str | None]
"""(id, name, what it folds to if that is not what lower-casing ASCII gives)."""

NewDirectory: TypeAlias = tuple[int, int, int]
"""(id, parent, name)."""


class FeedTarget(Protocol):
    """Where a feed puts what it has resolved, inside of the writer's transaction."""

    def highest_ids(self) -> tuple[int, int]:
        """The highest id of a name and of a directory; 0 where there is none."""
        ...

    def find_names(self, names: Sequence[bytes]) -> dict[bytes, int]:
        """Ids of those names that are stored."""
        ...

    def add_names(self, names: Sequence[NewName]) -> None:
        """Store names that are not."""
        ...

    def find_directories(self, places: Sequence[tuple[int, bytes]]) -> dict[tuple[int, bytes], int]:
        """Ids of those directories, by (parent, name), that are stored."""
        ...

    def add_directories(self, directories: Sequence[NewDirectory]) -> None:
        """Store directories that are not."""
        ...

    def outgrew_memory(self) -> None:
        """From now on, names and directories that were added in this feed are asked for, too."""
        ...

    def load(
        self, directories: Sequence[int], names: Sequence[int], rows: Sequence[ChangeRow]
    ) -> None:
        """Take one batch of changes.

        Args:
            directories: Ids of the directories that the rows' first column points into.
            names: The id of each row's name.
            rows: The changes.
        """
        ...

    def finish(self, base: int | None) -> None:
        """Settle what no row mentioned; complete what searching needs.

        Args:
            base: In `Mode.COMPARE`, the sequence number of the image that the rows were
                differences to, or None if they were the whole tree.
        """
        ...

    def close(self) -> None:
        """Leave nothing temporary behind; also after a failure."""
        ...


class ImageFeed(Protocol):
    """The feeding of one image, inside of the writer's transaction."""

    @property
    def rows(self) -> int:
        """How many rows were added."""
        ...

    def add(self, batch: ChangeRows) -> None:
        """Feed one batch of differences."""
        ...

    def finish(self, base: int | None) -> None:
        """Settle what no row mentioned; see `FeedTarget.finish`."""
        ...

    def close(self) -> None:
        """Leave nothing temporary behind; also after a failure."""
        ...


class RowsWriter(Protocol):
    """One generation of one source's rows, for its only writer. Not thread-safe."""

    def transaction(self) -> AbstractContextManager[None]:
        """Commit a block's changes together and durably, or none of them."""
        ...

    def attempt(self) -> AbstractContextManager[None]:
        """Part of a transaction; an exception that leaves the block undoes the part."""
        ...

    def points(self) -> dict[int, RestorePoint]:
        """The images that are held, by sequence number, oldest first."""
        ...

    def add_point(self, sequence: int, point: RestorePoint) -> None:
        """Hold an image."""
        ...

    def take_back(self, oldest: int) -> None:
        """Undo the feeding of this image and of all newer ones."""
        ...

    def feed(self, sequence: int, mode: Mode) -> ImageFeed:
        """Begin to feed an image; one at a time."""
        ...

    def expire(self, images: Collection[ImageId]) -> int:
        """Take images out, in a transaction of its own; those that are not held are ignored.

        An interval that began with an expired image begins with the next live one, one that
        ended there ends at the next live one or opens; a version that no live image shows goes,
        and with it directories and names that nothing mentions any more.

        Returns:
            How many versions went.
        """
        ...


class RowsReader(Protocol):
    """What the rows of a source say, all at one moment. For one thread at a time."""

    def sequence_of(self, image: ImageId) -> int | None:
        """The sequence number of an image, or None if it is not held."""
        ...

    def points(self) -> dict[int, RestorePoint]:
        """The images that are held, by sequence number, oldest first."""
        ...

    def entry(self, sequence: int, path: bytes) -> FileRow | None:
        """The name at a path as an image has it; None if it has none. Never the root."""
        ...

    def list_directory(self, sequence: int, path: bytes) -> list[FileRow] | None:
        """Names in a directory as an image has it, sorted by their bytes; None if it has none."""
        ...

    def versions(self, path: bytes) -> list[FileVersion]:
        """Every version of a path that a live image shows, oldest first."""
        ...

    def tree(self, sequence: int, path: bytes) -> Iterator[TreeBatch] | None:
        """Everything below a directory as an image has it; None if it has no such directory."""
        ...


class SourceRows(Protocol):
    """The rows of one source, for the one who holds its lock."""

    def writing(self, generation: int) -> AbstractContextManager[RowsWriter]:
        """Write to a generation that is there.

        Raises:
            CatalogError: It is not.
        """
        ...

    def building(self, generation: int) -> AbstractContextManager[RowsWriter]:
        """Make a new generation, empty at first; whole and durable when the block has ended."""
        ...

    def has(self, generation: int) -> bool:
        """Whether this generation is there."""
        ...

    def remove_others(self, generation: int) -> int:
        """Delete every generation but one, and what was left half made; count them."""
        ...


class WritableRows(Protocol):
    """The file rows of all sources of a site, for those who write."""

    def exclusive(self, source: int) -> AbstractContextManager[SourceRows]:
        """Be the only writer of a source; waits for another one, in any process."""
        ...


class RowsApart(WritableRows, Protocol):
    """The same, for one thread that is to have a processor for itself."""

    def abandon(self) -> None:
        """Have what is under way fail, if that is quicker; from any thread."""
        ...


class FileRows(WritableRows, Protocol):
    """The file rows of all sources of a site. Thread-safe."""

    def apart(self) -> AbstractContextManager[RowsApart]:
        """Write without taking turns with the other threads of this process."""
        ...

    def reading(self, source: Source) -> AbstractContextManager[RowsReader]:
        """Ask a source; its newest generation is taken if that in `source` is gone.

        Raises:
            CatalogError: There are no rows of it, although there should be.
        """
        ...

    def showing(
        self, image: ImageId, source_of: Callable[[], Source]
    ) -> AbstractContextManager[tuple[RowsReader, int] | None]:
        """Ask the source of an image, with the image's sequence number; None if it has none.

        Args:
            image: The image.
            source_of: Tells its source, for one who does not know.
        """
        ...

    def find(
        self, sources: Sequence[Source], pattern: Pattern, *, versions: bool, limit: int | None
    ) -> Iterator[FoundRow]:
        """Find names in sources that have rows; in no promised order.

        Args:
            sources: Where to look.
            pattern: What for.
            versions: Every version of a path, oldest first, instead of the newest only.
            limit: The caller takes no more than so many.
        """
        ...

    def stored(self) -> set[int]:
        """Ids of sources of which something is stored, whether anybody names it or not."""
        ...

    def close(self) -> None:
        """Close what is open; of no use afterwards."""
        ...
