"""Definitions of machines as libvirt writes them: what they say, and the same for a new machine.

Must not ask libvirt. Invariants: what is read is plain XML: no document type, no entities, nothing
fetched, whoever wrote it; a disk that an image can't hold is told of with the reason, never passed
over.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lxml import etree

from holdfast.base.errors import Invalid
from holdfast.sources.machines.machine import Network, State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.sources.machines.machine import Machine

LONGEST = 16 * 1024 * 1024
"""Of a definition, in bytes."""

_UNITS = {
    "b": 1,
    "bytes": 1,
    "kb": 10**3,
    "k": 2**10,
    "kib": 2**10,
    "mb": 10**6,
    "m": 2**20,
    "mib": 2**20,
    "gb": 10**9,
    "g": 2**30,
    "gib": 2**30,
    "tb": 10**12,
    "t": 2**40,
    "tib": 2**40,
}
_STATES = {
    "running": State.RUNNING,
    "paused": State.PAUSED,
    "pmsuspended": State.SUSPENDED,
    "shutoff": State.OFF,
    "crashed": State.OFF,
}


METADATA = "urn:holdfast:machine"
"""Namespace of what an administrator may write into a definition: folder and tags."""
_OSINFO = "{http://libosinfo.org/xmlns/libvirt/domain/1.0}"
_LUN = "a SCSI disk that is passed through (device='lun'): the guest talks to it past QEMU"
_OF_HOSTS = ("scsi", "scsi_host", "pci", "usb")
_KEPT = {"nvdimm": "nvdimm", "virtio-pmem": "virtiopmem"}
"""Models of memory that keeps its content, and how libvirt's aliases of such begin."""
NO_DISKS = (*_OF_HOSTS, *_KEPT)
"""Kinds of devices that a guest may store things on and that are no disks: their formats here."""
_HOST_DEVICE = "a device of the host that is passed through, and whatever is stored on it"
_USB_DEVICE = (
    "a USB device of the host that is passed through: should it be a disk, nothing of it is held"
)
_KEPT_MEMORY = "memory that keeps its content, which is no disk of QEMU's"


@dataclass(frozen=True, slots=True)
class DomainDisk:
    """A disk, as a definition has it.

    Attributes:
        name: Its target, what the machine knows it by: ``vda``.
        place: A path or an address; empty for none.
        kind: What libvirt calls the type of its source: ``file``, ``block``, ``network``, …
        format: Of its content; ``raw`` where the definition says none, as libvirt takes it.
        readonly: Whether the guest may not write.
        shared: Whether others write it, too.
        encrypted: Whether libvirt has a key without which it can't be read.
        left_out: Why an image can't hold it; None where it can.
        left_out_running: The same, where that is so only while the machine runs.
        volume: Pool and volume of a storage pool, where it is given so.
        device: What it pretends to be: ``disk``, ``lun``, ``cdrom``, …
        discards: Whether what a guest trims of it is given back.
    """

    name: str
    place: str
    kind: str
    format: str
    readonly: bool = False
    shared: bool = False
    encrypted: bool = False
    left_out: str | None = None
    left_out_running: str | None = None
    volume: tuple[str, str] | None = None
    device: str = "disk"
    discards: bool = True


@dataclass(frozen=True, slots=True)
class Domain:
    """What a definition says of a machine."""

    name: str
    uuid: str
    state: State
    memory: int
    cpus: int
    guest: str
    disks: tuple[DomainDisk, ...]
    networks: tuple[Network, ...]
    nvram: str | None


def parse(data: bytes, where: str) -> Any:
    """Read XML that nobody vouches for.

    Args:
        data: Of the file.
        where: It comes from, for messages.

    Returns:
        Its root element.

    Raises:
        Invalid: It is not XML, or more than plain XML.
    """
    if len(data) > LONGEST:
        raise Invalid(f"{where} is no definition of a machine: it has {len(data)} bytes")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise Invalid(f"{where} is not readable as XML: {error.msg}") from error
    if root.getroottree().docinfo.doctype:
        raise Invalid(f"{where} has a document type, which no definition of a machine has")
    return root


