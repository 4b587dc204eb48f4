"""What runs in the sandbox: asks its master for bytes of a disk, and tells what files there are.

Must not open, connect to, or start anything; by the time that the first byte of the disk comes, it
could not. Run as ``python -m holdfast.sources.filesystems.worker FD MEMORY_BYTES CPU_S``.
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from holdfast.sources.filesystems import frames, sandbox
from holdfast.sources.filesystems.frames import PLACE, WHICH, Say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.sources.filesystems.tsk import Row

_PIECE = 128 << 10
"""The disk is read in pieces of this size, at multiples of it."""

_KEPT = 512
_AHEAD = 8
"""So many pieces are asked for at once by who reads on and on."""

_LARGE = 512 << 10
_AT_ONCE = 2 << 20
_ROWS = 4000


class Reads(Protocol):
    """What reads one file system. What it can't read it raises `OSError` for."""

    def entry(self, path: bytes) -> Row | None:
        """What is at a path."""
        ...

    def tree(
        self, path: bytes, remark: Callable[[bytes, str], None]
    ) -> Iterator[tuple[bytes, Iterator[Row]]]:
        """Directories at and below a path, each with its rows; `KeyError` if there is none."""
        ...

    def read(self, inode: int, stream: int, path: bytes) -> tuple[int, Iterator[tuple[int, bytes]]]:
        """The size of a file, and its bytes where they are not a hole."""
        ...

    def piece(
        self, inode: int, stream: int, path: bytes, begin: int, end: int
    ) -> Iterator[tuple[int, bytes]]:
        """The bytes of a part of a file, where they are not a hole; the file stays open."""
        ...

    def details(self, inode: int, path: bytes) -> tuple[int, list[str], dict[bytes, bytes]]:
        """Attributes of NTFS, what can't be had of the file, and extended attributes."""
        ...


