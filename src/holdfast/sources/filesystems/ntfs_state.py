"""Whether an NTFS was brought to rest: its dirty flag, and whether its log is in use.

Must not read files of people. Reads four records and a page of the log, whatever is there.

Format: as ``ntfs-3g`` knows it (``layout.h``, ``logfile.c``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.sources.filesystems.disk import Malformed, exactly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.sources.filesystems.disk import Disk

_LOG_FILE, _VOLUME = 2, 3
_NAME, _INFORMATION, _DATA, _END = 0x60, 0x70, 0x80, 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class NtfsState:
    """What an NTFS says of itself.

    Attributes:
        dirty: It wants to be checked.
        log_in_use: Its log holds what was not finished.
        label: Its name.
    """

    dirty: bool
    log_in_use: bool
    label: str


def read(disk: Disk) -> NtfsState:
    """Read the state of the NTFS on a volume.

    Raises:
        Malformed: Its first records are not what they have to be.
    """
    boot = exactly(disk, 0, 512)
    sector, per = struct.unpack_from("<HB", boot, 11)
    (table,) = struct.unpack_from("<Q", boot, 48)
    (record_code,) = struct.unpack_from("<b", boot, 64)
    cluster = sector * (per if per <= 128 else 1 << (256 - per))
    size = record_code * cluster if record_code > 0 else 1 << -record_code
    if (
        sector not in (512, 1024, 2048, 4096)
        or not 0 < cluster <= 2 << 20
        or not 512 <= size <= 65536
    ):
        raise Malformed("the boot sector makes no sense")
    start = table * cluster
    dirty, label = False, ""
    for kind, value, resident in _attributes(_record(disk, start + _VOLUME * size, size)):
        if kind == _NAME and resident:
            label = value.decode("utf-16-le", "replace")
        if kind == _INFORMATION and resident and len(value) >= 12:
            dirty = bool(value[10] & 1)
    in_use = False
    for kind, value, resident in _attributes(_record(disk, start + _LOG_FILE * size, size)):
        if kind == _DATA and not resident:
            in_use = _log_in_use(disk, _first_cluster(value) * cluster)
    return NtfsState(dirty, in_use, label)


def _record(disk: Disk, offset: int, size: int) -> bytes:
    raw = bytearray(exactly(disk, offset, size))
    if raw[:4] != b"FILE":
        raise Malformed("a record of the file table is none")
    _fix_up(raw)
    return bytes(raw)


def _fix_up(raw: bytearray) -> None:
    """Put back the last two bytes of each sector, which prove that all was written."""
    at, count = struct.unpack_from("<HH", raw, 4)
    if at + 2 * count > len(raw) or count < 1 or (count - 1) * 512 > len(raw):
        raise Malformed("a record's sequence of updates lies outside of it")
    for sector in range(1, count):
        end = sector * 512
        if raw[end - 2 : end] != raw[at : at + 2]:
            raise Malformed("a record was half written")
        raw[end - 2 : end] = raw[at + 2 * sector : at + 2 * sector + 2]


def _attributes(record: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """(type, value or list of runs, whether it is the value) of the unnamed attributes."""
    (at,) = struct.unpack_from("<H", record, 20)
    while at + 24 <= len(record):
        kind, length = struct.unpack_from("<II", record, at)
        if kind == _END:
            return
        if length < 24 or length % 8 or at + length > len(record):
            raise Malformed("an attribute reaches out of its record")
        attribute = record[at : at + length]
        if not attribute[9]:
            if attribute[8]:
                (runs,) = struct.unpack_from("<H", attribute, 32)
                yield kind, attribute[runs:], False
            else:
                size, value = struct.unpack_from("<IH", attribute, 16)
                yield kind, attribute[value : value + size], True
        at += length


def _first_cluster(runs: bytes) -> int:
    if not runs or not runs[0]:
        raise Malformed("the log lies nowhere")
    lengths, offsets = runs[0] & 15, runs[0] >> 4
    return int.from_bytes(runs[1 + lengths : 1 + lengths + offsets], "little", signed=True)


def _log_in_use(disk: Disk, offset: int) -> bool:
    page = bytearray(exactly(disk, offset, 4096))
    if page[:4] != b"RSTR":
        # all ones: emptied, as by Linux and by whoever makes the file system
        return page[:4] != b"\xff\xff\xff\xff"
    _fix_up(page)
    (area,) = struct.unpack_from("<H", page, 24)
    if area + 16 > len(page):
        raise Malformed("the log's restart area lies outside of its page")
    _, _, _, clients_in_use, flags = struct.unpack_from("<QHHHH", page, area)
    return clients_in_use != 0xFFFF and not flags & 2
