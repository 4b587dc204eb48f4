"""Make a virtual machine of its backup, on a hypervisor or in a directory.

Must not know what kind of hypervisor it is. Invariants: disks are written before anybody can start
the machine; where one can't be written, there is no machine, and no more stays than disks by which
the same restore goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from holdfast.base.errors import NotFound, PathMissing
from holdfast.base.units import format_size
from holdfast.movers.drive import drive
from holdfast.movers.machines.record import disk_path, read_definitions, read_record
from holdfast.sources.machines.provider import NewMachine, Remark

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from holdfast.engine import Counters, DiskSink, RestoreResult
    from holdfast.movers.drive import Drivable, Reporter
    from holdfast.movers.machines.record import StoredFile
    from holdfast.sources.machines.machine import Disk, Machine
    from holdfast.sources.machines.provider import DiskTarget, Part, Provider


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
        image: Of which image, by which a restore that was interrupted is known again; None where
            nothing is to stay of one.
        restart: Begin anew, and throw away what such a restore left.
    """

    name: str | None = None
    keep_identity: bool = True
    networks: tuple[str, ...] | None = None
    storage: str | None = None
    format: str | None = None
    start: bool = False
    disks: tuple[str, ...] = ()
    verify: bool = False
    image: str | None = None
    restart: bool = False


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
    """Connects to a disk that is to be written."""

    def __call__(
        self, disk: Disk, target: DiskTarget, part: Part, /
    ) -> AbstractContextManager[DiskSink]:
        """What the engine writes by, until the end.

        Args:
            disk: As it was.
            target: Where it is written.
            part: How much of it is.
        """
        ...


def run_machine_restore(
    provider: Provider,
    image: StoredMachine,
    order: MachineRestoreOrder,
    connect: Connects,
    report: Reporter | None = None,
    tell: Callable[[Remark], None] = lambda _: None,
) -> RestoredMachine:
    """Make a machine of its backup, and wait for it; go on with one that was interrupted.

    Args:
        provider: Makes it.
        image: Of what.
        order: How.
        connect: Connects to its disks.
        report: Takes the counters.
        tell: Takes what a person may want to know at once.

    Raises:
        PathMissing: It is no image of a machine.
        NotFound: It has no disk of a name that is wanted.
        AlreadyExists: There is one of its name, or of its uuid and it was to keep that.
        Cancelled: Interrupted.
        HoldfastError: It can't be made. Of an order with an image its disks stay as far as they are
            written; else nothing does.
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
    parts: dict[str, Part] = {}

    def write(disk: Disk, target: DiskTarget, part: Part) -> None:
        nonlocal written
        if disk.name in parts:
            message = f"disk '{disk.name}' could not be reached, and is tried again"
            tell(Remark("warning", "disk-server-lost", message, disk.name))
        elif part.begin:
            message = (
                f"disk '{disk.name}' is continued: {format_size(part.begin)} of "
                f"{format_size(disk.size)} were already there"
            )
            tell(Remark("info", "continued", message, disk.name))
        parts[disk.name] = part
        with connect(disk, target, part) as sink:

            def reported(counters: Counters | None) -> None:
                part.keep(sink.kept_until)
                if report is not None:
                    report(counters)

            run = image.write_disk(disk_path(disk.name), sink, verify=order.verify)
            result = drive(run, reported)
        written += result.bytes

    new = NewMachine(
        machine=machine,
        definitions=read_definitions(image.open_file, record),
        name=order.name or machine.name,
        keep_identity=order.keep_identity,
        networks=order.networks,
        storage=order.storage,
        format=order.format or "qcow2",
        image=order.image,
        restart=order.restart,
        verify=order.verify,
        tell=tell,
    )
    try:
        made = provider.restore(new, write)
    except BaseException:
        if kept := sum(one.begin for one in parts.values()):
            message = (
                f"{format_size(kept)} of the disks stay: the same restore goes on from there, "
                "one with --discard throws them away"
            )
            tell(Remark("info", "kept", message))
        raise
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


def throw_away_machine(
    provider: Provider, image: StoredMachine, name: str | None, storage: str | None
) -> Sequence[str]:
    """Take away what restores of a machine left that did not come to their end.

    Args:
        provider: Where.
        image: Of what.
        name: That it was to have; None for the one that it had.
        storage: Where its disks were to go; None for the usual place.

    Returns:
        Paths of what is gone.

    Raises:
        Busy: One is at work.
    """
    machine = read_record(image.open_file).machine
    new = NewMachine(
        machine=machine,
        definitions={},
        name=name or machine.name,
        keep_identity=True,
        networks=None,
        storage=storage,
        format="qcow2",
    )
    return provider.throw_away(new)
