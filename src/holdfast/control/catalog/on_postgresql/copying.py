"""Rows in the form in which PostgreSQL takes them quickest: binary ``COPY``.

Pure. Source of the format: PostgreSQL's manual, COPY, "Binary Format". Numbers that are unsigned
keep their bits: what is read back is wrapped, see `timeline.to_unsigned`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from holdfast.control.catalog.rows import REMOVED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.control.catalog.file_rows import NewDirectory, NewName
    from holdfast.control.catalog.rows import ChangeRow

_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TAIL = b"\xff\xff"

VERSION_COLUMNS = (
    "size, mtime_ns, inode, file_set, directory, name, first, last, mode, uid, gid, kind"
)
NAME_COLUMNS = "file_set, id, name, folded"
DIRECTORY_COLUMNS = "file_set, id, parent, name"
PLACE_COLUMNS = "directory, name"

# Each row: the number of its columns; each column: its length, and itself.
_VERSION = struct.Struct("!h iQ iq iQ ii ii ii ii ii iI iI iI ih".replace(" ", ""))
_NAME = struct.Struct("!hiiiii")
_FOLDED = struct.Struct("!i")
_DIRECTORY = struct.Struct("!hiiiiiiii")
_PLACE = struct.Struct("!hiiii")


def copied(rows: Iterable[bytes]) -> bytes:
    """Rows made by the functions below, with what belongs before and after them."""
    return b"".join((_HEAD, *rows, _TAIL))


def versions(
    file_set: int,
    directories: Sequence[int],
    names: Sequence[int],
    rows: Sequence[ChangeRow],
    first: int,
    last: int,
) -> list[bytes]:
    """What images show from now on; rows that tell of a removal are left out."""
    pack = _VERSION.pack
    return [
        pack(
            12, 8, size, 8, mtime_ns, 8, inode, 4, file_set, 4, directories[slot], 4, name,
            4, first, 4, last, 4, mode, 4, uid, 4, gid, 2, kind,
        )
        for (slot, _, change, kind, size, mtime_ns, mode, uid, gid, inode), name in zip(
            rows, names, strict=True
        )
        if change != REMOVED
    ]  # fmt: skip


def names(file_set: int, new: Sequence[NewName]) -> list[bytes]:
    """Names, and what they fold to."""
    rows = []
    for identity, name, folded in new:
        text = name.lower() if folded is None else folded.encode()
        head = _NAME.pack(4, 4, file_set, 4, identity, len(name))
        rows.append(b"".join((head, name, _FOLDED.pack(len(text)), text)))
    return rows


def directories(file_set: int, new: Sequence[NewDirectory]) -> list[bytes]:
    """Directories."""
    pack = _DIRECTORY.pack
    return [pack(4, 4, file_set, 4, identity, 4, parent, 4, name) for identity, parent, name in new]


def places(directories: Sequence[int], names: Sequence[int]) -> list[bytes]:
    """Pairs of a directory and a name."""
    pack = _PLACE.pack
    return [pack(2, 4, one, 4, other) for one, other in zip(directories, names, strict=True)]
