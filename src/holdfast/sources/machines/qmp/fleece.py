"""Put a filter above a disk that keeps what it was, show that by NBD, and take all of it out again.

Must not decide when. QEMU's ``copy-before-write`` copies what the guest is about to overwrite into
a scratch file, and ``snapshot-access`` reads the disk as it was. Should the scratch file have no
room, the filter gives the snapshot up (``break-snapshot``) and the guest never notices. Scratch
files have no name and go to QEMU as open files: nothing of them outlives the filter, whoever dies.

Of a range that begins where the guest has written and ends where it has not, QEMU's filter calls
the beginning unwritten (``hbitmap_status``, seen in 7.2): it reads there what the guest wrote, and
says that it is empty where the guest has zeroed it. So no read may cross a border of `GRAIN`, the
unit in which the filter copies; and what is said to be empty is believed only where the guest has
not written since (`written`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    Busy,
    HypervisorError,
    HypervisorRefused,
    NoSpace,
    TooSlow,
    storage_error,
)
from holdfast.sources.machines.labels import PREFIX
from holdfast.sources.machines.qmp import bitmaps
from holdfast.sources.nbd import client
from holdfast.sources.nbd.protocol import DIRTY_BITMAP

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from holdfast.sources.machines.qmp.devices import Device
    from holdfast.sources.machines.qmp.monitor import Monitor
    from holdfast.sources.nbd.extents import Extent
    from holdfast.sources.nbd.wire import Address

GRAIN = 64 << 10
"""What the filter copies at a time, in bytes; ``block-copy``'s unit for a raw scratch file."""

_SERVER = f"{PREFIX}-nbd"
_COPY_TIMEOUT_S = 30
"""How long a guest's write waits for a scratch file that hangs, before the snapshot is given up."""
_GONE_TIMEOUT_S = 60.0


def scratch_file(directory: Path, size: int) -> int:
    """Make a sparse file without a name.

    Returns:
        Its descriptor.

    Raises:
        StorageError: It can't be made there.
    """
    try:
        made = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(made, size)
        except BaseException:
            os.close(made)
            raise
    except OSError as error:
        raise storage_error(error)(
            f"no scratch file of {size} bytes can be made in '{directory}': {error.strerror}"
        ) from error
    return made


def prepare(monitor: Monitor, at: int, scratch: int) -> None:
    """Give QEMU the scratch file of disk number `at`."""
    handed = monitor.execute("add-fd", {"opaque": PREFIX}, fds=(scratch,))
    monitor.execute(
        "blockdev-add",
        {
            "driver": "file",
            "node-name": _scratch(at),
            "filename": f"/dev/fdset/{handed['fdset-id']}",
            "locking": "off",
        },
    )


def take_back(monitor: Monitor, at: int) -> None:
    """Have QEMU let go of the scratch file of disk number `at`, which no filter has yet."""
    monitor.execute("blockdev-del", {"node-name": _scratch(at)})


def insert(monitor: Monitor, at: int, device: Device) -> None:
    """Have the disk kept as it is now. From here on the guest's writes are copied first."""
    monitor.execute(
        "blockdev-add",
        {
            "driver": "copy-before-write",
            "node-name": _filter(at),
            "file": device.node,
            "target": _scratch(at),
            "on-cbw-error": "break-snapshot",
            "cbw-timeout": _COPY_TIMEOUT_S,
        },
    )
    monitor.execute("qom-set", {"path": device.path, "property": "drive", "value": _filter(at)})


