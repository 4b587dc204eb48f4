"""Definitions of machines beside their disk files: libvirt's XML, VMX, OVF, OVA.

Must not open a disk. Invariants: nothing a definition says is more than a claim: where its disks
may lie is judged by `chain`; what is read of it is bounded.
"""

from __future__ import annotations

import re
import tarfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from holdfast.base.errors import HoldfastError, Invalid
from holdfast.sources.machines import domain_xml
from holdfast.sources.machines.diskfiles.chain import Place
from holdfast.sources.machines.diskfiles.formats import read_part, unreadable
from holdfast.sources.machines.machine import Network, State

if TYPE_CHECKING:
    from collections.abc import Callable

SUFFIXES = (".xml", ".vmx", ".ovf", ".ova")

_SETTING = re.compile(r'^\s*([\w:.\-]+)\s*=\s*"(.*)"\s*$')
_DISK = re.compile(r"^((?:scsi|sata|ide|nvme)\d+:\d+)\.filename$")
_PASSED = re.compile(r"^(pcipassthru\d+|usb_xhci:\d+|usb:\d+|nvdimm\d+:\d+)\.present$")
_PASSED_REASON = "a device that is passed through, or memory that keeps its content"
_USB_OWN = ("hid", "hub", "mouse", "keyboard")
"""What VMware itself plugs into a machine's USB."""
_CARD = re.compile(r"^(ethernet\d+)\.present$")
_LARGEST_PIECE = 1 << 20
_MOST_MEMBERS = 10_000


@dataclass(frozen=True, slots=True)
class DefinedDisk:
    """A disk as a definition names it.

    Attributes:
        name: What the machine knows it by.
        place: Where it is said to be; None where that is no file.
        format: What it is said to be; None where that is not said.
        left_out: Why it can't be read, in words; None where it may.
        said: Where it lies, for people.
    """

    name: str
    place: Place | None
    format: str | None
    left_out: str | None = None
    said: str = ""


@dataclass(frozen=True, slots=True)
class Definition:
    """What is said of a machine.

    Attributes:
        path: Of the definition.
        name: Of the machine.
        uuid: As it says; empty where it does not.
        state: As it says.
        disks: Its disks.
        networks: Its network cards.
        memory: In bytes.
        cpus: How many.
        guest: Its system.
        files: What it is made of again, by the name in a backup: content, or the path of a file.
        error: Why nothing is known of it but its name; None where it could be read.
    """

    path: Path
    name: str
    uuid: str = ""
    state: State = State.OFF
    disks: tuple[DefinedDisk, ...] = ()
    networks: tuple[Network, ...] = ()
    memory: int = 0
    cpus: int = 0
    guest: str = ""
    files: dict[str, bytes | Path] = field(default_factory=dict)
    error: HoldfastError | None = None


def read(path: Path) -> list[Definition]:
    """What a file defines: a machine, several, or none.

    Raises:
        Invalid: It is not readable as what its name says.
        NotFound, NoPermission, InputOutput: It can't be read.
    """
    readers: dict[str, Callable[[Path], list[Definition]]] = {
        ".xml": _libvirt,
        ".vmx": _vmx,
        ".ovf": _ovf,
        ".ova": _ova,
    }
    return readers[path.suffix.lower()](path)


def _libvirt(path: Path) -> list[Definition]:
    data = _content(path)
    domain = domain_xml.read_domain(data, f"'{path}'")
    if domain is None or not domain.name:
        return []
    files: dict[str, bytes | Path] = {"domain.xml": data}
    if domain.nvram:
        files["nvram"] = Path(domain.nvram)
    return [
        Definition(
            path=path,
            name=domain.name,
            uuid=_uuid(domain.uuid),
            state=domain.state,
            disks=tuple(_libvirt_disk(path, one) for one in domain.disks),
            networks=domain.networks,
            memory=domain.memory,
            cpus=domain.cpus,
            guest=domain.guest,
            files=files,
        )
    ]


def _libvirt_disk(path: Path, disk: domain_xml.DomainDisk) -> DefinedDisk:
    why = {
        "network": "it lies on another server",
        "volume": "it is a volume of a storage pool, which only libvirt can find",
        "nvme": "it is a device that is passed through",
        "vhostuser": "another program has it",
        "dir": "it is a directory shown as a disk",
    }.get(disk.kind)
    if disk.encrypted:
        why = "it is encrypted, and its key is with libvirt"
    if why is None and not disk.place:
        why = "the definition does not say where it lies"
    if why is None:
        why = disk.left_out
    if why is not None:
        return DefinedDisk(disk.name, None, disk.format, why, disk.place or "nowhere")
    place = Place(path.parent / disk.place)
    return DefinedDisk(disk.name, place, disk.format, said=disk.place)


