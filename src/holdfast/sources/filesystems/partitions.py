"""Tables of partitions: MBR with logical partitions, and GPT by either of its headers.

Must not look into partitions. Invariants: partitions are numbered as Linux numbers them; each
begins on the disk; however a table is broken, reading it takes bounded time and memory.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.sources.filesystems.disk import SECTOR, Malformed, exactly
from holdfast.sources.machines.provider import Remark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.sources.filesystems.disk import Disk

LOGICAL_AT_MOST = 256
"""Logical partitions in a chain; Linux stops at as many."""

_ENTRIES_AT_MOST = 1 << 20
"""Bytes of a GPT's entries: 128 entries of 128 bytes are usual."""

_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
_EMPTY = bytes(16)
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ")


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition.

    Attributes:
        number: As in ``vda3``.
        offset: Where it begins, in bytes.
        size: In bytes, as the table says; the disk may end before.
    """

    number: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Table:
    """What a disk says of its partitions.

    Attributes:
        kind: ``gpt`` or ``mbr``.
    """

    kind: str
    partitions: tuple[Partition, ...]
    remarks: tuple[Remark, ...] = ()


def read_table(disk: Disk) -> Table | None:
    """The table of a disk; None where there is none.

    A boot sector of a file system looks much like an MBR: whoever asks has to know that there is no
    file system on the whole disk.
    """
    try:
        sector = exactly(disk, 0, SECTOR)
    except Malformed:
        return None
    entries = _mbr_entries(sector)
    if not entries or any(one.kind == _PROTECTIVE for one in entries):
        found = _gpt(disk)
        if found is not None:
            return found
    if not entries:
        return None
    if all(one.kind == _PROTECTIVE for one in entries):
        broken = _remark("gpt-broken", "both headers of the partition table are broken")
        return Table("gpt", (), (broken,))
    return _on_disk("mbr", disk, *_mbr(disk, entries))


# -- MBR ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Slot:
    place: int
    kind: int
    start: int
    sectors: int


def _mbr_entries(sector: bytes) -> list[_Slot]:
    """Entries in use; none for what is no such sector."""
    if sector[510:512] != b"\x55\xaa":
        return []
    slots = []
    for place in range(4):
        entry = sector[446 + 16 * place : 462 + 16 * place]
        status, kind = entry[0], entry[4]
        start, sectors = struct.unpack_from("<II", entry, 8)
        if status not in (0, 0x80):
            return []
        if kind and sectors:
            slots.append(_Slot(place, kind, start, sectors))
    return slots


def _mbr(disk: Disk, entries: list[_Slot]) -> tuple[list[Partition], list[Remark]]:
    found: list[Partition] = []
    remarks: list[Remark] = []
    extended = None
    for one in entries:
        if one.kind in _EXTENDED:
            extended = extended or one
        elif one.kind != _PROTECTIVE:
            found.append(Partition(one.place + 1, one.start * SECTOR, one.sectors * SECTOR))
    if extended is not None:
        try:
            for number, part in enumerate(_logical(disk, extended.start), start=5):
                found.append(Partition(number, *part))
        except Malformed as error:
            remarks.append(_remark("logical-broken", f"the logical partitions end early: {error}"))
    return found, remarks


def _logical(disk: Disk, base: int) -> Iterator[tuple[int, int]]:
    at = base
    met: set[int] = set()
    while True:
        if at in met or len(met) >= LOGICAL_AT_MOST:
            raise Malformed("their chain has no end")
        met.add(at)
        sector = exactly(disk, at * SECTOR, SECTOR)
        if sector[510:512] != b"\x55\xaa":
            raise Malformed(f"sector {at} has no table")
        following = None
        for one in _mbr_entries(sector):
            if one.kind in _EXTENDED:
                following = following or one
            else:
                yield (at + one.start) * SECTOR, one.sectors * SECTOR
        if following is None:
            return
        at = base + following.start


# -- GPT ------------------------------------------------------------------------------------------


def _gpt(disk: Disk) -> Table | None:
    for sector in (512, 4096):
        try:
            return _gpt_at(disk, 1, sector)
        except Malformed:
            continue
    for sector in (512, 4096):
        try:
            found = _gpt_at(disk, disk.size // sector - 1, sector)
        except Malformed:
            continue
        said = _remark("gpt-backup", "the partition table was read from its second copy")
        return Table("gpt", found.partitions, (said, *found.remarks))
    return None


def _gpt_at(disk: Disk, lba: int, sector: int) -> Table:
    raw = exactly(disk, lba * sector, sector)
    (
        magic,
        _,
        header_size,
        header_crc,
        _,
        own,
        _,
        _,
        _,
        _,
        entries_lba,
        count,
        each,
        entries_crc,
    ) = _HEADER.unpack_from(raw)
    if magic != b"EFI PART" or not _HEADER.size <= header_size <= sector or own != lba:
        raise Malformed("no header")
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:header_size]) != header_crc:
        raise Malformed("the header's sum is wrong")
    if each < _ENTRY.size or each % 8 or count * each > _ENTRIES_AT_MOST:
        raise Malformed("entries of a wrong size")
    entries = exactly(disk, entries_lba * sector, count * each)
    if zlib.crc32(entries) != entries_crc:
        raise Malformed("the sum of the entries is wrong")
    found = []
    for at in range(count):
        kind, _, first, last, _ = _ENTRY.unpack_from(entries, at * each)
        if kind != _EMPTY and first <= last:
            found.append(Partition(at + 1, first * sector, (last - first + 1) * sector))
    return _on_disk("gpt", disk, found, [])


def _on_disk(kind: str, disk: Disk, found: list[Partition], remarks: list[Remark]) -> Table:
    """A table without the partitions that begin where the disk has ended."""
    there = []
    for one in found:
        if one.offset >= disk.size:
            said = f"partition {one.number} begins behind the end of the disk"
            remarks.append(_remark("partition-outside", said))
            continue
        if one.offset + one.size > disk.size:
            said = f"partition {one.number} is said to end behind the end of the disk"
            remarks.append(_remark("partition-cut", said))
        there.append(one)
    return Table(kind, tuple(there), tuple(remarks))


def _remark(code: str, message: str) -> Remark:
    return Remark("warning", code, message)
