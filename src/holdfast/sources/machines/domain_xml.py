"""Definitions of machines as libvirt writes them: what they say, and the same for a new machine.

Must not ask libvirt. Invariant: what is read is plain XML: no document type, no entities, nothing
fetched, whoever wrote it.
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


@dataclass(frozen=True, slots=True)
class DomainDisk:
    """A disk, as a definition has it.

    Attributes:
        name: What the machine knows it by: ``vda``.
        kind: Where it lies: ``file``, ``block``, ``volume``, ``network``, …
        source: Path of a file or a device; else its name for people.
        format: Of it, as the definition says; ``raw`` where it says none, as libvirt takes it.
    """

    name: str
    kind: str
    source: str
    format: str


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


def read_domain(data: bytes, where: str) -> Domain | None:
    """What a definition says; None for XML that defines no machine.

    Raises:
        Invalid: It is not readable.
    """
    found = _domain(parse(data, where))
    if found is None:
        return None
    root, state = found
    disks = [
        one
        for disk in root.iterfind("devices/disk")
        if disk.get("device", "disk") in ("disk", "lun") and (one := _disk(disk)) is not None
    ]
    cpus = root.findtext("vcpu", "1").strip()
    return Domain(
        name=root.findtext("name", "").strip(),
        uuid=root.findtext("uuid", "").strip().lower(),
        state=state,
        memory=_bytes(root.find("memory")),
        cpus=int(cpus) if cpus.isdecimal() else 1,
        guest=_guest(root),
        disks=tuple(disks),
        networks=tuple(map(_network, root.iterfind("devices/interface"))),
        nvram=root.findtext("os/nvram"),
    )


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
        macs: Addresses of its network cards, in their order; None: as they were.
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


def _disk(disk: Any) -> DomainDisk | None:
    kind, source = disk.get("type", "file"), disk.find("source")
    target, driver = disk.find("target"), disk.find("driver")
    if target is None or not target.get("dev"):
        return None
    place = ""
    if source is not None:
        keys = ("file", "dev", "name", "volume", "dir")
        place = next((source.get(key) for key in keys if source.get(key)), "")
        if kind == "volume":
            place = f"{source.get('pool', '')}/{place}"
        if source.find("encryption") is not None or disk.find("encryption") is not None:
            kind = "encrypted"
    image_format = "raw" if driver is None else driver.get("type", "raw")
    return DomainDisk(target.get("dev"), kind, place, image_format)


def _network(card: Any) -> Network:
    mac, source, model = card.find("mac"), card.find("source"), card.find("model")
    connected = ""
    if source is not None:
        keys = ("network", "bridge", "dev", "portgroup")
        connected = next((source.get(key) for key in keys if source.get(key)), "")
    return Network(
        mac="" if mac is None else mac.get("address", "").lower(),
        network=connected,
        model="" if model is None else model.get("type", ""),
    )


def _bytes(element: Any) -> int:
    text = "" if element is None else (element.text or "").strip()
    if not text.isdecimal():
        return 0
    return int(text) * _UNITS.get(element.get("unit", "KiB").lower(), 1024)


def _guest(root: Any) -> str:
    system = root.find("metadata/{*}libosinfo/{*}os")
    return "" if system is None else system.get("id", "").rsplit(".org/", 1)[-1]


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
