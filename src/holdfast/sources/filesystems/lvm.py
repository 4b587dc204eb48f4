"""Logical volumes of LVM2: physical volumes by their labels, groups by their text, put together.

Must not read what is on a logical volume. Linear and striped volumes are read, across as many disks
as there are; thin, mirrored, cached ones and snapshots are named with the reason why not.
Invariants: of several copies of a group's text the newest that is whole counts; a volume is read
only where every disk that it needs is there.

Format: ``lib/format_text`` of LVM2, and ``lib/misc/crc.c``.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.sources.filesystems.disk import SECTOR, Malformed, Part, Pieces, Striped, exactly
from holdfast.sources.filesystems.lvm_text import parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.sources.filesystems.disk import Disk, Piece

_LABEL = struct.Struct("<8sQII8s")
_AREA_HEADER = struct.Struct("<I16sIQQ")
_LOCATION = struct.Struct("<QQII")
_MAGIC = b" LVM2 x[5A%r0N*>"
_TEXT_AT_MOST = 16 << 20
_SEGMENTS_AT_MOST = 100_000
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,128}")


@dataclass(frozen=True, slots=True)
class PhysicalVolume:
    """A disk, or part of one, that is of a group.

    Attributes:
        id: 32 characters.
        disk: Its bytes.
        texts: What it says of its group, every copy that is whole.
    """

    id: str
    disk: Disk
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A logical volume.

    Attributes:
        group: Its group's name.
        name: Its own.
        disk: Its bytes; None where they can't be had here.
        trouble: Why not, in words.
    """

    group: str
    name: str
    disk: Disk | None
    trouble: str | None = None


