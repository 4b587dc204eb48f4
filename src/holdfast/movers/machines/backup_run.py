"""Back up one virtual machine: freeze it, read what changed, let it go.

Must not touch the catalog: the image that comes back is for the caller to record. Invariants: the
hypervisor is told that the image stands only after it does; ranges that are taken over unread are
those of the very image whose checkpoint the hypervisor was asked about; whatever happens, the
snapshot is released.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from holdfast import __version__
from holdfast.base.errors import HoldfastError, IntegrityError, NewerFormat, NotFound, PathMissing
from holdfast.engine import DiskInput
from holdfast.movers.backup_run import require_compression
from holdfast.movers.drive import drive
from holdfast.movers.machines.record import DEFINITIONS, RECORD, Record, disk_path, read_record
from holdfast.sources.machines.provider import Kind, Range, Remark, SnapshotOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from holdfast.base.clock import Clock
    from holdfast.base.ids import SourceName
    from holdfast.engine import Counters, Image
    from holdfast.movers.drive import Drivable, Reporter
    from holdfast.movers.machines.record import StoredFile
    from holdfast.sources.machines.provider import FrozenDisk, Provider, Snapshot


@dataclass(frozen=True, slots=True)
class MachineOrder:
    """What to back up, and how.

    Attributes:
        uuid: The machine.
        source: The name under which its images follow each other.
        host: What its images are listed under.
        scratch: A directory for what the guest overwrites meanwhile.
        label: Who orders it, in a word that leftovers are known by.
        quiesce: Ask the guest's agent to bring its file systems to rest.
        require_quiesce: Fail where that can't be.
        trim_s: As in `SnapshotOrder`.
        leave_out: Names of disks that are not wanted.
        keep: Checkpoints that images elsewhere are still followed by.
        scratch_bytes: How much of scratch there may be; 0 for as much as there is room.
        compression: zstd level, 1 to 19.
        read_all: Read all that is allocated, whatever an older image has.
        labels: What the image's manifest is to say of who ordered it; see `base.labels`.
    """

    uuid: str
    source: SourceName
    host: str
    scratch: Path
    label: str
    quiesce: bool = True
    require_quiesce: bool = False
    trim_s: int = 0
    leave_out: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    scratch_bytes: int = 0
    compression: int = 2
    read_all: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MachineImage:
    """What came of it.

    Attributes:
        image: As it was committed.
        frozen_s: How long the guest stood still.
    """

    image: Image
    frozen_s: float


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into an image.

    Attributes:
        files: By path.
        disks: With what of them is read.
        source: As in the order.
        host: As in the order.
        compression: As in the order.
        labels: As in the order.
        started_ns: When the machine was about to be frozen.
        software: Who made the image.
    """

    files: dict[str, bytes]
    disks: list[DiskInput]
    source: str
    host: str
    compression: int
    labels: dict[str, str]
    started_ns: int
    software: str = f"holdfast {__version__}"


class Destination(Protocol):
    """A pool, here or far away, that takes one image."""

    def open_parent(self, path: bytes, /) -> StoredFile:
        """A file of the image that this one follows.

        Raises:
            NotFound: There is no such image, or it has no such file.
        """
        ...

    def begin(self, contents: Contents, /, *, follow: bool) -> Drivable[Image]:
        """Begin to store; with `follow`, ranges may be as in the image that this one follows."""
        ...


def run_machine_backup(
    provider: Provider,
    order: MachineOrder,
    destination: Destination,
    clock: Clock,
    tell: Callable[[Remark], None],
    report: Reporter | None = None,
) -> MachineImage:
    """Back up a machine, and wait for it.

    Args:
        provider: What runs it.
        order: What, and how.
        destination: Where to.
        clock: By which images are dated.
        tell: Is told what a person has to know, also of a backup that then fails.
        report: Takes the counters; None while there are none.

    Raises:
        Cancelled: Interrupted; the machine is let go, and a second run sends nothing twice.
        HoldfastError: The backup failed; the pool is as sound as before, and so is the machine.
    """
    require_compression(order.compression)

    def alive() -> None:
        if report is not None:
            report(None)

    since = None if order.read_all else _since(destination, order, tell)
    started_ns = clock.now_ns()
    freezing = SnapshotOrder(
        uuid=order.uuid,
        since=None if since is None else since.checkpoint,
        quiesce=order.quiesce,
        require_quiesce=order.require_quiesce,
        trim_s=order.trim_s,
        scratch=order.scratch,
        scratch_bytes=order.scratch_bytes,
        label=order.label,
        leave_out=order.leave_out,
        keep=order.keep,
    )
    with provider.snapshot(freezing, alive) as snapshot, _telling(snapshot, tell):
        contents, follow = _contents(snapshot, order, since, destination, started_ns)
        run = destination.begin(contents, follow=follow)
        image = drive(run, _watching(snapshot, run, report))
        try:
            snapshot.keep_checkpoint()
        except HoldfastError as error:
            message = f"the next backup reads everything: {error.message}"
            tell(Remark("warning", "checkpoint-not-kept", message))
        return MachineImage(image, snapshot.frozen_s)


