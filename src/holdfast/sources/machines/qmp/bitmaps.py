"""Which bitmap tells truly what a disk changed since an image, and which are to go.

Must not read a disk. Invariants: a bitmap has the name of one image's checkpoint, drawn at random,
and lies in the very file whose writes it marks; so a disk that was restored, copied back or put in
another's place has none of that name, or one that still tells the truth. A bitmap is made before
the moment it is named for, and goes on marking until a later image is committed: a backup that
fails has nothing to put right.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import HypervisorRefused
from holdfast.sources.machines.labels import PREFIX, owner_of
from holdfast.sources.machines.provider import Remark

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from holdfast.sources.machines.qmp.devices import Device
    from holdfast.sources.machines.qmp.monitor import Monitor

READING = f"{PREFIX}-reading"
"""The bitmap that is shown to who reads: a copy, as it was at the moment."""
WRITTEN = f"{PREFIX}-written"
"""A copy of the new checkpoint's: what was written since the moment, or a little before."""


def why_not(device: Device, checkpoint: str) -> str | None:
    """Why a disk's bitmap can't be trusted to tell what changed; None: it can."""
    for bitmap in device.bitmaps:
        if bitmap.get("name") != checkpoint:
            continue
        if bitmap.get("inconsistent"):
            return "its list of changes is inconsistent, since the machine was not shut down"
        if not bitmap.get("recording"):
            return "its list of changes was switched off"
        return None
    return "its list of changes since the last image is gone"


def add(monitor: Monitor, device: Device, checkpoint: str) -> Remark | None:
    """Begin to mark what a disk changes.

    Returns:
        What is to be told if that can't be.
    """
    arguments = {"node": device.node, "name": checkpoint, "persistent": device.driver == "qcow2"}
    try:
        monitor.execute("block-dirty-bitmap-add", arguments)
    except HypervisorRefused as refusal:
        if not arguments["persistent"]:
            return _untracked(device, refusal.reason)
        try:  # a qcow2 of an old version holds none; this one lasts until the machine is shut down
            monitor.execute("block-dirty-bitmap-add", arguments | {"persistent": False})
        except HypervisorRefused as second:
            return _untracked(device, second.reason)
    return None


def copy_for_reading(
    monitor: Monitor, device: Device, checkpoint: str, name: str = READING
) -> None:
    """Make a copy of a bitmap that nobody marks any more."""
    monitor.execute("block-dirty-bitmap-add", {"node": device.node, "name": name, "disabled": True})
    monitor.execute(
        "block-dirty-bitmap-merge",
        {"node": device.node, "target": name, "bitmaps": [checkpoint]},
    )


def remove(monitor: Monitor, node: str, bitmaps: Iterable[str]) -> None:
    """Take bitmaps away from a node."""
    for name in bitmaps:
        monitor.execute("block-dirty-bitmap-remove", {"node": node, "name": name})


def remove_if_there(monitor: Monitor, device: Device, name: str) -> None:
    """Take a bitmap away, of which nobody may know whether it is there."""
    with contextlib.suppress(HypervisorRefused):
        remove(monitor, device.node, [name])


def stale(bitmaps: Iterable[dict[str, Any]], label: str, keep: Collection[str]) -> list[str]:
    """Names of those that are of the same site, and of no image that a backup may follow."""
    whose = f"{PREFIX}.{owner_of(label)}."
    names = [str(one.get("name", "")) for one in bitmaps]
    return [
        name
        for name in names
        if name in (READING, WRITTEN) or (name.startswith(whose) and name not in keep)
    ]


def _untracked(device: Device, reason: str) -> Remark:
    return Remark(
        "warning",
        "bitmap-refused",
        f"changes of disk '{device.disk.name}' are not marked, so the next backup reads all of it: "
        f"{reason}",
        device.disk.name,
    )
