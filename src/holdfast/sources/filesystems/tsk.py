"""Files of ext2/3/4, NTFS, FAT and exFAT by the Sleuth Kit: only ever inside of a sandbox.

Must not be imported outside of a worker, or of the appliance's guest: what it parses was written
by strangers, in a library that was not written for that. Directories are walked by inode numbers,
which is ten times as fast as by paths. Deleted names, and what the Sleuth Kit makes up, are left
out.
"""

from __future__ import annotations

import bisect
import codecs
import itertools
import struct
from typing import TYPE_CHECKING, Any

import pytsk3

from holdfast.sources.filesystems.entries import (
    DESCRIPTOR,
    DIRECTORY,
    FILE,
    NO_STREAM,
    SYMLINK,
    is_name,
)
from holdfast.sources.filesystems.ext_attributes import ExtAttributes
from holdfast.sources.filesystems.ntfs_security import DESCRIPTOR_AT_MOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from holdfast.sources.filesystems.disk import Disk

# loaded when it is first asked for, which the sandbox does not allow
codecs.lookup("utf-16-le")

DEPTH = 2000
"""Directories in each other; Linux knows no path of more than 4096 bytes."""

_TYPES = {
    **dict.fromkeys(("ext2", "ext3", "ext4"), pytsk3.TSK_FS_TYPE_EXT_DETECT),
    **dict.fromkeys(("fat12", "fat16", "fat32"), pytsk3.TSK_FS_TYPE_FAT_DETECT),
    "exfat": pytsk3.TSK_FS_TYPE_EXFAT,
    "ntfs": pytsk3.TSK_FS_TYPE_NTFS,
}
# TSK_FS_META_TYPE_…: regular, directory, FIFO, character, block, link, socket
_KINDS = {1: 0, 2: 1, 3: 3, 4: 5, 5: 6, 6: 2, 8: 4}
_MADE_UP = (10, 11)
_IN_USE = 1
_NTFS_OWN = 24
"""Inodes of an NTFS below this one are its own tables."""

_EXFAT_OWN = (b"$ALLOC_BITMAP", b"$UPCASE_TABLE", b"$VOLUME_GUID", b"$TEX_FAT", b"$ACT")
"""What the tables of an exFAT are called by the Sleuth Kit."""

_INFORMATION, _OWN_DESCRIPTOR, _DATA, _REPARSE = 16, 80, 128, 192
_SECURE = 9
_SDS_BLOCK = 256 << 10
_SDS_AT_MOST = 64 << 20
_ANY_ID = 2
_SYSTEM = 4
_NOT_RESIDENT, _ENCRYPTED, _COMPRESSED = 0x02, 0x10, 0x20
_HOLE = 1 | 2
_PIECE = 1 << 20
_FAR = 1 << 62
_LINK = b"IntxLNK\x01"
"""What a symbolic link of Interix, and of ntfs-3g, begins with."""

_MOUNT_POINT, _SYMLINK, _LX_SYMLINK, _WOF = 0xA0000003, 0xA000000C, 0xA000001D, 0x80000017

Row = tuple[Any, ...]
"""As `entries.Entry`."""


class _Image(pytsk3.Img_Info):  # type: ignore[misc]
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        super().__init__(url="", type=pytsk3.TSK_IMG_TYPE_EXTERNAL)

    def read(self, offset: int, length: int) -> bytes:
        return self._disk.read_at(offset, length)

    def get_size(self) -> int:
        return self._disk.size


