"""Have a virtual machine run from its image: serve its disks for as long as it needs them.

Must not decide when it is moved: that is other work. Invariants: of one machine there is one
server at a time in a process, at the same address whoever serves; that it can't be served never
touches what the machine wrote; once it was up it is never made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base.errors import NoPermission, WrongState, storage_error
from holdfast.movers.machines.image_watch import ImageWatch
from holdfast.movers.machines.patient import patient
from holdfast.movers.machines.record import disk_path, read_definitions, read_record
from holdfast.movers.machines.restore_run import with_what_there_is
from holdfast.movers.machines.standing_by import StandingBy
from holdfast.sources.machines.overlays import PLACE, Over
from holdfast.sources.machines.provider import NewMachine
from holdfast.sources.nbd.server import shown
from holdfast.sources.nbd.wire import Address
from holdfast.wire.messages import WorkEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from holdfast.movers.machines.patient import Opens
    from holdfast.sources.machines.overlays import Moved
    from holdfast.sources.machines.provider import Provider
    from holdfast.wire.machine_work import InstantWork

    Alive = Callable[[], None]
    Note = Callable[[WorkEvent], None]
    Tell = Callable[[Mapping[str, int]], None]

_WAIT_S = 0.2
_PATIENT_S = 15.0

_turns: dict[str, threading.Lock] = {}
_turn = threading.Lock()


def socket_of(label: str) -> str:
    """Where the disks of a machine are served, by this user's processes."""
    return f"{PLACE}-{os.geteuid()}/{label}/nbd"


def over_of(work: InstantWork) -> Over:
    """How the machine of some work is named to its hypervisor."""
    return Over(work.machine, work.name, socket_of(work.label), work.storage, work.format)


@dataclass(frozen=True, slots=True)
class Image:
    """The image that a machine runs from.

    Attributes:
        open_file: Opens a file of it.
        ask: Reads something of it that nobody keeps in memory; raises `HoldfastError`.
    """

    open_file: Opens
    ask: Callable[[], object]


def serve_machine(
    provider: Provider, image: Image, work: InstantWork, tell: Tell, alive: Alive, note: Note
) -> None:
    """Serve the disks of an image until the machine needs them no more; begin it, if it was not.

    Args:
        provider: Its hypervisor.
        image: What it runs from.
        work: What was ordered.
        tell: Takes what is counted, see `UP` and the others.
        alive: Called all the while; what it raises ends the serving, and not the machine.
        note: Takes what a person may want to know.

    Raises:
        PathMissing: It is no image of a machine.
        MachineMissing: The machine was up, and is gone.
        HoldfastError: It can't be begun; nothing of it stays.
    """
    open_file = image.open_file
    record = read_record(open_file)
    machine, remarks = with_what_there_is(open_file, record.machine, ())
    disks = {
        one.name: patient(open_file, disk_path(one.name), one.size)
        for one in machine.disks
        if one.left_out is None
    }
    for one in remarks:
        note(WorkEvent(one.severity, one.code, one.message))
    over = over_of(work)
    failed: list[str] = []

    def troubled(name: str, error: Exception) -> None:
        if len(failed) < 1:
            note(WorkEvent("warning", "not-read", f"disk '{name}' could not be read: {error}"))
        failed.append(name)

    new = NewMachine(
        machine=machine,
        definitions=read_definitions(open_file, record),
        name=work.name,
        keep_identity=work.keep_identity,
        networks=work.networks,
        storage=work.storage,
        format="qcow2",
        uuid=None if work.keep_identity else work.machine,
    )
    with (
        _alone(work.label, alive),
        _directory(over.socket, provider.reads_as()) as owner,
        ImageWatch(image.ask) as watch,
        shown(
            dict(disks),
            Address(path=over.socket),
            troubled=troubled,
            admits=lambda: not watch.away_s,
        ),
        provider.carrying(over) as keep,
    ):
        _hand_over(Path(over.socket), owner)
        if not work.begun:
            alive()
            keep()
            provider.start_over(new, over)

        def let_go() -> None:
            for one in disks.values():
                one.let_go()

        StandingBy(provider, over, keep, watch, let_go, tell, alive, note, failed)()


