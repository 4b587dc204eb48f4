"""Disks of a VMware machine: what each is called, where it lies, and why one can't be held.

Must not ask anybody. Invariant: a disk that a snapshot does not hold still, or whose bytes are not
those of one flat file, is never read as if it were.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from holdfast.base.errors import DiskUnreadable, Unsupported
from holdfast.sources.machines.machine import Disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SECTOR = 512

_FLAT = vim.vm.device.VirtualDisk.FlatVer2BackingInfo
_MAPPED = vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo
_CHAINED = (
    vim.vm.device.VirtualDisk.SeSparseBackingInfo,
    vim.vm.device.VirtualDisk.SparseVer2BackingInfo,
)
_BUSES = (
    (vim.vm.device.VirtualSCSIController, "scsi"),
    (vim.vm.device.VirtualSATAController, "sata"),
    (vim.vm.device.VirtualIDEController, "ide"),
    (vim.vm.device.VirtualNVMEController, "nvme"),
)
_PATH = re.compile(r"^\[([^\]]+)\] ?(.*)$", re.DOTALL)
_EXTENT = re.compile(r'^\s*(RW|RDONLY|NOACCESS)\s+(\d+)\s+(\w+)(?:\s+"([^"]*)")?', re.MULTILINE)


_PAST_FILES = (
    (
        vim.vm.device.VirtualPCIPassthrough,
        "a PCI device of the host that is passed through, and whatever is stored on it",
    ),
    (
        vim.vm.device.VirtualSCSIPassthrough,
        "a SCSI device of the host that is passed through, and whatever is stored on it",
    ),
    (
        vim.vm.device.VirtualUSB,
        "a USB device that is passed through: should it be a disk, nothing of it is held",
    ),
    (vim.vm.device.VirtualNVDIMM, "memory that keeps its content"),
)


@dataclass(frozen=True, slots=True)
class DeviceDisk:
    """A disk, and what the interface knows it by.

    Attributes:
        disk: As all sources tell of disks.
        key: Of the device.
        datastore: Where its file lies; empty for no file.
        path: Of that file in the datastore.
        below: The file that it lies over; None for none: then it is whole by itself.
        identity: What its content is known by, wherever its file goes.
        change_id: Since when changes could be told; empty for not at all.
    """

    disk: Disk
    key: int
    datastore: str
    path: str
    below: str | None
    identity: str
    change_id: str

    @property
    def name(self) -> str:
        """Of the disk."""
        return self.disk.name


def of_devices(devices: Sequence[Any]) -> list[DeviceDisk]:
    """The disks among a machine's devices, in their order."""
    controllers = {one.key: one for one in devices if hasattr(one, "busNumber")}
    return [
        _disk(one, controllers.get(one.controllerKey))
        for one in devices
        if isinstance(one, vim.vm.device.VirtualDisk)
    ]


def past_files(devices: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """What a machine may store things on that is no disk of a datastore: its name, and why."""
    for one in devices:
        for kind, reason in _PAST_FILES:
            if isinstance(one, kind):
                label = one.deviceInfo.label if one.deviceInfo is not None else ""
                yield label or f"device {one.key}", reason


def split(path: str) -> tuple[str, str]:
    """Datastore and path of ``[datastore] path``.

    Raises:
        DiskUnreadable: It is none.
    """
    matched = _PATH.match(path)
    if matched is None:
        raise DiskUnreadable(f"'{path}' is no path in a datastore")
    return matched[1], matched[2]


def refuse_chain(found: Sequence[DeviceDisk], machine: str) -> None:
    """Make sure that no disk lies over another file.

    Raises:
        Unsupported: One does.
    """
    for one in found:
        if one.below is not None:
            raise Unsupported(
                f"disk '{one.name}' of '{machine}' lies over '{one.below}', as a machine with "
                "snapshots has it: such files can't be read by the datastore's interface",
                "remove the machine's snapshots and consolidate its disks; then run it again",
            )


def extent_of(descriptor: str, path: str, size: int) -> str:
    """The file beside its descriptor that has the bytes of a disk.

    Args:
        descriptor: Content of the ``.vmdk`` file.
        path: Of that file.
        size: Of the disk, in bytes.

    Raises:
        Unsupported: They are not in one flat file.
        DiskUnreadable: The descriptor is none, or of a disk of another size.
    """
    extents = _EXTENT.findall(descriptor)
    if not extents:
        raise DiskUnreadable(f"'{path}' is not the descriptor of a disk")
    if len(extents) > 1:
        raise Unsupported(f"'{path}' consists of {len(extents)} files, which can't be read here")
    _, sectors, kind, name = extents[0]
    if kind not in ("VMFS", "FLAT") or not name:
        raise Unsupported(f"'{path}' is of the kind {kind}, which can't be read as it lies")
    if ":" in name or "/" in name:
        raise Unsupported(
            f"'{path}' has its content in '{name}', which is no file: it lies in vSAN or vVols",
            "move the disk to a datastore of the kind VMFS or NFS",
        )
    if int(sectors) * SECTOR != size:
        raise DiskUnreadable(
            f"'{path}' is of {int(sectors) * SECTOR} bytes by its descriptor, and of {size} by "
            "the machine",
        )
    return f"{path.rpartition('/')[0]}/{name}".lstrip("/")


def _disk(device: Any, controller: Any) -> DeviceDisk:
    backing = device.backing
    file = str(getattr(backing, "fileName", "") or "")
    size = int(device.capacityInBytes or (device.capacityInKB or 0) * 1024)
    matched = _PATH.match(file)
    parent = getattr(backing, "parent", None)
    disk = Disk(
        name=_name(device, controller),
        size=size,
        place=file or str(getattr(backing, "deviceName", "") or "nowhere"),
        format="vmdk" if matched else "block",
        left_out=_why_not(device),
    )
    below = None
    if parent is not None:
        below = str(parent.fileName)
    elif isinstance(backing, _CHAINED):
        below = file
    return DeviceDisk(
        disk=disk,
        key=int(device.key),
        datastore=matched[1] if matched else "",
        path=matched[2] if matched else "",
        below=below,
        identity=str(getattr(backing, "uuid", "") or ""),
        change_id=str(getattr(backing, "changeId", "") or ""),
    )


def _name(device: Any, controller: Any) -> str:
    for kind, bus in _BUSES:
        if isinstance(controller, kind):
            return f"{bus}{controller.busNumber}-{device.unitNumber}"
    return f"disk-{device.key}"


def _why_not(device: Any) -> str | None:
    """Why a disk can't be held, in words; None where it can."""
    backing = device.backing
    mode = str(getattr(backing, "diskMode", "") or "")
    if isinstance(backing, _MAPPED):
        how = "physical" if str(backing.compatibilityMode) == "physicalMode" else "virtual"
        return f"it is a raw device, mapped in {how} mode: back it up from within the guest"
    if mode.startswith("independent"):
        return f"its mode is {mode}: no snapshot holds it"
    if str(getattr(backing, "sharing", "") or "") == "sharingMultiWriter":
        return "other machines write it, too: no snapshot holds it"
    if getattr(backing, "keyId", None) is not None:
        return "it is encrypted by its vCenter: its file can't be read without that key"
    if not isinstance(backing, (_FLAT, *_CHAINED)):
        kind = type(backing).__name__.rpartition("VirtualDisk")[2].lstrip(".")
        return f"it is of the kind {kind or 'unknown'}, which is no file of a datastore"
    return None
