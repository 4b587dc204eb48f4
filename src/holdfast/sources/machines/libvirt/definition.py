"""What libvirt's XML says of a machine.

Must not ask anybody. Invariant: a disk that an image can't hold is told of with the reason, never
passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET  # what libvirt says is as trusted as libvirt

from holdfast.sources.machines.machine import Network

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

METADATA = "urn:holdfast:machine"
"""Namespace of what an administrator may write into a definition: folder and tags."""
_OSINFO = "{http://libosinfo.org/xmlns/libvirt/domain/1.0}"
_LUN = "a SCSI disk that is passed through (device='lun'): the guest talks to it past QEMU"
_HOST_DEVICE = "a device of the host that is passed through, and whatever is stored on it"


@dataclass(frozen=True, slots=True)
class Source:
    """A disk as the definition has it.

    Attributes:
        name: Its target: ``vda``.
        place: A path or an address; empty for none.
        kind: What libvirt calls the type of its source: ``file``, ``block``, ``network``, …
        format: Of its content.
        readonly: Whether the guest may not write.
        shared: Whether others write it, too.
        left_out: Why an image can't hold it; None where it can.
        left_out_running: The same, where that is so only while the machine runs.
        volume: Pool and volume of a storage pool, where it is given so.
    """

    name: str
    place: str
    kind: str
    format: str
    readonly: bool = False
    shared: bool = False
    left_out: str | None = None
    left_out_running: str | None = None
    volume: tuple[str, str] | None = None


def read(xml: str) -> Element:
    """Parse a definition."""
    return ET.fromstring(xml)  # noqa: S314


def sources(domain: Element) -> list[Source]:
    """Its disks, those that are passed through with them."""
    found = [_source(one) for one in domain.findall("devices/disk")]
    for at, one in enumerate(domain.findall("devices/hostdev")):
        kind = one.get("type", "")
        if kind in ("scsi", "scsi_host", "pci"):
            alias = one.find("alias")
            name = f"hostdev{at}" if alias is None else alias.get("name", f"hostdev{at}")
            found.append(Source(name, _address(one), "hostdev", kind, left_out=_HOST_DEVICE))
    return found


def _source(disk: Element) -> Source:
    target, source, driver = disk.find("target"), disk.find("source"), disk.find("driver")
    name = "" if target is None else target.get("dev", "")
    kind = disk.get("type", "file")
    device = disk.get("device", "disk")
    place, volume = "", None
    if source is not None:
        place = source.get("file") or source.get("dev") or source.get("dir") or ""
        if kind == "network":
            host = source.find("host")
            server = "" if host is None else host.get("name", "")
            place = f"{source.get('protocol', '')}://{server}/{source.get('name', '')}"
        if kind == "volume":
            volume = (source.get("pool", ""), source.get("volume", ""))
            place = "/".join(volume)
    reason = running = None
    if device in ("cdrom", "floppy"):
        reason = "a removable medium, such as a CD"
    elif kind in ("vhostuser", "dir", "nvme", "vhostvdpa"):
        reason = f"a disk of the type '{kind}', which QEMU does not read by itself"
    elif source is None or not place:
        reason = "it has no source"
    elif device == "lun":
        running = _LUN
    return Source(
        name,
        place,
        kind,
        "raw" if driver is None else driver.get("type", "raw"),
        disk.find("readonly") is not None,
        disk.find("shareable") is not None,
        reason,
        running,
        volume,
    )


def _address(hostdev: Element) -> str:
    found = hostdev.find("source/address")
    return "" if found is None else " ".join(f"{key}={value}" for key, value in found.items())


def networks(domain: Element) -> tuple[Network, ...]:
    """Its network cards."""
    found = []
    for one in domain.findall("devices/interface"):
        mac, source, model = one.find("mac"), one.find("source"), one.find("model")
        where = one.get("type", "")
        if source is not None:
            where = source.get("network") or source.get("bridge") or source.get("dev") or where
        found.append(
            Network(
                "" if mac is None else mac.get("address", "").lower(),
                where,
                "" if model is None else model.get("type", ""),
            )
        )
    return tuple(found)


def system(domain: Element) -> str:
    """The guest's system as whoever defined the machine said: ``debian 12``."""
    for one in domain.iter(f"{_OSINFO}os"):
        words = one.get("id", "").split("://")[-1].split("/")[1:]
        return " ".join(words)
    return ""


def folder(domain: Element) -> str:
    """Where an administrator filed it."""
    found = domain.find(f"metadata/{{{METADATA}}}machine/{{{METADATA}}}folder")
    return "" if found is None else (found.text or "").strip()


def tags(domain: Element) -> tuple[str, ...]:
    """What an administrator marked it with."""
    found = domain.findall(f"metadata/{{{METADATA}}}machine/{{{METADATA}}}tag")
    return tuple((one.text or "").strip() for one in found)


def has_agent(domain: Element) -> bool:
    """Whether it has a channel for a guest agent."""
    return any(
        one.get("name") == "org.qemu.guest_agent.0"
        for one in domain.findall("devices/channel/target")
    )


def agent_connected(domain: Element) -> bool:
    """Whether an agent in the guest has opened it."""
    return any(
        one.get("name") == "org.qemu.guest_agent.0" and one.get("state") == "connected"
        for one in domain.findall("devices/channel/target")
    )


def firmware_variables(domain: Element) -> str | None:
    """The file in which the firmware keeps its settings."""
    found = domain.find("os/nvram")
    return None if found is None else (found.text or "").strip() or None
