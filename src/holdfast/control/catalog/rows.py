"""What the catalog answers with, and what it asks of a pool.

Must not open anything. Invariants: paths and names are bytes as the client's file system had
them; moments are aware UTC; sizes are bytes; an image id stands for one backup's result.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from holdfast.base import labels
from holdfast.base.clock import from_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    import sqlalchemy as sa

    from holdfast.base.ids import ImageId, PoolId, SourceName

KINDS = ("file", "dir", "symlink", "fifo", "socket", "char", "block")
"""Kinds of entries; the place in this tuple is the number that change rows and files hold."""

DIRECTORY = KINDS.index("dir")

ADDED, REMOVED, CHANGED = 1, 2, 3
"""What a change row says of its name."""

Visible: TypeAlias = "Callable[[sa.Connection, sa.ColumnElement[str]], sa.ColumnElement[bool]]"
"""Which clients somebody may see, as a condition on the column that has their names."""

ChangeRow: TypeAlias = tuple[int, bytes, int, int, int, int, int, int, int, int]
"""(index into dirs, name, change, kind, size, mtime_ns, mode, uid, gid, inode)."""


class CatalogState(enum.StrEnum):
    """How far the file rows of an image are."""

    PENDING = "pending"
    INDEXED = "indexed"
    FAILED = "failed"
    EXPIRING = "expiring"


class ChangeRows(Protocol):
    """A batch of differences between two trees, as the engine's ``ChangeBatch``."""

    @property
    def dirs(self) -> Sequence[bytes]:
        """Directory paths that the rows point into."""
        ...

    @property
    def rows(self) -> Sequence[ChangeRow]:
        """The differences; a path is in at most one row of a whole comparison."""
        ...


class Manifest(Protocol):
    """What the catalog keeps of an image's manifest, as the engine's ``Image``."""

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        ...

    @property
    def number(self) -> int:
        """Higher than that of every image the pool had when the job began."""
        ...

    @property
    def source(self) -> str:
        """What it is of."""
        ...

    @property
    def host(self) -> str:
        """The client."""
        ...

    @property
    def started_ns(self) -> int:
        """When the job began, in ns since 1970."""
        ...

    @property
    def finished_ns(self) -> int:
        """When it ended."""
        ...

    @property
    def parent(self) -> str | None:
        """The image it was compared with."""
        ...

    @property
    def status(self) -> str:
        """How it ended, in words."""
        ...

    @property
    def stats(self) -> Mapping[str, int]:
        """The job's counters by name."""
        ...

    @property
    def findings_total(self) -> int:
        """Problems with single files."""
        ...

    @property
    def software(self) -> str:
        """What wrote it."""
        ...

    @property
    def labels(self) -> Mapping[str, str]:
        """What it says of who ordered it; see `base.labels`."""
        ...

    @property
    def client_key(self) -> str | None:
        """The id of the client key that its files are sealed with."""
        ...

    @property
    def has_sealed_names(self) -> bool:
        """Whether their names are, too."""
        ...


def is_catalog(image: Manifest) -> bool:
    """Whether an image holds a site's own control database: lists and searches leave it out."""
    return image.labels.get(labels.KIND) == labels.CATALOG


def is_index(image: Manifest) -> bool:
    """Whether an image is an index of the files inside of another: lists leave it out."""
    return labels.INDEX_OF in image.labels


