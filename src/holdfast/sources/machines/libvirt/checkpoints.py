"""Checkpoints of libvirt: which can be trusted to tell what changed, and which are to go.

Must not read a disk. Invariant: a checkpoint has the name of one image's, drawn at random, and its
bitmaps lie in the disks whose writes they mark; each marks on until it is deleted, so a backup that
fails deletes its own and has nothing else to put right.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import libvirt
from lxml import etree

from holdfast.base.errors import HoldfastError
from holdfast.sources.machines import domain_xml
from holdfast.sources.machines.labels import PREFIX, TRIAL, owner_of
from holdfast.sources.machines.libvirt.connection import asked
from holdfast.sources.machines.provider import Remark

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    Tool = Callable[[Sequence[str], str], bytes]

GONE = "its list of changes since the last image is gone"
DESCRIPTION = "Holdfast: what changed since an image"
INCONSISTENT = "its list of changes is inconsistent, since the machine was not shut down"


def tracks_changes(source: domain_xml.DomainDisk) -> bool:
    """Whether libvirt can keep a list of a disk's changes, of all of them."""
    return source.format == "qcow2" and not source.readonly and not source.shared


def of_disks(domain: Any, checkpoint: str) -> set[str]:
    """Names of the disks that have a bitmap of a checkpoint; none if there is no such."""
    try:
        found = domain_xml.read(domain.checkpointLookupByName(checkpoint).getXMLDesc(0))
    except libvirt.libvirtError:
        return set()
    return {
        one.get("name", "")
        for one in found.findall("disks/disk")
        if one.get("checkpoint") == "bitmap"
    }


def take_over(domain: Any, name: str, sources: Sequence[domain_xml.DomainDisk]) -> Remark | None:
    """Let this libvirt know of a checkpoint whose bitmaps are in the disks of a machine that runs.

    When a machine moves to another host its bitmaps go with its disks, and what libvirt knew of
    them stays behind. QEMU is asked whether they are there, and whole.

    Args:
        domain: Of the machine.
        name: Of the checkpoint.
        sources: The disks that may have a bitmap of it.

    Returns:
        What is told of it; None where it is known already, or not there.
    """
    try:
        if is_known(domain, name):
            return None
        described = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)
        found = [one for one in sources if _has_bitmap(domain, name, one, described)]
        if not found:
            return None
        _redefine(domain, name, found, described)
    except libvirt.libvirtError:
        return None
    names = ", ".join(f"'{one.name}'" for one in found)
    message = (
        f"this host's libvirt did not know what changed since the last image, and the machine has "
        f"brought it along with disk {names}: it has moved here, and is followed on"
    )
    return Remark("info", "bitmap-moved", message)


def _has_bitmap(domain: Any, name: str, source: domain_xml.DomainDisk, described: str) -> bool:
    """Whether a disk has a whole bitmap of that name; libvirt tells only by believing it."""
    try:
        _redefine(domain, name, [source], described).delete(
            libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY
        )
    except libvirt.libvirtError:
        return False
    return True


def _redefine(
    domain: Any, name: str, sources: Sequence[domain_xml.DomainDisk], described: str
) -> Any:
    """Have libvirt know of a checkpoint, if QEMU has its bitmaps."""
    root = etree.Element("domaincheckpoint")
    etree.SubElement(root, "name").text = name
    etree.SubElement(root, "description").text = DESCRIPTION
    etree.SubElement(root, "creationTime").text = "0"
    disks = etree.SubElement(root, "disks")
    wanted = {one.name for one in sources}
    machine = domain_xml.read(described)
    for one in domain_xml.disks(machine):
        if one.place and one.format not in domain_xml.NO_DISKS:
            how = {"checkpoint": "bitmap", "bitmap": name} if one.name in wanted else {}
            etree.SubElement(disks, "disk", {"name": one.name, "checkpoint": "no"} | how)
    root.append(machine)
    flags = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
    flags |= libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
    return domain.checkpointCreateXML(etree.tostring(root, encoding="unicode"), flags)


def is_known(domain: Any, name: str) -> bool:
    """Whether libvirt knows of a checkpoint of that name.

    Raises:
        HoldfastError: It does not tell.
    """
    with asked("libvirt does not tell of checkpoints"):
        return name in {one.getName() for one in domain.listAllCheckpoints()}


def lost(source: domain_xml.DomainDisk, reason: str) -> Remark:
    """Tell that all of a disk is read."""
    text = f"all of disk '{source.name}' is read: {reason}"
    return Remark("warning", "bitmap-lost", text, source.name)


def delete_stale(
    domain: Any,
    label: str,
    keep: Collection[str],
    sources: Sequence[domain_xml.DomainDisk],
    run_img: Tool | None,
) -> list[str]:
    """Delete checkpoints of a site that no image is followed by any more; their names.

    Those of trials that died go, too: no image follows one.
    Those of a machine that is off are left to a later backup where there is no `qemu-img` that
    could take the bitmaps out of its disks.

    Raises:
        HoldfastError: One can't be deleted.
    """
    whose = tuple(f"{PREFIX}.{owner_of(one)}." for one in (label, TRIAL))
    found: list[str] = []
    with asked("libvirt does not tell of checkpoints"):
        if run_img is None and not domain.isActive():
            return found
        names = [one.getName() for one in domain.listAllCheckpoints()]
    for name in names:
        if name.startswith(whose) and name not in keep:
            delete(domain, name, sources, run_img)
            found.append(name)
    return found


def delete(
    domain: Any, name: str, sources: Iterable[domain_xml.DomainDisk], run_img: Tool | None
) -> None:
    """Delete one, with its bitmaps.

    Raises:
        HoldfastError: It can't be deleted.
    """
    with asked(f"checkpoint '{name}' can't be deleted"):
        known = domain.checkpointLookupByName(name)
        with_bitmaps = of_disks(domain, name)
        if domain.isActive():
            try:
                known.delete()
                return
            except libvirt.libvirtError:
                pass  # its bitmap is gone; what libvirt knows of it is to go, too
        known.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
    if domain.isActive() or run_img is None:
        return
    for source in sources:  # libvirt does not touch the disks of a machine that is off
        if source.name in with_bitmaps and source.kind in ("file", "block"):
            with contextlib.suppress(HoldfastError):
                run_img(["bitmap", "--remove", source.place, name], f"disk '{source.name}'")


def why_not_off(info: dict[str, Any], checkpoint: str) -> str | None:
    """Why the bitmap in the file of a machine that is off can't be trusted; None: it can.

    Args:
        info: What `qemu-img info` says of the file.
        checkpoint: Whose bitmap it is.
    """
    details = info.get("format-specific", {}).get("data", {})
    for one in details.get("bitmaps", ()):
        if one["name"] == checkpoint:
            if "in-use" in one["flags"]:
                return INCONSISTENT
            return None if "auto" in one["flags"] else "its list of changes was switched off"
    return GONE
