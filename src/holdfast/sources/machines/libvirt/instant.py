"""Machines of libvirt that run from their image: begun, moved onto disks of their own, thrown away.

Must not serve the image. Invariants: what a machine was given for the time that it needs its image
(to stand still where a disk can't be read) is in its definition only for that time; what is not
over the socket that it is said to be over is left alone.
"""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libvirt
from lxml import etree

from holdfast.base.errors import AlreadyExists, HypervisorError, MachineMissing
from holdfast.sources.machines import domain_xml, overlays
from holdfast.sources.machines.libvirt import looking, rebuild
from holdfast.sources.machines.libvirt.connection import asked
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.overlays import Moved, Over, Standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.sources.machines.libvirt.overlay_files import OverlayFiles
    from holdfast.sources.machines.machine import Disk, Machine
    from holdfast.sources.machines.provider import DiskTarget, NewMachine, Part

    Alive = Callable[[], None]

_LOOK_S = 0.3
_POLICIES = ("error_policy", "rerror_policy")
_OWNER = re.compile(r"\+?(\d+)")
_IN_FULL = libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_INACTIVE
_FORGET = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


@dataclass(frozen=True, slots=True)
class _At:
    """A disk of a machine as it is now.

    Attributes:
        name: Its target.
        place: The file on top.
        needs: Whether it reads from the image.
        mirrored: ``yes`` where a copy is whole, else what libvirt says of it; None without one.
    """

    name: str
    place: str
    needs: bool
    mirrored: str | None


