"""What every kind of hypervisor is to a backup: one interface, kept by one suite of tests.

Must not know of pools: what reads and writes disks is handed in by, or to, whoever has one.
Invariants: whatever becomes of a backup, nothing of it stays on the hypervisor but the checkpoint
of the last image that was committed; a disk's changes are told only since a checkpoint that is
whole.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from holdfast.engine import DiskSource
    from holdfast.sources.machines.machine import Disk, Machine
    from holdfast.sources.machines.overlays import Moved, Over, Standing
    from holdfast.sources.nbd.qemu_nbd import Served


class Kind(enum.IntEnum):
    """What a range of a disk is to a backup; the numbers are the engine's."""

    HOLE = 0
    """Nothing is allocated, or all of it is zero: costs nothing."""
    DATA = 1
    """To be read."""
    SAME = 2
    """As in the image that the backup follows."""


@dataclass(frozen=True, slots=True)
class Range:
    """A range of a disk, in bytes.

    Invariant of a list of them: ascending, without gaps, from 0 to the size of the disk.
    """

    offset: int
    length: int
    kind: Kind


NOT_TRIMMED: Final = "not-trimmed"
"""Code of the remark that a guest gave nothing back before its backup."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that whoever ordered the backup has to know.

    Attributes:
        severity: ``info``, ``warning`` or ``error``.
        code: Stable word for it: ``bitmap-lost``, ``not-quiesced``, ``disk-left-out``.
        message: The same in a sentence.
        about: The disk that it is about; None for the machine.
    """

    severity: str
    code: str
    message: str
    about: str | None = None


class FrozenDisk(Protocol):
    """A disk as it was at one moment."""

    @property
    def name(self) -> str:
        """As `Disk.name`."""
        ...

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def ranges(self) -> Sequence[Range]:
        """What is to be read: with `SAME` in it only where the changes are known for sure."""
        ...

    def source(self) -> DiskSource:
        """What the engine reads it by; of use until the snapshot is released."""
        ...


class Snapshot(Protocol):
    """A machine as it was at one moment. Thread-safe after it was made."""

    @property
    def machine(self) -> Machine:
        """What was known of it at that moment; disks that were not wanted are `Disk.left_out`."""
        ...

    @property
    def definitions(self) -> dict[str, bytes]:
        """What makes the machine again, files by name: ``domain.xml``, ``nvram``, ``web.vmx``."""
        ...

    @property
    def disks(self) -> Sequence[FrozenDisk]:
        """Those that the image is to hold."""
        ...

    @property
    def checkpoint(self) -> str | None:
        """What the next backup names to be told the changes since this one; None for never."""
        ...

    @property
    def remarks(self) -> Sequence[Remark]:
        """What happened on the way."""
        ...

    @property
    def frozen_s(self) -> float:
        """How long the guest stood still, in seconds."""
        ...

    def check(self) -> None:
        """Make sure that what is read is still that moment.

        Raises:
            HoldfastError: It no longer is; the backup is to fail.
        """
        ...

    def keep_checkpoint(self) -> None:
        """The image stands: the next backup follows this one. Without it the last one is followed.

        Called once, before the snapshot is released.
        """
        ...


@dataclass(frozen=True, slots=True)
class SnapshotOrder:
    """How a machine is to be frozen.

    Attributes:
        uuid: Which.
        since: Checkpoint of the image that this backup follows; None: everything is read.
        quiesce: Ask the guest's agent to bring its file systems to rest.
        require_quiesce: Fail where that can't be; else it is a remark.
        scratch: A directory for what the guest overwrites while its disks are read.
        scratch_bytes: How much of that there may be; 0 for as much as the directory holds.
        label: Who orders it, in a word that leftovers are known by: ``<site>-<job>``.
        leave_out: Names of disks that are not wanted.
        keep: Checkpoints that other images of this site are still followed by, as where two
            policies have the same machine; all others of the site go.
        trim_s: Have the guest trim its file systems before it is frozen, and wait so long for it;
            0 for not. Whatever becomes of that is a remark.
    """

    uuid: str
    since: str | None
    quiesce: bool
    require_quiesce: bool
    scratch: Path
    label: str
    scratch_bytes: int = 0
    leave_out: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    trim_s: int = 0


def ignore(_: Remark) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class NewMachine:
    """A machine that is to be made of a backup.

    Attributes:
        machine: As it was. Its disks that are left out are not in the image, and not to be made.
        definitions: `Snapshot.definitions` as they were.
        name: What it is to be called.
        keep_identity: With its uuid and MAC addresses; else it gets new ones.
        networks: What its cards are connected to, for all of them; None: as they were; empty: to
            nothing.
        storage: Where its disks go: a pool or datastore of the host, or a directory; None for the
            host's usual place.
        format: Of its disks: ``qcow2``, ``raw``, and what else the provider can.
        uuid: What a new identity is to have; None for one that is drawn.
        image: Of which image the disks are, by which a restore is known again that did not come to
            its end; None where nothing is to stay of one.
        restart: Begin anew, and throw away what such a restore left.
        verify: Read back what is copied to its place, and compare it.
        tell: Takes what a person may want to know at once.
    """

    machine: Machine
    definitions: dict[str, bytes]
    name: str
    keep_identity: bool
    networks: tuple[str, ...] | None
    storage: str | None
    format: str
    uuid: str | None = None
    image: str | None = None
    restart: bool = False
    verify: bool = False
    tell: Callable[[Remark], None] = ignore


