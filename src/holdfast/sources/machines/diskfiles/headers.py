"""Names of other files that the header of a disk file holds: those it lies over or consists of.

Must not open those files, nor read what is in a disk: that is qemu's. What is read here is bounded.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import DiskUnreadable, Unsupported
from holdfast.sources.machines.diskfiles.formats import read_part

if TYPE_CHECKING:
    from pathlib import Path

_QCOW2 = struct.Struct(">4sIQIIQIIQQIIQ")
_QCOW2_FEATURES = struct.Struct(">QQQII")
_BACKING_FORMAT = 0xE2792ACA
_DATA_FILE = 0x44415441
_EXTERNAL_DATA = 1 << 2
_LONGEST_HEADER = 1 << 20

_VMDK = struct.Struct("<4sIIQQQQ")
_LONGEST_DESCRIPTOR = 1 << 20
_EXTENT = re.compile(r'^(RW|RDONLY|NOACCESS)\s+(\d+)\s+(\w+)(?:\s+"([^"]*)"(?:\s+(\d+))?)?\s*$')
_SETTING = re.compile(r'^([A-Za-z][\w.:]*)\s*=\s*"?([^"]*)"?\s*$')
_RAW_DEVICES = {"VMFSRDM", "VMFSRAW"}


@dataclass(frozen=True, slots=True)
class Part:
    """A file that a disk consists of.

    Attributes:
        name: As the header has it; None for zeroes that are in no file.
        covers: How much of the disk is in it, in bytes.
        needed: How long it has to be, in bytes; 0 where its own tables tell that.
    """

    name: str | None
    covers: int
    needed: int = 0


@dataclass(frozen=True, slots=True)
class Named:
    """Other files that a header names.

    Attributes:
        backing: What the disk lies over; None for nothing.
        backing_format: Of that; None where the header does not say.
        parts: What it consists of, besides itself.
        data_file: Where a qcow2 image keeps its content; None for in itself.
        cluster: Bytes that it allocates at once; 1 where that is not known.
    """

    backing: str | None = None
    backing_format: str | None = None
    parts: tuple[Part, ...] = ()
    data_file: str | None = None
    cluster: int = 1


def named_by_qcow2(path: Path) -> Named:
    """Other files of a qcow2 image.

    Raises:
        DiskUnreadable: Its header is damaged.
    """
    head = read_part(path, 0, _QCOW2.size + _QCOW2_FEATURES.size)
    if len(head) < _QCOW2.size or head[:4] != b"QFI\xfb":
        raise _damaged(path, "its header is too short, or not one of qcow2")
    _, version, backing_at, backing_bytes, cluster_bits, *_ = _QCOW2.unpack_from(head)
    if not 9 <= cluster_bits <= 21:
        raise _damaged(path, f"clusters of 2^{cluster_bits} bytes")
    features, length = 0, 72
    if version >= 3:
        if len(head) < _QCOW2.size + _QCOW2_FEATURES.size:
            raise _damaged(path, "its header is too short")
        features, _, _, _, length = _QCOW2_FEATURES.unpack_from(head, _QCOW2.size)
    backing = None
    if backing_at:
        if not backing_bytes <= 1023 or backing_at > _LONGEST_HEADER * 2:
            raise _damaged(path, f"a backing file's name of {backing_bytes} bytes")
        backing = read_part(path, backing_at, backing_bytes).decode(errors="surrogateescape")
    extensions = _extensions(path, length, backing_at or 1 << cluster_bits)
    data = extensions.get(_DATA_FILE)
    return Named(
        backing=backing or None,
        backing_format=extensions.get(_BACKING_FORMAT),
        data_file=(data or "") if features & _EXTERNAL_DATA else None,
        cluster=1 << cluster_bits,
    )


def _extensions(path: Path, begin: int, end: int) -> dict[int, str]:
    if not 72 <= begin <= _LONGEST_HEADER:
        raise _damaged(path, f"a header of {begin} bytes")
    data = read_part(path, begin, min(max(end - begin, 0), _LONGEST_HEADER))
    found: dict[int, str] = {}
    at = 0
    while at + 8 <= len(data):
        kind, length = struct.unpack_from(">II", data, at)
        if kind == 0:
            break
        if at + 8 + length > len(data):
            raise _damaged(path, "a part of its header is longer than the header")
        found[kind] = data[at + 8 : at + 8 + length].decode(errors="surrogateescape")
        at += 8 + (length + 7) // 8 * 8
    return found


def named_by_vmdk(path: Path, offset: int = 0) -> Named:
    """Other files of a VMDK disk.

    Args:
        path: Of the file.
        offset: Where in it the disk begins.

    Raises:
        DiskUnreadable: Its descriptor is damaged.
        Unsupported: It stands for a device of its host.
    """
    head = read_part(path, offset, _VMDK.size)
    if head[:4] == b"KDMV" and len(head) == _VMDK.size:
        _, _, _, _, grain, at, sectors = _VMDK.unpack(head)
        cluster = min(grain, 1 << 20) * 512
        if not at or not sectors:
            return Named(cluster=cluster)
        text = read_part(path, offset + at * 512, min(sectors * 512, _LONGEST_DESCRIPTOR))
        found = _descriptor(path, text)
        # A sparse file that holds its own descriptor is its own only part.
        return Named(found.backing, found.backing_format, cluster=cluster)
    if head.startswith(b"# Disk"):
        return _descriptor(path, read_part(path, offset, _LONGEST_DESCRIPTOR))
    return Named()


def _descriptor(path: Path, data: bytes) -> Named:
    text = data.split(b"\0", 1)[0].decode(errors="surrogateescape")
    settings: dict[str, str] = {}
    parts = []
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if extent := _EXTENT.match(line):
            _, sectors, kind, name, begin = extent.groups()
            if kind in _RAW_DEVICES:
                raise Unsupported(
                    f"'{path}' stands for a device of its host (a raw device mapping)",
                    "back up what is on the device with an agent in the machine",
                )
            flat = kind in ("FLAT", "VMFS")
            needed = (int(sectors) + int(begin or 0)) * 512 if flat else 0
            parts.append(Part(name or None, int(sectors) * 512, needed))
        elif setting := _SETTING.match(line):
            settings[setting[1].lower()] = setting[2]
        else:
            raise _damaged(path, f"its descriptor has a line that is not understood: {line[:80]!r}")
    parent = settings.get("parentfilenamehint")
    has_parent = settings.get("parentcid", "ffffffff").lower() != "ffffffff"
    if has_parent and not parent:
        raise _damaged(path, "it lies over another disk, and does not say which")
    return Named(parent if has_parent else None, "vmdk" if has_parent else None, tuple(parts))


def refuse_differencing_vpc(path: Path, offset: int = 0) -> None:
    """Make sure that a VHD does not lie over another one, which qemu would not notice.

    Raises:
        Unsupported: It does.
    """
    footer = read_part(path, offset, 512)
    whole = len(footer) == 512 and footer[:8] == b"conectix"
    if whole and struct.unpack_from(">I", footer, 60) == (4,):
        raise Unsupported(
            f"'{path}' holds only the differences to another VHD, which can't be read here",
            "merge it into its parent with the tools of its hypervisor",
        )


def _damaged(path: Path, what: str) -> DiskUnreadable:
    return DiskUnreadable(f"disk file '{path}' is damaged: {what}")
