"""Names in a file system, and what lists and reads them: the same for every kind.

Must not read anything itself. Invariants: a name has neither a slash nor a NUL in it, and is not
one of ``.`` and ``..``, whatever the file system says; a path begins with a slash and holds such
names only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.sources.machines.provider import Remark

KINDS = ("file", "dir", "symlink", "fifo", "socket", "char", "block")
"""What a name can be of; the place in it is the number that the engine knows it by."""

FILE, DIRECTORY, SYMLINK = 0, 1, 2

NAME_AT_MOST = 1600
"""Bytes of a name: 255 of UTF-16, a colon, and as many of a stream."""

NO_STREAM = 0xFFFF
"""The stream of an entry that is a file, and no further stream of one."""

ROOT = b"/"

DESCRIPTOR = b"system.ntfs_acl"
"""The attribute that ntfs-3g keeps the security descriptor of a file in."""

DOS_ATTRIBUTES = b"system.ntfs_attrib_be"
"""The attribute that ntfs-3g keeps `Details.dos` in, as 4 bytes, big end first."""


class FilesUnreadable(Exception):  # noqa: N818 - a state of a file system, which becomes a remark
    """A file system, or something in it, can't be read; in words for a person."""


class Entry(NamedTuple):
    """One name. Light: there may be millions.

    Attributes:
        directory: Its place in the directories of its batch.
        name: As the file system has it; ``file:stream`` for a further stream of a file.
        kind: Its place in `KINDS`.
        mode: The permission bits.
        inode: What it is read by, with `stream`.
        stream: Which of the streams of a file; `NO_STREAM` for the file itself.
        target: Of a symbolic link.
    """

    directory: int
    kind: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    atime_ns: int
    inode: int
    nlink: int
    stream: int
    name: bytes
    target: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Some entries.

    Attributes:
        directories: Paths that the entries name by place. A directory comes before what is in it.
        entries: They.
    """

    directories: Sequence[bytes]
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Details:
    """What a restore needs to know of a file beside its entry.

    Attributes:
        xattrs: Extended attributes; of NTFS the descriptor, as `DESCRIPTOR`.
        dos: Attributes of NTFS and FAT: 1 read-only, 2 hidden, 4 system, 32 archive, …
        notes: What can't be had, in words: ``is encrypted by Windows``.
    """

    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    dos: int = 0
    notes: tuple[str, ...] = ()


class Files(Protocol):
    """The files of one file system. Not thread-safe; to be closed."""

    @property
    def remarks(self) -> Sequence[Remark]:
        """What could not be read so far."""
        ...

    def tree(self, path: bytes = ROOT) -> Iterator[Batch]:
        """Everything below a directory.

        Raises:
            FilesUnreadable: There is no such directory, or the file system is beyond reading.
            HoldfastError: The disk can't be read.
        """
        ...

    def entry(self, path: bytes) -> Entry:
        """What is at a path, its name without directories; the root has no name.

        Raises:
            KeyError: Nothing.
            FilesUnreadable: As above.
        """
        ...

    def read(self, entry: Entry, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The bytes of a file: (offset, bytes), ascending; what is between them is zero.

        Args:
            entry: Of the file.
            path: Where it is; not every reader finds it by its inode.
        """
        ...

    def piece(self, entry: Entry, path: bytes, offset: int, length: int) -> bytes:
        """The bytes of a file from an offset on, holes as zeros; fewer only at its end.

        For who reads here and there: what was begun need not be read to its end. As `read`.
        """
        ...

    def details(self, entry: Entry, path: bytes) -> Details:
        """The rest; as `read`."""
        ...

    def close(self) -> None:
        """End."""
        ...


def is_name(name: bytes) -> bool:
    """Whether this can be a name in a directory."""
    return (
        0 < len(name) <= NAME_AT_MOST
        and name not in (b".", b"..")
        and b"/" not in name
        and b"\0" not in name
    )


def is_path(path: bytes) -> bool:
    """Whether this is a path of such names; ``/`` is."""
    return path == ROOT or (path[:1] == b"/" and all(map(is_name, path[1:].split(b"/"))))