def physical_volume(disk: Disk) -> PhysicalVolume | None:
    """Read the label of a physical volume; None for what has none.

    Raises:
        Malformed: It has one that is broken.
    """
    start = disk.read_at(0, 4 * SECTOR)
    for at in range(0, len(start) - SECTOR + 1, SECTOR):
        sector = start[at : at + SECTOR]
        if sector[:8] == b"LABELONE" and sector[24:32] == b"LVM2 001":
            return _labelled(disk, sector, at // SECTOR)
    return None


def logical_volumes(volumes: Sequence[PhysicalVolume]) -> tuple[list[LogicalVolume], list[str]]:
    """Put together what physical volumes are of.

    Returns:
        Every visible logical volume; and in words what is wrong with groups.
    """
    newest: dict[str, tuple[int, str, dict[str, Any]]] = {}
    wrong: list[str] = []
    for text in dict.fromkeys(text for one in volumes for text in one.texts):
        try:
            name, group = _group(text)
            identity, number = str(group["id"]), int(group["seqno"])
        except (Malformed, KeyError, TypeError, ValueError) as error:
            wrong.append(f"a group's description makes no sense: {error}")
            continue
        if identity not in newest or newest[identity][0] < number:
            newest[identity] = (number, name, group)
    found: list[LogicalVolume] = []
    taken: set[str] = set()
    disks = {one.id: one.disk for one in volumes}
    for identity, (_, plain, group) in sorted(newest.items(), key=lambda one: (one[1][1], one[0])):
        # two machines' disks may be in one machine: their groups may have one name
        name = plain if plain not in taken else f"{plain}-{_bare(identity)[:8]}"
        taken.add(name)
        found += _volumes_of(name, group, disks)
    wrong += [
        f"physical volume {one.id} has no description of its group that is whole"
        for one in volumes
        if not one.texts
    ]
    return found, wrong


# -- labels ---------------------------------------------------------------------------------------


def _sum(data: bytes) -> int:
    """LVM's checksum: CRC-32 that begins with a number of its own and is not turned at the end."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _labelled(disk: Disk, sector: bytes, number: int) -> PhysicalVolume:
    _, own, crc, offset, _ = _LABEL.unpack_from(sector)
    if own != number or _sum(sector[20:]) != crc:
        raise Malformed("the label of a physical volume has a wrong sum")
    if not _LABEL.size <= offset <= SECTOR - 40:
        raise Malformed("the label of a physical volume points outside of it")
    identity = sector[offset : offset + 32].decode("ascii", "replace")
    # where data is comes first; the group's text knows that better
    _, at = _stretches(sector, offset + 40)
    areas, _ = _stretches(sector, at)
    texts = []
    for begin, size in areas:
        try:
            text = _text(disk, begin, size)
        except Malformed:
            continue
        if text is not None:
            texts.append(text)
    return PhysicalVolume(identity, disk, tuple(texts))


def _stretches(sector: bytes, at: int) -> tuple[list[tuple[int, int]], int]:
    """A list of (offset, size) that ends with zeros; and where the next one begins."""
    found = []
    while at + 16 <= len(sector):
        offset, size = struct.unpack_from("<QQ", sector, at)
        at += 16
        if offset == 0:
            break
        found.append((offset, size))
    return found, at


def _text(disk: Disk, begin: int, size: int) -> str | None:
    """The current text of a metadata area; None for one that never had any."""
    header = exactly(disk, begin, SECTOR)
    crc, magic, version, start, length = _AREA_HEADER.unpack_from(header)
    if magic != _MAGIC or version != 1 or start != begin or _sum(header[4:]) != crc:
        raise Malformed("a metadata area has no header")
    offset, text_size, text_sum, _ = _LOCATION.unpack_from(header, _AREA_HEADER.size)
    if not text_size:
        return None
    length = min(length, size) if size else length
    if text_size > _TEXT_AT_MOST or not SECTOR <= offset < length or text_size > length - SECTOR:
        raise Malformed("a metadata area points outside of itself")
    first = min(text_size, length - offset)
    data = exactly(disk, begin + offset, first)
    if first < text_size:
        data += exactly(disk, begin + SECTOR, text_size - first)
    if _sum(data) != text_sum:
        raise Malformed("a metadata area has a wrong sum")
    return data.rstrip(b"\0").decode("utf-8", "replace")


# -- groups ---------------------------------------------------------------------------------------


def _bare(identity: str) -> str:
    return identity.replace("-", "")


def _group(text: str) -> tuple[str, dict[str, Any]]:
    for name, value in parse(text).items():
        if isinstance(value, dict):
            if not _NAME.fullmatch(name) or name in (".", ".."):
                raise Malformed(f"'{name[:20]}' can't be a group's name")
            return name, value
    raise Malformed("it names no group")


def _volumes_of(name: str, group: dict[str, Any], disks: Mapping[str, Disk]) -> list[LogicalVolume]:
    found = []
    volumes = group.get("logical_volumes")
    for key, volume in volumes.items() if isinstance(volumes, dict) else ():
        if not isinstance(volume, dict) or not _NAME.fullmatch(key) or key in (".", ".."):
            continue
        status = volume.get("status")
        if not isinstance(status, list) or "VISIBLE" not in status:
            continue
        try:
            found.append(LogicalVolume(name, key, _put_together(group, volume, disks)))
        except Malformed as error:
            found.append(LogicalVolume(name, key, None, str(error)))
        except (KeyError, TypeError, ValueError):
            found.append(LogicalVolume(name, key, None, "its description makes no sense"))
    return found


def _put_together(group: dict[str, Any], volume: dict[str, Any], disks: Mapping[str, Disk]) -> Disk:
    extent = _number(group["extent_size"]) * SECTOR
    segments = [
        value
        for key, value in volume.items()
        if isinstance(value, dict) and re.fullmatch(r"segment[0-9]+", key)
    ]
    if not segments or extent <= 0 or len(segments) > _SEGMENTS_AT_MOST:
        raise Malformed("it has no segments")
    pieces: list[Piece] = []
    for one in sorted(segments, key=lambda one: _number(one["start_extent"])):
        kind = one.get("type")
        if kind not in ("striped", "linear"):
            raise Malformed(f"it is of type '{str(kind)[:20]}', which is not read here")
        length = _number(one["extent_count"]) * extent
        begin = _number(one["start_extent"]) * extent
        pieces.append((begin, length, _segment(group, one, length, disks), 0))
    return Pieces(pieces)


def _segment(
    group: dict[str, Any], segment: dict[str, Any], length: int, disks: Mapping[str, Disk]
) -> Disk:
    extent = _number(group["extent_size"]) * SECTOR
    stripes = segment["stripes"]
    count = _number(segment["stripe_count"])
    if not 0 < count <= 1024 or len(stripes) != 2 * count or length % count:
        raise Malformed("its stripes are not as many as it says")
    parts = []
    for at in range(0, len(stripes), 2):
        described = group["physical_volumes"][stripes[at]]
        disk = disks.get(_bare(str(described["id"])))
        if disk is None:
            raise Malformed(f"it needs physical volume {described['id']}, which no disk here has")
        begin = _number(described["pe_start"]) * SECTOR + _number(stripes[at + 1]) * extent
        parts.append(Part(disk, begin, length // count))
    if count == 1:
        return parts[0]
    return Striped(parts, _number(segment["stripe_size"]) * SECTOR)


def _number(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise Malformed("a number in its description makes no sense")
    return value