def move_machine(
    provider: Provider, work: InstantWork, tell: Tell, alive: Alive, note: Note
) -> None:
    """Move a machine that runs from its image onto disks of its own.

    Raises:
        HoldfastError: It came to no end; done again, it goes on where it was.
    """
    done: dict[str, int] = {}

    def moved(how_far: Moved) -> None:
        done.update(size_bytes=how_far.done, bytes_total=how_far.total)
        tell(done)

    provider.migrate(over_of(work), moved, alive)
    note(WorkEvent("info", "moved", f"'{work.name}' needs its image no more"))


def discard_machine(provider: Provider, work: InstantWork, alive: Alive, note: Note) -> None:
    """Stop a machine that runs from its image, and take away all of it.

    Raises:
        WrongState: It needs its image no more.
        HoldfastError: It could not be done; done again, it goes on where it was.
    """
    over = over_of(work)
    with _alone(work.label, alive):
        provider.discard(over)
        _remove(Path(over.socket))
    note(WorkEvent("info", "discarded", f"'{work.name}' was stopped and taken away"))


@contextlib.contextmanager
def _alone(label: str, alive: Alive) -> Iterator[None]:
    """Wait until nobody else in this process serves or discards the same machine."""
    with _turn:
        lock = _turns.setdefault(label, threading.Lock())
    while not lock.acquire(timeout=_WAIT_S):
        alive()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _directory(socket: str, reader: int | None) -> Iterator[int | None]:
    """Have the directory of a socket for the time of the block; who reads there is given back."""
    directory = Path(socket).parent
    owner = reader if reader is not None and reader != os.geteuid() else None
    held = _prepared(directory, owner)
    try:
        yield owner
    finally:
        _remove(Path(socket))
        os.close(held)


def _prepared(directory: Path, owner: int | None) -> int:
    """Make the directory of a socket; an open file that is locked as long as it is this process's.

    Raises:
        HoldfastError: It can't be made, or another process has it.
    """
    try:
        home = _home(directory.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        held = os.open(home / f"{directory.name}.lock", flags, 0o600)
        try:
            # A process that is ending may have it a moment longer.
            _lock(held, directory)
            directory.mkdir(mode=0o700, exist_ok=True)
            (directory / "nbd").unlink(missing_ok=True)
            if owner is not None:
                os.chown(directory, owner, -1)
        except BaseException:
            os.close(held)
            raise
    except PermissionError as error:
        raise NoPermission(
            f"may not give QEMU's user the socket in '{directory}'",
            "run Holdfast as root on the hypervisor's host, or as the user that QEMU runs as",
        ) from error
    except OSError as error:
        raise storage_error(error)(f"'{directory}' can't be made: {error.strerror}") from error
    return held


def _lock(held: int, directory: Path) -> None:
    until_s = time.monotonic() + _PATIENT_S
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > until_s:
                raise WrongState(f"another process serves what '{directory}' is for") from error
            time.sleep(_WAIT_S)
        else:
            return


def _home(home: Path) -> Path:
    """The directory of all sockets of this user, which nobody else can have put there."""
    with contextlib.suppress(FileExistsError):
        home.mkdir(mode=0o711)
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise NoPermission(
            f"'{home}' is another user's, or others may write to it", "remove it, and try again"
        )
    return home


def _hand_over(socket: Path, owner: int | None) -> None:
    if owner is not None:
        try:
            os.chown(socket, owner, -1)
        except PermissionError as error:
            raise NoPermission(
                f"may not give QEMU's user the socket '{socket}'",
                "run Holdfast as root on the hypervisor's host, or as the user that QEMU runs as",
            ) from error


def _remove(socket: Path) -> None:
    """Take away what there was for a socket that is needed no more."""
    with contextlib.suppress(OSError):
        socket.unlink(missing_ok=True)
        socket.parent.rmdir()
    with contextlib.suppress(OSError):
        (socket.parent.parent / f"{socket.parent.name}.lock").unlink()
