"""Show that a machine can be read as a backup reads it: put in what a backup puts in, read, let go.

Must not stop or freeze the guest, nor begin a list of changes: nobody keeps what is read.
Invariants: whatever becomes of it, all that was put into QEMU is taken out again, or it is told
that it was not; of who is killed meanwhile nothing stays but what the next backup takes away.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from holdfast.base.errors import (
    Busy,
    HoldfastError,
    HypervisorRefused,
    InputOutput,
    TooSlow,
    storage_error,
)
from holdfast.sources.machines.labels import PREFIX
from holdfast.sources.machines.provider import Remark
from holdfast.sources.machines.qmp import fleece
from holdfast.sources.machines.qmp.devices import devices
from holdfast.sources.machines.qmp.snapshot import PREFIX as PLACE
from holdfast.sources.nbd import client
from holdfast.sources.nbd.wire import Address
from holdfast.sources.places import private_directory

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from holdfast.sources.machines.qmp.devices import Device
    from holdfast.sources.machines.qmp.monitor import Monitor

_PIECE: Final = 512
_READ_S: Final = 15.0
"""How long a few bytes may take: whoever asked for the trial waits for it."""
_GONE_S: Final = 15.0


def tried(monitor: Monitor, scratch: Path, leave_out: Collection[str] = ()) -> list[Remark]:
    """Read a little of each disk as a backup would, one after the other.

    What a backup that died left in QEMU is taken out first: it would be in the way. Nobody else may
    be at work on the machine meanwhile.

    Args:
        monitor: Of the machine.
        scratch: Where what the guest overwrites meanwhile is kept.
        leave_out: Names of disks that are not wanted.

    Returns:
        What is to be told; nothing where all is well.

    Raises:
        Busy: Somebody else has QEMU serve disks.
        HoldfastError: QEMU does not tell its disks, or does not let go of what a dead backup left.
    """
    found = []
    if left := fleece.remove_all(monitor, _GONE_S):
        text = f"of an earlier backup that died was taken away: {', '.join(left)}"
        found.append(Remark("info", "leftover", text))
    for device in devices(monitor):
        if device.disk.left_out is not None or device.disk.name in leave_out:
            continue
        try:
            _read_as_backed_up(monitor, device, scratch, found)
        except Busy:
            raise
        except OSError as error:
            text = f"nothing can be made here that the disk is read by: {error}"
            found.append(Remark("error", "not-readable", text, device.disk.name))
        except HoldfastError as error:
            found.append(Remark("error", "not-readable", reason(error), device.disk.name))
            if isinstance(error, TooSlow) or not monitor.usable:
                break  # nothing else of this QEMU or its storage will be any quicker
    return found


def _read_as_backed_up(
    monitor: Monitor, device: Device, scratch: Path, found: list[Remark]
) -> None:
    with contextlib.ExitStack() as stack:
        kept = fleece.scratch_file(scratch, device.disk.size)
        stack.callback(os.close, kept)
        _write(kept, min(device.disk.size, fleece.GRAIN), scratch)
        socket = str(stack.enter_context(private_directory(PLACE)) / "nbd")
        server = Address(socket)
        stack.enter_context(_taken_out(monitor, device, found))
        # First, for a disk that nobody writes as well: by this node whoever comes after one that
        # was killed knows that the server is of ours.
        fleece.prepare(monitor, 0, kept)
        try:
            fleece.listen(monitor, socket)
        except Busy:
            fleece.take_back(monitor, 0)
            raise
        # Before the filter, which QEMU puts in when nothing is under way: it would wait for storage
        # that hangs.
        _read_files(monitor, device, server)
        if device.writable:
            fleece.insert(monitor, 0, device)
        shown = fleece.show(monitor, 0, device, frozen=device.writable, changes=False)
        _read(server, shown)


@contextlib.contextmanager
def _taken_out(monitor: Monitor, device: Device, found: list[Remark]) -> Iterator[None]:
    """Take out of QEMU all that was put in, whatever happens in the block."""
    failed = True
    try:
        yield
        failed = False
    finally:
        try:
            fleece.remove_all(monitor, _GONE_S)
        except HoldfastError as error:
            if monitor.usable or not failed:  # that QEMU is gone is told once
                text = "what was put in to try it is there until the next backup takes it out"
                text = f"{text}: {reason(error)}"
                found.append(Remark("error", "not-released", text, device.disk.name))


def _write(kept: int, length: int, scratch: Path) -> None:
    try:
        os.pwrite(kept, bytes(length), 0)
    except OSError as error:
        raise storage_error(error)(
            f"scratch files in '{scratch}' can't be written: {error.strerror}"
        ) from error


def _read_files(monitor: Monitor, device: Device, server: Address) -> None:
    """Read a little of every file that the disk is made of, the lowest of its chain first."""
    for number, (node, file) in enumerate(_chain(monitor, device.node)):
        name = f"{PREFIX}-chain-{number}"
        try:
            monitor.execute(
                "block-export-add",
                {"type": "nbd", "id": name, "node-name": node, "name": name, "writable": False},
            )
        except HypervisorRefused:
            continue  # whatever uses it shares it with nobody; that may be right
        try:
            _read(server, name)
        except TooSlow as error:
            raise TooSlow(f"'{file}' can't be read: {error.message}", error.hint) from error
        except HoldfastError as error:
            raise InputOutput(
                f"'{file}' can't be read by the machine's QEMU: {error.message}",
                "see whether it is whole, and whether the storage that it lies on answers",
            ) from error


def _chain(monitor: Monitor, root: str) -> list[tuple[str, str]]:
    """The nodes that a disk's node stands on and itself, lowest first: name, and which file."""
    files = {
        str(one.get("node-name", "")): str(one.get("file", ""))
        for one in monitor.execute("query-named-block-nodes", {"flat": True})
    }
    graph = monitor.execute("x-debug-query-block-graph")
    names = {
        one["id"]: str(one.get("name", ""))
        for one in graph["nodes"]
        if one["type"] == "block-driver"
    }
    below: dict[int, list[int]] = {}
    for edge in graph["edges"]:
        if edge["child"] in names:
            below.setdefault(edge["parent"], []).append(edge["child"])
    order: list[int] = []
    waiting = [(one, False) for one, name in names.items() if name == root]
    while waiting:
        node, is_done = waiting.pop()
        if is_done:
            order.append(node)
        elif node not in order:
            waiting.append((node, True))
            waiting += [(one, False) for one in below.get(node, ())]
    return [(names[one], files.get(names[one]) or names[one]) for one in dict.fromkeys(order)]


def _read(server: Address, name: str) -> None:
    # Without structured replies: where QEMU can't read what it answers in pieces, it hangs up.
    connection = client.connect(
        server, name, structured=False, connect_s=_READ_S, request_s=_READ_S
    )
    try:
        if size := connection.export.size:
            connection.read(0, min(size, _PIECE))
    finally:
        connection.close()


def reason(error: HoldfastError) -> str:
    """What went wrong, with the advice."""
    return f"{error.message} ({error.hint})" if error.hint else error.message
