"""What was written of a file, read again from the disk and compared with what came of the image.

Must not write. Invariants: what is between the pieces that were written has to be zeros, as in the
image; a file that can't be read again counts as one that differs.
"""

from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1 << 20


class Written:
    """What one file was written of: ascending pieces, and zeros between them."""

    def __init__(self) -> None:
        """Nothing so far."""
        self._digest = hashlib.sha256()
        self._runs: list[list[int]] = []
        self.bytes = 0

    def add(self, offset: int, data: bytes) -> None:
        """Note a piece."""
        self._digest.update(data)
        self.bytes += len(data)
        if self._runs and self._runs[-1][1] == offset:
            self._runs[-1][1] = offset + len(data)
        else:
            self._runs.append([offset, offset + len(data)])

    def difference(self, name: bytes, directory: int, size: int) -> str | None:
        """What differs in a file, in words; None where nothing does.

        Args:
            name: Of the file.
            directory: Where it is; no link is followed.
            size: How long it has to be.
        """
        try:
            fd = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
            )
            try:
                return self._difference(fd, size)
            finally:
                os.close(fd)
        except OSError as error:
            return f"cannot be read again: {error.strerror}"

    def _difference(self, fd: int, size: int) -> str | None:
        length = os.fstat(fd).st_size
        if length != size:
            return f"has {length} bytes, in the machine it has {size}"
        again = hashlib.sha256()
        end = 0
        for begin, until in self._runs:
            if not _is_zero(fd, end, begin):
                return f"has data between bytes {end} and {begin}, where the machine has none"
            for data in _read(fd, begin, until):
                again.update(data)
            end = until
        if not _is_zero(fd, end, size):
            return f"has data behind byte {end}, where the machine has none"
        if again.digest() != self._digest.digest():
            return "differs from what the machine has"
        return None


def _read(fd: int, begin: int, end: int) -> Iterator[bytes]:
    while begin < end:
        data = os.pread(fd, min(_PIECE, end - begin), begin)
        if not data:
            return
        yield data
        begin += len(data)


def _is_zero(fd: int, begin: int, end: int) -> bool:
    while begin < end:
        try:
            begin = os.lseek(fd, begin, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True
            raise
        if begin >= end:
            return True
        hole = min(end, os.lseek(fd, begin, os.SEEK_HOLE))
        if any(any(data) for data in _read(fd, begin, hole)):
            return False
        begin = hole
    return True
