"""The program `qemu-nbd`: the one reader and writer of formats of virtual disks.

Must not guess a format: every file is opened with the driver that it is said to have, since the
first bytes of a raw disk are its guest's to write. Invariants: the process does not outlive its
block, nor the process that began it, whatever becomes of that; its socket is reached by this user
alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import (
    HoldfastError,
    InputOutput,
    NotFound,
    TooSlow,
    Unreachable,
    Unsupported,
)
from holdfast.sources import places, supervised
from holdfast.sources.nbd import client
from holdfast.sources.nbd.qemu_errors import true_cause
from holdfast.sources.nbd.wire import Address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PREFIX = "holdfast-nbd-"
_LOG_BYTES = 64 * 1024
_FINISH_S = 600

Node = dict[str, Any]
"""What qemu calls a block node: a driver, its options, and the nodes beneath it."""


def file_node(path: str | Path) -> Node:
    """A regular file, or a block device, by its absolute path."""
    place = os.fspath(Path(path).absolute())
    kind = "host_device" if Path(place).is_block_device() else "file"
    return {"driver": kind, "filename": place}


def image_node(
    path: str | Path, image_format: str, *, backing: Node | None = None, **options: object
) -> Node:
    """An image of a format, over the file that it lies in.

    Args:
        path: Of the file.
        image_format: What qemu calls it: ``qcow2``, ``raw``, ``vmdk``, ``vpc``, ``vhdx``, ``vdi``.
        backing: What it lies over, if its format can; without it nothing is, whatever its own
            header names.
        options: More of its driver's.
    """
    node: Node = {"driver": image_format, "file": file_node(path), **options}
    if image_format in ("qcow2", "qed", "qcow", "vmdk", "parallels"):
        node["backing"] = backing
    return node


@dataclass(frozen=True, slots=True)
class Served:
    """A disk that a `qemu-nbd` process has.

    Attributes:
        address: Where; its default export, of the empty name.
        log: What the process says.
        process: Its supervisor.
    """

    address: Address
    log: Path
    process: subprocess.Popen[bytes]
    what: str

    def check(self) -> None:
        """Make sure that the process is there.

        Raises:
            HoldfastError: It ended, and why as far as it said so.
        """
        if self.process.poll() is not None:
            raise ended(self)


@contextlib.contextmanager
def serving(
    node: Node,
    what: str,
    *,
    writable: bool = False,
    shared: int = 8,
    snapshot: str | None = None,
    bitmap: str | None = None,
    start_s: float = 60.0,
) -> Iterator[Served]:
    """Have a disk served for the time of the block.

    Args:
        node: The disk, see `image_node`.
        what: Its name in messages.
        writable: Whether clients may write; else nothing of it is changed.
        shared: How many clients at once.
        snapshot: An internal snapshot to be read instead of the present, by id or name.
        bitmap: A persistent dirty bitmap of it that clients may ask for.
        start_s: How long it may take to open.

    Raises:
        Busy: Something else has the disk open, such as a machine that runs.
        NotFound: The file, or one that it lies over, is missing.
        NoPermission: This user may not read it.
        DiskUnreadable: It is not what it is said to be, or damaged.
        Unsupported: There is no qemu-nbd here, or it does not know the format.
        TooSlow: It is not opened in time.
    """
    with places.private_directory(_PREFIX) as directory:
        command = [program("qemu-nbd"), f"--socket={directory / 'socket'}"]
        command += words(node, writable=writable, shared=shared, snapshot=snapshot, bitmap=bitmap)
        with (directory / "log").open("wb") as log:
            process = supervised.begin(command, plain_environment(), stderr=log)
        served = Served(Address(str(directory / "socket")), directory / "log", process, what)
        try:
            wait_until_open(served, start_s)
            yield served
            if writable:
                _finish(served)
        finally:
            supervised.end(process)


def words(
    node: Node,
    *,
    writable: bool = False,
    shared: int = 8,
    snapshot: str | None = None,
    bitmap: str | None = None,
) -> list[str]:
    """What `qemu-nbd` is told besides its socket, see `serving`."""
    found = ["--persistent", f"--shared={shared}"]
    found += ["--discard=unmap"] if writable else ["--read-only"]
    found += [f"--load-snapshot={snapshot}"] if snapshot is not None else []
    found += [f"--bitmap={bitmap}"] if bitmap is not None else []
    return [*found, f"json:{json.dumps(node)}"]


def program(name: str) -> str:
    """Where one of qemu's programs is.

    Raises:
        Unsupported: It is not installed.
    """
    if (found := shutil.which(name)) is None:
        raise Unsupported(
            f"this machine has no {name}, by which disks of machines are read",
            hint="install qemu's tools: Debian's package qemu-utils",
        )
    return found


def plain_environment() -> dict[str, str]:
    """What qemu's programs are run with: their messages are in English."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def clear_leftovers() -> list[Path]:
    """Take away directories of processes that were killed; which those were.

    Their `qemu-nbd` ended with them.
    """
    return places.clear(_PREFIX)


def wait_until_open(served: Served, start_s: float = 60.0) -> None:
    """Wait until a process has its disk.

    Raises:
        HoldfastError: It ended, and why; or it is not ready in time.
    """
    until, pause = time.monotonic() + start_s, 0.002
    while time.monotonic() < until:
        served.check()
        # It listens before it has opened the disk, and greets after.
        with contextlib.suppress(Unreachable, NotFound, TooSlow):
            client.list_exports(served.address, connect_s=until - time.monotonic())
            return
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    raise TooSlow(
        f"{served.what} could not be opened within {start_s:g} seconds",
        hint="see whether the storage that it lies on answers",
    )


def ended(served: Served) -> HoldfastError:
    """Why a process ended, as far as it said so."""
    said = _tail(served.log)
    status = served.process.returncode
    if said:
        return true_cause(said, served.what)
    return InputOutput(
        f"qemu-nbd ended with status {status} while it had {served.what}",
        hint="the system's log may tell whether it was killed, for example for lack of memory",
    )


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
        return file.read().decode(errors="replace")


def _finish(served: Served) -> None:
    """Let the process write out what it has in memory."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(served.process.pid, signal.SIGTERM)
    try:
        status = served.process.wait(timeout=_FINISH_S)
    except subprocess.TimeoutExpired as error:
        raise TooSlow(
            f"{served.what} could not be written out within {_FINISH_S} seconds",
            hint="see whether the storage that it lies on answers",
        ) from error
    if status:
        raise ended(served)


def run_img(arguments: Sequence[str], what: str, *, timeout_s: float = 120.0) -> bytes:
    """Run `qemu-img`.

    Args:
        arguments: After the program's name.
        what: The disk that it is about, in messages.
        timeout_s: How long it may take.

    Returns:
        What it writes to standard output.

    Raises:
        HoldfastError: It failed; the true cause.
    """
    try:
        done = subprocess.run(
            [program("qemu-img"), *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=plain_environment(),
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TooSlow(
            f"qemu-img was not done with {what} within {timeout_s:g} seconds",
            hint="see whether the storage that it lies on answers",
        ) from error
    if done.returncode:
        raise true_cause(done.stderr[-_LOG_BYTES:].decode(errors="replace"), what)
    return done.stdout
