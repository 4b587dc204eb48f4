"""What a guest stores things on past QEMU's block layer: no backup can read it there.

Must not change anything. Invariant: whatever of a machine is such a device is told of with the
reason, also what was attached while it ran; `devices` knows the others.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from holdfast.base.errors import HoldfastError
from holdfast.sources.machines.provider import Remark

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from holdfast.sources.machines.qmp.monitor import Monitor

_PLACES = ("/machine/peripheral", "/machine/peripheral-anon")
_CHILD = re.compile(r"child<(.+)>")

_SERVED = "a disk that another program serves past QEMU"
_KEPT = "memory that keeps its content"
_REASONS: Final = {
    "vfio-": "a PCI device of the host that is passed through, and whatever is stored on it",
    "usb-host": "a USB device of the host that is passed through: should it be a disk, nothing of "
    "it is held",
    "usb-redir": "a USB device from elsewhere: should it be a disk, nothing of it is held",
    "vhost-user-blk": _SERVED,
    "vhost-user-scsi": _SERVED,
    "vhost-scsi": _SERVED,
    "vhost-vdpa-device": _SERVED,
    "nvdimm": _KEPT,
    "virtio-pmem": _KEPT,
}
"""By how their types begin: buses and versions stand behind that."""

_TALKS_PAST = ("scsi-block", "scsi-generic")
SCSI: Final = "a SCSI disk that is passed through: the guest talks to it past QEMU"


def past_qemu(monitor: Monitor) -> Iterator[tuple[str, str]]:
    """Those devices: what each is called, and why an image can't hold it.

    Raises:
        HoldfastError: QEMU does not answer.
    """
    for place in _PLACES:
        for one in monitor.execute("qom-list", {"path": place}):
            kind = _CHILD.fullmatch(str(one.get("type", "")))
            if kind is None:
                continue
            for begin, reason in _REASONS.items():
                if kind[1].startswith(begin):
                    name = str(one["name"])
                    yield (name if place == _PLACES[0] else f"{kind[1]} {name}"), reason


def left_out_past_qemu(monitor: Monitor, unwanted: Collection[str] = ()) -> list[Remark]:
    """What is to be told of them.

    Args:
        monitor: Of the machine.
        unwanted: Names of which nobody has to be told.

    Raises:
        HoldfastError: QEMU does not answer.
    """
    return [
        Remark("warning", "disk-left-out", f"device '{name}' is not in the image: {reason}", name)
        for name, reason in past_qemu(monitor)
        if name not in unwanted
    ]


def is_talked_to_past_qemu(monitor: Monitor, path: str) -> bool:
    """Whether a disk of QEMU's is one whose guest speaks to the hardware itself.

    Args:
        monitor: Of the machine.
        path: Of the disk's device in the tree of objects.
    """
    try:
        kind = monitor.execute("qom-get", {"path": path, "property": "type"})
    except HoldfastError:
        return False  # gone meanwhile, or no object has a name like that
    return kind in _TALKS_PAST
