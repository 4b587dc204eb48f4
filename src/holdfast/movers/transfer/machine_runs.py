"""Virtual machines to a media server on another machine; they, or files on their disks, back.

As `movers.transfer.remote_runs` does files. Invariant: as there, no request is on its way when a
run returns or raises, and an upload that came to no image is given up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from holdfast.base.errors import ImageMissing, IntegrityError, PathMissing, Unsupported
from holdfast.base.ids import ImageId
from holdfast.engine import client_key_of
from holdfast.movers.machines.ends import given
from holdfast.movers.machines.instant import Image as InstantImage
from holdfast.movers.machines.record import read_record
from holdfast.movers.machines.work import back_up_machine, instant, restore_machine
from holdfast.movers.transfer.remote_runs import LinkedRun, linked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from holdfast.base.clock import Clock
    from holdfast.engine import DiskSink, Image, RestoreResult
    from holdfast.movers.drive import Drivable, Reporter
    from holdfast.movers.machines.backup_run import Contents
    from holdfast.movers.machines.file_restore import FileRestore
    from holdfast.movers.machines.record import StoredFile
    from holdfast.movers.restore_run import RestoreOrder
    from holdfast.movers.transfer.client import TransferLink
    from holdfast.movers.transfer.remote_runs import RemotePool, TransferTarget
    from holdfast.wire.machine_work import InstantWork, MachineRestoreWork, MachineWork
    from holdfast.wire.messages import WorkEvent

    Note = Callable[[WorkEvent], None]


def remote_machine_backup(
    target: TransferTarget,
    work: MachineWork,
    scratch: Path,
    clock: Clock,
    report: Reporter,
    note: Note,
) -> Image:
    """Back a virtual machine up to a media server, and wait for it.

    The parent is the one that the token names; that of the work is not looked at.

    Raises:
        Cancelled: Interrupted; a second run sends nothing twice.
        HoldfastError: It failed; the pool is as sound as before, and so is the machine.
    """
    with linked(target) as link:
        opened = link.open_upload(read_all=work.read_all, at_work=lambda: report(None))
        pool = target.remote_pool(opened.terms, link)
        end = _FarDestination(pool, link, opened.parent)
        return back_up_machine(work, end, scratch, clock, report, note)


def remote_machine_restore(
    target: TransferTarget, work: MachineRestoreWork, report: Reporter, note: Note
) -> None:
    """Make a virtual machine of an image of a media server, and wait for it.

    Raises:
        Unsupported: The image is sealed with a client key.
        HoldfastError: It failed; nothing of the machine stays.
    """
    with linked(target) as link:
        manifest = link.manifest(ImageId(work.image))
        if client_key_of(manifest) is not None:
            raise Unsupported("virtual machines are not sealed with client keys")
        pool = target.remote_pool(link.terms(), link)
        restore_machine(work, _FarImage(pool, link, manifest), report, note)


def remote_restore_inside(
    target: TransferTarget, order: RestoreOrder, report: Reporter | None = None
) -> FileRestore | None:
    """Restore files on the disks of a machine whose image a media server has, and wait for it.

    Returns:
        What came of it; None where the order is of no such files, and nothing was done.

    Raises:
        TargetNotEmpty, PathMissing, InputOutput: As `restore_files`.
        Invalid: Some paths are of the image, and some are inside of its disks.
        HoldfastError: The restore failed.
    """
    if not order.paths:
        return None
    with linked(target) as link:
        manifest = link.manifest(order.image)
        if client_key_of(manifest) is not None:
            return None
        pool = target.remote_pool(link.terms(), link)
        try:
            record = read_record(_FarImage(pool, link, manifest).open_file)
        except (PathMissing, IntegrityError):
            # of no machine: a file of that name may be anybody's
            return None
        # What reads file systems is loaded for images of machines alone.
        from holdfast.movers.machines.image_restore import leads_inside, restore_inside
        from holdfast.movers.machines.inside import Inside

        with Inside.of_record(record, lambda path: pool.open_file(manifest, path)) as inside:
            if not leads_inside(inside, order.paths):
                return None
            return restore_inside(inside, order, report)


def remote_instant(
    target: TransferTarget,
    work: InstantWork,
    tell: Callable[[Mapping[str, int]], None],
    alive: Callable[[], None],
    note: Note,
) -> None:
    """Have a virtual machine run from an image of a media server, as long as it needs that.

    Raises:
        Unsupported: The image is sealed with a client key.
        HoldfastError: It failed.
    """
    with linked(target) as link:
        manifest = link.manifest(ImageId(work.image))
        if client_key_of(manifest) is not None:
            raise Unsupported("virtual machines are not sealed with client keys")
        pool = target.remote_pool(link.terms(), link)

        def at_work() -> None:
            _or_cancel(link, alive)

        def counted(counters: Mapping[str, int]) -> None:
            _or_cancel(link, lambda: tell(counters))

        image = InstantImage(
            partial(pool.open_file, manifest), partial(link.manifest, ImageId(work.image))
        )
        instant(work, image, counted, at_work, note)


def _or_cancel(link: TransferLink, ask: Callable[[], None]) -> None:
    """Ask whether to go on; if not, nobody is to wait for what is read just now."""
    try:
        ask()
    except BaseException:
        link.cancel()
        raise


@dataclass(frozen=True, slots=True)
class _FarDestination:
    """See `movers.machines.backup_run.Destination`."""

    pool: RemotePool
    link: TransferLink
    parent: bytes | None

    def open_parent(self, path: bytes, /) -> StoredFile:
        if self.parent is None:
            raise ImageMissing("it follows no image")
        return self.pool.open_file(self.parent, path)

    def begin(self, contents: Contents, /, *, follow: bool) -> Drivable[Image]:
        parent = self.parent if follow else None
        return LinkedRun(self.pool.backup_machine(parent=parent, **given(contents)), self.link)


@dataclass(frozen=True, slots=True)
class _FarImage:
    """See `movers.machines.restore_run.StoredMachine`."""

    pool: RemotePool
    link: TransferLink
    manifest: bytes

    def open_file(self, path: bytes, /) -> StoredFile:
        return self.pool.open_file(self.manifest, path)

    def write_disk(self, path: bytes, to: DiskSink, /, *, verify: bool) -> Drivable[RestoreResult]:
        return LinkedRun(self.pool.restore_disk(self.manifest, path, to, verify=verify), self.link)
