"""Build directory trees with everything that Linux has, and tell two of them apart.

`snapshot` shares no code with the product: it is how tests decide that a restore is right.
"""

from __future__ import annotations

import hashlib
import os
import random
import stat
from dataclasses import dataclass
from pathlib import Path

AWKWARD_NAMES = (
    b"with space",
    b"new\nline",
    b"\xff\xfe not utf-8",
    b"-rf",
    b"*?[a]",
    "größe-日本語".encode(),
    b"n" * 255,
    b"#comment",
    b"!not",
    b"trailing ",
)


def make_tree(root: Path, seed: int = 1) -> None:
    """Make a small tree with every kind of entry that this user may make, from a seed."""
    rng = random.Random(seed)
    root.mkdir(parents=True)
    base = os.fsencode(root)
    _write(base, b"empty", b"")
    _write(base, b"one", b"x")
    _write(base, b"text", b"the same line again and again\n" * 4000)
    _write(base, b"noise", rng.randbytes(300_000))
    _write(base, b"noise again", rng.randbytes(70_000) + rng.randbytes(70_000))
    (root / "twin").write_bytes((root / "noise").read_bytes())
    _sparse(root / "hole in the middle", [(0, b"head"), (1 << 20, b"tail")])
    _sparse(root / "hole at the end", [(0, b"head")], size=3 << 20)
    _sparse(root / "only hole", [], size=2 << 20)
    deep = root
    for depth in range(12):
        deep = deep / f"level {depth}"
        deep.mkdir()
        (deep / "leaf").write_bytes(rng.randbytes(100 * depth))
    names = os.path.join(base, b"names")
    os.mkdir(names)
    for name in AWKWARD_NAMES:
        _write(names, name, rng.randbytes(50))
    many = root / "many"
    many.mkdir()
    for at in range(400):
        (many / f"{at:04}").write_bytes(b"%d" % at)
    links = root / "links"
    links.mkdir()
    (links / "first").write_bytes(b"one file of three names")
    os.link(links / "first", links / "second")
    os.link(links / "first", root / "third")
    os.symlink("first", links / "to first")
    os.symlink("/nowhere/at all", links / "dangling")
    os.symlink(b"\xff\xfe", os.path.join(os.fsencode(links), b"to bytes"))
    os.mkfifo(root / "fifo", 0o640)
    (root / "empty directory").mkdir()
    _attributes(root)


def change_tree(root: Path, seed: int = 2) -> None:
    """Change some of what `make_tree` made: content, attributes, names."""
    rng = random.Random(seed)
    (root / "one").write_bytes(b"y")
    with (root / "noise").open("r+b") as file:
        file.seek(150_000)
        file.write(rng.randbytes(10))
    (root / "text").chmod(0o640)
    (root / "many" / "0000").unlink()
    (root / "many" / "new").write_bytes(b"new")
    (root / "empty directory").rmdir()
    (root / "empty directory").write_bytes(b"a file now")


@dataclass(frozen=True)
class State:
    """All that a restore must bring back of one name."""

    kind: str
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    size: int
    content: str
    target: bytes
    device: int
    xattrs: tuple[tuple[str, bytes], ...]
    links: tuple[bytes, ...]


def snapshot(root: Path | bytes) -> dict[bytes, State]:
    """Describe every name below a root, by its path relative to it; the root is ``b"."``."""
    base = root if isinstance(root, bytes) else os.fsencode(root)
    paths = [b"."]
    for directory, directories, files in os.walk(base):
        inside = os.path.relpath(directory, base)
        paths.extend(os.path.normpath(os.path.join(inside, one)) for one in directories + files)
    same: dict[tuple[int, int], list[bytes]] = {}
    for path in sorted(paths):
        found = os.lstat(os.path.join(base, path))
        if not stat.S_ISDIR(found.st_mode) and found.st_nlink > 1:
            same.setdefault((found.st_dev, found.st_ino), []).append(path)
    return {path: _state(os.path.join(base, path), same) for path in paths}


def assert_same_tree(left: Path | bytes, right: Path | bytes) -> None:
    """Fail with words unless two trees are the same in every byte and attribute."""
    assert_same_snapshot(snapshot(left), snapshot(right))


def assert_same_snapshot(left: dict[bytes, State], right: dict[bytes, State]) -> None:
    """Fail with words unless two snapshots are the same."""
    assert sorted(left) == sorted(right)
    different = {path: (left[path], right[path]) for path in left if left[path] != right[path]}
    assert different == {}


def holes(path: Path) -> list[tuple[int, int]]:
    """The data extents of a file, as (offset, end) pairs."""
    extents = []
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            extents.append((start, at))
    return extents


def _state(path: bytes, same: dict[tuple[int, int], list[bytes]]) -> State:
    found = os.lstat(path)
    link = stat.S_ISLNK(found.st_mode)
    content = ""
    if stat.S_ISREG(found.st_mode):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    return State(
        kind=stat.filemode(found.st_mode)[0],
        mode=stat.S_IMODE(found.st_mode),
        owner=(found.st_uid, found.st_gid),
        mtime_ns=found.st_mtime_ns,
        size=0 if stat.S_ISDIR(found.st_mode) else found.st_size,
        content=content,
        target=os.readlink(path) if link else b"",
        device=found.st_rdev,
        xattrs=_xattrs(path),
        links=tuple(same.get((found.st_dev, found.st_ino), ())),
    )


def _xattrs(path: bytes) -> tuple[tuple[str, bytes], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)


def _write(directory: bytes, name: bytes, content: bytes) -> None:
    with open(os.path.join(directory, name), "wb") as file:
        file.write(content)


def _sparse(path: Path, pieces: list[tuple[int, bytes]], size: int = 0) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, piece in pieces:
            file.seek(offset)
            file.write(piece)


def _attributes(root: Path) -> None:
    (root / "one").chmod(0o600)
    (root / "text").chmod(0o4755)
    (root / "many").chmod(0o1777)
    try:
        os.setxattr(root / "one", "user.holdfast", b"\x00\xffvalue")
        os.setxattr(root / "many", "user.of a directory", b"")
    except OSError:
        # This file system has none; everything else is still worth a comparison.
        pass
    if os.geteuid() == 0:
        os.chown(root / "one", 12345, 54321)
        os.chown(root / "links" / "dangling", 12345, 54321, follow_symlinks=False)
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(7, 77))
    os.utime(root / "one", ns=(1, 1_234_567_890_123_456_789))
    os.utime(root / "empty", ns=(1, 7))
    os.utime(root / "links" / "dangling", ns=(5, 999_999_999), follow_symlinks=False)
    os.utime(root / "empty directory", ns=(5, 1_000_000_001))
