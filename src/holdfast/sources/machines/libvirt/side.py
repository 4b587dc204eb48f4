"""What differs between a libvirt of this machine and one of another: who opens files, and how.

Must not decide what is backed up. Invariant: what is left of a backup bears the name of its
directory on the proxy, which is locked for as long as that backup lives.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.sources.machines.labels import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from holdfast.engine import DiskMap
    from holdfast.sources.machines.domain_xml import DomainDisk
    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.new_disks import NewDisk
    from holdfast.sources.machines.provider import (
        DiskWriter,
        NewMachine,
        Remark,
        SnapshotOrder,
    )
    from holdfast.sources.nbd.qemu_nbd import Served
    from holdfast.sources.nbd.wire import Address


class Ground(Protocol):
    """Where one backup of a machine that runs has its NBD server and its scratch files."""

    @property
    def address(self) -> Address:
        """Where the server is reached from here."""
        ...

    @property
    def flags(self) -> int:
        """For `virDomainBackupBegin`."""
        ...

    def server(self) -> str:
        """The server, as libvirt's XML has it; another one each time where it may be taken."""
        ...

    def scratch(self, disk: str) -> str:
        """Path of a disk's scratch file, where QEMU runs."""
        ...

    def prepare(self, domain: Any, sizes: dict[str, int]) -> None:
        """Make what has to be there before the backup begins.

        Raises:
            HoldfastError: It can't be made.
        """
        ...

    def reach(self) -> None:
        """Make sure that the server, which runs now, is reached.

        Raises:
            HoldfastError: It is not; why.
        """
        ...

    def room(self, used: int) -> None:
        """Make sure that the scratch files have room to grow.

        Args:
            used: Bytes that they take, as QEMU counts them.

        Raises:
            NoSpace: They have not, or take more than is allowed.
        """
        ...


class OffDisk(Protocol):
    """A disk of a machine that is off."""

    def info(self) -> dict[str, Any]:
        """What `qemu-img info` says of it."""
        ...

    def map(self, size: int, alive: Callable[[], None]) -> DiskMap | None:
        """Where its content lies in files of this machine; None where that can't be told.

        Args:
            size: Of the disk.
            alive: Called meanwhile.

        Raises:
            DiskUnreadable: Some of it lies beyond the end of its file.
        """
        ...

    def serving(self, bitmap: str | None) -> AbstractContextManager[Served]:
        """Have it served for the time of the block, with one of its bitmaps."""
        ...


class Making(Protocol):
    """Files of a machine that is being made."""

    def path(self, name: str) -> str:
        """Where a file of that name will be."""
        ...

    def disk(self, new: NewDisk, write: DiskWriter) -> None:
        """Make a disk, and have it written."""
        ...

    def file(self, name: str, data: bytes) -> None:
        """Make a small file."""
        ...

    def hand_over(self) -> None:
        """The machine is about to be defined: its disks are its own."""
        ...

    def undo(self) -> None:
        """Take away all that was made, but for disks with which the same restore goes on."""
        ...

    def throw_away(self) -> list[str]:
        """Take away the disks of restores that did not come to their end; which those were."""
        ...


class Side(Protocol):
    """Who opens the files of a libvirt's machines. Thread-safe."""

    def ground(
        self, order: SnapshotOrder, sources: Sequence[DomainDisk]
    ) -> AbstractContextManager[Ground]:
        """Have a ground for the time of the block."""
        ...

    def lives(self, backup: Any) -> bool | None:
        """Whether the proxy of a backup lives; None where that can't be known here."""
        ...

    def clear(self, domain: Any, backup: Any, prefix: str, order: SnapshotOrder | None) -> None:
        """Take away the files of a backup that ended, and of earlier ones of that site.

        Args:
            domain: Of the machine.
            backup: As libvirt described it; None where there was none.
            prefix: How names of directories of that site's backups begin.
            order: Of the backup that is about to begin; None where there is none.
        """
        ...

    def leftovers(self) -> list[str]:
        """Take away files of backups that died here, of whatever site; what those were."""
        ...

    def off_disk(
        self, source: DomainDisk, what: str, scratch: Path
    ) -> AbstractContextManager[OffDisk]:
        """Have a disk of a machine that is off, for the time of the block."""
        ...

    def state(self, source: DomainDisk) -> object:
        """What changes when somebody writes a disk of a machine that is off.

        Of a block device, what the kernel counts: each node for it has times of its own, and a
        machine may have its own nodes.
        """
        ...

    def bitmap_tool(self) -> Callable[[Sequence[str], str], bytes] | None:
        """`qemu-img`, for files of machines that are off; None where there is none."""
        ...

    def file(self, path: str) -> bytes:
        """A small file, such as a firmware's settings.

        Raises:
            HoldfastError: It can't be read.
        """
        ...

    def making(self, order: NewMachine) -> AbstractContextManager[Making]:
        """Have a place for the files of a new machine, for the time of the block."""
        ...

    def try_out(
        self, machine: Machine, wanted: Sequence[DomainDisk], scratch: Path
    ) -> list[Remark]:
        """What is in the way of a backup, of all that differs between sides."""
        ...


def writes_of_device(told: str) -> tuple[str, ...]:
    """How many sectors of a block device the kernel wrote and discarded so far.

    Args:
        told: The device's file ``stat``, see `Documentation/block/stat.rst` of the kernel. How
            many writes there were is not looked at: a flush counts as one that writes nothing.
    """
    fields = told.split()
    return tuple(fields[at] for at in (6, 13) if at < len(fields))


def name_of(backup: Any) -> str:
    """The name of the directory of a backup of ours; empty for somebody else's."""
    if backup is None:
        return ""
    for path in scratch_files(backup):
        place = PurePosixPath(path)
        for word in (place.parent.name, place.name.partition(".")[0]):
            if word.startswith(f"{PREFIX}-"):
                return word
    return ""


def scratch_files(backup: Any) -> list[str]:
    """Paths of a backup's scratch files."""
    found = (one.get("file") for one in backup.iterfind("disks/disk/scratch"))
    return [one for one in found if one]
