"""What lies on a volume, by its first bytes: which file system, and whether it was brought to rest.

Must not read files. Invariants: a handful of reads, whatever is there; what is not known is said to
be unknown, never guessed.
"""

from __future__ import annotations

import enum
import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.sources.filesystems import ntfs_state
from holdfast.sources.filesystems.disk import Malformed, exactly

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.sources.filesystems.disk import Disk

_BEGINNING = 4096
_SWAP_PAGES = (4096, 8192, 16384, 65536)
_BTRFS_AT = 64 << 10


class State(enum.StrEnum):
    """What has to be done before a file system shows all that was written to it."""

    CLEAN = "clean"
    """Nothing."""
    NEEDS_REPLAY = "needs-replay"
    """Its journal holds what its tables do not have yet."""
    DIRTY = "dirty"
    """It was in use and has no journal that says more."""
    UNKNOWN = "unknown"
    """Only whoever mounts it can tell."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What lies on a volume.

    Attributes:
        kind: ``ext4``, ``xfs``, ``ntfs``, ``swap``, ``luks``, …; ``empty``; ``unknown``.
        state: Whether it was brought to rest.
        label: Its name, if it has one.
        uuid: What it is mounted by, as Linux writes it.
    """

    kind: str
    state: State = State.CLEAN
    label: str = ""
    uuid: str = ""


EXT = ("ext2", "ext3", "ext4")
FAT = ("fat12", "fat16", "fat32")

HOLDS_FILES = frozenset({*EXT, *FAT, "xfs", "btrfs", "ntfs", "exfat"})
"""Kinds that have files which somebody may look for."""

BOOT_SECTORS = frozenset({*FAT, "ntfs", "exfat", "bitlocker"})
"""Kinds whose first sector looks like a table of partitions."""


def recognise(disk: Disk) -> FileSystem:
    """Tell what lies on a volume."""
    beginning = disk.read_at(0, _BEGINNING)
    for look in _LOOKS:
        try:
            found = look(disk, beginning)
        except (Malformed, struct.error):
            continue
        if found is not None:
            return found
    blank = not any(beginning) and not any(disk.read_at(_BTRFS_AT, 4096))
    return FileSystem("empty" if blank else "unknown")


def _luks(_: Disk, data: bytes) -> FileSystem | None:
    if data[:6] != b"LUKS\xba\xbe":
        return None
    return FileSystem("luks", uuid=_text(data[168:208]))


def _bitlocker(_: Disk, data: bytes) -> FileSystem | None:
    return FileSystem("bitlocker") if data[3:11] == b"-FVE-FS-" else None


def _ntfs(disk: Disk, data: bytes) -> FileSystem | None:
    if data[3:11] != b"NTFS    " or data[510:512] != b"\x55\xaa":
        return None
    (serial,) = struct.unpack_from("<Q", data, 0x48)
    try:
        found = ntfs_state.read(disk)
    except Malformed:
        return FileSystem("ntfs", State.UNKNOWN, uuid=f"{serial:016X}")
    state = State.NEEDS_REPLAY if found.log_in_use else State.DIRTY if found.dirty else State.CLEAN
    return FileSystem("ntfs", state, found.label, f"{serial:016X}")


def _exfat(_: Disk, data: bytes) -> FileSystem | None:
    if data[3:11] != b"EXFAT   ":
        return None
    serial, flags = struct.unpack_from("<I2xH", data, 100)
    return FileSystem("exfat", State.DIRTY if flags & 2 else State.CLEAN, uuid=_serial(serial))


def _fat(_: Disk, data: bytes) -> FileSystem | None:
    if data[510:512] != b"\x55\xaa" or data[0] not in (0xEB, 0xE9):
        return None
    each, per, reserved, tables, roots, few, media, table = struct.unpack_from(
        "<HBHBHHBH", data, 11
    )
    (many, table_32) = struct.unpack_from("<II", data, 32)
    sectors, table = few or many, table or table_32
    if (
        each not in (512, 1024, 2048, 4096)
        or per not in (1, 2, 4, 8, 16, 32, 64, 128)
        or not reserved
        or tables not in (1, 2)
        or media not in (0xF0, *range(0xF8, 0x100))
        or not sectors
        or not table
    ):
        return None
    root_sectors = (roots * 32 + each - 1) // each
    clusters = (sectors - reserved - tables * table - root_sectors) // per
    if clusters < 0:
        return None
    wide = not roots
    kind = "fat32" if wide else "fat12" if clusters < 4085 else "fat16"
    at = 0x40 if wide else 0x24
    dirty = data[at + 1] & 1
    serial, label = "", ""
    if data[at + 2] == 0x29:
        serial = _serial(struct.unpack_from("<I", data, at + 3)[0])
        label = data[at + 7 : at + 18].decode("ascii", "replace").rstrip()
    return FileSystem(
        kind, State.DIRTY if dirty else State.CLEAN, "" if label == "NO NAME" else label, serial
    )


