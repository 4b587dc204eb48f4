"""Compare two directory trees on disk, byte by byte and attribute by attribute.

Must not use the engine: this is the second opinion on what the engine restored. Invariant:
memory is bounded by one directory and the hard links of a tree, not by the tree.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE_BYTES = 1 << 20
_KEPT_DIFFERENCES = 100


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two trees are not the same.

    Attributes:
        path: Relative to the roots that were compared.
        words: What is different.
    """

    path: bytes
    words: str


@dataclass(slots=True)
class Comparison:
    """What a comparison looked at and found.

    Attributes:
        entries: Names compared, directories included.
        files: Regular files compared byte by byte.
        bytes_compared: How many bytes those had.
        skipped: Names left out because the caller said so.
        changed_meanwhile: Differences that come from a change on the left after the moment the
            caller named; not counted as differences.
        forgiven: Differences that the caller knew of; not counted as differences either.
        differences: The first hundred.
        differences_total: How many there were.
    """

    entries: int = 0
    files: int = 0
    bytes_compared: int = 0
    skipped: int = 0
    changed_meanwhile: int = 0
    forgiven: int = 0
    differences: list[Difference] = field(default_factory=list)
    differences_total: int = 0

    def differ(self, path: bytes, words: str) -> None:
        """Note a difference."""
        self.differences_total += 1
        if len(self.differences) < _KEPT_DIFFERENCES:
            self.differences.append(Difference(path, words))


def compare_trees(
    left: bytes,
    right: bytes,
    *,
    owners: bool = True,
    skip: frozenset[bytes] = frozenset(),
    leave_out: Callable[[bytes], bool] | None = None,
    since_ns: int | None = None,
    forgive: Callable[[Difference], bool] | None = None,
) -> Comparison:
    """Compare two trees.

    Type, mode, owner and group, size, times of modification to the nanosecond, content, targets
    of symbolic links, device numbers, extended attributes (ACLs and capabilities are such), and
    which names are hard links of each other.

    Args:
        left: Root of the one tree; a file or a directory.
        right: Root of the other.
        owners: Compare owner and group; only root can restore those of others.
        skip: Relative paths to leave out, with all that is below them.
        leave_out: Is asked of each directory on the left whether what is in it is left out.
        since_ns: What changed on the left from this moment on (by its ctime) is no difference.
        forgive: Is asked of each difference whether it is one that the caller knows of.

    Returns:
        The counts and differences; equal trees have none.
    """
    result = Comparison()
    links: dict[tuple[int, int], tuple[int, int]] = {}
    pending: list[bytes] = [b""]
    while pending:
        path = pending.pop()
        if path in skip:
            result.skipped += 1
            continue
        left_path, right_path = _join(left, path), _join(right, path)
        here = Comparison()
        is_directory = _compare_one(here, path, left_path, right_path, owners, links)
        if is_directory and leave_out is not None and leave_out(left_path):
            here.skipped += 1
        elif is_directory:
            pending.extend(_compare_names(here, path, left_path, right_path, skip))
        _add(result, here, left_path, since_ns, forgive)
    return result


def _compare_one(
    result: Comparison,
    path: bytes,
    left_path: bytes,
    right_path: bytes,
    owners: bool,
    links: dict[tuple[int, int], tuple[int, int]],
) -> bool:
    """Compare one name; tell whether it is a directory on both sides."""
    try:
        left_state, right_state = os.lstat(left_path), os.lstat(right_path)
    except OSError as error:
        result.differ(path, f"can't look at it: {error.strerror}")
        return False
    result.entries += 1
    _compare_attributes(result, path, left_state, right_state, owners)
    _compare_xattrs(result, path, left_path, right_path)
    if stat.S_IFMT(left_state.st_mode) != stat.S_IFMT(right_state.st_mode):
        return False
    if stat.S_ISDIR(left_state.st_mode):
        return True
    if left_state.st_nlink > 1:
        _compare_links(result, path, left_state, right_state, links)
    _compare_content(result, path, left_path, right_path, left_state)
    return False


def _add(
    result: Comparison,
    here: Comparison,
    left_path: bytes,
    since_ns: int | None,
    forgive: Callable[[Difference], bool] | None,
) -> None:
    result.entries += here.entries
    result.files += here.files
    result.bytes_compared += here.bytes_compared
    result.skipped += here.skipped
    for one in here.differences:
        # What is only right was deleted on the left, which changed the directory.
        if since_ns is not None and _changed_since(left_path, one.path, since_ns):
            result.changed_meanwhile += 1
        elif forgive is not None and forgive(one):
            result.forgiven += 1
        else:
            result.differ(one.path, one.words)


