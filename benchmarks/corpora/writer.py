"""Write the names of a corpus in a fixed order, and a digest of all of it.

Must not choose anything: names, bytes, modes and times are handed in. Invariant: the digest is
the same wherever the same things were written.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

EPOCH_S = 1_600_000_000
"""Times of a corpus begin here."""


class Writer:
    """Writes below a root.

    Attributes:
        files: Regular files so far.
        size_bytes: Their bytes.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._digest = hashlib.blake2b(digest_size=16)
        self._directories: dict[str, int] = {"": EPOCH_S * 10**9}
        self.files = 0
        self.size_bytes = 0

    def file(self, path: str, pieces: Iterable[bytes], mode: int, mtime_ns: int) -> None:
        """Write a regular file."""
        own = hashlib.blake2b(digest_size=16)
        size = 0
        full = self._place(path, mtime_ns)
        descriptor = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for piece in pieces:
                left = memoryview(piece)
                while left:
                    left = left[os.write(descriptor, left) :]
                own.update(piece)
                size += len(piece)
            os.fchmod(descriptor, mode)
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(descriptor)
        self._note("file", path, f"{mode:o}", str(mtime_ns), own.hexdigest())
        self.files += 1
        self.size_bytes += size

    def symlink(self, path: str, target: str, mtime_ns: int) -> None:
        """Make a symbolic link."""
        full = self._place(path, mtime_ns)
        os.symlink(target, full)
        os.utime(full, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
        self._note("symlink", path, target, str(mtime_ns))

    def link(self, path: str, existing: str, mtime_ns: int) -> None:
        """Make a hard link to a file that was written before."""
        os.link(os.path.join(self._root, existing), self._place(path, mtime_ns))
        self._note("link", path, existing)

    def finish(self) -> None:
        """Set the times of directories, which every name that was made in them changed."""
        for path, mtime_ns in self._directories.items():
            full = os.path.join(self._root, path)
            os.chmod(full, 0o755)
            os.utime(full, ns=(mtime_ns, mtime_ns))
            self._note("directory", path, str(mtime_ns))

    @property
    def digest(self) -> str:
        """Of all that was written."""
        return self._digest.hexdigest()

    def summary(self) -> dict[str, int | str]:
        """What was written, as JSON has it."""
        return {"files": self.files, "size_bytes": self.size_bytes, "digest": self.digest}

    def _place(self, path: str, mtime_ns: int) -> str:
        directory = os.path.dirname(path)
        missing = []
        while directory not in self._directories:
            missing.append(directory)
            directory = os.path.dirname(directory)
        for one in reversed(missing):
            os.mkdir(os.path.join(self._root, one))
            self._directories[one] = mtime_ns
        return os.path.join(self._root, path)

    def _note(self, *words: str) -> None:
        self._digest.update("\0".join(words).encode() + b"\n")
