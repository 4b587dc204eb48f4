"""Everything that a machine's disks have on them: partitions, logical volumes, file systems.

Must not read files, nor stop at what it can't read. Invariants: every volume has a name that stays
as long as the tables do (``vda/p1``, ``vdb/fs``, ``lvm/group/volume``); whatever is on the disks,
the result is bounded and names what is not read, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.sources.filesystems import lvm, partitions
from holdfast.sources.filesystems.disk import Malformed, Part
from holdfast.sources.filesystems.recognise import (
    BOOT_SECTORS,
    HOLDS_FILES,
    FileSystem,
    State,
    recognise,
)
from holdfast.sources.machines.provider import Remark

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.sources.filesystems.disk import Disk

LVM = "lvm"
"""What the volumes of LVM are filed under; no disk may be called so."""

NEEDS_REPLAY = "needs-replay"
"""The code of the remark that a file system's journal holds more than its tables."""

NOT_REPLAYED = "not-replayed"
"""The code of the remark that nobody here replays the journal of a file system."""

_ENCRYPTED = {"luks": "LUKS", "bitlocker": "BitLocker"}
_NOT_READ = {
    "linux-raid": "a member of a Linux software RAID",
    "squashfs": "a SquashFS",
    "iso9660": "a CD-ROM",
    "f2fs": "an F2FS",
    "refs": "a ReFS",
    "unknown": "of a kind that is not known here",
}


@dataclass(frozen=True, slots=True)
class Volume:
    """Something with a file system on it, or that might have one.

    Attributes:
        name: Of its directory: ``vda/p1``.
        disk: Its bytes.
        files: What lies on it.
    """

    name: str
    disk: Disk
    files: FileSystem

    @property
    def holds_files(self) -> bool:
        """Whether somebody may look for files in it."""
        return self.files.kind in HOLDS_FILES


@dataclass(frozen=True, slots=True)
class Layout:
    """What the disks of a machine have on them.

    Attributes:
        volumes: By their names.
        remarks: What is not read, and what is odd.
    """

    volumes: tuple[Volume, ...]
    remarks: tuple[Remark, ...]


def look(disks: Mapping[str, Disk]) -> Layout:
    """Find out what is on disks.

    Args:
        disks: By the names that the machine has for them.
    """
    found: list[Volume] = []
    remarks: list[Remark] = []
    physical: list[lvm.PhysicalVolume] = []
    for name, disk in disks.items():
        if name == LVM or not name or "/" in name:
            remarks.append(Remark("warning", "disk-name", f"a disk can't be called '{name}' here"))
            continue
        for place, part in _parts(name, disk, remarks):
            kind = recognise(part)
            if kind.kind == "lvm2":
                _take_physical(place, part, physical, remarks)
                continue
            found.append(Volume(place, part, kind))
    _take_logical(physical, found, remarks)
    for one in found:
        remarks += _remarks_of(one)
    return Layout(tuple(found), tuple(remarks))


def not_replayed(volume: Volume, why: str) -> Remark:
    """That the log of an NTFS is not replayed.

    Args:
        volume: It.
        why: Or what is with that log.
    """
    said = (
        f"{volume.name} (ntfs) was in use: what its log ($LogFile) holds {why}, so its newest "
        "changes may be missing; Windows replays it when the restored disk is mounted"
    )
    return Remark("warning", NOT_REPLAYED, said, volume.name)


def _parts(name: str, disk: Disk, remarks: list[Remark]) -> list[tuple[str, Disk]]:
    whole: list[tuple[str, Disk]] = [(f"{name}/fs", disk)]
    if recognise(disk).kind in BOOT_SECTORS:
        return whole
    table = partitions.read_table(disk)
    if table is None:
        return whole
    remarks += [Remark(one.severity, one.code, one.message, name) for one in table.remarks]
    return [(f"{name}/p{one.number}", Part(disk, one.offset, one.size)) for one in table.partitions]


def _take_physical(
    place: str, part: Disk, physical: list[lvm.PhysicalVolume], remarks: list[Remark]
) -> None:
    try:
        found = lvm.physical_volume(part)
    except Malformed as error:
        remarks.append(Remark("warning", "lvm-broken", str(error), place))
        return
    if found is not None:
        physical.append(found)


def _take_logical(
    physical: list[lvm.PhysicalVolume], found: list[Volume], remarks: list[Remark]
) -> None:
    logical, wrong = lvm.logical_volumes(physical)
    remarks += [Remark("warning", "lvm-broken", one, LVM) for one in wrong]
    for one in logical:
        name = f"{LVM}/{one.group}/{one.name}"
        if one.disk is None:
            said = f"logical volume {one.group}/{one.name} is not read: {one.trouble}"
            remarks.append(Remark("warning", "volume-not-read", said, name))
            continue
        kind = recognise(one.disk)
        if kind.kind == "lvm2":
            said = f"{name} is itself a physical volume of LVM, which is not read here"
            remarks.append(Remark("warning", "volume-not-read", said, name))
            continue
        found.append(Volume(name, one.disk, kind))


def _remarks_of(volume: Volume) -> list[Remark]:
    kind, name = volume.files.kind, volume.name
    if kind in _ENCRYPTED:
        said = f"{name} is encrypted ({_ENCRYPTED[kind]}): its files can't be listed; it restores"
        return [Remark("info", "volume-encrypted", said, name)]
    if kind in _NOT_READ:
        said = f"{name} is {_NOT_READ[kind]}: its files can't be listed; it restores"
        return [Remark("info", "volume-not-read", said, name)]
    if volume.files.state is State.NEEDS_REPLAY and kind == "ntfs":
        return [not_replayed(volume, "is not replayed here")]
    if volume.files.state is State.NEEDS_REPLAY:
        said = f"{name} ({kind}) was in use: what its journal holds has to be replayed first"
        return [Remark("info", NEEDS_REPLAY, said, name)]
    if volume.files.state is State.DIRTY:
        said = f"{name} ({kind}) was in use: its newest changes may be missing"
        return [Remark("info", "not-at-rest", said, name)]
    return []