class TskFiles:
    """The files of one file system.

    Its methods raise `OSError` for what can't be read.
    """

    def __init__(self, disk: Disk, kind: str) -> None:
        self._disk = disk
        self._image = _Image(disk)
        self._fs = pytsk3.FS_Info(self._image, offset=0, type=_TYPES[kind])
        self._root = int(self._fs.info.root_inum)
        self._block = int(self._fs.info.block_size)
        self._ntfs = kind == "ntfs"
        self._exfat = kind == "exfat"
        self._has_owners = kind.startswith("ext")
        self._shared: _Shared | None = None
        self._named: list[Any] = []
        self._extended: ExtAttributes | None = None
        self._last: tuple[tuple[int, int], Any, Any, list[tuple[int, int]]] | None = None

    def entry(self, path: bytes) -> Row | None:
        """What is at a path; the root has no name."""
        row = self._row(self._fs.open_meta(inode=self._root), 0, b"", self._root)
        for name in filter(None, path.split(b"/")):
            if row is None or row[1] != DIRECTORY:
                return None
            row = next((one for one in self._children(row[9], None) if one[12] == name), None)
        return row

    def tree(
        self, path: bytes, remark: Callable[[bytes, str], None]
    ) -> Iterator[tuple[bytes, Iterator[Row]]]:
        """Directories at and below a path, each with its rows, which are to be taken at once.

        Raises:
            KeyError: There is none.
        """
        first = self.entry(path)
        if first is None or first[1] != DIRECTORY:
            raise KeyError(path)
        met = {first[9]}
        todo = [(b"" if path == b"/" else path, first[9], 0)]
        while todo:
            at, inode, depth = todo.pop()
            shown = at or b"/"
            below: list[tuple[bytes, int]] = []
            yield shown, self._listed(at, inode, met, below, remark)
            if depth >= DEPTH and below:
                remark(shown, "directories lie too deep in each other")
            else:
                todo += [(*one, depth + 1) for one in reversed(below)]

    def _listed(
        self,
        at: bytes,
        inode: int,
        met: set[int],
        below: list[tuple[bytes, int]],
        remark: Callable[[bytes, str], None],
    ) -> Iterator[Row]:
        """The rows of a directory; directories in it that were not met before are noted."""
        shown = at or b"/"
        try:
            for row in self._children(inode, lambda words: remark(shown, words)):
                if row[1] == DIRECTORY and row[9] not in met:
                    met.add(row[9])
                    below.append((at + b"/" + row[12], row[9]))
                yield row
        except OSError as error:
            remark(shown, f"can't be listed: {_words(error)}")

    def read(
        self,
        inode: int,
        stream: int,
        path: bytes,  # noqa: ARG002 - others find files by paths
    ) -> tuple[int, Iterator[tuple[int, bytes]]]:
        """The size of a file, and its bytes where they are not a hole."""
        file = self._fs.open_meta(inode=inode)
        attribute = self._stream(file, stream)
        if attribute is None:
            return 0, iter(())
        filled = self._filled(attribute, int(attribute.info.size))
        return int(attribute.info.size), self._pieces(file, attribute, filled)

    def piece(
        self,
        inode: int,
        stream: int,
        path: bytes,  # noqa: ARG002 - as above
        begin: int,
        end: int,
    ) -> Iterator[tuple[int, bytes]]:
        """The bytes of a part of a file; the one that was read last is at hand."""
        if self._last is None or self._last[0] != (inode, stream):
            file = self._fs.open_meta(inode=inode)
            attribute = self._stream(file, stream)
            if attribute is None:
                return
            filled = list(self._filled(attribute, int(attribute.info.size)))
            self._last = ((inode, stream), file, attribute, filled)
        _, file, attribute, filled = self._last
        first = max(bisect.bisect_right(filled, (begin, end)) - 1, 0)
        within = (
            (max(one[0], begin), min(one[1], end))
            for one in itertools.takewhile(lambda one: one[0] < end, filled[first:])
        )
        yield from self._pieces(file, attribute, within)

    def details(
        self,
        inode: int,
        path: bytes,  # noqa: ARG002 - as above
    ) -> tuple[int, list[str], dict[bytes, bytes]]:
        """Attributes of NTFS, what can't be had of the file, and extended attributes."""
        if self._has_owners:
            return self._ext_attributes(inode)
        if not self._ntfs:
            return 0, [], {}
        file = self._fs.open_meta(inode=inode)
        notes = []
        if any(int(one.info.flags) & _ENCRYPTED for one in file):
            notes.append("is encrypted by Windows: its bytes are restored as they are")
        if _tag(file) == _WOF:
            notes.append("is compressed in a way of Windows (WOF) that is not read here")
        descriptor = self._descriptor(file)
        return _dos(file), notes, {DESCRIPTOR: descriptor} if descriptor else {}

    def _ext_attributes(self, inode: int) -> tuple[int, list[str], dict[bytes, bytes]]:
        if self._extended is None:
            self._extended = ExtAttributes(self._disk, self._beginning)
        if not self._extended.is_readable:
            return 0, ["has extended attributes, if any, that are not read here (meta_bg)"], {}
        return 0, [], self._extended.of(inode)

    def _beginning(self, inode: int, length: int) -> bytes:
        return bytes(self._fs.open_meta(inode=inode).read_random(0, length)) if length else b""

    # -- rows -------------------------------------------------------------------------------

    def _children(self, inode: int, remark: Callable[[str], None] | None) -> Iterator[Row]:
        top = inode == self._root
        for file in self._fs.open_dir(inode=inode):
            info = file.info
            name = info.name.name
            if name in (b".", b"..") or not int(info.name.flags) & _IN_USE:
                continue
            meta = info.meta
            if meta is None or not int(meta.flags) & _IN_USE:
                if remark is not None and meta is None:
                    remark(f"'{_shown(name)}' leads nowhere")
                continue
            number = int(meta.addr)
            if int(meta.type) in _MADE_UP or (self._ntfs and top and number < _NTFS_OWN):
                continue
            if self._exfat and top and name in _EXFAT_OWN:
                continue
            if top and name.endswith(b" (Volume Label Entry)") and not self._has_owners:
                continue
            if not is_name(name):
                if remark is not None:
                    remark(f"'{_shown(name)}' can't be a name")
                continue
            row = self._row(file, 0, name, number)
            if row is None:
                continue
            yield row
            if self._ntfs and self._named:
                yield from self._streams(row)

    def _row(self, file: Any, directory: int, name: bytes, number: int) -> Row | None:
        meta = file.info.meta
        kind = _KINDS.get(int(meta.type))
        if kind is None:
            return None
        mode = int(meta.mode) & 0o7777
        uid, gid = int(meta.uid), int(meta.gid)
        if not self._has_owners:
            mode, uid, gid = 0o755 if kind == DIRECTORY else 0o644, 0, 0
        size, target = int(meta.size), b""
        # of the row before
        self._named = []
        if kind == SYMLINK:
            target = self._target(file, size)
        elif self._ntfs:
            kind, target = self._as_link(file, kind, size)
        if target:
            kind, size, mode = SYMLINK, len(target), 0o777
        return (
            directory,
            kind,
            mode,
            uid & 0xFFFFFFFF,
            gid & 0xFFFFFFFF,
            0 if kind == DIRECTORY else size,
            _ns(meta.mtime, meta.mtime_nano),
            _ns(meta.ctime, meta.ctime_nano),
            _ns(meta.atime, meta.atime_nano),
            number,
            int(meta.nlink) & 0xFFFFFFFF,
            NO_STREAM,
            name,
            target[:4096],
        )

    def _target(self, file: Any, size: int) -> bytes:
        link = file.info.meta.link
        if not link:
            # a long one lies where a file's bytes do
            link = file.read_random(0, size) if 0 < size <= 4096 else b""
        return link if isinstance(link, bytes) else link.encode("utf-8", "surrogateescape")

    def _as_link(self, file: Any, kind: int, size: int) -> tuple[int, bytes]:
        """Whether a file or directory of NTFS is a symbolic link, and where to.

        Notes its further streams on the way: going over attributes is what costs.
        """
        reparse = None
        for one in file:
            info = one.info
            number = int(info.type)
            if number == _DATA:
                if info.name:
                    self._named.append(info)
            elif number == _REPARSE and reparse is None:
                reparse = info
        if reparse is not None:
            data = file.read_random(0, min(int(reparse.size), 16384), _REPARSE, int(reparse.id))
            target = _reparse_target(data)
            return (SYMLINK, target) if target else (kind, b"")
        if kind == FILE and len(_LINK) < size <= 8200 and size % 2 == 0 and _dos(file) & _SYSTEM:
            data = file.read_random(0, size, _DATA, 0, _ANY_ID)
            if data.startswith(_LINK):
                text = data[len(_LINK) :].decode("utf-16-le", "surrogatepass")
                return SYMLINK, text.encode("utf-8", "surrogatepass")
        return kind, b""

    def _streams(self, row: Row) -> Iterator[Row]:
        for info in self._named:
            name = row[12] + b":" + info.name
            if is_name(name):
                size = int(info.size)
                yield (0, FILE, *row[2:5], size, *row[6:11], int(info.id), name, b"")

    # -- who may do what ----------------------------------------------------------------------

    def _descriptor(self, file: Any) -> bytes:
        """The security descriptor of a file of NTFS; nothing where there is none."""
        own = next((one for one in file if int(one.info.type) == _OWN_DESCRIPTOR), None)
        if own is not None:
            # as before Windows 2000
            size = min(int(own.info.size), DESCRIPTOR_AT_MOST)
            return bytes(file.read_random(0, size, _OWN_DESCRIPTOR, int(own.info.id)))
        number = int.from_bytes(file.read_random(52, 4, _INFORMATION, 0, _ANY_ID), "little")
        if self._shared is None:
            self._shared = _Shared(self._fs)
        return self._shared.descriptor(number)

    # -- content ----------------------------------------------------------------------------

    def _stream(self, file: Any, stream: int) -> Any | None:
        wanted = None
        for one in file:
            info = one.info
            if self._ntfs:
                if int(info.type) != _DATA:
                    continue
                if (stream == NO_STREAM and not info.name) or int(info.id) == stream != NO_STREAM:
                    return one
            elif wanted is None:
                wanted = one
        return wanted

    def _pieces(
        self, file: Any, attribute: Any, filled: Iterable[tuple[int, int]]
    ) -> Iterator[tuple[int, bytes]]:
        info = attribute.info
        size = int(info.size)
        which = (int(info.type), int(info.id))
        for begin, end in filled:
            at = begin
            while at < end:
                data = file.read_random(at, min(_PIECE, end - at), *which)
                if not data:
                    raise OSError(f"it ends at byte {at} of {size}")
                yield at, data
                at += len(data)

    def _filled(self, attribute: Any, size: int) -> Iterator[tuple[int, int]]:
        """Where there are bytes: (begin, end), ascending."""
        flags = int(attribute.info.flags)
        # resident, or compressed: its runs do not tell where it is
        if not flags & _NOT_RESIDENT or flags & _COMPRESSED:
            yield 0, size
            return
        at = 0
        for run in attribute:
            length = int(run.len) * self._block
            if not int(run.flags) & _HOLE and at < size:
                yield at, min(at + length, size)
            at += length
            if at >= size:
                return


