"""What another host has for us, as a shell there tells: libvirt's socket, and qemu's programs.

Must not need them: a host that gives nobody a shell is worked with through libvirt alone.
Invariant: what is begun there ends with the connection to it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import CommandFailed, HoldfastError, TooSlow
from holdfast.sources import places
from holdfast.sources.machines.libvirt.side import writes_of_device
from holdfast.sources.machines.unfinished import LOOK, is_sound
from holdfast.sources.nbd.qemu_errors import true_cause
from holdfast.sources.nbd.qemu_nbd import Served, ended, wait_until_open, words
from holdfast.sources.nbd.wire import Address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.sources.machines.libvirt.address import LibvirtAddress
    from holdfast.sources.machines.libvirt.tunnel import Tunnel
    from holdfast.sources.machines.new_disks import NewDisk
    from holdfast.sources.nbd.qemu_nbd import Node

_SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
_PREFIX = "holdfast-far-"
_FINISH_S = 600.0

_LOOK = """
echo uid $(id -u); echo user $(id -un);
for one in "$@"; do if [ -S "$one" ]; then
if [ -w "$one" ]; then echo open "$one"; else echo closed "$one"; fi; fi; done;
if command -v qemu-nbd >/dev/null && command -v qemu-img >/dev/null; then echo tools yes; fi
"""

# Serves a disk until standard input ends, or says to finish. The directory is of that user alone.
_SERVE = """
umask 077; d=$(mktemp -d "${TMPDIR:-/tmp}/holdfast-nbd.XXXXXXXX") || exit 1; echo "$d"; exec 3<&0;
qemu-nbd --socket="$d/socket" "$@" </dev/null 3<&- >/dev/null & p=$!; exec 4>&1 >/dev/null;
{ read -r word <&3; if [ "$word" = finish ]; then kill -TERM $p; else kill -KILL $p; fi; } & w=$!;
exec 3<&- 4>&-; wait $p; s=$?; kill -KILL $w 2>/dev/null; rm -rf "$d"; exit $s
"""

_WRITES = """
sync "$1" || exit; set -- $(stat -L -c "0x%t 0x%T" "$1"); cat "/sys/dev/block/$(($1)):$(($2))/stat"
"""


@dataclass(frozen=True, slots=True)
class There:
    """What a host told of itself.

    Attributes:
        socket: Of its libvirt.
        found: Whether that was seen; None where no shell told.
        allowed: Whether this user may write to it.
        user: Who we are there; empty where no shell told.
        root: Whether that is root.
        uid: The number of that user; None where no shell told.
        tools: Whether it has qemu's programs.
    """

    socket: str
    found: bool | None = None
    allowed: bool = True
    user: str = ""
    root: bool = False
    uid: int | None = None
    tools: bool = False


def look(tunnel: Tunnel, address: LibvirtAddress) -> There:
    """Ask a host what it has.

    Raises:
        HoldfastError: The connection is lost.
    """
    wanted = [address.options["socket"]] if "socket" in address.options else list(_SOCKETS)
    try:
        said = tunnel.run(script(_LOOK, wanted)).decode(errors="replace")
    except CommandFailed:
        return There(wanted[0])
    told = [line.partition(" ")[::2] for line in said.splitlines()]
    facts = dict(told)
    if "uid" not in facts:
        return There(wanted[0])
    sockets = [(word, path) for word, path in told if word in ("open", "closed")]
    sockets.sort(key=lambda one: one[0] != "open")
    return There(
        socket=sockets[0][1] if sockets else wanted[0],
        found=bool(sockets),
        allowed=not sockets or sockets[0][0] == "open",
        user=facts.get("user", ""),
        root=facts["uid"] == "0",
        uid=int(facts["uid"]) if facts["uid"].isdecimal() else None,
        tools="tools" in facts,
    )


def run_img(tunnel: Tunnel, arguments: Sequence[str], what: str) -> bytes:
    """Run `qemu-img` there; see `qemu_nbd.run_img`.

    Raises:
        HoldfastError: It failed; the true cause.
    """
    try:
        return tunnel.run(["qemu-img", *arguments])
    except CommandFailed as error:
        raise true_cause(error.message.partition(": ")[2], what) from error


def writes_of(tunnel: Tunnel, device: str) -> tuple[str, ...]:
    """What was written to a block device there so far; see `side.writes_of_device`.

    Raises:
        HoldfastError: It can't be looked at.
    """
    return writes_of_device(tunnel.run(script(_WRITES, [device])).decode())


@contextlib.contextmanager
def serving(
    tunnel: Tunnel, node: Node, what: str, *, writable: bool = False, bitmap: str | None = None
) -> Iterator[Served]:
    """Have a disk of that host served for the time of the block; see `qemu_nbd.serving`.

    Raises:
        HoldfastError: It can't be opened there, or what was written can't be written out.
    """
    text = script(_SERVE, words(node, writable=writable, bitmap=bitmap))
    with places.private_directory(_PREFIX) as directory:
        with (directory / "log").open("wb") as log:
            process = tunnel.begin(text, log)
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        there = ""
        try:
            place = process.stdout.readline().decode().strip()
            if not place:
                process.wait(30)
                raise ended(Served(Address(""), directory / "log", process, what))
            there = f"{place}/socket"
            address = Address(tunnel.forward(there))
            served = Served(address, directory / "log", process, what)
            wait_until_open(served)
            yield served
            if writable:
                _finish(served)
        finally:
            if process.stdin is not None and not process.stdin.closed:
                with contextlib.suppress(OSError):
                    process.stdin.close()
            until = time.monotonic() + 5
            while process.poll() is None and time.monotonic() < until:
                time.sleep(0.005)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
            if there:
                tunnel.cancel(there)


def _finish(served: Served) -> None:
    """Let the process write out what it has in memory."""
    stdin = served.process.stdin
    assert stdin is not None  # noqa: S101 - it is a pipe
    with contextlib.suppress(OSError):
        stdin.write(b"finish\n")
        stdin.close()
    try:
        status = served.process.wait(timeout=_FINISH_S)
    except subprocess.TimeoutExpired as error:
        raise TooSlow(
            f"{served.what} could not be written out within {_FINISH_S:g} seconds",
            hint="see whether the storage that it lies on answers",
        ) from error
    if status:
        raise ended(served)


def mended(tunnel: Tunnel, new: NewDisk, what: str) -> bool:
    """See `new_disks.mended`; here qemu alone knows what a file has in it, of whatever format."""
    if new.format == "raw":
        return True
    mending = ["-r", "leaks"] if new.format == "qcow2" else []
    words = ["check", "-q", *mending, "-f", new.format, str(new.path)]
    return is_sound(lambda: run_img(tunnel, words, what))


class FarShelf:
    """See `unfinished.Shelf`: a file of that host; QEMU's lock on disks keeps others out."""

    def __init__(self, tunnel: Tunnel, path: str) -> None:
        """Name it; nothing is made."""
        self._tunnel = tunnel
        self._path = path

    def read(self) -> bytes:
        """See `Shelf.read`."""
        return self._run('if [ -e "$1" ]; then cat "$1"; fi', self._path)

    def append(self, data: bytes) -> None:
        """See `Shelf.append`."""
        self._run('umask 077; cat >> "$1" && sync "$1"', self._path, data=data)

    def clear(self) -> None:
        """See `Shelf.clear`."""
        self.remove(self._path)

    def look(self, path: str) -> str | None:
        """See `Shelf.look`."""
        program, option, form = LOOK
        script = f'if [ -e "$1" ]; then {program} {option} "$2" "$1"; fi'
        return self._run(script, path, form).decode().strip() or None

    def remove(self, path: str) -> None:
        """See `Shelf.remove`."""
        self._run('rm -f "$1"', path)

    def life(self) -> str:
        """See `Shelf.life`: all is flushed."""
        return ""

    def _run(self, script: str, *words: str, data: bytes = b"") -> bytes:
        return self._tunnel.run(["sh", "-c", script, "holdfast", *words], data)


def reason(error: HoldfastError) -> str:
    """What went wrong, with the advice."""
    return f"{error.message} ({error.hint})" if error.hint else error.message


def script(text: str, arguments: Sequence[str]) -> str:
    """A script for whatever shell the user has there."""
    line = " ".join(text.split("\n")).strip()
    return f"exec env LC_ALL=C sh -c {shlex.quote(line)} holdfast {shlex.join(arguments)}"