def listen(monitor: Monitor, path: str) -> None:
    """Have QEMU answer NBD at a new socket that this user alone may use.

    Raises:
        Busy: Somebody else has QEMU serve something; it has one server only.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        before = os.umask(0o177)
        try:
            made.bind(path)
        finally:
            os.umask(before)
        made.listen(64)
        monitor.execute("getfd", {"fdname": _SERVER}, fds=(made.fileno(),))
    try:
        monitor.execute("nbd-server-start", {"addr": {"type": "fd", "data": {"str": _SERVER}}})
    except HypervisorRefused as refusal:
        raise Busy(
            f"the QEMU at '{monitor.path}' serves disks for somebody else: {refusal.reason}",
            "wait until a migration or another backup of the machine is done",
        ) from refusal


def show(monitor: Monitor, at: int, device: Device, *, frozen: bool, changes: bool) -> str:
    """Show a disk as it was.

    Args:
        monitor: Of the machine.
        at: Its number.
        device: The disk.
        frozen: Whether it is one with a filter; else it can't change, and is shown as it is.
        changes: Whether the copy of its bitmap is to be had, too.

    Returns:
        The name of the export.
    """
    node = device.node
    if frozen:
        node = _access(at)
        monitor.execute(
            "blockdev-add",
            {"driver": "snapshot-access", "node-name": node, "file": _filter(at)},
        )
    listed = [{"node": device.node, "name": bitmaps.READING}] if changes else []
    monitor.execute(
        "block-export-add",
        {
            "type": "nbd",
            "id": f"{PREFIX}-{at}",
            "node-name": node,
            "name": device.disk.name,
            "writable": False,
            "bitmaps": listed,
        },
    )
    return device.disk.name


def written(monitor: Monitor, at: int, device: Device, since: str, server: Address) -> list[Extent]:
    """What the guest has written to a disk with a filter since a bitmap began; `DIRTY` is written.

    Args:
        monitor: Of the machine.
        at: The disk's number.
        device: The disk.
        since: The bitmap.
        server: Where QEMU answers NBD.
    """
    name = f"{PREFIX}-written-{at}"
    bitmaps.remove_if_there(monitor, device, bitmaps.WRITTEN)
    bitmaps.copy_for_reading(monitor, device, since, bitmaps.WRITTEN)
    try:
        monitor.execute(
            "block-export-add",
            {
                "type": "nbd",
                "id": name,
                "node-name": _access(at),
                "name": name,
                "writable": False,
                "bitmaps": [{"node": device.node, "name": bitmaps.WRITTEN}],
            },
        )
        context = f"{DIRTY_BITMAP}{bitmaps.WRITTEN}"
        connection = client.connect(server, name, contexts=[context])
        try:
            return connection.block_status()[context]
        finally:
            connection.close()
    finally:
        _stop_showing(monitor, [name])
        bitmaps.remove_if_there(monitor, device, bitmaps.WRITTEN)


def remove_all(monitor: Monitor, alive_s: float = _GONE_TIMEOUT_S) -> list[str]:
    """Take out whatever a backup put into a QEMU, this one or one that died.

    Bitmaps of checkpoints stay.

    Returns:
        What there was, in words.

    Raises:
        HoldfastError: Something of it can't be taken out.
    """
    found: list[str] = []
    exports = [one["id"] for one in monitor.execute("query-block-exports")]
    ours = [one for one in exports if str(one).startswith(PREFIX)]
    _stop_showing(monitor, ours, alive_s)
    found += [f"export {name}" for name in ours]
    nodes = _nodes(monitor)
    if ours or any(name.startswith(PREFIX) for name in nodes):
        if len(ours) == len(exports):
            with contextlib.suppress(HypervisorRefused):  # it did not get as far as to start
                monitor.execute("nbd-server-stop")
        found += _unplug(monitor, nodes)
    for one in monitor.execute("query-fdsets"):
        if any(str(fd.get("opaque", "")) == PREFIX for fd in one["fds"]):
            with contextlib.suppress(
                HypervisorRefused
            ):  # QEMU still has it open, and drops it with that
                monitor.execute("remove-fd", {"fdset-id": one["fdset-id"]})
    return found


def _stop_showing(
    monitor: Monitor, exports: Collection[str], alive_s: float = _GONE_TIMEOUT_S
) -> None:
    for name in exports:
        with contextlib.suppress(HypervisorRefused):  # it was going already
            monitor.execute("block-export-del", {"id": name, "mode": "hard"})
    until = time.monotonic() + alive_s
    while any(one["id"] in exports for one in monitor.execute("query-block-exports")):
        if time.monotonic() > until:
            raise TooSlow(f"the QEMU at '{monitor.path}' does not stop serving a disk")
        time.sleep(0.005)


def _unplug(monitor: Monitor, nodes: Collection[str]) -> list[str]:
    found: list[str] = []
    for name in [one for one in nodes if one.startswith(f"{PREFIX}-access")]:
        monitor.execute("blockdev-del", {"node-name": name})
        found.append(f"block node {name}")
    beneath = _beneath(monitor)
    for block in monitor.execute("query-block"):
        root = str((block.get("inserted") or {}).get("node-name", ""))
        if not root.startswith(f"{PREFIX}-filter"):
            continue
        if root not in beneath:
            raise HypervisorError(
                f"the filter '{root}' can't be taken out of the QEMU at '{monitor.path}'",
                "shut the machine down and start it; its data is not concerned",
            )
        monitor.execute(
            "qom-set", {"path": block["qdev"], "property": "drive", "value": beneath[root]}
        )
    for kind in ("filter", "scratch"):
        for name in [one for one in nodes if one.startswith(f"{PREFIX}-{kind}")]:
            monitor.execute("blockdev-del", {"node-name": name})
            found.append(f"block node {name}")
    return found


def _nodes(monitor: Monitor) -> set[str]:
    return {str(one.get("node-name", "")) for one in monitor.execute("query-named-block-nodes")}


def _beneath(monitor: Monitor) -> dict[str, str]:
    """What lies under each filter: the edges of QEMU's graph of blocks."""
    graph = monitor.execute("x-debug-query-block-graph")
    names = {one["id"]: str(one.get("name", "")) for one in graph["nodes"]}
    return {
        names.get(edge["parent"], ""): names.get(edge["child"], "")
        for edge in graph["edges"]
        if edge["name"] == "file"
    }


def room(directory: Path, scratch: Collection[int], most: int) -> None:
    """Make sure that scratch files do not take more than they may.

    Raises:
        NoSpace: They do.
    """
    used = sum(os.fstat(one).st_blocks * 512 for one in scratch)
    if most and used > most:
        raise NoSpace(
            f"the scratch files in '{directory}' take {used} bytes, and {most} are allowed",
            "allow more, or back the machine up when it writes less",
        )


def _scratch(at: int) -> str:
    return f"{PREFIX}-scratch-{at}"


def _filter(at: int) -> str:
    return f"{PREFIX}-filter-{at}"


def _access(at: int) -> str:
    return f"{PREFIX}-access-{at}"
