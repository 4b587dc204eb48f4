"""Walk over a part of what a backup would take, and count.

Must not read the content of files, but for the signature of a cache's tag. Invariant: it ends when
its time or its number of names is over, and says whether that was the end of everything.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from holdfast.base.exclusion import Exclusion
from holdfast.movers.mounts import KERNEL_ONLY, Mount

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NO_BACKUP = b".nobackup"
CACHE_TAG = b"CACHEDIR.TAG"
CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"

_SHOWN = 3
_AT_ONCE = 256


@dataclass(slots=True)
class Survey:
    """What was counted.

    Attributes:
        names: That would be taken, without the paths themselves if they are directories.
        left_out: By rules or marks, without what is below them.
        size_bytes: Of the files among the names.
        unreadable: How many of the names can't be read.
        such_as: The first of those.
        is_complete: Whether all was looked at.
    """

    names: int = 0
    left_out: int = 0
    size_bytes: int = 0
    unreadable: int = 0
    such_as: list[bytes] = field(default_factory=list)
    is_complete: bool = False

    def refuse(self, path: bytes) -> None:
        """Note what can't be read."""
        self.unreadable += 1
        if len(self.such_as) < _SHOWN:
            self.such_as.append(path)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far to go.

    Attributes:
        most_names: How many names to look at.
        ends_s: When to stop, by `now_s`.
        now_s: A clock that only goes forward.
        one_file_system: Stay on the file system that each path is on.
        mounts: What is mounted.
        checks: Whether it has to be asked for each file if it can be read.
    """

    most_names: int
    ends_s: float
    now_s: Callable[[], float]
    one_file_system: bool
    mounts: Sequence[Mount]
    checks: bool


def survey(paths: Sequence[bytes], rules: Sequence[str], bounds: Bounds) -> Survey:
    """Count names below some paths, those nearest to them first.

    Args:
        paths: Absolute; they are there, and can be read.
        rules: That leave names out, in gitignore syntax.
        bounds: How far to go.

    Raises:
        Invalid: A rule is none.
    """
    found = Survey()
    waiting: deque[tuple[bytes, bytes, Exclusion]] = deque()
    for path in paths:
        state = os.lstat(path)
        if os.path.isdir(path) and not os.path.islink(path):
            waiting.append((path, path, Exclusion(path, rules)))
        else:
            found.names += 1
            found.size_bytes += state.st_size
    walk = _Walk(found, bounds)
    while waiting:
        if walk.is_over():
            return found
        root, directory, exclusion = waiting.popleft()
        waiting.extend((root, one, exclusion) for one in walk.into(root, directory, exclusion))
    found.is_complete = not walk.cut
    return found


def mark_of(directory: bytes) -> bytes | None:
    """The name of the file by which a directory asks that its contents be left out.

    Raises:
        OSError: It can't be looked at.
    """
    if os.path.lexists(os.path.join(directory, NO_BACKUP)):
        return NO_BACKUP
    tag = os.path.join(directory, CACHE_TAG)
    if os.path.isfile(tag) and not os.path.islink(tag):
        try:
            with open(tag, "rb") as file:
                if file.read(len(CACHE_SIGNATURE)) == CACHE_SIGNATURE:
                    return CACHE_TAG
        except PermissionError:
            return None
    return None


class _Walk:
    """Goes into directories and counts. Not thread-safe."""

    def __init__(self, found: Survey, bounds: Bounds) -> None:
        self._found = found
        self._bounds = bounds
        self._looked_at = 0
        self._not_into = {
            one.place for one in bounds.mounts if bounds.one_file_system or one.kind in KERNEL_ONLY
        }
        self.cut = False

    def is_over(self) -> bool:
        """Whether enough was looked at."""
        bounds = self._bounds
        over = self._looked_at >= bounds.most_names or bounds.now_s() > bounds.ends_s
        self.cut = self.cut or over
        return over

    def into(self, root: bytes, directory: bytes, exclusion: Exclusion) -> list[bytes]:
        """Count the names of a directory; return the directories among them."""
        try:
            with os.scandir(directory) as entries:
                mark = mark_of(directory)
                following: list[bytes] = []
                while some := list(islice(entries, _AT_ONCE)):
                    for entry in some:
                        self._count(root, entry, exclusion, mark, following)
                    if len(some) == _AT_ONCE and self.is_over():
                        break
        except OSError:
            self._found.refuse(directory)
            return []
        return following

    def _count(
        self,
        root: bytes,
        entry: os.DirEntry[bytes],
        exclusion: Exclusion,
        mark: bytes | None,
        following: list[bytes],
    ) -> None:
        self._looked_at += 1
        is_directory = entry.is_dir(follow_symlinks=False)
        below = entry.path[len(root.rstrip(b"/")) + 1 :]
        marked = mark is not None and entry.name != mark
        if marked or exclusion.leaves_out(below, is_directory=is_directory):
            self._found.left_out += 1
            return
        self._found.names += 1
        if is_directory:
            if entry.path not in self._not_into:
                following.append(entry.path)
        elif entry.is_file(follow_symlinks=False):
            self._count_file(entry)

    def _count_file(self, entry: os.DirEntry[bytes]) -> None:
        try:
            self._found.size_bytes += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            return
        if self._bounds.checks and not os.access(entry.path, os.R_OK, effective_ids=True):
            self._found.refuse(entry.path)