class PoolReader(Protocol):
    """The part of the engine's ``Pool`` that the catalog is fed from."""

    @property
    def id(self) -> bytes:
        """Sixteen bytes that name the pool."""
        ...

    def images(self) -> Iterable[Manifest]:
        """Every manifest in the pool."""
        ...

    def image(self, id: str, /) -> Manifest:  # noqa: A002
        """One manifest; raises `ImageMissing`."""
        ...

    def changes(self, old: str | None, new: str | None, /) -> Iterator[ChangeRows]:
        """What turns the tree of one image into that of another; None is the empty tree."""
        ...


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image, as lists show it.

    Attributes:
        files: Regular files in the image.
        size_bytes: Size of everything that was found.
        online_bytes: Size of the files that had changed.
        new_bytes: Bytes of chunks that the pool did not have.
        transmitted_bytes: The same after compression.
        findings: Problems with single files.
        catalog_state: Whether browse and search know its files yet.
        catalog_detail: Why they do not, when they failed to.
        policy: The policy under which it was made; None for one that was ordered by hand.
        schedule: The schedule of the policy, if one made it due.
        backup_kind: The kind of backup that was ordered: full, differential, …
        job: The job that made it, ``<site>/<job>``.
        client_key: The id of the client key that its files are sealed with; None for one that the
            pool can read, and for one of before the catalog knew.
        sealed_names: Whether their names are sealed, too.
    """

    id: ImageId
    number: int
    source: SourceName
    host: str
    started_at: datetime
    finished_at: datetime
    files: int
    size_bytes: int
    online_bytes: int
    new_bytes: int
    transmitted_bytes: int
    status: str
    parent: ImageId | None
    findings: int
    catalog_state: CatalogState
    catalog_detail: str | None
    policy: str | None
    schedule: str | None
    backup_kind: str | None
    job: str | None
    client_key: str | None = None
    sealed_names: bool = False


@dataclass(frozen=True, slots=True)
class WaitingImage:
    """An image whose files wait to be fed.

    Attributes:
        pool: A pool that has it.
        files_at_first: How many files it has, if its source has none in the catalog yet; else 0.
    """

    image: ImageId
    pool: PoolId
    files_at_first: int


@dataclass(frozen=True, slots=True)
class CopyRow:
    """One stored instance of an image."""

    image: ImageId
    pool: PoolId
    recorded_at: datetime


# These two are made by the hundred for one answer: frozen dataclasses take four times as long.
class FileRow(NamedTuple):
    """One name in a directory, as an image has it; rows of one directory sort by their names."""

    name: bytes
    kind: str
    size_bytes: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    inode: int

    @property
    def modified_at(self) -> datetime:
        """When the content last changed."""
        return from_ns(self.mtime_ns)


TreeRow: TypeAlias = tuple[int, bytes, int, int, int, int]
"""(directory, name, attributes, size, mtime_ns, inode); an inode above 2^63 is negative."""

Attributes: TypeAlias = tuple[int, int, int, int]
"""What many entries have alike: (kind, mode, uid, gid); the kind is a place in `KINDS`."""


@dataclass(frozen=True, slots=True)
class TreeBatch:
    """Some entries of a tree, as an image has it; light enough for millions.

    Attributes:
        directories: Paths of the directories that the rows are in, by the rows' first column.
        attributes: Kinds, modes and owners, by the rows' third column.
        rows: The entries.
    """

    directories: Mapping[int, bytes]
    attributes: Mapping[int, Attributes]
    rows: Sequence[TreeRow]


class FileVersion(NamedTuple):
    """One state of a path, and the images that show it.

    Attributes:
        first_image: The oldest image that shows this state.
        last_image: The newest image that shows it: the one to restore from.
        images: How many images show it.
        current: Whether the newest image of the source shows it.
    """

    source: SourceName
    path: bytes
    kind: str
    size_bytes: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    inode: int
    first_image: ImageId
    first_at: datetime
    last_image: ImageId
    last_at: datetime
    images: int
    current: bool

    @property
    def modified_at(self) -> datetime:
        """When the content last changed."""
        return from_ns(self.mtime_ns)


FoundRow: TypeAlias = FileVersion
"""A search finds versions of files."""


@dataclass(frozen=True, slots=True)
class CleanUpResult:
    """What a clean-up found to be put right.

    Attributes:
        generations: Rows of whole sources that nothing named any more, and that are gone.
        images: Images that are gone, and now their rows are.
        lost: Images called indexed whose rows were not there: they wait to be fed again.
        unreadable: Sources whose rows can't be read, by name, with the reason.
    """

    generations: int
    images: int
    lost: int
    unreadable: dict[SourceName, str]


@dataclass(frozen=True, slots=True)
class RebuildResult:
    """What a rebuild brought back.

    Attributes:
        sources: Sources that have images in the pool.
        images: Images indexed.
        rows: Rows fed; one for each difference between neighbouring images.
        dropped: Images that the catalog had and the pool no longer has.
        failed: Images whose trees could not be read, with the reason.
        unreached: Storage units that were not looked at, with the reason.
    """

    sources: int
    images: int
    rows: int
    dropped: int
    failed: dict[ImageId, str]
    unreached: dict[str, str] = field(default_factory=dict)

    def without(self, unit: str, reason: str) -> RebuildResult:
        """The same, with a storage unit that could not be looked at."""
        return replace(self, unreached={**self.unreached, unit: reason})