def _vmx(path: Path) -> list[Definition]:
    data = _content(path)
    settings: dict[str, str] = {}
    for line in data.decode(errors="surrogateescape").splitlines():
        if found := _SETTING.match(line):
            settings[found[1].lower()] = found[2]
    if not settings:
        raise Invalid(f"'{path}' is no VMX file: it has no settings")
    disks = [
        _vmx_disk(path, settings, found[1], name)
        for key, name in settings.items()
        if (found := _DISK.match(key))
        and settings.get(f"{found[1]}.present", "true").lower() == "true"
        and "cdrom" not in settings.get(f"{found[1]}.devicetype", "").lower()
        and name.lower() not in ("", "auto detect")
        and not name.lower().endswith(".iso")
    ]
    disks += [
        DefinedDisk(found[1].replace(":", "-"), None, None, _PASSED_REASON, found[1])
        for key, value in settings.items()
        if (found := _PASSED.match(key))
        and value.lower() == "true"
        and settings.get(f"{found[1]}.devicetype", "").lower() not in _USB_OWN
    ]
    cards = [
        _vmx_card(settings, found[1])
        for key, value in settings.items()
        if (found := _CARD.match(key)) and value.lower() == "true"
    ]
    state = State.SUSPENDED if settings.get("checkpoint.vmstate") else State.OFF
    if path.with_name(path.name + ".lck").exists():
        state = State.RUNNING
    files: dict[str, bytes | Path] = {path.name: data}
    if settings.get("nvram"):
        files["nvram"] = path.parent / settings["nvram"]
    memory, cpus = settings.get("memsize", ""), settings.get("numvcpus", "1")
    return [
        Definition(
            path=path,
            name=settings.get("displayname") or path.stem,
            uuid=_uuid(settings.get("uuid.bios", "")),
            state=state,
            disks=tuple(sorted(disks, key=lambda one: one.name)),
            networks=tuple(cards),
            memory=int(memory) * 2**20 if memory.isdecimal() else 0,
            cpus=int(cpus) if cpus.isdecimal() else 1,
            guest=settings.get("guestos", ""),
            files=files,
        )
    ]


def _vmx_disk(path: Path, settings: dict[str, str], device: str, name: str) -> DefinedDisk:
    known = device.replace(":", "-")
    if "raw" in settings.get(f"{device}.devicetype", "").lower():
        return DefinedDisk(known, None, None, "it is a device of its host", name)
    return DefinedDisk(known, Place(path.parent / name), "vmdk", said=name)


def _vmx_card(settings: dict[str, str], card: str) -> Network:
    mac = settings.get(f"{card}.address") or settings.get(f"{card}.generatedaddress", "")
    return Network(
        mac.lower(),
        settings.get(f"{card}.networkname", settings.get(f"{card}.vnet", "")),
        settings.get(f"{card}.virtualdev", ""),
    )


def _ovf(path: Path) -> list[Definition]:
    def beside(name: str) -> Place | None:
        plain = name and "/" not in name and name not in (".", "..")
        return Place(path.parent / name) if plain else None

    return _systems(path, _content(path), beside)


def _systems(path: Path, data: bytes, find: Callable[[str], Place | None]) -> list[Definition]:
    """Machines of an OVF document."""
    root = domain_xml.parse(data, f"'{path}'")
    files = {_get(one, "id"): one for one in root.iterfind("{*}References/{*}File")}
    disks = {_get(one, "diskId"): one for one in root.iterfind(".//{*}DiskSection/{*}Disk")}
    systems = list(root.iterfind(".//{*}VirtualSystem"))
    found = []
    for system in systems:
        items = list(system.iterfind(".//{*}VirtualHardwareSection/{*}Item"))
        name = system.findtext("{*}Name") or _get(system, "id") or path.stem
        found.append(
            Definition(
                path=path,
                name=name.strip(),
                uuid=_uuid(system.findtext(".//{*}Machine", "") or _vbox(system)),
                disks=_ovf_disks(items, disks, files, find),
                networks=tuple(
                    Network("", (one.findtext("{*}Connection") or "").strip())
                    for one in items
                    if _kind(one) == "10"
                ),
                memory=_quantity(items, "4") * 2**20,
                cpus=_quantity(items, "3"),
                guest=(system.findtext("{*}OperatingSystemSection/{*}Description") or "").strip(),
                files={path.with_suffix(".ovf").name: data},
            )
        )
    return found


