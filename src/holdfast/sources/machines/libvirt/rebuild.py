"""Make a machine again under libvirt: its definition with other disks, defined and not started.

Must not start anything. Invariant: a machine that can't be made whole leaves nothing but disks by
which the same restore goes on.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libvirt
from lxml import etree

from holdfast.base.errors import AlreadyExists, HoldfastError, Invalid, Unsupported
from holdfast.sources.machines import domain_xml
from holdfast.sources.machines.libvirt import looking
from holdfast.sources.machines.libvirt.connection import asked
from holdfast.sources.machines.new_disks import NewDisk, new_mac
from holdfast.sources.machines.providers import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.sources.machines.libvirt.side import Making, Side
    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import DiskWriter, NewMachine

DOMAIN = "domain.xml"
VARIABLES = "nvram"


def restore(
    connection: Any,
    side: Side,
    order: NewMachine,
    write: DiskWriter,
    change: Callable[[Any], None] = lambda _: None,
) -> Machine:
    """Write the disks and define the machine.

    Args:
        connection: Of libvirt.
        side: Who makes its files.
        order: What is wanted.
        write: Writes a disk.
        change: Changes the definition before it is used.

    Raises:
        AlreadyExists: There is one of its name, or of the uuid that is to be kept.
        Invalid: Disks can't be of that format here, or that is no name.
        HoldfastError: It can't be made; see `Provider.restore`.
    """
    if not re.fullmatch(r"[^/\s][^/\n]*", order.name):
        raise Invalid(f"'{order.name}' can't be the name of a machine", "use letters and digits")
    KINDS["libvirt"].format_of(order.format)
    _refuse_conflicts(connection, order)
    if DOMAIN not in order.definitions:
        raise Unsupported(
            f"the image of '{order.machine.name}' has no definition of libvirt",
            "restore its disks to a directory",
        )
    with side.making(order) as making:
        return _make(connection, order, write, making, change)


def _make(
    connection: Any,
    order: NewMachine,
    write: DiskWriter,
    making: Making,
    change: Callable[[Any], None],
) -> Machine:
    disks = [
        NewDisk(one, Path(making.path(f"{order.name}-{one.name}.{order.format}")), order.format)
        for one in order.machine.disks
        if one.left_out is None
    ]
    domain = domain_xml.read(order.definitions[DOMAIN].decode())
    _identify(domain, order)
    _with_disks(domain, disks, keep_passed_through=order.keep_identity)
    _with_networks(domain, order)
    try:
        for one in disks:
            making.disk(one, write)
        _with_variables(domain, order, making)
        change(domain)
        making.hand_over()
        with asked(f"machine '{order.name}' can't be defined"):
            defined = connection.defineXML(etree.tostring(domain, encoding="unicode"))
    except BaseException:
        making.undo()
        raise
    return looking.machine(connection, defined)


def _refuse_conflicts(connection: Any, order: NewMachine) -> None:
    with asked("libvirt does not tell of its machines"):
        known = connection.listAllDomains()
    for one in known:
        if one.name() == order.name:
            raise AlreadyExists(
                f"there is a machine '{order.name}' at this host", "give the new one another name"
            )
        if order.keep_identity and one.UUIDString() == order.machine.uuid:
            raise AlreadyExists(
                f"machine '{one.name()}' has the uuid {order.machine.uuid}",
                "remove it first, or restore with a new identity",
            )


def _identify(domain: Any, order: NewMachine) -> None:
    for name in ("name", "uuid", "genid"):
        for one in domain.findall(name):
            if name == "name":
                one.text = order.name
            elif not order.keep_identity:
                domain.remove(one)
    if not order.keep_identity:
        etree.SubElement(domain, "uuid").text = order.uuid or str(uuid.uuid4())
    for one in domain.findall("seclabel"):
        domain.remove(one)
    domain.attrib.pop("id", None)


def _with_disks(domain: Any, disks: Sequence[NewDisk], *, keep_passed_through: bool) -> None:
    by_name = {one.disk.name: one for one in disks}
    devices = domain.find("devices")
    if devices is None:
        raise Unsupported("the definition has no devices", "restore the disks to a directory")
    for disk in devices.findall("disk"):
        target = disk.find("target")
        new = by_name.get("" if target is None else target.get("dev", ""))
        for child in ("backingStore", "mirror", "alias", "auth", "encryption"):
            _drop(disk, child)
        if new is not None:
            _point(disk, new)
        elif disk.get("device") in ("cdrom", "floppy"):
            _drop(disk, "source")  # the medium may not be at this host
        elif not keep_passed_through:
            devices.remove(disk)
    if not keep_passed_through:
        _drop(devices, "hostdev")
        domain_xml.drop_kept_memory(domain)


def _point(disk: Any, new: NewDisk) -> None:
    _drop(disk, "source")
    disk.set("type", "file")
    disk.set("device", "disk")
    disk.attrib.pop("rawio", None)
    disk.attrib.pop("sgio", None)
    etree.SubElement(disk, "source", {"file": str(new.path)})
    driver = disk.find("driver")
    if driver is None:
        driver = etree.SubElement(disk, "driver", {"name": "qemu"})
    driver.set("type", new.format)
    if new.format != "qcow2":  # what libvirt refuses of any other
        driver.attrib.pop("discard_no_unref", None)
        _drop(driver, "metadata_cache")


def _drop(element: Any, child: str) -> None:
    for one in element.findall(child):
        element.remove(one)


def _with_networks(domain: Any, order: NewMachine) -> None:
    for at, card in enumerate(domain.findall("devices/interface")):
        mac = card.find("mac")
        if mac is not None and not order.keep_identity:
            mac.set("address", new_mac())
        for child in ("target", "alias", "link"):
            if order.networks is not None or child != "link":
                for one in card.findall(child):
                    card.remove(one)
        if order.networks is None:
            continue
        for child in ("source", "portid", "virtualport"):
            for one in card.findall(child):
                card.remove(one)
        if order.networks:
            network = order.networks[min(at, len(order.networks) - 1)]
            card.set("type", "network")
            etree.SubElement(card, "source", {"network": network})
        else:
            card.set("type", "user")
            etree.SubElement(card, "link", {"state": "down"})


def _with_variables(domain: Any, order: NewMachine, making: Making) -> None:
    known = domain.find("os/nvram")
    if known is None:
        return
    if VARIABLES in order.definitions:
        name = f"{order.name}.nvram"
        making.file(name, order.definitions[VARIABLES])
        known.text = making.path(name)
    elif not order.keep_identity:
        known.text = None  # libvirt makes it from its template


def definitions(domain: Any, side: Side) -> tuple[dict[str, bytes], str | None]:
    """What makes a machine again, and why the firmware's settings are not with it.

    Raises:
        Forbidden: This user may not see all of it.
    """
    flags = libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_INACTIVE
    with asked("libvirt does not tell how the machine is defined"):
        text = domain.XMLDesc(flags)
    found = {DOMAIN: text.encode()}
    path = domain_xml.firmware_variables(domain_xml.read(text))
    if path is None:
        return found, None
    try:
        found[VARIABLES] = side.file(path)
    except HoldfastError as error:
        return found, f"what the firmware keeps in '{path}' can't be read: {error.message}"
    return found, None
