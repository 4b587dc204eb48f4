"""From a master's work with virtual machines to what is done, on whichever side of the wire.

Must not know where the pool is: its ends are handed in. Invariants: what is kept of a job on the
worker's disk is gone when it ends; credentials are in no message, error or log of ours.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base import labels
from holdfast.base.errors import Invalid, NoPermission, Unsupported, storage_error
from holdfast.base.ids import SourceName
from holdfast.engine import DiskSink
from holdfast.movers.machines.backup_run import MachineOrder, run_machine_backup
from holdfast.movers.machines.instant import discard_machine, move_machine, serve_machine
from holdfast.movers.machines.restore_run import (
    MachineRestoreOrder,
    run_machine_restore,
    throw_away_machine,
)
from holdfast.sources.machines.providers import Credentials, open_provider
from holdfast.sources.nbd.client import connect, sockets
from holdfast.sources.nbd.protocol import ALLOCATION, Flags
from holdfast.wire.messages import WorkEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.base.clock import Clock
    from holdfast.engine import Image
    from holdfast.movers.drive import Reporter
    from holdfast.movers.machines.backup_run import Destination
    from holdfast.movers.machines.instant import Image as InstantImage
    from holdfast.movers.machines.instant import Tell
    from holdfast.movers.machines.restore_run import StoredMachine
    from holdfast.sources.machines.machine import Disk
    from holdfast.sources.machines.provider import DiskTarget, Part, Provider, Remark
    from holdfast.sources.nbd.wire import Address
    from holdfast.wire.machine_work import InstantWork, MachineRestoreWork, MachineWork, Reached

    Note = Callable[[WorkEvent], None]

_SCRATCH = "machine-"

WRITTEN_HERE = ("raw", "qcow2", "vmdk", "vhdx", "vdi")
"""Formats of files that the engine writes itself; others a `qemu-nbd` writes."""
CONNECTIONS = 4
"""To each NBD server that is written to, where it allows several."""

KEEP_BYTES = 256 << 20
"""After so much of a disk, or of a large one after so large a part, it is flushed and noted."""
_KEPT_PARTS = 64
_MOST_KEEP_BYTES = 2 << 30
_ZERO = 2


def back_up_machine(
    work: MachineWork,
    destination: Destination,
    scratch: Path,
    clock: Clock,
    report: Reporter,
    note: Note,
) -> Image:
    """Do a backup of a virtual machine.

    Args:
        work: Which, and how.
        destination: Where the image goes.
        scratch: Directory for what guests overwrite meanwhile, where the work names none; it is
            made where it is missing.
        clock: By which images are dated.
        report: Takes the counters; None while there are none.
        note: Takes what a person may want to know.

    Raises:
        HoldfastError: It failed, and the machine goes on as if nothing had been.
    """
    provider = _open(work.reached, work.hypervisor)
    with scratch_directory(
        Path(work.scratch) if work.scratch is not None else scratch
    ) as directory:
        order = MachineOrder(
            uuid=work.machine,
            source=SourceName(work.source),
            host=work.client,
            scratch=directory,
            scratch_bytes=work.scratch_bytes,
            label=_label(work),
            quiesce=work.quiesce,
            require_quiesce=work.require_quiesce,
            trim_s=work.trim_s,
            leave_out=work.leave_out,
            keep=work.keep,
            compression=work.compression,
            read_all=work.read_all,
            labels=work.labels,
        )
        done = run_machine_backup(
            provider, order, destination, clock, lambda one: note(_event(one)), report
        )
    if done.frozen_s:
        message = f"'{work.name}' stood still for {done.frozen_s:.2f} s"
        note(WorkEvent("info", "frozen", message))
    return done.image


def restore_machine(
    work: MachineRestoreWork, image: StoredMachine, report: Reporter, note: Note
) -> None:
    """Make a virtual machine of an image, on a hypervisor or in a directory.

    Raises:
        HoldfastError: It failed; its disks stay as far as they are written, and the same work goes
            on with them.
    """
    if work.to_dir is not None:
        _make_target(Path(work.to_dir))
        provider = open_provider("diskfiles", work.to_dir)
    else:
        provider = _open(work.reached, work.hypervisor)
    if work.unfinished == "discard":
        for path in throw_away_machine(provider, image, work.name, work.storage):
            note(WorkEvent("info", "thrown-away", f"'{path}' of an unfinished restore is gone"))
        return
    order = MachineRestoreOrder(
        name=work.name,
        keep_identity=work.keep_identity,
        networks=work.networks,
        storage=work.storage,
        format=work.format,
        start=work.start,
        disks=work.disks,
        verify=work.verify,
        image=work.image,
        restart=work.unfinished == "restart",
    )
    done = run_machine_restore(
        provider, image, order, connected, report, lambda one: note(_event(one))
    )
    for one in done.remarks:
        note(_event(one))
    message = f"'{done.machine.name}' was made, with uuid {done.machine.uuid}"
    note(WorkEvent("info", "machine-made", message))


def instant(
    work: InstantWork,
    image: InstantImage | None,
    tell: Tell,
    alive: Callable[[], None],
    note: Note,
) -> None:
    """Do something about a virtual machine that runs from its image.

    Args:
        work: What.
        image: What it runs from; None where that is not read.
        tell: Takes what is counted.
        alive: To be called again and again; raises if the work is to stop.
        note: Takes what a person may want to know.

    Raises:
        HoldfastError: It failed.
    """
    provider = _open(work.reached, work.hypervisor)
    if work.step == "migrate":
        move_machine(provider, work, tell, alive, note)
    elif work.step == "discard":
        discard_machine(provider, work, alive, note)
    elif image is None:
        raise Unsupported(f"image {work.image} can't be read from here")
    else:
        serve_machine(provider, image, work, tell, alive, note)


@contextlib.contextmanager
def connected(disk: Disk, target: DiskTarget, part: Part) -> Iterator[DiskSink]:
    """What writes a disk of which a part may be written: the engine itself, or to a server."""
    if target.path is None or target.format not in WRITTEN_HERE:
        with target.serve() as served, _served(served.address, part) as sink:
            yield sink
        return
    sink = DiskSink.image(
        str(target.path),
        target.format,
        size=disk.size,
        begin=part.begin,
        keep_bytes=_keep_bytes(disk.size),
    )
    try:
        yield sink
    finally:
        sink.close()


def _keep_bytes(size: int) -> int:
    return max(KEEP_BYTES, min(size // _KEPT_PARTS, _MOST_KEEP_BYTES))


@contextlib.contextmanager
def _served(address: Address, part: Part) -> Iterator[DiskSink]:
    stale = [] if part.is_new else _not_zero(address, part.begin)
    with sockets(address, count=CONNECTIONS, writing=True) as ready:
        size = ready.export.size
        sink = DiskSink.nbd(
            ready.fds,
            size=size,
            structured=ready.export.structured,
            can_zero=bool(ready.export.flags & Flags.SEND_WRITE_ZEROES),
            can_flush=bool(ready.export.flags & Flags.SEND_FLUSH),
            one_flush=bool(ready.export.flags & Flags.CAN_MULTI_CONN),
            fresh=True,
            stale=stale,
            begin=part.begin,
            keep_bytes=_keep_bytes(size),
        )
        try:
            yield sink
        finally:
            sink.close()


def _not_zero(address: Address, begin: int) -> list[tuple[int, int]]:
    """What of a disk may not read as zero, from a place on."""
    connection = connect(address, contexts=[ALLOCATION])
    try:
        size = connection.export.size
        if begin >= size:
            return []
        if not connection.export.contexts:
            return [(begin, size - begin)]
        found = connection.block_status(begin)[ALLOCATION]
        return [(one.offset, one.length) for one in found if not one.flags & _ZERO]
    finally:
        connection.close()


def _open(reached: Reached | None, name: str | None) -> Provider:
    if reached is None:
        raise Invalid(f"nobody said how hypervisor '{name}' is reached")
    return open_provider(reached.provider, reached.url, Credentials(**reached.credentials))


def _make_target(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise Invalid(f"'{directory}' is not a directory", "restore into a directory") from error
    except PermissionError as error:
        raise NoPermission(f"may not make '{directory}'") from error
    except OSError as error:
        raise storage_error(error)(f"can't make '{directory}': {error.strerror}") from error


@contextlib.contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """A directory of this job's own, gone afterwards; those of processes that died go first."""
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in parent.glob(f"{_SCRATCH}*"):
            if not _is_at_work(left.name):
                shutil.rmtree(left, ignore_errors=True)
        prefix = f"{_SCRATCH}{os.getpid()}-"
        made = tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True)
    except PermissionError as error:
        raise NoPermission(f"may not make scratch files in '{parent}'") from error
    except OSError as error:
        raise storage_error(error)(
            f"can't make scratch files in '{parent}': {error.strerror}"
        ) from error
    with made as directory:
        # QEMU may run as another user: it gets through, to what is given to it in there by name.
        Path(directory).chmod(0o711)
        yield Path(directory)


def _is_at_work(scratch: str) -> bool:
    """Whether the process that made a scratch directory is still there."""
    number = scratch.removeprefix(_SCRATCH).partition("-")[0]
    return not number.isdecimal() or Path("/proc", number).exists()


def _label(work: MachineWork) -> str:
    """Who orders it, as leftovers are named: ``<site>-<job>``."""
    site, _, job = work.labels.get(labels.JOB, f"nobody/{work.machine}").partition("/")
    return f"{_word(site)}-{_word(job.partition('/')[0])}"


def _word(text: str) -> str:
    """A text as a word that any hypervisor can name something by."""
    return re.sub(r"[^A-Za-z0-9]+", "", text)


def _event(remark: Remark) -> WorkEvent:
    about = remark.about
    path = None if about is None else about.encode("utf-8", "surrogateescape")
    return WorkEvent(remark.severity, remark.code, remark.message, path)