def read(text: str) -> Any:
    """Read what libvirt says.

    Raises:
        Invalid: It is not plain XML.
    """
    return parse(text.encode(), "what libvirt says")


def read_domain(data: bytes, where: str) -> Domain | None:
    """What a definition says; None for XML that defines no machine.

    Raises:
        Invalid: It is not readable.
    """
    found = _domain(parse(data, where))
    if found is None:
        return None
    root, state = found
    cpus = root.findtext("vcpu", "1").strip()
    return Domain(
        name=root.findtext("name", "").strip(),
        uuid=root.findtext("uuid", "").strip().lower(),
        state=state,
        memory=_bytes(root.find("memory")),
        cpus=int(cpus) if cpus.isdecimal() else 1,
        guest=system(root),
        disks=tuple(one for one in disks(root) if _is_fixed(one)),
        networks=networks(root),
        nvram=firmware_variables(root),
    )


def disks(domain: Any) -> list[DomainDisk]:
    """Its disks, removable ones and what else it may store things on with them."""
    found = [_disk(one) for one in domain.iterfind("devices/disk")]
    for at, one in enumerate(domain.iterfind("devices/hostdev")):
        kind = one.get("type", "")
        if kind in _OF_HOSTS:
            alias = one.find("alias")
            name = f"hostdev{at}" if alias is None else alias.get("name", f"hostdev{at}")
            reason = _USB_DEVICE if kind == "usb" else _HOST_DEVICE
            found.append(DomainDisk(name, _of_host(one), "hostdev", kind, left_out=reason))
    return found + _kept_memory(domain)


def _kept_memory(domain: Any) -> list[DomainDisk]:
    """Memory whose content outlives a shutdown: a guest may have a file system on it."""
    found = []
    for at, one in enumerate(domain.iterfind("devices/memory")):
        model = one.get("model", "")
        if model not in _KEPT:
            continue
        alias, slot = one.find("alias"), one.find("address[@slot]")
        name = f"{_KEPT[model]}{at if slot is None else slot.get('slot')}"
        name = name if alias is None else alias.get("name", name)
        place = (one.findtext("source/path") or "").strip()
        found.append(DomainDisk(name, place, "memory", model, left_out=_KEPT_MEMORY))
    return found


def drop_kept_memory(domain: Any) -> None:
    """Take such memory out of a definition: another machine has its content."""
    for one in domain.findall("devices/memory"):
        if one.get("model") in _KEPT:
            one.getparent().remove(one)


def _of_host(device: Any) -> str:
    """Which device of its host it is: by its address, or what it says that it is."""
    words = []
    for one in device.iterfind("source/*"):
        if one.tag == "address":
            words += [f"{key}={value}" for key, value in one.items()]
        elif one.tag in ("vendor", "product"):
            words.append(f"{one.tag}={one.get('id', '')}")
    return " ".join(words)


def networks(domain: Any) -> tuple[Network, ...]:
    """Its network cards."""
    found = []
    for one in domain.iterfind("devices/interface"):
        mac, source, model = one.find("mac"), one.find("source"), one.find("model")
        where = one.get("type", "")
        if source is not None:
            keys = ("network", "bridge", "dev", "portgroup")
            where = next((source.get(key) for key in keys if source.get(key)), where)
        found.append(
            Network(
                mac="" if mac is None else mac.get("address", "").lower(),
                network=where,
                model="" if model is None else model.get("type", ""),
            )
        )
    return tuple(found)


def system(domain: Any) -> str:
    """The guest's system as whoever defined the machine said: ``debian 12``."""
    for one in domain.iter(f"{_OSINFO}os"):
        words = one.get("id", "").split("://")[-1].split("/")[1:]
        return " ".join(words)
    return ""


def folder(domain: Any) -> str:
    """Where an administrator filed it."""
    found = domain.findtext(f"metadata/{{{METADATA}}}machine/{{{METADATA}}}folder")
    return (found or "").strip()


