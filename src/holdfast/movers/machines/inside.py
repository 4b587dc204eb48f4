"""The files inside of a machine's image: all volumes of its disks as one tree.

Must not write anything, nor have the kernel mount anything. Invariants: what is not read is told of
by `remarks`, never left out in silence; an error of the pool comes out as it is.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from holdfast.base.errors import InputOutput, PathMissing
from holdfast.movers.machines.record import DISKS, disk_path
from holdfast.sources.filesystems.entries import KINDS, NO_STREAM, ROOT, FilesUnreadable, is_name
from holdfast.sources.filesystems.opening import is_replayed, open_files
from holdfast.sources.filesystems.volumes import LVM, NEEDS_REPLAY, NOT_REPLAYED, look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Self

    from holdfast.base.ids import ImageId
    from holdfast.engine import Pool
    from holdfast.movers.machines.record import Record
    from holdfast.sources.filesystems import entries
    from holdfast.sources.filesystems.disk import Disk
    from holdfast.sources.filesystems.entries import Batch, Files
    from holdfast.sources.filesystems.volumes import Volume
    from holdfast.sources.machines.provider import Remark


@dataclass(frozen=True, slots=True)
class InnerEntry:
    """One name, as the engine's `Entry` tells of one in an image.

    Attributes:
        found: What the volume's reader knows it by; None for what is above the volumes.
        volume: Where it is.
        place: Its path in there.
    """

    name: bytes
    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    user: None = None
    group: None = None
    mtime_ns: int = 0
    inode: int = 0
    nlink: int = 1
    size: int = 0
    target: bytes | None = None
    rdev: None = None
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    found: entries.Entry | None = None
    volume: Volume | None = None
    place: bytes = ROOT

    @property
    def is_stream(self) -> bool:
        """Whether it is a further stream of a file, and no file."""
        return self.found is not None and self.found.stream != NO_STREAM


class Inside:
    """What is in the file systems of one image. Not thread-safe; to be closed."""

    def __init__(self, disks: Mapping[str, Disk]) -> None:
        """Find the volumes.

        Args:
            disks: By name.
        """
        self._disks = tuple(disks)
        self.layout = look(disks)
        self._volumes = {one.name.encode(): one for one in self.layout.volumes}
        self._open: dict[str, Files] = {}
        self._said: list[Remark] = []

    @classmethod
    def of_image(cls, pool: Pool, image: ImageId) -> Inside:
        """The files in the disks of an image.

        Raises:
            PathMissing: It is no image of a machine.
            HoldfastError: The pool can't be read.
        """
        place = b"/" + DISKS.encode()
        names = [one.name for one in pool.list_dir(image, place) if one.kind == "file"]
        return cls(
            {
                name.decode("utf-8", "surrogateescape"): pool.open_file(image, place + b"/" + name)
                for name in names
            }
        )

    @classmethod
    def of_record(cls, record: Record, open_file: Callable[[bytes], Disk]) -> Inside:
        """The files in the disks of an image that is elsewhere.

        Args:
            record: Of the machine, as it is in the image.
            open_file: Opens a file of the image by its path.

        Raises:
            HoldfastError: The image can't be read.
        """
        disks = {}
        for disk in record.machine.disks:
            # one that was left out of the backup is in the record all the same
            with contextlib.suppress(PathMissing):
                disks[disk.name] = open_file(disk_path(disk.name))
        return cls(disks)

    def close(self) -> None:
        """End every reader."""
        for name in list(self._open):
            self._end(name)

    def done_with(self, volume: Volume) -> None:
        """End the reader of a volume; the next question gets a new one."""
        if volume.name in self._open:
            self._end(volume.name)

    def _end(self, name: str) -> None:
        files = self._open.pop(name)
        self._said += files.remarks
        files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def remarks(self) -> list[Remark]:
        """What is not read, and what is odd, as far as it was met."""
        met = [one for files in self._open.values() for one in files.remarks]
        replayed = {one.name for one in self.layout.volumes if is_replayed(one)}
        found = [
            one
            for one in self.layout.remarks
            if one.code not in (NEEDS_REPLAY, NOT_REPLAYED) or one.about not in replayed
        ]
        return [*found, *self._said, *met]

    def remarks_of(self, paths: Sequence[bytes]) -> list[Remark]:
        """What of `remarks` is about volumes, or files, that some paths lead into or hold."""
        wanted = [path.strip(b"/").decode("utf-8", "surrogateescape") + "/" for path in paths]
        return [
            one
            for one in self.remarks
            for about in [f"{one.about or ''}/"]
            if any(about.startswith(each) or each.startswith(about) for each in wanted)
        ]

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """Every volume that has files."""
        return tuple(one for one in self.layout.volumes if one.holds_files)

    def names(self) -> set[bytes]:
        """What paths begin with: names of disks, and ``lvm``."""
        found = {one.encode("utf-8", "surrogateescape") for one in self._disks}
        return found | {name.split(b"/")[0] for name in self._volumes}

    def knows(self, path: bytes) -> bool:
        """Whether a path leads to a disk of this image, whatever is on it."""
        first = path.strip(b"/").split(b"/")[0]
        return first in self.names()

    # -- questions ------------------------------------------------------------------------------

    def entry(self, path: bytes) -> InnerEntry:
        """What is at a path.

        Raises:
            PathMissing: Nothing.
            InputOutput: The file system that it is on can't be read.
        """
        volume, rest = self.place(path)
        name = path.rstrip(b"/").rpartition(b"/")[2]
        if volume is None:
            return InnerEntry(name, "dir")
        try:
            found = _inner(volume, self.files(volume).entry(rest), rest)
        except KeyError as error:
            raise _missing(path) from error
        except FilesUnreadable as error:
            raise _unreadable(error) from error
        return found if found.name else _renamed(found, name)

    def children(self, path: bytes) -> Iterator[InnerEntry]:
        """What is in a directory, by name."""
        volume, rest = self.place(path)
        if volume is None:
            prefix = path.strip(b"/")
            yield from (self.entry(prefix + b"/" + one) for one in self._between(prefix))
            return
        found: list[InnerEntry] = []
        for batch in self._tree(volume, rest, path):
            # of the first directory only: the others come behind it
            mine = {at for at, one in enumerate(batch.directories) if one == rest}
            if not mine:
                break
            found += [
                _inner(volume, one, rest.rstrip(b"/") + b"/" + one.name)
                for one in batch.entries
                if one.directory in mine
            ]
        yield from sorted(found, key=lambda one: one.name)

    def below(self, path: bytes) -> Iterator[tuple[bytes, InnerEntry]]:
        """Everything below a directory, with whole paths; a directory before what is in it."""
        volume, rest = self.place(path)
        base = path.rstrip(b"/")
        if volume is None:
            prefix = path.strip(b"/")
            for name in self._between(prefix):
                place = base + b"/" + name
                yield place, self.entry(place)
                yield from self.below(place)
            return
        top = b"/" + volume.name.encode()
        for batch in self._tree(volume, rest, path):
            places = [b"" if one == ROOT else one for one in batch.directories]
            for one in batch.entries:
                place = places[one.directory] + b"/" + one.name
                yield top + place, _inner(volume, one, place)

    def walk(self, volume: Volume, directory: bytes = ROOT) -> Iterator[Batch]:
        """Everything below a directory of a volume; meanwhile files may be read.

        The reader that is open walks, for one may be a whole guest; what is asked meanwhile, and
        nothing else, gets another.

        Raises:
            KeyError: There is no such directory.
            FilesUnreadable: The file system can't be read.
        """
        files = self._open.pop(volume.name, None) or open_files(volume)
        ended = False
        try:
            yield from files.tree(directory)
            ended = True
        finally:
            if ended and volume.name not in self._open:
                self._open[volume.name] = files
            else:
                self._said += files.remarks
                files.close()

    def _tree(self, volume: Volume, directory: bytes, path: bytes) -> Iterator[Batch]:
        try:
            yield from self.walk(volume, directory)
        except KeyError as error:
            raise _missing(path) from error
        except FilesUnreadable as error:
            raise _unreadable(error) from error

    def files(self, volume: Volume) -> Files:
        """The reader of a volume.

        Raises:
            FilesUnreadable: There is none.
        """
        found = self._open.get(volume.name)
        if found is None:
            found = self._open[volume.name] = open_files(volume)
        return found

    # -- places ---------------------------------------------------------------------------------

    def place(self, path: bytes) -> tuple[Volume | None, bytes]:
        """The volume that a path leads into, and the path in there; None: it is above them.

        Raises:
            PathMissing: It leads nowhere.
            InputOutput: There are no files on what it leads to.
        """
        parts = path.strip(b"/").split(b"/")
        for count in (2, 3):
            volume = self._volumes.get(b"/".join(parts[:count]))
            if volume is not None and len(parts) >= count:
                if not volume.holds_files:
                    raise InputOutput(
                        f"{volume.name} has no files that can be read: {volume.files.kind}",
                        "its whole disk can be restored",
                    )
                return volume, b"/" + b"/".join(parts[count:])
        prefix = b"/".join(parts)
        if prefix in self.names() or self._between(prefix):
            return None, b""
        raise _missing(path)

    def _between(self, prefix: bytes) -> list[bytes]:
        """Names in a directory above the volumes."""
        start = prefix + b"/" if prefix else b""
        below = {
            name[len(start) :].split(b"/")[0]
            for name, one in self._volumes.items()
            if name.startswith(start) and one.holds_files
        }
        return sorted(filter(is_name, below if prefix else below | (self.names() - {LVM.encode()})))


def _inner(volume: Volume, one: entries.Entry, place: bytes) -> InnerEntry:
    return InnerEntry(
        name=one.name,
        kind=KINDS[one.kind],
        mode=one.mode,
        uid=one.uid,
        gid=one.gid,
        mtime_ns=one.mtime_ns,
        inode=one.inode,
        nlink=one.nlink,
        size=one.size,
        target=one.target if KINDS[one.kind] == "symlink" else None,
        found=one,
        volume=volume,
        place=place,
    )


def _renamed(one: InnerEntry, name: bytes) -> InnerEntry:
    return replace(one, name=name)


def _missing(path: bytes) -> PathMissing:
    shown = path.decode("utf-8", "backslashreplace")
    return PathMissing(
        f"the machine has nothing at '{shown}'", "look around with: holdfast ls IMAGE:/DISK"
    )


def _unreadable(error: FilesUnreadable) -> InputOutput:
    return InputOutput(str(error), "its whole disk can be restored")
