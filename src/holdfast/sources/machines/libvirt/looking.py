"""What machines a libvirt has: its definitions, states and sizes, as a backup sees them.

Must not change anything.
"""

from __future__ import annotations

import contextlib
import os.path
from typing import Any

import libvirt

from holdfast.base.errors import HoldfastError
from holdfast.sources.machines import domain_xml
from holdfast.sources.machines.libvirt.connection import asked
from holdfast.sources.machines.machine import Disk, Machine, State

_AGENT_S = 2
_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: State.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: State.RUNNING,
    libvirt.VIR_DOMAIN_SHUTDOWN: State.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: State.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: State.SUSPENDED,
    libvirt.VIR_DOMAIN_SHUTOFF: State.OFF,
    libvirt.VIR_DOMAIN_CRASHED: State.OFF,
}


def machine(connection: Any, domain: Any, *, ask_guest: bool = True) -> Machine:
    """A machine as it is now.

    Raises:
        HoldfastError: libvirt does not tell.
    """
    with asked("libvirt does not tell of a machine"):
        state = domain.state()[0]
        known = domain_xml.read(domain.XMLDesc(0))
        memory_kib, cpus = domain.info()[1], domain.info()[3]
        host = connection.getHostname()
    found = _STATES.get(state, State.UNKNOWN)
    guest = domain_xml.system(known)
    if ask_guest and found is State.RUNNING and domain_xml.agent_connected(known):
        guest = _guest(domain) or guest
    sources = domain_xml.disks(known)
    disks = tuple(_disk(domain, one, found) for one in sources)
    stores = {_store(connection, one) for one in sources if one.left_out is None}
    return Machine(
        uuid=domain.UUIDString(),
        name=domain.name(),
        host=host,
        state=found,
        folder=domain_xml.folder(known),
        tags=domain_xml.tags(known),
        guest=guest,
        disks=disks,
        networks=domain_xml.networks(known),
        memory=memory_kib * 1024,
        cpus=cpus,
        datastores=tuple(sorted(stores)),
    )


def why_left_out(source: domain_xml.DomainDisk, state: State) -> str | None:
    """Why an image of a machine in that state can't hold a disk; None: it can."""
    if source.left_out is not None:
        return source.left_out
    if state is not State.OFF:
        return source.left_out_running
    if source.kind not in ("file", "block", "volume"):
        return f"a disk of the type '{source.kind}' of a machine that is off"
    return None


def real_place(connection: Any, source: domain_xml.DomainDisk) -> str:
    """The path of a disk, also of one that is a volume of a pool.

    Raises:
        HoldfastError: libvirt knows no such volume.
    """
    if source.volume is None:
        return source.place
    with asked(f"disk '{source.name}' is volume '{source.place}'"):
        pool = connection.storagePoolLookupByName(source.volume[0])
        return str(pool.storageVolLookupByName(source.volume[1]).path())


def _disk(domain: Any, source: domain_xml.DomainDisk, state: State) -> Disk:
    reason = why_left_out(source, state)
    capacity, allocated = 0, None
    if source.place and source.format not in domain_xml.NO_DISKS:
        try:
            capacity, allocated, _ = domain.blockInfo(source.name)
        except libvirt.libvirtError as error:
            if reason is None:
                reason = f"it can't be looked at: {error.get_error_message()}"
    return Disk(source.name, capacity, source.place, source.format, reason, allocated)


def _store(connection: Any, source: domain_xml.DomainDisk) -> str:
    if source.volume is not None:
        return source.volume[0]
    if source.kind == "network":
        return source.place.rpartition("/")[0]
    with contextlib.suppress(libvirt.libvirtError):
        volume = connection.storageVolLookupByPath(source.place)
        return str(volume.storagePoolLookupByVolume().name())
    return os.path.dirname(source.place)


def _guest(domain: Any) -> str:
    with contextlib.suppress(libvirt.libvirtError, HoldfastError):
        domain.agentSetResponseTimeout(_AGENT_S)
        try:
            told = domain.guestInfo(libvirt.VIR_DOMAIN_GUEST_INFO_OS)
            return str(told.get("os.pretty-name", ""))
        finally:
            domain.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_DEFAULT)
    return ""
