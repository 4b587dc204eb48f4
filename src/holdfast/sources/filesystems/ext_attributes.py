"""Extended attributes of an ext: those beside the inode, those in a block of their own.

Must not be imported outside of a worker. Invariant: whatever is on the disk, what is read is
bounded; an attribute that lies outside of where it may be is left out.

Format: ``Documentation/filesystems/ext4/attributes.rst`` of Linux; access lists ``fs/ext4/acl.h``,
and ``include/uapi/linux/posix_acl_xattr.h`` for how programs see them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.sources.filesystems.disk import Disk

VALUE_AT_MOST = 64 << 10

_ENTRY = struct.Struct("<BBHIII")
_MAGIC = b"\x00\x00\x02\xea"
_BLOCK_HEAD = 32
_META_GROUPS, _WIDE = 0x10, 0x80
_ACCESS_LISTS = {2: b"system.posix_acl_access", 3: b"system.posix_acl_default"}
_PREFIXES = {1: b"user.", 4: b"trusted.", 6: b"security."}
_WITH_ID = (2, 8)
_NOBODY = 0xFFFFFFFF


class ExtAttributes:
    """The attributes of the files of one ext. Not thread-safe."""

    def __init__(self, disk: Disk, read_inode: Callable[[int, int], bytes]) -> None:
        """Read where inodes are.

        Args:
            disk: Where it lies.
            read_inode: Reads so many bytes of a file by its inode: large values are files.
        """
        self._disk = disk
        self._read_inode = read_inode
        block = disk.read_at(1024, 1024).ljust(1024, b"\0")
        self._first, shift = struct.unpack_from("<II", block, 20)
        (self._per_group,) = struct.unpack_from("<I", block, 40)
        (revision,) = struct.unpack_from("<I", block, 76)
        (size,) = struct.unpack_from("<H", block, 88)
        (features,) = struct.unpack_from("<I", block, 96)
        (described,) = struct.unpack_from("<H", block, 254)
        self._block = 1024 << min(shift, 6)
        self._size = size if revision else 128
        self._wide = bool(features & _WIDE)
        self._described = max(described, 32) if self._wide else 32
        self.is_readable = (
            not features & _META_GROUPS and self._per_group > 0 and 128 <= self._size <= 65536
        )

    def of(self, inode: int) -> dict[bytes, bytes]:
        """The attributes of a file, as programs see them."""
        raw = self._inode(inode)
        if len(raw) < 128:
            return {}
        found: dict[bytes, bytes] = {}
        if len(raw) > 132:
            (extra,) = struct.unpack_from("<H", raw, 128)
            begin = 128 + extra
            if raw[begin : begin + 4] == _MAGIC:
                found.update(self._entries(raw[begin + 4 :], 0))
        low, high = struct.unpack_from("<I10xH", raw, 104)
        at = (low + (high << 32)) * self._block
        if at:
            block = self._disk.read_at(at, self._block)
            if block[:4] == _MAGIC:
                found.update(self._entries(block, _BLOCK_HEAD))
        return found

    def _inode(self, inode: int) -> bytes:
        group, place = divmod(inode - 1, self._per_group)
        at = (self._first + 1) * self._block + group * self._described
        entry = self._disk.read_at(at, self._described).ljust(64, b"\0")
        (table,) = struct.unpack_from("<I", entry, 8)
        if self._wide and self._described >= 64:
            table += struct.unpack_from("<I", entry, 40)[0] << 32
        return self._disk.read_at(table * self._block + place * self._size, self._size)

    def _entries(self, region: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
        while at + _ENTRY.size <= len(region) and region[at : at + 4] != bytes(4):
            length, index, offset, number, size, _ = _ENTRY.unpack_from(region, at)
            name = region[at + _ENTRY.size : at + _ENTRY.size + length]
            at += _ENTRY.size + (length + 3 & ~3)
            if size > VALUE_AT_MOST or (not number and offset + size > len(region)):
                continue
            if index not in _ACCESS_LISTS and index not in _PREFIXES:
                # what holds the bytes of a small file, and what nobody knows
                continue
            value = self._read_inode(number, size) if number else region[offset : offset + size]
            if index in _ACCESS_LISTS:
                shown = _access_list(value)
                if shown is not None:
                    yield _ACCESS_LISTS[index], shown
            elif b"\0" not in name:
                yield _PREFIXES[index] + name, value


def _access_list(stored: bytes) -> bytes | None:
    """A POSIX access list as programs see it; None for what is none."""
    if len(stored) < 4 or struct.unpack_from("<I", stored)[0] != 1:
        return None
    shown = [struct.pack("<I", 2)]
    at = 4
    while at + 4 <= len(stored):
        tag, rights = struct.unpack_from("<HH", stored, at)
        at += 4
        number = _NOBODY
        if tag in _WITH_ID:
            if at + 4 > len(stored):
                return None
            (number,) = struct.unpack_from("<I", stored, at)
            at += 4
        shown.append(struct.pack("<HHI", tag, rights, number))
    return b"".join(shown)
