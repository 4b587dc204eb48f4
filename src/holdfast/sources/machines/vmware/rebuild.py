"""Make a machine of VMware again: its disks as flat files in a datastore, then the machine on them.

Must not start anything. Invariant: a machine that can't be made whole leaves nothing but disks by
which the same restore goes on, and nothing that is there is written over.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from holdfast.base.errors import (
    AlreadyExists,
    DiskUnreadable,
    Invalid,
    NotFound,
    Unsupported,
)
from holdfast.sources.machines.providers import KINDS
from holdfast.sources.machines.vmware import disks, inventory, new_files, settings
from holdfast.sources.machines.vmware.connection import asked
from holdfast.sources.machines.vmware.new_files import Target
from holdfast.sources.machines.vmware.tasks import wait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import DiskWriter, NewMachine
    from holdfast.sources.machines.vmware.connection import Session
    from holdfast.sources.machines.vmware.new_files import NewFiles

_FILE_STORES = ("VMFS", "NFS", "NFS41", "OTHER")
"""Kinds of datastores where a disk's bytes are a file; the last is a simulator's."""


def restore(session: Session, order: NewMachine, write: DiskWriter) -> Machine:
    """Write the disks, and make the machine.

    Raises:
        AlreadyExists: There is one of its name, or of the uuid that is to be kept.
        Invalid: Disks can't be of that format here, or that is no name.
        HoldfastError: It can't be made; see `Provider.restore`.
    """
    if not re.fullmatch(r"[^/\\%\s\[\]][^/\\%\[\]\n]{0,78}", order.name):
        raise Invalid(f"'{order.name}' can't be the name of a machine", "use letters and digits")
    KINDS["vmware"].format_of(order.format)
    config = settings.from_bytes(order.definitions.get(settings.NAME), order.machine.name)
    _refuse_conflicts(session, order)
    target = find_target(session, order)
    try:
        spec = settings.order_of(config)
        devices = settings.devices_of(config)
        spec.name = order.name
        if order.keep_identity:
            spec.instanceUuid, spec.uuid = order.machine.uuid, config.get("uuid")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DiskUnreadable(
            f"the definition of '{order.machine.name}' in the image is not one of VMware's"
        ) from error
    cards = _cards(session, order, target, devices)
    with new_files.making(session, target, order) as made:
        files = _write_disks(order, devices, made, write)
        spec.files = vim.vm.FileInfo(vmPathName=target.path(order.name, f"{order.name}.vmx"))
        spec.deviceChange = settings.changes_of(devices, files, cards)
        if (nvram := order.definitions.get("nvram")) is not None:
            made.file(f"{order.name}.nvram", nvram)
        made.hand_over()
        what = f"machine '{order.name}' can't be made"
        with asked(what, session.place):
            task = target.folder.CreateVM_Task(config=spec, pool=target.pool, host=target.host)
        return inventory.machine(session, wait(session, task, what))


def find_target(session: Session, order: NewMachine) -> Target:
    """Where a machine is to be made.

    Raises:
        NotFound: There is no such datastore, or no host that has it.
        Unsupported: Disks are no files there.
    """
    with asked("the vCenter does not tell of its datastores", session.place):
        found = list(_datastores(session))
        name = order.storage
        if name is None:
            there = {one.name for one, _ in found}
            before = [one for one in order.machine.datastores if one in there]
            name = before[0] if before else next(iter(there)) if len(there) == 1 else None
        known = ", ".join(sorted({one.name for one, _ in found}))
        if name is None:
            raise NotFound(
                "the datastore that the machine was in is not there", f"--storage one of: {known}"
            )
        fitting = [(one, where) for one, where in found if one.name == name]
        if not fitting:
            raise NotFound(f"there is no datastore '{name}'", f"there are: {known}")
        datastore, data_center = fitting[0]
        kind = str(datastore.summary.type)
        if kind.upper() not in _FILE_STORES:
            raise Unsupported(
                f"datastore '{name}' is of the kind {kind}, where disks are no files",
                "restore to one of the kind VMFS or NFS, and move the machine from there",
            )
        mounted = [one.key for one in datastore.host if one.mountInfo.accessible is not False]
        if not mounted:
            raise NotFound(f"no host has datastore '{name}' at the moment")
        host = next((one for one in mounted if one.name == order.machine.host), mounted[0])
        return Target(
            datastore, data_center, _folder(data_center, order), host.parent.resourcePool, host
        )


def _datastores(session: Session) -> Iterator[tuple[Any, Any]]:
    left = [session.content.rootFolder]
    while left:
        one = left.pop(0)
        if isinstance(one, vim.Datacenter):
            for datastore in one.datastore:
                yield datastore, one
        elif isinstance(one, vim.Folder):
            left.extend(one.childEntity)


def _folder(data_center: Any, order: NewMachine) -> Any:
    """The folder that the machine was in, as far as it is there."""
    one = data_center.vmFolder
    for name in order.machine.folder.split("/"):
        below = [each for each in one.childEntity if isinstance(each, vim.Folder)]
        one = next((each for each in below if each.name == name), one)
    return one


def _refuse_conflicts(session: Session, order: NewMachine) -> None:
    for one in inventory.machines(session):
        if one.name == order.name:
            raise AlreadyExists(
                f"there is a machine '{order.name}' at '{session.place}'",
                "give the new one another name",
            )
        if order.keep_identity and one.uuid == order.machine.uuid:
            raise AlreadyExists(
                f"machine '{one.name}' has the uuid {order.machine.uuid}",
                "remove it first, or restore with a new identity",
            )


def _cards(
    session: Session, order: NewMachine, target: Target, devices: list[Any]
) -> dict[int, tuple[Any, bool, bool]]:
    """Of each card, by its key: what it is connected to, whether it is, whether its MAC stays."""
    with asked("the vCenter does not tell of its networks", session.place):
        known = {one.name: one for one in target.host.network}
    found: dict[int, tuple[Any, bool, bool]] = {}
    cards = [one for one in devices if isinstance(one, vim.vm.device.VirtualEthernetCard)]
    for at, card in enumerate(cards):
        before = order.machine.networks[at].network if at < len(order.machine.networks) else ""
        wanted = before
        if order.networks:
            wanted = order.networks[min(at, len(order.networks) - 1)]
        connected = order.networks is None or bool(order.networks)
        if wanted not in known:
            if connected:
                raise NotFound(
                    f"there is no network '{wanted}' at host '{target.host.name}'",
                    f"--network one of: {', '.join(sorted(known))}; or --no-network",
                )
            wanted = min(known, default="")
        if wanted in known:
            found[card.key] = _backing(known[wanted]), connected, order.keep_identity
    return found


def _backing(network: Any) -> Any:
    cards = vim.vm.device.VirtualEthernetCard
    if isinstance(network, vim.dvs.DistributedVirtualPortgroup):
        switch: Any = network.config.distributedVirtualSwitch
        port = vim.dvs.PortConnection(portgroupKey=network.key, switchUuid=switch.uuid)
        return cards.DistributedVirtualPortBackingInfo(port=port)
    if isinstance(network, vim.OpaqueNetwork):
        summary = network.summary
        return cards.OpaqueNetworkBackingInfo(
            opaqueNetworkId=summary.opaqueNetworkId, opaqueNetworkType=summary.opaqueNetworkType
        )
    return cards.NetworkBackingInfo(deviceName=network.name)


def throw_away(session: Session, order: NewMachine) -> list[str]:
    """Take away what restores of a machine of that name left; which files those were.

    Raises:
        Busy: One is at work here.
        HoldfastError: There is no such datastore.
    """
    return new_files.throw_away(session, find_target(session, order), order)


def _write_disks(
    order: NewMachine, devices: list[Any], made: NewFiles, write: DiskWriter
) -> dict[int, tuple[str, int]]:
    """Have each disk in its place."""
    by_name = {one.name: one for one in disks.of_devices(devices)}
    found: dict[int, tuple[str, int]] = {}
    for disk in order.machine.disks:
        if disk.left_out is not None:
            continue
        known = by_name.get(disk.name)
        if known is None:
            raise DiskUnreadable(f"disk '{disk.name}' is not in the definition of the image")
        found[known.key] = made.disk(disk, write)
    return found