class Part(Protocol):
    """How much of a new disk is written."""

    @property
    def begin(self) -> int:
        """All before was written by an earlier try, and outlasts a loss of power."""
        ...

    @property
    def is_new(self) -> bool:
        """Whether the rest reads as zero; else it may be anything."""
        ...

    def keep(self, until: int) -> None:
        """Note that all before was flushed: another try begins there."""
        ...


@dataclass(frozen=True, slots=True)
class WholePart:
    """See `Part`: of a disk that is written in one go, or not at all."""

    begin: int = 0
    is_new: bool = True

    def keep(self, until: int) -> None:
        """See `Part.keep`: nobody goes on from there."""


@dataclass(frozen=True, slots=True)
class DiskTarget:
    """Where a new disk is written: its file is there, and holds what `Part` says.

    Attributes:
        format: Of the file.
        path: Of the file, if it is one of this machine that may be written without a server.
        serve: Has an NBD server show the disk as its only export (of the empty name) for the time
            of the block.
    """

    format: str
    path: Path | None
    serve: Callable[[], AbstractContextManager[Served]]


class DiskWriter(Protocol):
    """Writes one disk of a new machine."""

    def __call__(self, disk: Disk, target: DiskTarget, part: Part, /) -> None:
        """Write the rest of it.

        Args:
            disk: As it was.
            target: Where.
            part: How much of it is there.

        Raises:
            HoldfastError: It can't be written.
        """
        ...


class Provider(Protocol):
    """One hypervisor, or one manager of many. Thread-safe."""

    def machines(self) -> Sequence[Machine]:
        """All of them.

        Raises:
            HoldfastError: Nobody answers, or the credentials are wrong; the true cause.
        """
        ...

    def machine(self, uuid: str) -> Machine:
        """One of them, looked at anew.

        Raises:
            NotFound: There is none of that uuid.
        """
        ...

    def try_out(
        self, uuid: str, scratch: Path, *, trim: bool = False, leave_out: Collection[str] = ()
    ) -> Iterable[Remark]:
        """Look whether a backup of the machine would come to pass; changes nothing for good.

        Args:
            uuid: Which.
            scratch: As in `SnapshotOrder`.
            trim: Look, too, whether it would have the guest trim, and get anything of it.
            leave_out: As in `SnapshotOrder`.
        """
        ...

    def snapshot(
        self, order: SnapshotOrder, alive: Callable[[], None] = lambda: None
    ) -> AbstractContextManager[Snapshot]:
        """Freeze a machine, and let it go on at once; its disks can be read until the end.

        Leftovers of an earlier backup of it that died are taken away first.

        Args:
            order: How.
            alive: Called while that takes time; what it raises ends it.
        """
        ...

    def restore(self, order: NewMachine, write: DiskWriter) -> Machine:
        """Make a machine, off, and have its disks written.

        Raises:
            AlreadyExists: There is one of its name, or of the uuid that is to be kept; or another
                restore of that name is unfinished.
            HoldfastError: It can't be made. Of an order with an image the disks stay as far as they
                were written, and the same order goes on with them; else nothing of it stays.
        """
        ...

    def throw_away(self, order: NewMachine) -> Sequence[str]:
        """Take away what restores of a machine of that name left there; which files those were.

        Raises:
            Busy: One is at work.
        """
        ...

    def start(self, uuid: str) -> None:
        """Start a machine."""
        ...

    def clean_up(self) -> Sequence[Remark]:
        """Take away what dead backups left: checkpoints, scratch files, jobs; what that was."""
        ...

    def start_over(self, order: NewMachine, over: Over) -> Machine:
        """Make a machine whose disks lie over served ones, and start it.

        Done a second time, it finishes what the first one left, and starts what is off.

        Args:
            order: As for `restore`, with the uuid that `over` names; its disks are served.
            over: How it is named from now on.

        Raises:
            AlreadyExists: There is another one of its name or uuid.
            Unsupported: This kind of hypervisor can't.
            HoldfastError: It can't be made or started; nothing of it stays.
        """
        ...

    def standing(self, over: Over) -> Standing:
        """How it is with a machine that was started over served disks.

        Raises:
            MachineMissing: There is none.
        """
        ...

    def go_on(self, over: Over) -> None:
        """Have a guest that stands still go on, after its disks can be read again."""
        ...

    def migrate(
        self, over: Over, moved: Callable[[Moved], None], alive: Callable[[], None] = lambda: None
    ) -> None:
        """Bring all that a machine reads from its image into disks of its own, while it runs.

        Done again, it goes on with what it finds under way.

        Args:
            over: Which.
            moved: Told how far it is.
            alive: Called all the while; what it raises ends the waiting, and not the move.

        Raises:
            MachineMissing: There is none.
            WrongState: It is off.
            HypervisorError: It stopped before its end.
        """
        ...

    def discard(self, over: Over) -> None:
        """Stop such a machine and take all of it away, whole or half made; or what is left of it.

        Raises:
            WrongState: It needs its image no more: it is its own.
        """
        ...

    def carrying(self, over: Over) -> AbstractContextManager[Callable[[], None]]:
        """Have what is served here be reached where the machine runs, for the time of the block.

        Yields:
            What sees to it: to be called before a machine is begun, and again and again while it
            needs its image. Raises `HoldfastError` where that is not possible now; why.
        """
        ...

    def reads_as(self) -> int | None:
        """The user, by number, whose process reads served disks; None for this process's own."""
        ...
