"""Which machines a vCenter or host has, as it tells them: in pages, and each name asked once.

Must not change anything there. Invariant: a machine is known by its instance uuid, which its
manager keeps unique wherever it goes; the uuid that its guest sees may be another's, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from holdfast.base.errors import MachineMissing
from holdfast.sources.machines.machine import Machine, Network, State
from holdfast.sources.machines.vmware import disks
from holdfast.sources.machines.vmware.connection import asked
from holdfast.sources.machines.vmware.properties import retrieved, told

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.sources.machines.vmware.connection import Session

_MACHINE = (
    "name",
    "config.instanceUuid",
    "config.uuid",
    "config.template",
    "config.guestFullName",
    "config.hardware.device",
    "config.hardware.memoryMB",
    "config.hardware.numCPU",
    "customValue",
    "guest.guestFullName",
    "parent",
    "parentVApp",
    "runtime.host",
    "runtime.powerState",
)
_STATES = {
    "poweredOn": State.RUNNING,
    "poweredOff": State.OFF,
    "suspended": State.SUSPENDED,
}
_TELLS_NOT = "the vCenter does not tell of its machines"


@dataclass(slots=True)
class Names:
    """What objects are called, and lie in."""

    of: dict[str, str] = field(default_factory=dict)
    parents: dict[str, Any] = field(default_factory=dict)
    attributes: dict[int, str] = field(default_factory=dict)
    port_groups: dict[str, str] = field(default_factory=dict)

    def name(self, one: Any) -> str:
        """Of an object; empty for none."""
        return "" if one is None else self.of.get(str(one), "")

    def path(self, one: Any) -> str:
        """Where an object lies: names of folders without those that every vCenter has."""
        found: list[str] = []
        while one is not None:
            up = self.parents.get(str(one))
            if up is not None and not isinstance(up, vim.Datacenter):
                found.append(self.name(one))
            one = up
        return "/".join(reversed([part for part in found if part]))


def machines(session: Session) -> list[Machine]:
    """All machines; templates, and those that their manager has lost sight of, are none.

    Raises:
        HoldfastError: They are not told.
    """
    with asked(_TELLS_NOT, session.place):
        names = _names(session)
        found = []
        for _, has in _all(session, vim.VirtualMachine, _MACHINE):
            if has.get("config.instanceUuid") and not has.get("config.template"):
                found.append(_machine(has, names))
    return sorted(found, key=lambda one: one.name)


def find(session: Session, uuid: str) -> Any:
    """The machine of a uuid, as the interface knows it.

    Raises:
        MachineMissing: There is none.
    """
    with asked(f"machine {uuid} at '{session.place}'", session.place):
        found = session.content.searchIndex.FindByUuid(None, uuid, True, True)
    if found is None:
        raise MachineMissing(f"there is no machine {uuid} at '{session.place}'")
    return found


def machine(session: Session, virtual_machine: Any) -> Machine:
    """What is known of one machine, looked at anew.

    Raises:
        MachineMissing: It is gone.
    """
    with asked("the vCenter does not tell of a machine", session.place):
        names = _names(session)
        for _, has in retrieved(session, _MACHINE, vim.VirtualMachine, [virtual_machine]):
            if has.get("config.instanceUuid"):
                return _machine(has, names)
    raise MachineMissing("the vCenter has lost sight of the machine", "see its host and datastore")


def data_center_path(session: Session, one: Any) -> str:
    """How the datastores' interface names the data centre of an object: with its folders."""
    if not isinstance(one, vim.Datacenter):
        said = told(session, one, "parent", "parentVApp")
        one = said.get("parent", said.get("parentVApp"))
    with asked("the vCenter does not tell of its data centres", session.place):
        names = _names(session)
    while one is not None and not isinstance(one, vim.Datacenter):
        one = names.parents.get(str(one))
    parts: list[str] = []
    while one is not None and names.parents.get(str(one)) is not None:
        parts.append(names.name(one))
        one = names.parents.get(str(one))
    return "/".join(reversed(parts))


def _names(session: Session) -> Names:
    names = Names()
    for kind, paths in (
        (vim.HostSystem, ("name",)),
        (vim.Datacenter, ("name", "parent")),
        (vim.Folder, ("name", "parent")),
        (vim.VirtualApp, ("name", "parentFolder")),
        (vim.Network, ("name",)),
        (vim.dvs.DistributedVirtualPortgroup, ("name", "key")),
    ):
        for one, has in _all(session, kind, paths):
            names.of[str(one)] = has.get("name", "")
            if "parent" in paths or "parentFolder" in paths:
                names.parents[str(one)] = has.get("parent", has.get("parentFolder"))
            if "key" in has:
                names.port_groups[has["key"]] = has["name"]
    manager = session.content.customFieldsManager
    if manager is not None:
        names.attributes = {one.key: one.name for one in manager.field}
    return names


def _all(session: Session, kind: Any, paths: Sequence[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
    view = session.content.viewManager.CreateContainerView(session.content.rootFolder, [kind], True)
    try:
        walk = vmodl.query.PropertyCollector.TraversalSpec(
            name="view", path="view", skip=False, type=vim.view.ContainerView
        )
        yield from retrieved(session, paths, kind, [view], [walk])
    finally:
        view.Destroy()


def _machine(has: dict[str, Any], names: Names) -> Machine:
    devices = has.get("config.hardware.device") or []
    found = disks.of_devices(devices)
    where = has.get("parent")
    return Machine(
        uuid=has["config.instanceUuid"].lower(),
        name=_plain(has["name"]),
        host=names.name(has.get("runtime.host")),
        state=_STATES.get(str(has.get("runtime.powerState")), State.UNKNOWN),
        folder=names.path(where if where is not None else has.get("parentVApp")),
        tags=tuple(_tags(has.get("customValue") or (), names)),
        guest=has.get("guest.guestFullName") or has.get("config.guestFullName") or "",
        disks=tuple(one.disk for one in found),
        networks=tuple(_networks(devices, names)),
        memory=(has.get("config.hardware.memoryMB") or 0) << 20,
        cpus=has.get("config.hardware.numCPU") or 0,
        datastores=tuple(sorted({one.datastore for one in found if one.datastore})),
    )


def _plain(name: str) -> str:
    """A name as people wrote it: the interface escapes these three."""
    return name.replace("%2f", "/").replace("%5c", "\\").replace("%25", "%")


def _tags(values: Sequence[Any], names: Names) -> Iterator[str]:
    for one in values:
        name = names.attributes.get(one.key)
        value = getattr(one, "value", "")
        if name and value:
            yield f"{name}={value}"


def _networks(devices: Sequence[Any], names: Names) -> Iterator[Network]:
    for one in devices:
        if isinstance(one, vim.vm.device.VirtualEthernetCard):
            model = type(one).__name__.rpartition(".")[2].removeprefix("Virtual").lower()
            yield Network((one.macAddress or "").lower(), _network(one.backing, names), model)


def _network(backing: Any, names: Names) -> str:
    if isinstance(backing, vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo):
        return names.port_groups.get(backing.port.portgroupKey or "", "")
    if isinstance(backing, vim.vm.device.VirtualEthernetCard.OpaqueNetworkBackingInfo):
        return str(backing.opaqueNetworkId)
    return str(getattr(backing, "deviceName", "") or "")
