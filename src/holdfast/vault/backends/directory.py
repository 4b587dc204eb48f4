"""A directory as a store, in Python: for the few small objects that the vault keeps itself.

Must not carry a backup's data: the engine has a native store for that, with the same layout, and
both may work on one directory at a time. An object is visible only when its bytes are durable:
temporary file, fsync, rename or link, fsync of the directory. Files
whose path can't be a key are no objects: names that begin with a dot are files on their way.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.vault.backends.names import checked_key, checked_prefix, is_key

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE = 1000


class DirectoryStore:
    """Objects as files below a root directory. Thread-safe, and safe between processes.

    Attributes:
        place: The root directory, for messages.
    """

    def __init__(self, root: str | Path) -> None:
        """Use a directory, which need not exist before the first object is put.

        Args:
            root: Absolute path.
        """
        self._root = Path(root)
        self.place = str(self._root)

    def __repr__(self) -> str:
        return f"DirectoryStore({self.place!r})"

    def __str__(self) -> str:
        return self.place

    def get(self, key: str) -> bytes:
        """Read a whole object.

        Raises:
            FileNotFoundError: There is none of this key.
            OSError: It can't be read; safe to retry.
        """
        return self._path(key).read_bytes()

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes from `offset`.

        Raises:
            FileNotFoundError: There is no object of this key.
            OSError: It can't be read; with ``EBADMSG``: the object is too short.
        """
        path = self._path(key)
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        if len(data) != length:
            raise OSError(
                errno.EBADMSG,
                f"'{path}' is too short: wanted were {length} bytes at {offset}, "
                f"there are {len(data)}",
            )
        return data

    def put(self, key: str, data: bytes) -> None:
        """Write an object, over one of the same key if there is one. Atomic; durable on return.

        Raises:
            OSError: Nothing changed, or all did; safe to retry.
        """
        path = self._path(key)
        staged = self._stage(path, data)
        try:
            staged.replace(path)
        except OSError:
            staged.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object unless one of this key is there. Atomic; durable on return.

        Returns:
            False, and nothing changed, when the key was taken. Of racing writers one gets True.

        Raises:
            OSError: The directory can't be written, or its file system has no hard links.
        """
        path = self._path(key)
        staged = self._stage(path, data)
        try:
            os.link(staged, path)
        except FileExistsError:
            created = False
        else:
            created = True
        finally:
            staged.unlink(missing_ok=True)
        # Also for the loser, who may rely on the winner's object before the winner has synced.
        _sync_directory(path.parent)
        return created

    def size(self, key: str) -> int | None:
        """Tell an object's size in bytes, or None when there is none of this key.

        Raises:
            OSError: The directory can't be asked; safe to retry.
        """
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            return None

    def list(self, prefix: str) -> Iterator[list[tuple[str, int]]]:
        """Yield pages of (key, size in bytes) of the objects under a prefix.

        A prefix ends with '/'; the empty one is for all objects.

        Objects put or deleted while the pages are taken may or may not be in them.

        Raises:
            OSError: A directory can't be read; safe to retry from the beginning.
        """
        top = checked_prefix(prefix)
        page: list[tuple[str, int]] = []
        for found in self._walk(self._root / top, top):
            page.append(found)
            if len(page) == _PAGE:
                yield page
                page = []
        if page:
            yield page

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is fine. Durable on return.

        Raises:
            OSError: It can't be removed; safe to retry.
        """
        path = self._path(key)
        try:
            path.unlink()
        except FileNotFoundError:
            return
        _sync_directory(path.parent)

    def _path(self, key: str) -> Path:
        return self._root / checked_key(key)

    def _walk(self, directory: Path, prefix: str) -> Iterator[tuple[str, int]]:
        try:
            found = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in found:
            key = f"{prefix}/{entry.name}" if prefix else entry.name
            if not is_key(key):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(directory / entry.name, key)
            else:
                with contextlib.suppress(FileNotFoundError):
                    yield key, entry.stat().st_size

    def _stage(self, path: Path, data: bytes) -> Path:
        import secrets

        _make_directories(path.parent)
        staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with staged.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            staged.unlink(missing_ok=True)
            raise
        return staged


def _make_directories(directory: Path) -> None:
    """Make a directory and its parents, each durable in its own parent."""
    if directory.is_dir():
        return
    _make_directories(directory.parent)
    directory.mkdir(exist_ok=True)
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
