"""Make a virtual machine of its backup, on a hypervisor or in a directory.

Must not know what kind of hypervisor it is. Invariants: disks are written before anybody can start
the machine; where one can't be written, nothing of the machine stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from holdfast.base.errors import NotFound, PathMissing
from holdfast.movers.drive import drive
from holdfast.movers.machines.record import disk_path, read_definitions, read_record
from holdfast.sources.machines.provider import NewMachine, Remark

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from holdfast.engine import DiskSink, RestoreResult
    from holdfast.movers.drive import Drivable, Reporter
    from holdfast.movers.machines.record import StoredFile
    from holdfast.sources.machines.machine import Disk, Machine
    from holdfast.sources.machines.provider import Provider


@dataclass(frozen=True, slots=True)
class MachineRestoreOrder:
    """What a machine is to become.

    Attributes:
        name: What it is to be called; None: as it was.
        keep_identity: With its uuid and MAC addresses; else it gets new ones.
        networks: What its cards are connected to; None: as they were; empty: to nothing.
        storage: Where its disks go; None for the usual place.
        format: Of its disks; None for the usual one.
        start: Start it at the end.
        disks: Names of those that are wanted; none: all.
        verify: Read back what was written, and compare it with the image.
    """

    name: str | None = None
    keep_identity: bool = True
    networks: tuple[str, ...] | None = None
    storage: str | None = None
    format: str | None = None
    start: bool = False
    disks: tuple[str, ...] = ()
    verify: bool = False


@dataclass(frozen=True, slots=True)
class RestoredMachine:
    """What came of it.

    Attributes:
        machine: As the hypervisor has it now.
        bytes: Written to its disks.
        remarks: What a person has to know of it.
    """

    machine: Machine
    bytes: int
    remarks: tuple[Remark, ...]


class StoredMachine(Protocol):
    """An image of a machine, in a pool here or far away."""

    def open_file(self, path: bytes, /) -> StoredFile:
        """A file of the image. Raises `PathMissing` where it has none such."""
        ...

    def write_disk(self, path: bytes, to: DiskSink, /, *, verify: bool) -> Drivable[RestoreResult]:
        """Begin to write a file of the image to a disk."""
        ...


class Connects(Protocol):
    """Connects to the only export of an NBD server."""

    def __call__(self, socket: str, /) -> AbstractContextManager[DiskSink]:
        """What the engine writes by, until the end.

        Args:
            socket: Path of the UNIX socket of a server whose disk reads as zero all over.
        """
        ...


def run_machine_restore(
    provider: Provider,
    image: StoredMachine,
    order: MachineRestoreOrder,
    connect: Connects,
    report: Reporter | None = None,
) -> RestoredMachine:
    """Make a machine of its backup, and wait for it.

    Raises:
        PathMissing: It is no image of a machine.
        NotFound: It has no disk of a name that is wanted.
        AlreadyExists: There is one of its name, or of its uuid and it was to keep that.
        Cancelled: Interrupted; nothing of the machine stays.
        HoldfastError: It can't be made; nothing of it stays.
    """
    record = read_record(image.open_file)
    unknown = set(order.disks) - {disk.name for disk in record.machine.disks}
    if unknown:
        known = ", ".join(disk.name for disk in record.machine.disks)
        raise NotFound(
            f"'{record.machine.name}' has no disk '{min(unknown)}'", f"its disks are: {known}"
        )
    machine, remarks = with_what_there_is(image.open_file, record.machine, order.disks)
    written = 0

    def write(disk: Disk, socket: str) -> None:
        nonlocal written
        with connect(socket) as sink:
            run = image.write_disk(disk_path(disk.name), sink, verify=order.verify)
            result = drive(run, report)
        written += result.bytes

    new = NewMachine(
        machine=machine,
        definitions=read_definitions(image.open_file, record),
        name=order.name or machine.name,
        keep_identity=order.keep_identity,
        networks=order.networks,
        storage=order.storage,
        format=order.format or "qcow2",
    )
    made = provider.restore(new, write)
    if order.start:
        provider.start(made.uuid)
        made = provider.machine(made.uuid)
    return RestoredMachine(made, written, remarks)


def with_what_there_is(
    open_file: Callable[[bytes], StoredFile], machine: Machine, wanted: tuple[str, ...]
) -> tuple[Machine, tuple[Remark, ...]]:
    """A machine with its disks as far as its image holds them; what it does not hold is told.

    Args:
        open_file: Opens a file of the image by its path.
        machine: As it was.
        wanted: Names of the disks that are; none: all.
    """
    disks: list[Disk] = []
    remarks: list[Remark] = []
    for disk in machine.disks:
        if wanted and disk.name not in wanted:
            disks.append(replace(disk, left_out="it is not wanted"))
            continue
        try:
            size = open_file(disk_path(disk.name)).size
        except PathMissing:
            why = disk.left_out or "it was left out of the backup"
            message = f"disk '{disk.name}' is not in the image: {why}"
            remarks.append(Remark("warning", "disk-left-out", message, disk.name))
            disks.append(replace(disk, left_out=why))
        else:
            disks.append(replace(disk, size=size, left_out=None))
    return replace(machine, disks=tuple(disks)), tuple(remarks)
