"""The ways by which a worker moves data: what an agent asks of them, whoever made them.

Must not do the work. Invariant: a worker without a way for some work says so in words, and fails
that job alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from holdfast.base.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.engine import Image, RestoreResult
    from holdfast.movers.backup_run import BackupOrder
    from holdfast.movers.drive import Reporter
    from holdfast.movers.machines.file_restore import FileRestore
    from holdfast.movers.restore_run import RestoreOrder
    from holdfast.wire.machine_work import (
        BootCheckWork,
        InstantWork,
        MachineRestoreWork,
        MachineWork,
    )
    from holdfast.wire.messages import SiteWork, WorkEvent

    Alive = Callable[[], None]
    Note = Callable[[WorkEvent], None]


class BackUp(Protocol):
    """Takes a backup into the storage of this machine's site."""

    def __call__(self, order: BackupOrder, report: Reporter, /) -> Image:
        """Back up; raises `HoldfastError`."""
        ...


class Restore(Protocol):
    """Restores from the storage of this machine's site."""

    def __call__(self, order: RestoreOrder, report: Reporter, /) -> RestoreResult | FileRestore:
        """Restore; raises `HoldfastError`."""
        ...


class ForSite(Protocol):
    """Does what is to be done for the site as a whole."""

    def __call__(
        self, work: SiteWork, report: Reporter, alive: Callable[[], None], /
    ) -> list[WorkEvent]:
        """Do it; raises `HoldfastError`.

        Args:
            work: What.
            report: Takes the counters of a verb of the engine.
            alive: To be called again and again where there are none; raises if the work is to
                stop.

        Returns:
            What a person may want to know of it.
        """
        ...


class BackUpMachine(Protocol):
    """Takes a backup of a virtual machine."""

    def __call__(self, work: MachineWork, report: Reporter, alive: Alive, note: Note, /) -> Image:
        """Back it up; raises `HoldfastError`.

        Args:
            work: Which, and how.
            report: Takes the counters of a verb of the engine.
            alive: To be called again and again where there are none; raises if the work is to
                stop.
            note: Takes what a person may want to know, also of a backup that then fails.
        """
        ...


class RestoreMachine(Protocol):
    """Makes a virtual machine of an image."""

    def __call__(
        self, work: MachineRestoreWork, report: Reporter, alive: Alive, note: Note, /
    ) -> None:
        """Make it; raises `HoldfastError`. See `BackUpMachine`."""
        ...


class CheckBoot(Protocol):
    """Boots a virtual machine from its image, and judges it."""

    def __call__(self, work: BootCheckWork, report: Reporter, alive: Alive, note: Note, /) -> None:
        """Boot it; raises `HoldfastError`. See `BackUpMachine`."""
        ...


class Instant(Protocol):
    """Does something about a virtual machine that runs from its image."""

    def __call__(
        self,
        work: InstantWork,
        tell: Callable[[Mapping[str, int]], None],
        alive: Alive,
        note: Note,
        /,
    ) -> None:
        """Do it; raises `HoldfastError`.

        Args:
            work: What.
            tell: Takes what is counted.
            alive: As for `BackUpMachine`, and so the last.
            note: See there.
        """
        ...


def no_instant(
    work: InstantWork, _tell: Callable[[Mapping[str, int]], None], _alive: Alive, _note: Note, /
) -> None:
    """For a worker that reaches no hypervisor."""
    raise Unsupported(f"virtual machine '{work.name}' can't run from its image here")


def no_backup_of_machines(
    work: MachineWork, _report: Reporter, _alive: Alive, _note: Note, /
) -> Image:
    """For a worker that reaches no hypervisor."""
    raise Unsupported(f"virtual machine '{work.name}' can't be backed up from here")


def no_restore_of_machines(
    work: MachineRestoreWork, _report: Reporter, _alive: Alive, _note: Note, /
) -> None:
    """For a worker that reaches no hypervisor."""
    raise Unsupported(f"no virtual machine can be made of image {work.image} from here")


def no_boot_checks(work: BootCheckWork, _report: Reporter, _alive: Alive, _note: Note, /) -> None:
    """For a worker that boots nothing."""
    raise Unsupported(f"image {work.image} can't be booted from here")


class Ways(NamedTuple):
    """How a worker moves data.

    Attributes:
        back_up: How it takes a backup of files.
        restore: How it restores files.
        back_up_machine: How it takes a backup of a virtual machine.
        restore_machine: How it makes one of an image.
        check_boot: How it boots one from its image, and judges it.
        instant: How it has one run from its image.
    """

    back_up: BackUp
    restore: Restore
    back_up_machine: BackUpMachine = no_backup_of_machines
    restore_machine: RestoreMachine = no_restore_of_machines
    check_boot: CheckBoot = no_boot_checks
    instant: Instant = no_instant