def _ext(_: Disk, data: bytes) -> FileSystem | None:
    block = data[1024:2048]
    if len(block) < 1024 or block[56:58] != b"\x53\xef":
        return None
    compatible, incompatible, read_only = struct.unpack_from("<III", block, 92)
    (state,) = struct.unpack_from("<H", block, 58)
    if incompatible & 0x08:
        return FileSystem("unknown")  # a journal that lies on a device of its own
    has_journal = bool(compatible & 0x04)
    # what ext3 does not know: extents, 64bit, flex_bg, inline data, checksums, …
    newer = incompatible & ~0x16 or read_only & ~0x07
    kind = "ext4" if newer else "ext3" if has_journal else "ext2"
    at_rest = State.CLEAN if state & 1 or has_journal else State.DIRTY
    found = State.NEEDS_REPLAY if incompatible & 0x04 else at_rest
    return FileSystem(kind, found, _text(block[120:136]), str(uuid.UUID(bytes=block[104:120])))


def _xfs(_: Disk, data: bytes) -> FileSystem | None:
    if data[:4] != b"XFSB":
        return None
    own = str(uuid.UUID(bytes=data[32:48]))
    return FileSystem("xfs", State.UNKNOWN, _text(data[108:120]), own)


def _btrfs(disk: Disk, _: bytes) -> FileSystem | None:
    if disk.size < _BTRFS_AT + 4096:
        return None
    block = exactly(disk, _BTRFS_AT, 4096)
    if block[64:72] != b"_BHRfS_M":
        return None
    (log,) = struct.unpack_from("<Q", block, 96)
    own = str(uuid.UUID(bytes=block[32:48]))
    state = State.NEEDS_REPLAY if log else State.CLEAN
    return FileSystem("btrfs", state, _text(block[299:555]), own)


def _lvm(_: Disk, data: bytes) -> FileSystem | None:
    for at in range(0, 2048, 512):
        if data[at : at + 8] == b"LABELONE" and data[at + 24 : at + 32] == b"LVM2 001":
            return FileSystem("lvm2")
    return None


def _raid(disk: Disk, data: bytes) -> FileSystem | None:
    magic = b"\xfc\x4e\x2b\xa9"
    places = (0, 4096, (disk.size // 512 - 16) // 8 * 8 * 512, (disk.size & ~0xFFFF) - 0x10000)
    for at in places:
        if at >= 0 and (data[:4] if at == 0 else disk.read_at(at, 4)) == magic:
            return FileSystem("linux-raid")
    return None


def _swap(disk: Disk, data: bytes) -> FileSystem | None:
    for page in _SWAP_PAGES:
        magic = data[page - 10 : page] if page <= _BEGINNING else disk.read_at(page - 10, 10)
        if magic in (b"SWAPSPACE2", b"SWAP-SPACE"):
            own = str(uuid.UUID(bytes=data[1036:1052]))
            return FileSystem("swap", label=_text(data[1052:1068]), uuid=own)
    return None


def _others(disk: Disk, data: bytes) -> FileSystem | None:
    if data[:4] == b"hsqs":
        return FileSystem("squashfs")
    if disk.size > 0x8006 and disk.read_at(0x8001, 5) == b"CD001":
        return FileSystem("iso9660")
    if disk.size > 4096 + 1024 and data[1024:1028] == b"\x10\x20\xf5\xf2":
        return FileSystem("f2fs")
    if data[3:11] == b"ReFS\0\0\0\0":
        return FileSystem("refs")
    return None


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def _serial(number: int) -> str:
    return f"{number >> 16:04X}-{number & 0xFFFF:04X}"


# What holds others comes first: a member of a RAID may show the file system that is on it.
_LOOKS: tuple[Callable[[Disk, bytes], FileSystem | None], ...] = (
    _luks,
    _bitlocker,
    _lvm,
    _raid,
    _ntfs,
    _exfat,
    _xfs,
    _btrfs,
    _ext,
    _swap,
    _fat,
    _others,
)