def find(connection: Any, over: Over) -> Any:
    """The machine; None where there is none."""
    try:
        return connection.lookupByUUIDString(over.uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        with asked(f"machine '{over.name}'"):
            raise


def start_over(connection: Any, order: NewMachine, over: Over, files: OverlayFiles) -> Machine:
    """See `Provider.start_over`."""
    domain = find(connection, over)
    if domain is None:
        files.clear()
        rebuild.restore(connection, files.side(), order, _nobody_writes, _stand_still)
        domain = connection.lookupByUUIDString(over.uuid)
    elif not _needs(domain, over, files):
        raise AlreadyExists(
            f"machine '{domain.name()}' has the uuid {over.uuid}",
            "remove it first, or begin with a new identity",
        )
    with asked(f"machine '{over.name}' does not start"):
        if not domain.isActive():
            domain.create()
    return looking.machine(connection, domain, ask_guest=False)


def standing(connection: Any, over: Over, files: OverlayFiles) -> Standing:
    """See `Provider.standing`."""
    domain = _found(connection, over)
    with asked(f"libvirt does not tell of machine '{over.name}'"):
        state, reason = domain.state()
    stuck = state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR
    known = {
        libvirt.VIR_DOMAIN_PAUSED: State.PAUSED,
        libvirt.VIR_DOMAIN_PMSUSPENDED: State.SUSPENDED,
        libvirt.VIR_DOMAIN_SHUTOFF: State.OFF,
        libvirt.VIR_DOMAIN_CRASHED: State.OFF,
    }
    return Standing(known.get(state, State.RUNNING), _needs(domain, over, files), stuck=stuck)


def go_on(connection: Any, over: Over, files: OverlayFiles) -> None:
    """See `Provider.go_on`."""
    if standing(connection, over, files).stuck:
        with asked(f"machine '{over.name}' does not go on"):
            _found(connection, over).resume()


def migrate(
    connection: Any,
    over: Over,
    files: OverlayFiles,
    moved: Callable[[Moved], None],
    alive: Alive,
) -> None:
    """See `Provider.migrate`."""
    domain = _found(connection, over)
    with asked(f"machine '{over.name}' is not moved"):
        if not domain.isActive():
            overlays.refuse_move_while_off(over)
        _move(domain, over, files, moved, alive)
    left = _needs(domain, over, files)
    if left:
        raise overlays.still_needed(over, left)
    _settle(connection, domain, files)


def discard(connection: Any, over: Over, files: OverlayFiles) -> None:
    """See `Provider.discard`."""
    domain = find(connection, over)
    if domain is not None:
        overlays.require_own(over, _needs(domain, over, files))
        with asked(f"machine '{over.name}' can't be removed"):
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()
            domain.undefineFlags(_FORGET)
    files.clear()


def reads_as(connection: Any) -> int | None:
    """The user that libvirt runs machines as, where it says so."""
    with asked("libvirt does not tell what it can"):
        told = domain_xml.read(connection.getCapabilities())
    for model in told.findall("host/secmodel"):
        if model.findtext("model") == "dac":
            for label in model.findall("baselabel"):
                if found := _OWNER.match(label.text or ""):
                    return int(found.group(1))
    return None


def _found(connection: Any, over: Over) -> Any:
    domain = find(connection, over)
    if domain is None:
        raise MachineMissing(f"machine '{over.name}' ({over.uuid}) is gone")
    return domain


def _move(
    domain: Any,
    over: Over,
    files: OverlayFiles,
    moved: Callable[[Moved], None],
    alive: Alive,
) -> None:
    """Begin what is to be moved, and follow that and what is under way already.

    Pulls go one after another, and no size is asked for while one goes. From the end of a pull
    until libvirt takes note of it, QEMU crashes when it is asked for all of its block nodes (since
    6.0: https://gitlab.com/qemu-project/qemu/-/issues/3149). libvirt asks it that when another pull
    has ended, and when it is asked for a size. Copies end in another way.
    """
    pulls = over.format == "qcow2"
    names = [one.name for one in _disks(domain, over, files)]
    begun: set[str] = set()
    done: dict[str, tuple[int, int]] = {}
    while True:
        # First the jobs: of one that is over now, what is seen next is seen as it left it.
        jobs = {name: told for name in names if (told := domain.blockJobInfo(name))}
        disks = _disks(domain, over, files)
        waiting = [one for one in disks if one.needs and one.name not in begun | jobs.keys()]
        if not (pulls and jobs):
            for one in waiting:
                if one.name not in done:
                    done[one.name] = 0, int(domain.blockInfo(one.name)[0])
            for one in waiting[:1] if pulls else waiting:
                begun.add(one.name)
                _begin(domain, one, over, files)
        for name, told in jobs.items():
            # It says 0 of 0 at first.
            done[name] = int(told["cur"]), int(told["end"]) or done.get(name, (0, 0))[1]
        for name in done.keys() - jobs.keys() - {one.name for one in waiting}:
            done[name] = (done[name][1],) * 2
        for one in disks:
            if one.mirrored == "yes" and one.name in jobs:
                domain.blockJobAbort(one.name, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        moved(Moved(sum(one for one, _ in done.values()), sum(all_ for _, all_ in done.values())))
        if not jobs and not waiting:
            return
        alive()
        time.sleep(_LOOK_S)


def _begin(domain: Any, disk: _At, over: Over, files: OverlayFiles) -> None:
    if over.format == "qcow2":
        domain.blockPull(disk.name, 0, 0)
        return
    target = etree.Element("disk", {"type": "file"})
    etree.SubElement(target, "source", {"file": str(Path(disk.place).with_suffix(".raw"))})
    etree.SubElement(target, "driver", {"type": "raw"})
    # A copy that stopped left its file: it is written anew, by who may read it.
    files.remove(str(Path(disk.place).with_suffix(".raw")))
    flags = libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
    domain.blockCopy(disk.name, etree.tostring(target, encoding="unicode"), None, flags)


def _settle(connection: Any, domain: Any, files: OverlayFiles) -> None:
    """Have the machine start as it runs now, with no more than it had before; may be done again."""
    with asked("libvirt does not tell how the machine is defined"):
        live = domain_xml.read(domain.XMLDesc(0))
        kept = domain_xml.read(domain.XMLDesc(_IN_FULL))
    now = {_target(one): one for one in live.findall("devices/disk")}
    stale = []
    for disk in kept.findall("devices/disk"):
        driver, source = disk.find("driver"), disk.find("source")
        if driver is None or source is None or _target(disk) not in now:
            continue
        for name in _POLICIES:
            driver.attrib.pop(name, None)
        for before in disk.findall("backingStore") + disk.findall("mirror"):
            disk.remove(before)
        here = now[_target(disk)]
        new, new_driver = here.find("source"), here.find("driver")
        if new is None or new_driver is None or not new.get("file"):
            continue
        place = Path(new.get("file", ""))
        if place.suffix == ".raw":
            stale.append(place.with_suffix(".qcow2"))
        if source.get("file") != new.get("file"):
            source.set("file", new.get("file", ""))
            driver.set("type", new_driver.get("type", "raw"))
    with asked("the machine can't be defined"):
        connection.defineXML(etree.tostring(kept, encoding="unicode"))
    for path in stale:
        # libvirt may have the new place in the definition by itself.
        if files.reads(str(path)):
            files.remove(str(path))


def _needs(domain: Any, over: Over, files: OverlayFiles) -> tuple[str, ...]:
    return tuple(one.name for one in _disks(domain, over, files) if one.needs)


def _disks(domain: Any, over: Over, files: OverlayFiles) -> list[_At]:
    """Its disks. Of one that is off, the files tell; of one that runs, libvirt."""
    with asked(f"libvirt does not tell of machine '{over.name}'"):
        active = domain.isActive()
        known = domain_xml.read(domain.XMLDesc(0))
    found = []
    for disk in known.findall("devices/disk"):
        source, mirror = disk.find("source"), disk.find("mirror")
        if source is None or not source.get("file") or disk.get("device", "disk") != "disk":
            continue
        place = str(source.get("file"))
        if active:
            below = disk.find("backingStore")
            text = "" if below is None else etree.tostring(below, encoding="unicode")
            needs = overlays.names(text, over.socket)
        else:
            needs = files.reads(place)
        mirrored = None if mirror is None else mirror.get("ready", "")
        found.append(_At(_target(disk), place, needs, mirrored))
    return found


def _target(disk: Any) -> str:
    target = disk.find("target")
    return "" if target is None else target.get("dev", "")


def _stand_still(domain: Any) -> None:
    """Have the guest stand still where a disk can't be read, in place of an error that it sees."""
    for disk in domain.findall("devices/disk"):
        driver = disk.find("driver")
        if disk.get("device", "disk") == "disk" and driver is not None:
            for name in _POLICIES:
                driver.set(name, "stop")


def _nobody_writes(_disk: Disk, _target: DiskTarget, _part: Part, /) -> None:
    raise HypervisorError("a disk over another is not written")