class Link:
    """The way to the master."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def say(self, kind: Say, payload: bytes = b"") -> None:
        """Send a frame."""
        data = memoryview(frames.pack(kind, payload))
        while data:
            data = data[os.write(self._fd, data) :]

    def hear(self) -> tuple[Say, bytes]:
        """Wait for a frame."""
        return frames.receive(lambda length: os.read(self._fd, length))


class FarDisk:
    """The disk that the master has; what was read lately is kept."""

    def __init__(self, link: Link, size: int) -> None:
        self.size = size
        self._link = link
        self._pieces: OrderedDict[int, bytes] = OrderedDict()
        self._last = -2

    def read_at(self, offset: int, length: int, /) -> bytes:
        """As `Disk.read_at`."""
        if offset < 0 or length <= 0 or offset >= self.size:
            return b""
        length = min(length, self.size - offset)
        if length >= _LARGE:
            # content, which nobody reads twice
            return b"".join(
                self._want(offset + at, min(_AT_ONCE, length - at))
                for at in range(0, length, _AT_ONCE)
            )
        first, last = offset // _PIECE, (offset + length - 1) // _PIECE
        data = b"".join(self._piece(at) for at in range(first, last + 1))
        begin = offset - first * _PIECE
        return data if not begin and len(data) == length else data[begin : begin + length]

    def _want(self, offset: int, length: int) -> bytes:
        self._link.say(Say.WANT, PLACE.pack(offset, length))
        kind, data = self._link.hear()
        if kind is not Say.BYTES:
            raise OSError("the disk can't be read")
        return data

    def _piece(self, at: int) -> bytes:
        found = self._pieces.get(at)
        if found is not None:
            self._pieces.move_to_end(at)
            return found
        count = _AHEAD if at == self._last + 1 else 1
        data = self._want(at * _PIECE, count * _PIECE)
        for number in range(count):
            piece = data[number * _PIECE : (number + 1) * _PIECE]
            if piece:
                self._pieces[at + number] = piece
        self._last = at + count - 1
        while len(self._pieces) > _KEPT:
            self._pieces.popitem(last=False)
        return data[:_PIECE]


class Worker:
    """Carries out what the master asks for."""

    def __init__(self, link: Link, make: Callable[[FarDisk, str], Reads]) -> None:
        self._link = link
        self._make = make
        self._files: Reads | None = None

    def run(self) -> None:
        """Serve until the master is gone."""
        while True:
            try:
                kind, payload = self._link.hear()
            except EOFError:
                return
            try:
                self._link.say(*self._answer(kind, payload))
            except KeyError:
                self._link.say(Say.MISSING)
            except Exception as error:  # noqa: BLE001 - the master is told, whatever it is
                words = " ".join(str(error).split())[:300] or type(error).__name__
                self._link.say(Say.ERROR, words.encode("utf-8", "replace"))

    def _answer(self, kind: Say, payload: bytes) -> tuple[Say, bytes]:
        if kind is Say.OPEN:
            name, _, size = payload.partition(b"\0")
            self._files = self._make(FarDisk(self._link, int(size)), name.decode())
            return Say.DONE, b""
        files = self._files
        if files is None:
            raise ValueError("no file system is open")
        if kind is Say.TREE:
            return self._tree(files, payload)
        if kind is Say.ENTRY:
            row = files.entry(payload)
            if row is None:
                raise KeyError(payload)
            return Say.DONE, frames.pack_rows([b"/"], [row])
        inode, stream = WHICH.unpack_from(payload)
        path = payload[WHICH.size :]
        if kind is Say.PIECE:
            begin, length = PLACE.unpack_from(path)
            path = path[PLACE.size :]
            for offset, data in files.piece(inode, stream, path, begin, begin + length):
                self._link.say(Say.DATA, frames.OFFSET.pack(offset) + data)
            return Say.DONE, b""
        if kind is Say.READ:
            length, pieces = files.read(inode, stream, path)
            for offset, data in pieces:
                self._link.say(Say.DATA, frames.OFFSET.pack(offset) + data)
            return Say.DONE, frames.OFFSET.pack(length)
        if kind is Say.DETAILS:
            dos, notes, xattrs = files.details(inode, path)
            values = {b"xattr:" + name: value for name, value in xattrs.items()}
            values |= {b"dos": b"%d" % dos, b"notes": "\n".join(notes).encode()}
            return Say.DONE, frames.pack_map(values)
        raise ValueError(f"{kind.name} is no command")

    def _tree(self, files: Reads, path: bytes) -> tuple[Say, bytes]:
        directories: list[bytes] = []
        rows: list[Row] = []
        for directory, its_rows in files.tree(path, self._remark):
            directories.append(directory)
            for row in its_rows:
                rows.append((len(directories) - 1, *row[1:]))
                if len(rows) >= _ROWS:
                    self._link.say(Say.ROWS, frames.pack_rows(directories, rows))
                    directories, rows = [directory], []
            if len(directories) >= _ROWS:
                self._link.say(Say.ROWS, frames.pack_rows(directories, rows))
                directories, rows = [], []
        self._link.say(Say.ROWS, frames.pack_rows(directories, rows))
        return Say.DONE, b""

    def _remark(self, path: bytes, words: str) -> None:
        self._link.say(Say.REMARK, path + b"\0" + words.encode("utf-8", "replace"))


def main() -> None:
    """Confine this process, and serve."""
    fd, memory_bytes, cpu_s = (int(one) for one in sys.argv[1:])
    link = Link(fd)
    try:
        from holdfast.sources.filesystems.tsk import TskFiles
    except ImportError as error:
        link.say(Say.MISSING, str(error).encode())
        return
    try:
        sandbox.confine(memory_bytes=memory_bytes, cpu_s=cpu_s)
    except OSError as error:
        link.say(Say.ERROR, str(error).encode())
        return
    link.say(Say.DONE)
    Worker(link, TskFiles).run()


if __name__ == "__main__":
    try:
        main()
    finally:
        # nothing of what an interpreter does at its end is allowed here
        os._exit(0)
