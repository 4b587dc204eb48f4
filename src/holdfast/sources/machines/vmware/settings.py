"""The settings of a VMware machine: kept as JSON, and made into the order for another such machine.

Must not ask anybody, nor know where its disks and networks are found. Invariant: of what an image
says only values of types that VMware has get into an order.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from pyVmomi import vim
from pyVmomi.VmomiJSONEncoder import VmomiJSONEncoder
from pyVmomi.VmomiSupport import GetVmodlType, ManagedObject, binary

from holdfast.base.errors import DiskUnreadable, Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAME = "config.json"
LARGEST = 16 << 20
"""Bytes of a file of settings."""

_DEEPEST = 32
_PLAIN = (
    "annotation",
    "alternateGuestName",
    "cpuHotAddEnabled",
    "cpuHotRemoveEnabled",
    "firmware",
    "guestId",
    "memoryHotAddEnabled",
    "nestedHVEnabled",
    "version",
    "vPMCEnabled",
)
_STRUCTURED = ("bootOptions", "flags")
_OF_THIS_RUN = (
    "checkpoint.",
    "ctkEnabled",
    "ethernet",
    "govcsim",
    "ide",
    "migrate.",
    "monitor.",
    "nvme",
    "nvram",
    "pciBridge",
    "sata",
    "sched.",
    "scsi",
    "softPowerOff",
    "vmotion.",
    "vmware.tools.",
)
"""Further settings that are of a device, a host or a run, and would be wrong for another one."""

_CONTROLLERS = (
    vim.vm.device.VirtualSCSIController,
    vim.vm.device.VirtualSATAController,
    vim.vm.device.VirtualNVMEController,
)
_FIRST_KEY = -1000


def to_bytes(config: Any) -> bytes:
    """What a machine's settings are kept as."""
    text = json.dumps(config, cls=VmomiJSONEncoder, strip_dynamic=True, indent=1, sort_keys=True)
    return text.encode()


def from_bytes(data: bytes | None, name: str) -> dict[str, Any]:
    """Read what `to_bytes` made.

    Raises:
        Unsupported: There is none: the image is of another kind of hypervisor.
        DiskUnreadable: It is not what `to_bytes` makes.
    """
    if data is None:
        raise Unsupported(
            f"the image of '{name}' has no definition of VMware", "restore its disks to a directory"
        )
    try:
        found = json.loads(data)
        if found["_vimtype"] != "vim.vm.ConfigInfo":
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DiskUnreadable(f"the definition of '{name}' in the image can't be read") from error
    assert isinstance(found, dict)  # noqa: S101 - it has a key
    return found


def typed(value: Any, depth: int = 0) -> Any:
    """A value of VMware's own types; None for one of a type that is not known here.

    Raises:
        ValueError, TypeError, AttributeError, KeyError: It is not what it says.
    """
    if depth > _DEEPEST:
        raise ValueError("too deep")
    if isinstance(value, list):
        made = (typed(one, depth + 1) for one in value)
        return [one for one in made if one is not None]
    if not isinstance(value, dict):
        return value
    kind = _kind(str(value.get("_vimtype", "")))
    if kind is None or "_vimref" in value:
        return None
    made = kind()
    for key, one in value.items():
        if key.startswith("_") or one is None:
            continue
        wanted = made._GetPropertyInfo(key).type  # noqa: SLF001 - it tells what types fit
        if wanted is binary:
            setattr(made, key, binary(base64.b64decode(one)))
        elif not (issubclass(wanted, ManagedObject) or wanted.__name__.endswith("datetime")):
            given = typed(one, depth + 1)
            if given is not None:
                setattr(made, key, wanted(given) if isinstance(given, list) else given)
    return made


def _kind(name: str) -> Any:
    if not name.startswith("vim."):
        return None
    try:
        return GetVmodlType(name)
    except (KeyError, AttributeError):
        return None


def order_of(config: Mapping[str, Any]) -> Any:
    """The order for a machine with these settings, without name, place, identity and devices.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: They are not what they should be.
    """
    hardware = config["hardware"]
    made = vim.vm.ConfigSpec(
        memoryMB=int(hardware["memoryMB"]),
        numCPUs=int(hardware["numCPU"]),
        numCoresPerSocket=int(hardware.get("numCoresPerSocket") or 1),
        extraConfig=[
            vim.option.OptionValue(key=one["key"], value=str(one["value"]))
            for one in config.get("extraConfig") or ()
            if one.get("value") and not str(one["key"]).startswith(_OF_THIS_RUN)
        ],
    )
    for key in _PLAIN:
        if config.get(key) is not None:
            setattr(made, key, config[key])
    for key in _STRUCTURED:
        if (given := typed(config.get(key))) is not None:
            setattr(made, key, given)
    return made


def devices_of(config: Mapping[str, Any]) -> list[Any]:
    """Devices of the kinds that are made again: controllers, disks and network cards.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: They are not what they should be.
    """
    wanted = (
        *_CONTROLLERS,
        vim.vm.device.VirtualIDEController,
        vim.vm.device.VirtualDisk,
        vim.vm.device.VirtualEthernetCard,
    )
    found = []
    for one in config["hardware"]["device"]:
        kind = _kind(str(one.get("_vimtype", "")))
        if kind is not None and issubclass(kind, wanted):
            found.append(typed(one))
    return found


def changes_of(
    devices: Sequence[Any], files: Mapping[int, tuple[str, int]], cards: Mapping[int, Any]
) -> list[Any]:
    """What is ordered to have devices again.

    Args:
        devices: As `devices_of` found them.
        files: Where disks are now and how large, by the keys of the devices; others are not made.
        cards: Backings of network cards by the keys of the devices.
    """
    keys: dict[int, int] = {}
    made = []
    used = {one.controllerKey for one in devices if one.key in files}
    for one in devices:
        if isinstance(one, _CONTROLLERS) and one.key in used:
            keys[one.key] = _FIRST_KEY - len(keys)
            made.append(_added(_controller(one, keys[one.key])))
    for number, one in enumerate(devices):
        key = _FIRST_KEY - len(devices) - number
        if one.key in files:
            path, size = files[one.key]
            made.append(_added(_disk(one, key, keys.get(one.controllerKey), path, size)))
        elif one.key in cards:
            made.append(_added(_card(one, key, cards[one.key])))
    return made


def _controller(old: Any, key: int) -> Any:
    made = type(old)(key=key, busNumber=old.busNumber)
    if isinstance(old, vim.vm.device.VirtualSCSIController):
        made.sharedBus = old.sharedBus
    return made


def _disk(old: Any, key: int, controller: int | None, path: str, size: int) -> Any:
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName=path, diskMode="persistent")
    return vim.vm.device.VirtualDisk(
        key=key,
        # Those of IDE are there in any machine, under the keys that they had in the other.
        controllerKey=old.controllerKey if controller is None else controller,
        unitNumber=old.unitNumber,
        capacityInBytes=size,
        capacityInKB=size // 1024,
        backing=backing,
    )


def _card(old: Any, key: int, given: tuple[Any, bool, bool]) -> Any:
    backing, connected, same = given
    made = type(old)(key=key, backing=backing, wakeOnLanEnabled=old.wakeOnLanEnabled)
    made.addressType = old.addressType if same else "generated"
    if same:
        made.macAddress = old.macAddress
    made.connectable = vim.vm.device.VirtualDevice.ConnectInfo(
        startConnected=connected, connected=False, allowGuestControl=True
    )
    return made


def _added(device: Any) -> Any:
    return vim.vm.device.VirtualDeviceSpec(
        operation=vim.vm.device.VirtualDeviceSpec.Operation.add, device=device
    )