@contextlib.contextmanager
def _telling(snapshot: Snapshot, tell: Callable[[Remark], None]) -> Iterator[None]:
    """Tell what the snapshot has to say, however the block ends."""
    try:
        yield
    finally:
        for one in snapshot.remarks:
            tell(one)


def _since(
    destination: Destination, order: MachineOrder, tell: Callable[[Remark], None]
) -> Record | None:
    """The record of the image that this one follows; None where there is none to be relied on."""
    try:
        record = read_record(destination.open_parent)
    except PathMissing as error:
        why = Remark("warning", "no-record", f"everything is read: {error.message}")
    except NotFound:
        return None
    except (IntegrityError, NewerFormat) as error:
        why = Remark("warning", "record-unreadable", f"everything is read: {error.message}")
    else:
        if record.machine.uuid == order.uuid:
            return record
        message = f"everything is read: the image before is of machine {record.machine.uuid}"
        why = Remark("warning", "other-machine", message)
    tell(why)
    return None


def _contents(
    snapshot: Snapshot,
    order: MachineOrder,
    since: Record | None,
    destination: Destination,
    started_ns: int,
) -> tuple[Contents, bool]:
    machine = snapshot.machine
    quiesced = not any(one.code == "not-quiesced" for one in snapshot.remarks)
    record = Record(
        machine=machine,
        checkpoint=snapshot.checkpoint,
        quiesced=order.quiesce and quiesced,
        definitions=tuple(sorted(snapshot.definitions)),
    )
    files = {RECORD: record.to_bytes()}
    files |= {f"{DEFINITIONS}/{name}": data for name, data in snapshot.definitions.items()}
    disks = []
    follow = False
    for disk in snapshot.disks:
        ranges = disk.ranges()
        if any(one.kind is Kind.SAME for one in ranges):
            ranges = _within_parent(ranges, _size_before(since, destination, disk))
            follow = follow or any(one.kind is Kind.SAME for one in ranges)
        plain = [(one.offset, one.length, int(one.kind)) for one in ranges]
        disks.append(
            DiskInput(
                name=disk.name,
                size=disk.size,
                ranges=plain,
                source=disk.source(),
                mtime_ns=started_ns,
            )
        )
    contents = Contents(
        files=files,
        disks=disks,
        source=order.source,
        host=order.host,
        compression=order.compression,
        labels=dict(order.labels),
        started_ns=started_ns,
    )
    return contents, follow


def _size_before(since: Record | None, destination: Destination, disk: FrozenDisk) -> int:
    """How much of a disk the image before has; 0 where it has none of it."""
    if since is None:
        return 0
    try:
        return destination.open_parent(disk_path(disk.name)).size
    except (NotFound, IntegrityError):
        return 0


def _within_parent(ranges: Sequence[Range], size: int) -> list[Range]:
    """Have read what the image before does not hold: it was left out then, or it has grown."""
    found: list[Range] = []
    for one in ranges:
        end = one.offset + one.length
        if one.kind is not Kind.SAME or end <= size:
            found.append(one)
        elif one.offset >= size:
            found.append(Range(one.offset, one.length, Kind.DATA))
        else:
            found.append(Range(one.offset, size - one.offset, Kind.SAME))
            found.append(Range(size, end - size, Kind.DATA))
    return found


def _watching(
    snapshot: Snapshot, run: Drivable[Image], report: Reporter | None
) -> Callable[[Counters | None], None]:
    """Have a run end whose snapshot is no longer what it was; one that has read all stands."""

    def watch(counters: Counters | None) -> None:
        if not run.wait(0):
            snapshot.check()
        if report is not None:
            report(counters)

    return watch
