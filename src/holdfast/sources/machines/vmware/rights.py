"""What a user has to be allowed at a vCenter or host, and whether he is.

Must not try any of it. Invariant: the guide lists the same rights; a test holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyVmomi import vmodl

from holdfast.base.errors import HypervisorError
from holdfast.sources.machines.vmware.connection import asked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.sources.machines.vmware.connection import Session

OF_BACKUPS = {
    "VirtualMachine.State.CreateSnapshot": "make a snapshot",
    "VirtualMachine.State.RemoveSnapshot": "remove it again",
    "VirtualMachine.Config.ChangeTracking": "have changes marked",
    "VirtualMachine.Provisioning.DiskRandomRead": "ask what changed",
}
"""At each machine."""

OF_READING = {
    "Datastore.Browse": "find files",
    "Datastore.FileManagement": "read them",
}
"""At each datastore."""

OF_RESTORES = {
    "Datastore.AllocateSpace": "make disks",
    "Network.Assign": "connect network cards",
    "Resource.AssignVMToPool": "give it a resource pool",
    "VirtualMachine.Config.AddExistingDisk": "give it the disks that were written",
    "VirtualMachine.Config.AddRemoveDevice": "give it its devices",
    "VirtualMachine.Config.AdvancedConfig": "give it its further settings",
    "VirtualMachine.Config.Settings": "give it its settings",
    "VirtualMachine.Interact.PowerOn": "start it",
    "VirtualMachine.Inventory.Create": "make a machine",
    "VirtualMachine.Inventory.Delete": "take away one that could not be made whole",
}
"""Where machines are made: at the folder, the pool, the datastore and the networks."""


def missing(session: Session, entity: Any, wanted: Iterable[str]) -> Sequence[str]:
    """Which rights the user of a session does not have at an object; none where nobody tells.

    Raises:
        HoldfastError: The question fails.
    """
    names = list(wanted)
    with asked("the vCenter does not tell what the user may", session.place):
        try:
            key = session.content.sessionManager.currentSession.key
            manager = session.content.authorizationManager
            granted = manager.HasPrivilegeOnEntity(entity, key, names)
        except (vmodl.fault.NotSupported, vmodl.fault.MethodNotFound, AttributeError):
            return []
    if len(granted) != len(names):
        raise HypervisorError("the vCenter tells what the user may in an unknown way")
    return [name for name, one in zip(names, granted, strict=True) if not one]