def _changed_since(left_path: bytes, path: bytes, since_ns: int) -> bool:
    try:
        if os.lstat(left_path).st_ctime_ns >= since_ns:
            return True
        child = os.path.join(left_path, os.path.basename(path))
        return os.lstat(child).st_ctime_ns >= since_ns
    except FileNotFoundError:
        return os.lstat(os.path.dirname(left_path)).st_ctime_ns >= since_ns
    except OSError:
        return False


def _join(root: bytes, path: bytes) -> bytes:
    return os.path.join(root, path) if path else root


def _compare_attributes(
    result: Comparison, path: bytes, left: os.stat_result, right: os.stat_result, owners: bool
) -> None:
    if stat.S_IFMT(left.st_mode) != stat.S_IFMT(right.st_mode):
        result.differ(path, "is of another type")
        return
    link = stat.S_ISLNK(left.st_mode)
    if not link and stat.S_IMODE(left.st_mode) != stat.S_IMODE(right.st_mode):
        modes = f"{stat.S_IMODE(left.st_mode):04o} and {stat.S_IMODE(right.st_mode):04o}"
        result.differ(path, f"modes {modes}")
    if owners and (left.st_uid, left.st_gid) != (right.st_uid, right.st_gid):
        pairs = f"{left.st_uid}:{left.st_gid} and {right.st_uid}:{right.st_gid}"
        result.differ(path, f"owners {pairs}")
    if left.st_mtime_ns != right.st_mtime_ns:
        result.differ(path, f"modified at {left.st_mtime_ns} and {right.st_mtime_ns} ns")
    if not stat.S_ISDIR(left.st_mode) and left.st_size != right.st_size:
        result.differ(path, f"sizes {left.st_size} and {right.st_size}")
    if left.st_rdev != right.st_rdev:
        result.differ(path, "device numbers differ")


def _compare_names(
    result: Comparison, path: bytes, left: bytes, right: bytes, skip: frozenset[bytes]
) -> list[bytes]:
    try:
        left_names, right_names = set(os.listdir(left)), set(os.listdir(right))
    except OSError as error:
        result.differ(path, f"can't list it: {error.strerror}")
        return []
    for name in sorted(left_names ^ right_names):
        child = _join(path, name) if path else name
        if child in skip:
            result.skipped += 1
        else:
            result.differ(child, "is only " + ("left" if name in left_names else "right"))
    return [_join(path, name) if path else name for name in sorted(left_names & right_names)]


def _compare_links(
    result: Comparison,
    path: bytes,
    left: os.stat_result,
    right: os.stat_result,
    links: dict[tuple[int, int], tuple[int, int]],
) -> None:
    """Two names that are one file on the left must be one file on the right."""
    mine = (right.st_dev, right.st_ino)
    if links.setdefault((left.st_dev, left.st_ino), mine) != mine:
        result.differ(path, "is a hard link on the left and a file of its own on the right")


def _compare_content(
    result: Comparison, path: bytes, left: bytes, right: bytes, state: os.stat_result
) -> None:
    try:
        if stat.S_ISLNK(state.st_mode):
            if os.readlink(left) != os.readlink(right):
                result.differ(path, "is a symbolic link to somewhere else")
        elif stat.S_ISREG(state.st_mode):
            result.files += 1
            result.bytes_compared += state.st_size
            at = _first_difference(left, right)
            if at is not None:
                result.differ(path, f"content differs from byte {at} on")
    except OSError as error:
        result.differ(path, f"can't read it: {error.strerror}")


def _first_difference(left: bytes, right: bytes) -> int | None:
    at = 0
    with open(left, "rb", buffering=0) as one, open(right, "rb", buffering=0) as other:
        while True:
            left_piece, right_piece = one.read(_PIECE_BYTES), other.read(_PIECE_BYTES)
            if left_piece != right_piece:
                shorter = min(len(left_piece), len(right_piece))
                same = (i for i in range(shorter) if left_piece[i] != right_piece[i])
                return at + next(same, shorter)
            if not left_piece:
                return None
            at += len(left_piece)


def _compare_xattrs(result: Comparison, path: bytes, left: bytes, right: bytes) -> None:
    try:
        left_xattrs, right_xattrs = _xattrs(left), _xattrs(right)
    except OSError as error:
        result.differ(path, f"can't read its extended attributes: {error.strerror}")
        return
    for name in sorted(left_xattrs.keys() | right_xattrs.keys()):
        if left_xattrs.get(name) != right_xattrs.get(name):
            result.differ(path, f"extended attribute {name} differs")


def _xattrs(path: bytes) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    # The security module of a machine labels files by itself, wherever they are written.
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in names
        if name != "security.selinux"
    }