class _Shared:
    """Descriptors, which files of NTFS share: ``$Secure:$SDS``."""

    def __init__(self, fs: Any) -> None:
        self._file = fs.open_meta(inode=_SECURE)
        stream = next(
            (one for one in self._file if int(one.info.type) == _DATA and one.info.name == b"$SDS"),
            None,
        )
        self._id = 0 if stream is None else int(stream.info.id)
        self._places: dict[int, tuple[int, int]] = {}
        size = 0 if stream is None else min(int(stream.info.size), _SDS_AT_MOST)
        # a copy of each block follows it
        for begin in range(0, size, 2 * _SDS_BLOCK):
            self._note(begin, self._read(begin, min(_SDS_BLOCK, size - begin)))

    def _note(self, begin: int, block: bytes) -> None:
        at = 0
        while at + 20 <= len(block):
            number, place, length = struct.unpack_from("<4xIQI", block, at)
            if length < 20 or at + length > len(block) or place != begin + at:
                return
            self._places[number] = (place + 20, length - 20)
            at += length + 15 & ~15

    def _read(self, offset: int, length: int) -> bytes:
        return bytes(self._file.read_random(offset, length, _DATA, self._id))

    def descriptor(self, number: int) -> bytes:
        """One by its number; nothing where there is none."""
        offset, length = self._places.get(number, (0, 0))
        return self._read(offset, length) if 0 < length <= DESCRIPTOR_AT_MOST else b""


