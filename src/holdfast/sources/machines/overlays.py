"""Disks that take a machine's writes, and lie over disks of its image that are served over NBD.

Must not serve, nor know what runs the machine. Invariants: an overlay names the socket that it
reads from, so that whose it is can be told from the file alone; what does not is never touched.
"""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from holdfast.base.errors import AlreadyExists, HypervisorError, Unsupported, WrongState
from holdfast.sources.nbd.qemu_nbd import program, run_img

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from holdfast.sources.machines.machine import Disk, Machine, State
    from holdfast.sources.machines.new_disks import NewDisk
    from holdfast.sources.machines.provider import DiskWriter, NewMachine

PLACE = "/var/tmp/holdfast-instant"  # noqa: S108 - a directory of this user alone: who uses it looks
"""Where sockets are, with this user's number behind it: a socket's path has a hundred bytes at
most, has to be the same after a restart of the machine, and QEMU's user has to get there."""

RECONNECT_S = 20
"""How long QEMU waits for a server that is gone before it lets a read fail. Where the guest then
stands still, it goes on as soon as there is one again."""

FORMATS = ("qcow2", "raw")
_INFO_S = 60


@dataclass(frozen=True, slots=True)
class Over:
    """A machine that runs from its image, as whoever began it names it.

    Attributes:
        uuid: Of the machine.
        name: What it is called.
        socket: Path of the UNIX socket where its disks are served, each an export of its name.
        storage: Where its own disks are, as `NewMachine.storage`.
        format: Of the disks that it has in the end: ``qcow2`` or ``raw``.
    """

    uuid: str
    name: str
    socket: str
    storage: str | None = None
    format: str = "qcow2"


@dataclass(frozen=True, slots=True)
class Standing:
    """How it is with such a machine now.

    Attributes:
        state: What it does.
        needs: Names of disks that still read from the image.
        stuck: Whether it stands still since a disk could not be read or written.
    """

    state: State
    needs: tuple[str, ...]
    stuck: bool = False


@dataclass(frozen=True, slots=True)
class Moved:
    """How far the move of a machine's disks is, in bytes of all that were begun."""

    done: int
    total: int


def node(socket: str, export: str) -> dict[str, Any]:
    """What QEMU reads a served disk by."""
    return {
        "driver": "raw",
        "file": {
            "driver": "nbd",
            "server": {"type": "unix", "path": socket},
            "export": export,
            "reconnect-delay": RECONNECT_S,
        },
    }


def create(path: Path, disk: Disk, socket: str, what: str) -> None:
    """Make a file that is an overlay over what is served as a disk.

    Raises:
        HoldfastError: It can't be made.
    """
    backing = f"json:{json.dumps(node(socket, disk.name))}"
    words = ["create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", backing]
    run_img([*words, str(path), str(disk.size)], what)


def maker(socket: str) -> Callable[[NewDisk, DiskWriter], None]:
    """What makes a new disk an overlay, where `new_disks.write_disk` writes one whole."""

    def make(new: NewDisk, _write: DiskWriter) -> None:
        if new.path.exists() and not reads_from(new.path, socket):
            raise AlreadyExists(f"there is a file '{new.path}'", "give the machine another name")
        what = f"disk '{new.disk.name}' at '{new.path}'"
        try:
            create(new.path, new.disk, socket, what)
        except BaseException:
            with contextlib.suppress(OSError):
                new.path.unlink()
            raise

    return make


def reads_from(path: Path, socket: str) -> bool:
    """Whether a file is an overlay over what is served there."""
    words = [program("qemu-img"), "info", "-U", "-f", "qcow2", "--output=json", str(path)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_INFO_S, check=False)
        told = json.loads(done.stdout) if done.returncode == 0 else {}
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return False
    return names(str(told.get("backing-filename", "")), socket)


def names_in(header: bytes, socket: str) -> bool:
    """Whether a file that begins so is an overlay over what is served there."""
    if len(header) < 20 or header[:4] != b"QFI\xfb":
        return False
    offset, length = struct.unpack_from(">QI", header, 8)
    return names(header[offset : offset + length].decode(errors="replace"), socket)


def names(text: str, socket: str) -> bool:
    """Whether what QEMU or libvirt says of a disk names the socket, in any way of writing it."""
    plain = text.replace("\\/", "/")
    return f'"{socket}"' in plain or f"socket={socket}" in plain or f"'{socket}'" in plain


def remove_all(directory: Path, over: Over, pattern: str) -> list[Path]:
    """Take away the overlays in a directory, with what was half moved of them; which those were.

    Args:
        directory: Where.
        over: Whose.
        pattern: Of their names, but for the ending.
    """
    gone = []
    for path in sorted(directory.glob(f"{pattern}.qcow2")):
        if path.is_file() and reads_from(path, over.socket):
            with contextlib.suppress(OSError):
                path.with_suffix(".raw").unlink()
            path.unlink(missing_ok=True)
            gone.append(path)
    return gone


def refuse_move_while_off(over: Over) -> NoReturn:
    """Say that only a machine that runs is moved."""
    raise WrongState(
        f"machine '{over.name}' is off: it is moved while it runs",
        "start it at its hypervisor, and move it then, or discard it",
    )


def require_own(over: Over, still: tuple[str, ...]) -> None:
    """Make sure that a machine may be thrown away as one that runs from its image.

    Raises:
        WrongState: It is its own.
    """
    if not still:
        raise WrongState(
            f"machine '{over.name}' no longer needs its image: it is a machine like others",
            "remove it at its hypervisor, if it is not wanted",
        )


def still_needed(over: Over, needs: tuple[str, ...]) -> HypervisorError:
    """The error of a move that came to its end and left something."""
    return HypervisorError(
        f"disks of '{over.name}' still read from the image: {', '.join(needs)}",
        "see that the image is served: 'holdfast instant show'; the move goes on where it was",
    )


class RunsNoImages:
    """What a provider that can't run a machine from its image says of it; see `Provider`."""

    _kind = "this kind of hypervisor"

    def start_over(self, order: NewMachine, over: Over) -> Machine:  # noqa: ARG002
        """Refuse.

        Raises:
            Unsupported: Always; and so do the others.
        """
        self._refuse()

    def standing(self, over: Over) -> Standing:  # noqa: ARG002
        """See `start_over`."""
        self._refuse()

    def go_on(self, over: Over) -> None:  # noqa: ARG002
        """See `start_over`."""
        self._refuse()

    def migrate(
        self,
        over: Over,  # noqa: ARG002
        moved: Callable[[Moved], None],  # noqa: ARG002
        alive: Callable[[], None] = lambda: None,  # noqa: ARG002
    ) -> None:
        """See `start_over`."""
        self._refuse()

    def discard(self, over: Over) -> None:  # noqa: ARG002
        """See `start_over`."""
        self._refuse()

    def carrying(
        self,
        over: Over,  # noqa: ARG002
    ) -> AbstractContextManager[Callable[[], None]]:
        """See `start_over`."""
        self._refuse()

    def reads_as(self) -> int | None:
        """See `start_over`."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise Unsupported(
            f"{self._kind} can't run a machine from its image",
            "a hypervisor of the kind 'libvirt' or 'qmp' can; 'restore-machine' writes whole disks",
        )
