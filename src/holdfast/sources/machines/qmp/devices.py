"""What disks a QEMU has, and what else makes the machine: asked, and read from its command line.

Must not change anything. Invariant: a disk that can't be backed up is told of with the reason,
never passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.sources.machines.labels import PREFIX
from holdfast.sources.machines.machine import Disk, Network
from holdfast.sources.machines.qmp.past_qemu import SCSI, is_talked_to_past_qemu

if TYPE_CHECKING:
    from holdfast.sources.machines.qmp.monitor import Monitor

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Device:
    """A disk of a QEMU.

    Attributes:
        disk: As a backup sees it.
        path: Of the device in QEMU's tree of objects.
        node: The block node at its root.
        driver: Of that node.
        writable: Whether the guest may write.
        bitmaps: Dirty bitmaps of that node, as QEMU describes them.
        ours: Whether that node is a filter that a backup left there.
        drive: The name that ``-drive`` gave it; empty for none.
    """

    disk: Disk
    path: str
    node: str
    driver: str
    writable: bool
    bitmaps: tuple[dict[str, Any], ...]
    ours: bool
    drive: str = ""


def devices(monitor: Monitor) -> list[Device]:
    """The disks of a machine, in its order; firmware and empty drives are none."""
    found: list[Device] = []
    taken: set[str] = set()
    for block in monitor.execute("query-block"):
        inserted = block.get("inserted")
        if inserted is None or block.get("device", "").startswith("pflash"):
            continue
        name = _name(block, inserted)
        while name in taken:
            name += "_"
        taken.add(name)
        image = inserted["image"]
        reason = None
        if block.get("removable"):
            reason = "a removable medium, such as a CD"
        elif not block.get("qdev"):
            reason = "not connected to a device"
        elif int(image["virtual-size"]) == 0:
            reason = "it has no size"
        elif is_talked_to_past_qemu(monitor, str(block["qdev"])):
            reason = SCSI
        disk = Disk(
            name,
            int(image["virtual-size"]),
            str(image["filename"]),
            str(inserted["drv"]),
            reason,
            image.get("actual-size"),
        )
        node = str(inserted.get("node-name", ""))
        found.append(
            Device(
                disk,
                str(block.get("qdev", "")),
                node,
                str(inserted["drv"]),
                not inserted["ro"],
                tuple(inserted.get("dirty-bitmaps", ())),
                node.startswith(PREFIX),
                str(block.get("device", "")),
            )
        )
    return found


def _name(block: dict[str, Any], inserted: dict[str, Any]) -> str:
    """What its command line calls the disk: that stays when the machine is started anew."""
    path = str(block.get("qdev", ""))
    named = re.match(r"/machine/peripheral/([^/]+)", path)
    node = str(inserted.get("node-name", ""))
    candidates = (
        named.group(1) if named else "",
        str(block.get("device", "")),
        "" if node.startswith("#") else node,
        path.removeprefix("/machine/"),
    )
    for candidate in candidates:
        if name := _UNSAFE.sub("-", candidate).strip("-."):
            return name
    return "disk"


def command_line(monitor: Monitor) -> list[str]:
    """What the QEMU was started with; empty where that can't be read."""
    try:
        raw = Path(f"/proc/{monitor.peer_pid()}/cmdline").read_bytes()
    except OSError:
        return []
    return [word.decode("utf-8", "surrogateescape") for word in raw.split(b"\0")[:-1]]


def firmware_variables(monitor: Monitor) -> bytes | None:
    """What the firmware keeps, where the machine has such a file and it can be read."""
    for block in monitor.execute("query-block"):
        inserted = block.get("inserted")
        if inserted is None or not block.get("device", "").startswith("pflash"):
            continue
        if not inserted["ro"] and inserted["drv"] == "raw":
            try:
                return Path(inserted["image"]["filename"]).read_bytes()
            except OSError:
                return None
    return None


def networks(words: list[str]) -> tuple[Network, ...]:
    """The network cards that a command line gives."""
    backends: dict[str, str] = {}
    for option, value in pairwise(words):
        if option == "-netdev":
            kind, _, rest = value.partition(",")
            given = options(rest)
            backends[given.get("id", "")] = given.get("br", given.get("ifname", kind))
    found = []
    for option, value in pairwise(words):
        if option not in ("-device", "-nic"):
            continue
        model, _, rest = value.partition(",")
        given = options(rest)
        if option == "-nic" and model != "none":
            network = given.get("br", given.get("ifname", model))
            found.append(Network(given.get("mac", "").lower(), network, given.get("model", "")))
        elif "netdev" in given:
            network = backends.get(given["netdev"], given["netdev"])
            found.append(Network(given.get("mac", "").lower(), network, model))
    return tuple(found)


def options(text: str) -> dict[str, str]:
    """Of a word such as ``if=none,id=d0,discard=unmap``."""
    split = (one.partition("=") for one in text.split(",") if one)
    return {name: value for name, _, value in split}