def _ovf_disks(
    items: list[Any], disks: dict[str, Any], files: dict[str, Any], find: Callable[[str], Any]
) -> tuple[DefinedDisk, ...]:
    found: list[DefinedDisk] = []
    for item in items:
        told = (item.findtext("{*}HostResource") or "").strip()
        if _kind(item) != "17" or "/disk/" not in told:
            continue
        name = f"disk{len(found)}"
        disk = disks.get(told.rsplit("/", 1)[1])
        file = None if disk is None else files.get(_get(disk, "fileRef"))
        if disk is None or file is None:
            empty = "it is empty in the OVF, and has no file"
            found.append(DefinedDisk(name, None, None, empty, told))
            continue
        href, place = _get(file, "href"), find(_get(file, "href"))
        why: str | None = None
        if _get(file, "compression") not in ("", "identity"):
            why = f"its file is compressed as a whole ({_get(file, 'compression')})"
        elif _get(disk, "parentRef"):
            why = "it holds only the differences to another disk"
        elif place is None:
            why = f"its file '{href[:200]}' is not beside the OVF"
        image_format = "vmdk" if "vmdk" in _get(disk, "format") else None
        found.append(DefinedDisk(name, place, image_format, why, href))
    return tuple(found)


def _ova(path: Path) -> list[Definition]:
    places: dict[str, Place] = {}
    document: bytes | None = None
    try:
        size = path.stat().st_size
        with path.open("rb") as plain, tarfile.open(fileobj=_bounded(plain), mode="r:") as archive:
            for count, member in enumerate(archive):
                if count >= _MOST_MEMBERS:
                    raise Invalid(f"'{path}' has more than {_MOST_MEMBERS} files")
                whole = member.offset_data + member.size <= size
                if not member.isreg() or member.issparse() or "/" in member.name or not whole:
                    continue
                places.setdefault(member.name, Place(path, member.offset_data, member.size))
                first = document is None and member.name.lower().endswith(".ovf")
                if first and member.size <= domain_xml.LONGEST:
                    document = read_part(path, member.offset_data, member.size)
    except (tarfile.TarError, EOFError) as error:
        raise Invalid(f"'{path}' is not readable as an OVA: {error}") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if document is None:
        raise Invalid(f"'{path}' is not an OVA: there is no OVF document in it")
    return _systems(path, document, places.get)


class _Bounded:
    """A file of which nobody reads a large piece: of the archive only headers are wanted."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _LARGEST_PIECE:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self._file.read(count)

    def seek(self, *where: int) -> int:
        return self._file.seek(*where)

    def tell(self) -> int:
        return self._file.tell()


def _bounded(file: IO[bytes]) -> Any:
    return _Bounded(file)


def _content(path: Path) -> bytes:
    data = read_part(path, 0, domain_xml.LONGEST + 1)
    if len(data) > domain_xml.LONGEST:
        raise Invalid(f"'{path}' is too large for a definition of a machine")
    return data


def _get(element: Any, name: str) -> str:
    """An attribute, in whatever namespace."""
    for key, value in element.attrib.items():
        if key.rsplit("}", 1)[-1] == name:
            return str(value)
    return ""


def _kind(item: Any) -> str:
    return (item.findtext("{*}ResourceType") or "").strip()


def _quantity(items: list[Any], kind: str) -> int:
    for item in items:
        text = (item.findtext("{*}VirtualQuantity") or "").strip()
        if _kind(item) == kind and text.isdecimal():
            return int(text)
    return 0


def _vbox(system: Any) -> str:
    machine = system.find("{*}Machine")
    return "" if machine is None else _get(machine, "uuid")


def _uuid(text: str) -> str:
    """As everybody writes it; empty for what is none."""
    plain = re.sub(r"[^0-9a-fA-F]", "", text)
    try:
        return str(uuid.UUID(plain)) if len(plain) == 32 else ""
    except ValueError:
        return ""
