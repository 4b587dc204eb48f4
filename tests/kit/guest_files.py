"""Trees as guests have them: made in a mounted file system, compared with what a reader says."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from holdfast.sources.filesystems.entries import KINDS, NO_STREAM, Entry, Files


@dataclass(frozen=True)
class Seen:
    """What is compared of a name."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    nlink: int
    target: bytes
    content: bytes | None


def fill(root: Path, *, plain_names: bool = False) -> None:
    """Make what readers stumble over."""
    at = os.fsencode(root)

    def put(name: bytes, data: bytes) -> None:
        with open(at + b"/" + name, "wb") as file:
            file.write(data)

    os.makedirs(at + b"/etc/deep/deeper/deepest")
    os.makedirs(at + b"/empty")
    put(b"etc/hosts", b"127.0.0.1 localhost\n")
    put(b"etc/empty", b"")
    put(b"etc/deep/deeper/deepest/file", b"far below")
    put("etc/Grüße aus Köln.txt".encode(), b"umlauts")
    put("etc/日本語".encode(), b"wide")
    put(b"etc/" + b"n" * 255, b"as long as can be")
    put(b"large", os.urandom(3 << 20))
    with open(at + b"/sparse", "wb") as file:
        file.seek(5 << 20)
        file.write(b"in the middle")
        file.truncate(9 << 20)
    put(b"gone", b"deleted")
    os.unlink(at + b"/gone")
    os.makedirs(at + b"/many")
    for number in range(1500):
        put(b"many/file-%05d" % number, b"%d" % number)
    for number in range(0, 1500, 3):
        os.unlink(at + b"/many/file-%05d" % number)
    os.link(at + b"/etc/hosts", at + b"/hard")
    os.symlink(b"etc/hosts", at + b"/soft")
    os.symlink(b"x/" * 100 + b"y", at + b"/soft-long")
    os.utime(at + b"/etc/hosts", ns=(1_500_000_000_123_456_700, 1_600_000_000_987_654_300))
    if plain_names:
        return
    put(b"etc/not utf-8 \xff\xfe", b"latin")
    put(b"etc/new\nline", b"line")
    os.chmod(at + b"/etc/empty", 0o4751)
    os.chmod(at + b"/empty", 0o1777)
    os.chown(at + b"/etc/empty", 100_000, 70_000)
    os.mkfifo(at + b"/fifo")


def walked(root: Path) -> dict[bytes, Seen]:
    """What a mounted file system has."""
    found = {}
    for above, directories, files in os.walk(os.fsencode(root)):
        for name in directories + files:
            path = above + b"/" + name
            status = os.lstat(path)
            kind = next(
                word
                for word, test in (
                    ("file", stat.S_ISREG), ("dir", stat.S_ISDIR), ("symlink", stat.S_ISLNK),
                    ("fifo", stat.S_ISFIFO), ("socket", stat.S_ISSOCK), ("char", stat.S_ISCHR),
                    ("block", stat.S_ISBLK),
                )
                if test(status.st_mode)
            )  # fmt: skip
            content = None
            if kind == "file":
                with open(path, "rb") as file:
                    content = file.read()
            target = os.readlink(path) if kind == "symlink" else b""
            found[path[len(os.fsencode(root)) :]] = Seen(
                kind,
                stat.S_IMODE(status.st_mode),
                status.st_uid,
                status.st_gid,
                0 if kind == "dir" else status.st_size,
                status.st_mtime_ns,
                status.st_nlink,
                target,
                content,
            )
    return found


def content(files: Files, entry: Entry, path: bytes) -> bytes:
    data = bytearray(entry.size)
    for offset, piece in files.read(entry, path):
        data[offset : offset + len(piece)] = piece
    assert len(data) == entry.size
    return bytes(data)


def told(
    files: Files, *, streams: bool = False, some: set[bytes] | None = None
) -> dict[bytes, Seen]:
    """What a reader says that there is."""
    entries: dict[bytes, Entry] = {}
    announced = {b"/"}
    for batch in files.tree():
        for one in batch.entries:
            directory = batch.directories[one.directory]
            assert directory in announced, "a directory comes before what is in it"
            path = directory.rstrip(b"/") + b"/" + one.name
            assert path not in entries
            if one.kind == KINDS.index("dir"):
                announced.add(path)
            if streams or one.stream == NO_STREAM:
                entries[path] = one
    return {
        path: Seen(
            KINDS[one.kind],
            one.mode,
            one.uid,
            one.gid,
            one.size,
            one.mtime_ns,
            one.nlink,
            one.target,
            content(files, one, path)
            if KINDS[one.kind] == "file" and (some is None or path in some)
            else None,
        )
        for path, one in entries.items()
    }