def tags(domain: Any) -> tuple[str, ...]:
    """What an administrator marked it with."""
    found = domain.iterfind(f"metadata/{{{METADATA}}}machine/{{{METADATA}}}tag")
    return tuple((one.text or "").strip() for one in found)


def agent_connected(domain: Any) -> bool:
    """Whether an agent in the guest has opened the channel that it has for one."""
    return any(
        one.get("name") == "org.qemu.guest_agent.0" and one.get("state") == "connected"
        for one in domain.iterfind("devices/channel/target")
    )


def firmware_variables(domain: Any) -> str | None:
    """The file in which the firmware keeps its settings."""
    return (domain.findtext("os/nvram") or "").strip() or None


def rewritten(
    data: bytes,
    *,
    name: str,
    uuid: str,
    disks: Mapping[str, tuple[str, str]],
    macs: Sequence[str] | None,
    networks: Sequence[str] | None,
    nvram: str | None = None,
) -> bytes:
    """A definition for a machine that is made of a backup of another one.

    Args:
        data: The definition as it was.
        name: Of the new one.
        uuid: Of the new one.
        disks: Path and format of each disk's file, by name. Disks that are not among them go.
        macs: Addresses of its network cards, in their order; None: as they were, and what its host
            passes through to it, and memory that keeps its content, as well.
        networks: What its cards are connected to, the last one for all that follow; None: as they
            were; empty: to nothing.
        nvram: Path of its firmware's variables; None: it makes new ones.

    Raises:
        Invalid: The definition is not readable.
    """
    found = _domain(parse(data, "the definition in the backup"))
    if found is None:
        raise Invalid("the definition in the backup defines no machine")
    root = copy.deepcopy(found[0])
    root.attrib.pop("id", None)
    _set_text(root, "name", name, 0)
    _set_text(root, "uuid", uuid, 1)
    devices = root.find("devices")
    for disk in [] if devices is None else devices.findall("disk"):
        _point(devices, disk, disks)
    for at, card in enumerate(root.findall("devices/interface")):
        _connect(card, None if macs is None else macs[at : at + 1], networks, at)
    for passed in root.findall("devices/hostdev") if macs is not None else []:
        devices.remove(passed)
    if macs is not None:
        drop_kept_memory(root)
    for stale in root.findall("devices//alias") + root.findall("devices/interface/target"):
        stale.getparent().remove(stale)
    if (old := root.find("os/nvram")) is not None:
        old.getparent().remove(old)
        if nvram is not None:
            etree.SubElement(root.find("os"), "nvram").text = nvram
    etree.indent(root)
    return bytes(etree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def made_for(
    machine: Machine,
    *,
    name: str,
    uuid: str,
    disks: Mapping[str, tuple[str, str]],
    macs: Sequence[str],
    networks: Sequence[str] | None,
) -> bytes:
    """A definition for a machine of which only what everybody knows is known: plain, of today.

    Args:
        machine: As it was.
        name: Of the new one.
        uuid: Of the new one.
        disks: Path and format of each disk's file, by name.
        macs: Addresses of its network cards.
        networks: As for `rewritten`; where a machine's own is not known, ``default``.
    """
    root = etree.Element("domain", type="kvm")
    etree.SubElement(root, "name").text = name
    etree.SubElement(root, "uuid").text = uuid
    etree.SubElement(root, "memory", unit="b").text = str(machine.memory or 2 * 2**30)
    etree.SubElement(root, "vcpu").text = str(machine.cpus or 1)
    system = etree.SubElement(root, "os")
    etree.SubElement(system, "type", arch="x86_64").text = "hvm"
    features = etree.SubElement(root, "features")
    etree.SubElement(features, "acpi")
    devices = etree.SubElement(root, "devices")
    for at, (path, image_format) in enumerate(disks.values()):
        disk = etree.SubElement(devices, "disk", type="file", device="disk")
        etree.SubElement(disk, "driver", name="qemu", type=image_format)
        etree.SubElement(disk, "source", file=path)
        etree.SubElement(disk, "target", dev=f"sd{_letters(at)}", bus="sata")
    for at, card in enumerate(machine.networks):
        made = etree.SubElement(devices, "interface", type="network")
        etree.SubElement(made, "mac", address=macs[at])
        etree.SubElement(made, "source", network=card.network or "default")
        etree.SubElement(made, "model", type="e1000")
        _connect(made, None, networks, at)
    etree.SubElement(devices, "console", type="pty")
    etree.indent(root)
    return bytes(etree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _domain(root: Any) -> tuple[Any, State] | None:
    """The domain in what libvirt writes for itself or for others, and what state that says."""
    if root.tag == "domstatus":
        inner = root.find("domain")
        state = _STATES.get(root.get("state", ""), State.UNKNOWN)
        return None if inner is None else (inner, state)
    if root.tag != "domain":
        return None
    return root, State.RUNNING if root.get("id") else State.OFF


def _is_fixed(disk: DomainDisk) -> bool:
    return bool(disk.name) and disk.device in ("disk", "lun")  # passed through ones as well


def _disk(disk: Any) -> DomainDisk:
    target, source, driver = disk.find("target"), disk.find("source"), disk.find("driver")
    kind, device = disk.get("type", "file"), disk.get("device", "disk")
    place, volume, encrypted = "", None, disk.find("encryption") is not None
    if source is not None:
        place = source.get("file") or source.get("dev") or source.get("dir") or ""
        encrypted = encrypted or source.find("encryption") is not None
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
    return DomainDisk(
        name="" if target is None else target.get("dev", ""),
        place=place,
        kind=kind,
        format="raw" if driver is None else driver.get("type", "raw"),
        readonly=disk.find("readonly") is not None,
        shared=disk.find("shareable") is not None,
        encrypted=encrypted,
        left_out=reason,
        left_out_running=running,
        volume=volume,
        device=device,
        discards=driver is not None and driver.get("discard") == "unmap",
    )


def _bytes(element: Any) -> int:
    text = "" if element is None else (element.text or "").strip()
    if not text.isdecimal():
        return 0
    return int(text) * _UNITS.get(element.get("unit", "KiB").lower(), 1024)


def _set_text(root: Any, tag: str, text: str, at: int) -> None:
    element = root.find(tag)
    if element is None:
        element = etree.Element(tag)
        root.insert(at, element)
    element.text = text


def _point(devices: Any, disk: Any, disks: Mapping[str, tuple[str, str]]) -> None:
    """Let a disk lie where its new file is."""
    target = disk.find("target")
    known = None if target is None else disks.get(target.get("dev", ""))
    if known is None:
        if disk.get("device", "disk") in ("disk", "lun"):
            devices.remove(disk)
        elif (source := disk.find("source")) is not None:
            # A CD that was in the drive is not here.
            disk.remove(source)
        return
    path, image_format = known
    for tag in ("source", "backingStore", "mirror", "encryption", "auth"):
        for stale in disk.findall(tag):
            disk.remove(stale)
    disk.set("type", "file")
    disk.set("device", "disk")
    for only_of_lun in ("rawio", "sgio"):
        disk.attrib.pop(only_of_lun, None)
    driver = disk.find("driver")
    if driver is None:
        driver = etree.Element("driver", name="qemu")
        disk.insert(0, driver)
    driver.set("type", image_format)
    disk.insert(1, etree.Element("source", file=path))


def _connect(card: Any, mac: Sequence[str] | None, networks: Sequence[str] | None, at: int) -> None:
    if mac:
        element = card.find("mac")
        if element is None:
            element = etree.Element("mac")
            card.insert(0, element)
        element.set("address", mac[0])
    if networks is None:
        return
    if not networks:
        link = card.find("link")
        if link is None:
            link = etree.SubElement(card, "link")
        link.set("state", "down")
        return
    for stale in card.findall("source") + card.findall("virtualport"):
        card.remove(stale)
    card.set("type", "network")
    name = networks[min(at, len(networks) - 1)]
    card.insert(1, etree.Element("source", network=name))


def _letters(number: int) -> str:
    """``a`` to ``z``, then ``aa``: as disks are counted."""
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("a") + digit) + text
    return text
