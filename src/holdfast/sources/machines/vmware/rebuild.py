"""Make a machine of VMware again: its disks as flat files in a datastore, then the machine on them.

Must not start anything. Invariant: a machine that can't be made whole leaves nothing, and nothing
that is there is written over.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from holdfast.base.errors import (
    AlreadyExists,
    DiskUnreadable,
    HoldfastError,
    Invalid,
    NotFound,
    Unsupported,
)
from holdfast.sources import places
from holdfast.sources.machines.new_disks import NewDisk, write_disk
from holdfast.sources.machines.vmware import disks, inventory, settings
from holdfast.sources.machines.vmware.connection import asked
from holdfast.sources.machines.vmware.datastore import Files
from holdfast.sources.machines.vmware.properties import told
from holdfast.sources.machines.vmware.tasks import wait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import DiskWriter, NewMachine
    from holdfast.sources.machines.vmware.connection import Session

FORMAT = "vmdk"
STAGED = "holdfast-vmware-"
_KIB = 1024
_FILE_STORES = ("VMFS", "NFS", "NFS41", "OTHER")
"""Kinds of datastores where a disk's bytes are a file; the last is a simulator's."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a machine is made.

    Attributes:
        datastore: For all of its files.
        data_center: Whose that is.
        folder: That the machine is filed in.
        pool: Of which it has its memory and processors.
        host: That runs it.
    """

    datastore: Any
    data_center: Any
    folder: Any
    pool: Any
    host: Any

    def path(self, directory: str, file: str = "") -> str:
        """A path in the datastore, as the interface takes it."""
        return f"[{self.datastore.name}] {directory}{'/' if file else ''}{file}"


def restore(session: Session, order: NewMachine, write: DiskWriter) -> Machine:
    """Write the disks, and make the machine.

    Raises:
        AlreadyExists: There is one of its name, or of the uuid that is to be kept.
        HoldfastError: It can't be made; nothing of it stays.
    """
    if not re.fullmatch(r"[^/\\%\s\[\]][^/\\%\[\]\n]{0,78}", order.name):
        raise Invalid(f"'{order.name}' can't be the name of a machine", "use letters and digits")
    if order.format != FORMAT:
        raise Invalid(f"disks of VMware are '{FORMAT}', not '{order.format}'")
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
    cards = _cards(order, target, devices)
    with _directory(session, target, order.name):
        files = _write_disks(session, order, target, devices, write)
        spec.files = vim.vm.FileInfo(vmPathName=target.path(order.name, f"{order.name}.vmx"))
        spec.deviceChange = settings.changes_of(devices, files, cards)
        if (nvram := order.definitions.get("nvram")) is not None:
            _put(session, target, f"{order.name}/{order.name}.nvram", nvram)
        what = f"machine '{order.name}' can't be made"
        with asked(what):
            task = target.folder.CreateVM_Task(config=spec, pool=target.pool, host=target.host)
        return inventory.machine(session, wait(session, task, what))


def find_target(session: Session, order: NewMachine) -> Target:
    """Where a machine is to be made.

    Raises:
        NotFound: There is no such datastore, or no host that has it.
        Unsupported: Disks are no files there.
    """
    with asked("the vCenter does not tell of its datastores"):
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
    order: NewMachine, target: Target, devices: list[Any]
) -> dict[int, tuple[Any, bool, bool]]:
    """Of each card, by its key: what it is connected to, whether it is, whether its MAC stays."""
    with asked("the vCenter does not tell of its networks"):
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


@contextlib.contextmanager
def _directory(session: Session, target: Target, name: str) -> Iterator[None]:
    """Have a directory for the machine, which goes with whatever fails."""
    manager = session.content.fileManager
    path = target.path(name)
    try:
        with asked(f"'{path}' can't be made"):
            manager.MakeDirectory(path, target.data_center, False)
    except AlreadyExists as error:
        raise AlreadyExists(
            f"there is something at '{path}'",
            "give the machine another name; what a killed restore left is removed by hand",
        ) from error
    try:
        yield
    except BaseException:
        with contextlib.suppress(HoldfastError):
            what = f"'{path}' can't be removed"
            with asked(what):
                task = manager.DeleteDatastoreFile_Task(path, target.data_center)
            wait(session, task, what)
        raise


def _write_disks(
    session: Session, order: NewMachine, target: Target, devices: list[Any], write: DiskWriter
) -> dict[int, tuple[str, int]]:
    """Write each disk, first into a file here, then from its beginning to its end over there."""
    by_name = {one.name: one for one in disks.of_devices(devices)}
    found: dict[int, tuple[str, int]] = {}
    for disk in order.machine.disks:
        if disk.left_out is not None:
            continue
        known = by_name.get(disk.name)
        if known is None:
            raise DiskUnreadable(f"disk '{disk.name}' is not in the definition of the image")
        size = -(-disk.size // _KIB) * _KIB
        path = target.path(order.name, f"{disk.name}.vmdk")
        _make(session, target, path, size, "ide" if disk.name.startswith("ide") else "lsiLogic")
        with places.private_directory(STAGED, staging()) as here:
            staged = here / "disk.raw"
            write_disk(NewDisk(disk, staged, "raw"), write)
            os.truncate(staged, size)
            with staged.open("rb") as content:
                _put(session, target, f"{order.name}/{disk.name}-flat.vmdk", content, size)
        found[known.key] = path, size
    return found


def staging() -> Path:
    """Where disks lie until they are over there: on a disk, if nobody says otherwise."""
    usual = Path("/var/tmp")  # noqa: S108 - a directory of one's own is made in it
    return Path(tempfile.gettempdir()) if os.environ.get("TMPDIR") or not usual.is_dir() else usual


def _make(session: Session, target: Target, path: str, size: int, adapter: str) -> None:
    spec = vim.VirtualDiskManager.FileBackedVirtualDiskSpec(
        diskType="thin", adapterType=adapter, capacityKb=size // _KIB
    )
    what = f"'{path}' can't be made"
    with asked(what):
        manager = session.content.virtualDiskManager
        task = manager.CreateVirtualDisk_Task(path, target.data_center, spec)
    wait(session, task, what)


def _put(
    session: Session, target: Target, path: str, content: Any, size: int | None = None
) -> None:
    data_center = inventory.data_center_path(session, target.data_center)
    files = Files(session, data_center)
    name = str(told(session, target.datastore, "name")["name"])
    files.put(name, path, content, len(content) if size is None else size)
