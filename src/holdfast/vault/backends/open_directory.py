"""A directory that is held open, as a store of large objects that come and go in pieces.

For whoever serves a pool's directory to others. Must not follow links, nor leave the directory:
everything is looked up from its descriptor, folder by folder. The layout is that of the engine's
own store and of `directory`, and all may work on one directory at a time. Invariants: an object is
visible only when its bytes and its folders are durable; what was begun and not published lies in
``tmp/``, where the engine removes it once nobody holds it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import threading
import weakref
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from holdfast.vault.backends.names import checked_key, checked_prefix, is_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TEMPORARY = "tmp"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COMPARED_BYTES = 1 << 20


@dataclass(eq=False, slots=True)
class OpenObject:
    """An object that is being read: what it was when it was opened, whatever comes in its place.

    Thread-safe.

    Attributes:
        file: Its descriptor.
        size_bytes: How long it is.
        version: Another text for each object that was ever put under the key.
    """

    file: int
    size_bytes: int
    version: str
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: bool = False

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes.

        Raises:
            OSError: They can't be read; with ``EBADMSG``: there are not as many.
        """
        with self._lock:
            if self._over:
                raise OSError(errno.EBADF, "nobody wants it any more")
            data = os.pread(self.file, length, offset)
            while len(data) < length:
                more = os.pread(self.file, length - len(data), offset + len(data))
                if not more:
                    raise OSError(errno.EBADMSG, f"it ends after {offset + len(data)} bytes")
                data += more
            return data

    def close(self) -> None:
        """Free it; may be called again."""
        with self._lock:
            if not self._over:
                self._over = True
                os.close(self.file)