def _ns(seconds: Any, nanoseconds: Any) -> int:
    found = int(seconds) * 1_000_000_000 + int(nanoseconds)
    return found if -_FAR < found < _FAR else max(-_FAR, min(_FAR, found))


def _dos(file: Any) -> int:
    data = file.read_random(32, 4, _INFORMATION, 0, _ANY_ID)
    return int.from_bytes(data, "little") if len(data) == 4 else 0


def _tag(file: Any) -> int | None:
    for one in file:
        if int(one.info.type) == _REPARSE:
            head = file.read_random(0, 4, _REPARSE, int(one.info.id))
            return int.from_bytes(head, "little")
    return None


def _reparse_target(data: bytes) -> bytes:
    tag = int.from_bytes(data[:4], "little")
    if tag == _LX_SYMLINK:
        return data[12:]
    if tag not in (_MOUNT_POINT, _SYMLINK):
        return b""
    first, length = (int.from_bytes(data[at : at + 2], "little") for at in (8, 10))
    shown_at, shown = (int.from_bytes(data[at : at + 2], "little") for at in (12, 14))
    names = data[20 if tag == _SYMLINK else 16 :]
    raw = names[shown_at : shown_at + shown] or names[first : first + length]
    return raw.decode("utf-16-le", "replace").encode()


def _words(error: OSError) -> str:
    return " ".join(str(error).split())[:200] or "it can't be read"


def _shown(name: bytes) -> str:
    return name[:80].decode("utf-8", "backslashreplace")
