"""What a worker in its sandbox and its master say to each other.

Must not know file systems. Invariants: a frame is bounded; whatever a worker sends, reading it
yields entries that keep the promises of `entries`, or `BadFrame`.
"""

from __future__ import annotations

import enum
import itertools
import struct
from typing import TYPE_CHECKING

from holdfast.sources.filesystems.entries import KINDS, Batch, Entry, is_name, is_path

if TYPE_CHECKING:
    from collections.abc import Callable

FRAME_AT_MOST = 16 << 20
HEADER = struct.Struct("<BI")
PLACE = struct.Struct("<QI")
OFFSET = struct.Struct("<Q")
WHICH = struct.Struct("<QH")

_COUNT = struct.Struct("<I")
_ROW = struct.Struct("<IBHIIQqqqQIHHH")


class Say(enum.IntEnum):
    """Kinds of frames."""

    # to the worker
    OPEN = 1
    """Kind of file system, NUL, size of the disk in decimals."""
    TREE = 2
    """Path of a directory."""
    ENTRY = 3
    """Path."""
    READ = 4
    """`WHICH`: inode and stream."""
    DETAILS = 5
    """`WHICH`."""
    BYTES = 6
    """Answer to `WANT`: the bytes; fewer at the end of the disk."""
    FAILED = 7
    """Answer to `WANT`: the disk can't be read."""
    PIECE = 8
    """`WHICH`, `PLACE` in the file, and its path: a part of a file."""

    # from the worker
    WANT = 16
    """`PLACE`: bytes of the disk."""
    ROWS = 17
    """Some entries."""
    DATA = 18
    """`OFFSET` and bytes of a file."""
    REMARK = 19
    """Path, NUL, words: something can't be read; the rest goes on."""
    DONE = 20
    """The command was carried out; what it answers with."""
    MISSING = 21
    """There is nothing at that path."""
    ERROR = 22
    """The command failed, in words."""


class BadFrame(Exception):  # noqa: N818 - never gets out of the package
    """What came is no frame, or none that may come."""


def pack(kind: Say, payload: bytes) -> bytes:
    """A frame."""
    return HEADER.pack(kind, len(payload)) + payload


def receive(read: Callable[[int], bytes]) -> tuple[Say, bytes]:
    """The next frame.

    Args:
        read: Reads at most so many bytes; none at the end.

    Raises:
        BadFrame: It is none.
        EOFError: Nothing comes any more.
    """
    kind, length = HEADER.unpack(_exactly(read, HEADER.size))
    if length > FRAME_AT_MOST:
        raise BadFrame(f"a frame of {length} bytes")
    try:
        return Say(kind), _exactly(read, length)
    except ValueError as error:
        raise BadFrame(f"a frame of kind {kind}") from error


def _exactly(read: Callable[[int], bytes], length: int) -> bytes:
    first = read(length) if length else b""
    if len(first) == length:
        return first
    found = bytearray(first)
    while len(found) < length:
        data = read(min(length - len(found), 1 << 20)) if first else b""
        if not data:
            raise EOFError
        found += data
    return bytes(found)


def pack_rows(directories: list[bytes], entries: list[tuple[int | bytes, ...]]) -> bytes:
    """Entries for `unpack_rows`; each as `Entry` has it."""
    parts = [_COUNT.pack(len(directories))]
    for path in directories:
        parts += (_COUNT.pack(len(path)), path)
    parts.append(_COUNT.pack(len(entries)))
    row = _ROW.pack
    parts += [row(*one[:12], len(one[12]), len(one[13])) for one in entries]  # type: ignore[arg-type]
    parts += [part for one in entries for part in one[12:]]  # type: ignore[misc]
    return b"".join(parts)


def unpack_rows(payload: bytes, *, of_path: bool = False) -> Batch:
    """What `pack_rows` packed, proved.

    Args:
        payload: Of the frame.
        of_path: It is one entry that was asked for by its path: the root has no name.

    Raises:
        BadFrame: It is something else.
    """
    try:
        return _unpack_rows(payload, of_path=of_path)
    except struct.error as error:
        raise BadFrame("entries that end early") from error


def _unpack_rows(payload: bytes, *, of_path: bool) -> Batch:
    (count,) = _COUNT.unpack_from(payload)
    at = _COUNT.size
    directories = []
    for _ in range(count):
        (length,) = _COUNT.unpack_from(payload, at)
        at += _COUNT.size
        path = payload[at : at + length]
        at += length
        if not is_path(path):
            raise BadFrame(f"'{path[:40]!r}' is not the path of a directory")
        directories.append(path)
    (count,) = _COUNT.unpack_from(payload, at)
    at += _COUNT.size
    end = at + count * _ROW.size
    if end > len(payload):
        raise BadFrame("entries that end early")
    rows = list(_ROW.iter_unpack(memoryview(payload)[at:end]))
    entries = []
    at = end
    for row in rows:
        after = at + row[12]
        name = payload[at:after]
        at = after + row[13]
        if not is_name(name) and not (of_path and name == b""):
            raise BadFrame(f"'{name[:40]!r}' is no name")
        entries.append(Entry._make((*row[:12], name, payload[after:at])))
    if at != len(payload):
        raise BadFrame("names that are not as long as they say")
    if any(
        one.directory >= len(directories) or one.kind >= len(KINDS) or one.mode > 0o7777
        for one in entries
    ):
        raise BadFrame("an entry that can't be")
    return Batch(directories, entries)


def pack_map(values: dict[bytes, bytes]) -> bytes:
    """Names and values, for `unpack_map`."""
    pairs = itertools.chain.from_iterable(values.items())
    return b"".join(_COUNT.pack(len(one)) + one for one in pairs)


def unpack_map(payload: bytes) -> dict[bytes, bytes]:
    """What `pack_map` packed.

    Raises:
        BadFrame: It is something else.
    """
    found: list[bytes] = []
    at = 0
    while at < len(payload):
        if at + _COUNT.size > len(payload):
            raise BadFrame("a value that ends early")
        (length,) = _COUNT.unpack_from(payload, at)
        at += _COUNT.size
        found.append(payload[at : at + length])
        at += length
    if at != len(payload) or len(found) % 2:
        raise BadFrame("values that are not as long as they say")
    return dict(zip(found[::2], found[1::2], strict=True))