class StagedObject:
    """An object on its way. Thread-safe; ends with a publication or with `discard`."""

    def __init__(
        self,
        file: int,
        named: Callable[[str, bool], bool],
        unnamed: Callable[[], None],
        other: Callable[[str], OpenObject],
    ) -> None:
        """Begin; see `OpenDirectory.stage`.

        Args:
            file: Its descriptor.
            named: Gives it a key, over another object or only where there is none.
            unnamed: Takes away the name that it has meanwhile.
            other: Opens the object of a key.
        """
        self._file = file
        self._named = named
        self._unnamed = unnamed
        self._other = other
        self._lock = threading.Lock()
        self._over = False

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            OSError: The disk is full, or failed.
        """
        with self._at_work() as file:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]

    def publish(self, key: str) -> None:
        """Put it, over one of the same key if there is one. Atomic; durable on return.

        Raises:
            OSError: Nothing changed, or all did.
        """
        with self._at_work() as file:
            os.fdatasync(file)
            self._named(checked_key(key), True)

    def publish_if_absent(self, key: str) -> bool:
        """Put it unless one of the key is there. Atomic; durable on return.

        Raises:
            OSError: It can't be put, or the file system has no hard links.
        """
        with self._at_work() as file:
            os.fdatasync(file)
            return self._named(checked_key(key), False)

    def is_same_as(self, key: str) -> bool:
        """Whether an object of this key is there, and has the same bytes.

        Raises:
            OSError: It can't be read.
        """
        try:
            other = self._other(key)
        except FileNotFoundError:
            return False
        try:
            with self._at_work() as file:
                if os.fstat(file).st_size != other.size_bytes:
                    return False
                for at in range(0, other.size_bytes, _COMPARED_BYTES):
                    length = min(_COMPARED_BYTES, other.size_bytes - at)
                    if os.pread(file, length, at) != other.read(at, length):
                        return False
                return True
        finally:
            other.close()

    def discard(self) -> None:
        """Let go of what is not published; may be called again."""
        with self._lock:
            if self._over:
                return
            self._over = True
            try:
                # It may have got another name, and then has this one no more.
                with contextlib.suppress(OSError):
                    self._unnamed()
            finally:
                os.close(self._file)

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[int]:
        with self._lock:
            if self._over:
                raise OSError(errno.EBADF, "nobody wants it any more")
            yield self._file


class OpenDirectory:
    """Objects as files of a directory. Thread-safe, and safe between processes.

    Attributes:
        place: Where it was when it was opened, for messages.
    """

    def __init__(self, path: str) -> None:
        """Open a directory that is there.

        Raises:
            OSError: It can't be opened.
        """
        self.place = path
        self._top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Others may still be at it when it is given up.
        self._closing = weakref.finalize(self, os.close, self._top)
        self._lock = threading.Lock()
        self._durable: set[str] = set()

    def __str__(self) -> str:
        return self.place

    def close(self) -> None:
        """Free it. Nobody may use it any more."""
        self._closing()

    def is_at(self, path: str) -> bool:
        """Whether this is the directory that a path names now.

        Raises:
            OSError: It names none.
        """
        return os.path.samestat(os.fstat(self._top), os.stat(path))

    def require_there(self) -> None:
        """Make sure that what is not found is not there, rather than all of it gone.

        Raises:
            OSError: The directory was removed, or its disk is gone.
        """
        if not os.fstat(self._top).st_nlink:
            raise OSError(errno.EIO, f"the directory {self.place} was removed")

    def open(self, key: str) -> OpenObject:
        """Open an object to be read.

        Raises:
            FileNotFoundError: There is none of this key.
            OSError: It can't be read.
        """
        # A FIFO would keep who opens it waiting.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        absent = FileNotFoundError(errno.ENOENT, f"'{key}' is not there")
        try:
            with self._folder_of(checked_key(key)) as (folder, name):
                file = os.open(name, flags, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            raise absent from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise absent from None
            raise
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            os.close(file)
            raise absent
        version = f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"
        return OpenObject(file, found.st_size, version)

    def stage(self) -> StagedObject:
        """Begin an object.

        Raises:
            OSError: It can't be written here.
        """
        # As the engine names its own; of a process that it can't tell it looks at lock and age.
        name = f"{_TEMPORARY}/unknown-{os.getpid()}-{secrets.token_hex(8)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._make_folder(_TEMPORARY)
        with self._folder_of(name) as (folder, last):
            file = os.open(last, flags, 0o600, dir_fd=folder)
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return StagedObject(
            file, partial(self._publish, name), partial(self._forget, name), self.open
        )

    def size(self, key: str) -> int | None:
        """An object's size in bytes, None when there is none of this key.

        Raises:
            OSError: The directory can't be asked.
        """
        try:
            with self._folder_of(checked_key(key)) as (folder, name):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is fine. Durable on return.

        Raises:
            OSError: It can't be removed.
        """
        try:
            with self._folder_of(checked_key(key)) as (folder, name):
                os.unlink(name, dir_fd=folder)
                os.fsync(folder)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return

    def page(self, prefix: str, after: str | None, count: int) -> list[tuple[str, int]]:
        """Objects under a prefix with their sizes, in an order of their own, from a place on.

        Args:
            prefix: Ends with ``/``, or is empty for all.
            after: The last key of the page before; None for the first page.
            count: How many at most; fewer are the last.

        Raises:
            ValueError: These can't be a prefix and a key under it.
            OSError: The directory can't be read.
        """
        top = checked_prefix(prefix)
        skip: list[str] = []
        if after is not None:
            if not checked_key(after).startswith(prefix):
                raise ValueError(f"'{after}' can't be the key of an object under '{prefix}'")
            skip = after[len(prefix) :].split("/")
        found: list[tuple[str, int]] = []
        for one in self._walk(top, skip):
            found.append(one)
            if len(found) == count:
                break
        return found

    def _walk(self, folder: str, skip: list[str]) -> Iterator[tuple[str, int]]:
        """Objects in the order of the parts of their keys, after the one that is named."""
        try:
            with self._opened(folder) as opened:
                names = sorted(os.listdir(opened))
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            key = f"{folder}/{name}" if folder else name
            if (skip and name < skip[0]) or not is_key(key):
                continue
            deeper = skip[1:] if skip and name == skip[0] else []
            found = self._stat(key)
            if found is None:
                continue
            if stat.S_ISDIR(found.st_mode):
                yield from self._walk(key, deeper)
            elif stat.S_ISREG(found.st_mode) and not (skip and name == skip[0]):
                yield key, found.st_size

    def _stat(self, key: str) -> os.stat_result | None:
        try:
            with self._folder_of(key) as (folder, name):
                return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _publish(self, staged: str, key: str, replacing: bool) -> bool:
        self._make_folder(key.rpartition("/")[0])
        with self._folder_of(staged) as (here, name), self._folder_of(key) as (folder, last):
            made = True
            if replacing:
                os.rename(name, last, src_dir_fd=here, dst_dir_fd=folder)
            else:
                try:
                    os.link(name, last, src_dir_fd=here, dst_dir_fd=folder, follow_symlinks=False)
                except FileExistsError:
                    made = False
            # Also for the loser, who may rely on the winner's object before the winner has synced.
            os.fsync(folder)
            return made

    def _forget(self, staged: str) -> None:
        with self._folder_of(staged) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def _make_folder(self, folder: str) -> None:
        """Make a folder and those above it, each durable in its own parent.

        One that is there may be another's and not durable yet, so it is treated as new once.
        """
        with self._lock:
            if not folder or folder in self._durable:
                return
        self._make_folder(folder.rpartition("/")[0])
        with self._folder_of(folder) as (above, name):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=above)
            os.fsync(above)
        with self._lock:
            self._durable.add(folder)

    @contextlib.contextmanager
    def _folder_of(self, key: str) -> Iterator[tuple[int, str]]:
        """The folder that a key is in, opened, and the key's last part."""
        folder, _, name = key.rpartition("/")
        with self._opened(folder) as opened:
            yield opened, name

    @contextlib.contextmanager
    def _opened(self, folder: str) -> Iterator[int]:
        opened = os.dup(self._top)
        try:
            for part in folder.split("/") if folder else ():
                deeper = os.open(part, _FOLDER, dir_fd=opened)
                os.close(opened)
                opened = deeper
            yield opened
        finally:
            os.close(opened)
