"""What runs in the appliance, as the only process of its guest.

Must not be run anywhere else: it mounts, and it ends the machine that it runs on. The disk that it
is given is an overlay that is thrown away, so that a journal can be replayed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from typing import TYPE_CHECKING

from holdfast.sources.filesystems.entries import DIRECTORY, NO_STREAM
from holdfast.sources.filesystems.frames import Say
from holdfast.sources.filesystems.worker import FarDisk, Link, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.sources.filesystems.tsk import Row
    from holdfast.sources.filesystems.worker import Reads

MODULES = "/modules"
PORT = "/dev/vport0p1"
DISK = "/dev/vda"
RECOVER = "/ntfsrecover"
"""Where the program is that replays the log of an NTFS, in a guest that needs it."""

MOUNTED = b"/mnt"

_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC = 1, 2, 4, 8
_FINIT_MODULE = {"x86_64": 313, "aarch64": 273}
_COMPRESSED = 4
_OPTIONS = {"xfs": "nouuid", "btrfs": "subvolid=5"}
_KINDS = {
    stat.S_IFREG: 0, stat.S_IFDIR: 1, stat.S_IFLNK: 2, stat.S_IFIFO: 3,
    stat.S_IFSOCK: 4, stat.S_IFCHR: 5, stat.S_IFBLK: 6,
}  # fmt: skip
_DEPTH = 2000
_PIECE = 256 << 10


class KernelFiles:
    """The files of one file system, by the kernel of this guest; see `worker.Reads`."""

    def __init__(self, disk: FarDisk, kind: str) -> None:  # noqa: ARG002 - it is attached
        _mount(DISK, MOUNTED.decode(), kind, _OPTIONS.get(kind, ""))
        self._devices: dict[int, int] = {}
        self._last: tuple[bytes, int] | None = None

    def entry(self, path: bytes) -> Row | None:
        """What is at a path; a link on the way is not followed."""
        place = MOUNTED
        for name in filter(None, path.split(b"/")[:-1]):
            place += b"/" + name
            if not self._is_directory(place):
                return None
        try:
            return self._row(MOUNTED + path.rstrip(b"/"), path.rpartition(b"/")[2])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def tree(
        self, path: bytes, remark: Callable[[bytes, str], None]
    ) -> Iterator[tuple[bytes, Iterator[Row]]]:
        """Directories at and below a path."""
        first = self.entry(path)
        if first is None or first[1] != DIRECTORY:
            raise KeyError(path)
        todo = [(path.rstrip(b"/"), 0)]
        while todo:
            at, depth = todo.pop()
            below: list[bytes] = []
            yield at or b"/", self._listed(at, below, remark)
            if depth < _DEPTH:
                todo += [(at + b"/" + name, depth + 1) for name in reversed(below)]
            elif below:
                remark(at, "directories lie too deep in each other")

    def read(
        self,
        inode: int,  # noqa: ARG002 - by its path
        stream: int,  # noqa: ARG002 - as above
        path: bytes,
    ) -> tuple[int, Iterator[tuple[int, bytes]]]:
        """The bytes of a file."""
        found = self.entry(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file")
        return found[5], _pieces(MOUNTED + path)

    def piece(
        self,
        inode: int,  # noqa: ARG002 - as above
        stream: int,  # noqa: ARG002 - as above
        path: bytes,
        begin: int,
        end: int,
    ) -> Iterator[tuple[int, bytes]]:
        """The bytes of a part of a file, which stays open until another is asked for."""
        if self._last is None or self._last[0] != path:
            if self.entry(path) is None:
                raise FileNotFoundError(errno.ENOENT, "there is no such file")
            if self._last is not None:
                os.close(self._last[1])
                self._last = None
            self._last = path, os.open(MOUNTED + path, os.O_RDONLY | os.O_NOFOLLOW)
        yield from _data(self._last[1], begin, end)

    def details(
        self,
        inode: int,  # noqa: ARG002 - as above
        path: bytes,
    ) -> tuple[int, list[str], dict[bytes, bytes]]:
        """Extended attributes."""
        place = MOUNTED + path.rstrip(b"/")
        names = [os.fsencode(one) for one in os.listxattr(place, follow_symlinks=False)]
        return 0, [], {one: os.getxattr(place, one, follow_symlinks=False) for one in names}

    def _is_directory(self, place: bytes) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(place).st_mode)
        except OSError:
            return False

    def _listed(
        self, at: bytes, below: list[bytes], remark: Callable[[bytes, str], None]
    ) -> Iterator[Row]:
        try:
            names = sorted(os.listdir(MOUNTED + at))
        except OSError as error:
            remark(at or b"/", f"can't be listed: {error.strerror}")
            return
        for name in names:
            try:
                row = self._row(MOUNTED + at + b"/" + name, name)
            except OSError as error:
                remark(at + b"/" + name, f"can't be read: {error.strerror}")
                continue
            if row[1] == DIRECTORY:
                below.append(name)
            yield row

    def _row(self, place: bytes, name: bytes) -> Row:
        status = os.lstat(place)
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        # subvolumes of a Btrfs have inodes of their own, with the same numbers
        device = self._devices.setdefault(status.st_dev, len(self._devices))
        return (
            0,
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            0 if kind == DIRECTORY else status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_atime_ns,
            (status.st_ino + (device << 48)) & (1 << 64) - 1,
            status.st_nlink,
            NO_STREAM,
            name,
            os.readlink(place) if stat.S_ISLNK(status.st_mode) else b"",
        )


def _pieces(place: bytes) -> Iterator[tuple[int, bytes]]:
    fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        yield from _data(fd, 0, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _data(fd: int, at: int, until: int) -> Iterator[tuple[int, bytes]]:
    """What is between two places of a file, holes apart."""
    while at < until:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = min(until, os.lseek(fd, at, os.SEEK_HOLE))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        while at < end:
            data = os.pread(fd, min(_PIECE, end - at), at)
            if not data:
                return
            yield at, data
            at += len(data)


def _mount(device: str, at: str, kind: str, options: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_EXEC if device == DISK else 0
    if libc.mount(device.encode(), at.encode(), kind.encode(), flags, options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the kernel can't mount this {kind}: {os.strerror(number)}")


def _load_modules() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    call = _FINIT_MODULE[os.uname().machine]
    for name in sorted(os.listdir(MODULES)):
        fd = os.open(f"{MODULES}/{name}", os.O_RDONLY)
        # one that does not load is missed when it is needed, and that is told then
        libc.syscall(call, fd, b"", 0 if name.endswith(".ko") else _COMPRESSED)
        os.close(fd)


def _open(disk: FarDisk, kind: str) -> Reads:
    if kind != "ntfs":
        return KernelFiles(disk, kind)
    from holdfast.sources.filesystems.appliance.ntfs import open_replayed

    return open_replayed(disk.size)


def main() -> None:
    """Become the guest."""
    try:
        _mount("proc", "/proc", "proc")
        _mount("sysfs", "/sys", "sysfs")
        _mount("devtmpfs", "/dev", "devtmpfs")
        _load_modules()
        link = Link(os.open(PORT, os.O_RDWR))
        link.say(Say.DONE)
        Worker(link, _open).run()
    except BaseException as error:  # noqa: BLE001 - there is nobody else to tell
        sys.stderr.write(f"{error!r}\n")
    finally:
        # power off
        os.sync()
        ctypes.CDLL(None).reboot(0x4321FEDC)
