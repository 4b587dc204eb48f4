"""The settings of a machine of VMware as an image has them, and the rights that the guide lists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("pyVmomi", reason="pyVmomi is not installed: see the extra 'vm'")

from pyVmomi import vim

from holdfast.base.errors import DiskUnreadable, Unsupported
from holdfast.sources.machines.vmware import inventory, rights, settings

GUIDE = Path(__file__).parents[2] / "docs/guides/vmware.md"


def config() -> object:
    device = vim.vm.device
    network = vim.Network("network-7", None)
    card = device.VirtualVmxnet3(
        key=4000,
        macAddress="00:50:56:80:00:01",
        addressType="assigned",
        backing=device.VirtualEthernetCard.NetworkBackingInfo(deviceName="LAN", network=network),
    )
    disk = device.VirtualDisk(
        key=2000,
        controllerKey=1000,
        unitNumber=1,
        capacityInBytes=1 << 30,
        backing=device.VirtualDisk.FlatVer2BackingInfo(
            fileName="[a] b/b.vmdk", diskMode="persistent", thinProvisioned=True
        ),
    )
    controller = device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing")
    tpm = device.VirtualTPM(key=11000)
    return vim.vm.ConfigInfo(
        name="web",
        guestId="debian12_64Guest",
        firmware="efi",
        annotation="of the shop ☃",
        version="vmx-19",
        bootOptions=vim.vm.BootOptions(efiSecureBootEnabled=True, bootDelay=5),
        hardware=vim.vm.VirtualHardware(
            memoryMB=4096, numCPU=4, numCoresPerSocket=2, device=[controller, disk, card, tpm]
        ),
        extraConfig=[
            vim.option.OptionValue(key="guestinfo.role", value="db"),
            vim.option.OptionValue(key="disk.EnableUUID", value="TRUE"),
            vim.option.OptionValue(key="scsi0:0.ctkEnabled", value="TRUE"),
            vim.option.OptionValue(key="sched.swap.derivedName", value="/vmfs/x"),
            vim.option.OptionValue(key="nvram", value="web.nvram"),
        ],
    )


def test_settings_come_back_and_those_of_one_run_do_not() -> None:
    kept = settings.from_bytes(settings.to_bytes(config()), "web")
    order = settings.order_of(kept)
    assert (order.memoryMB, order.numCPUs, order.numCoresPerSocket) == (4096, 4, 2)
    assert (order.guestId, order.firmware, order.version) == ("debian12_64Guest", "efi", "vmx-19")
    assert order.annotation == "of the shop ☃"
    assert order.bootOptions.efiSecureBootEnabled is True
    assert order.bootOptions.bootDelay == 5
    assert {one.key: one.value for one in order.extraConfig} == {
        "guestinfo.role": "db",
        "disk.EnableUUID": "TRUE",
    }


def test_devices_come_back_on_other_files_and_networks() -> None:
    devices = settings.devices_of(settings.from_bytes(settings.to_bytes(config()), "web"))
    assert [type(one).__name__.rpartition(".")[2] for one in devices] == [
        "ParaVirtualSCSIController",
        "VirtualDisk",
        "VirtualVmxnet3",
    ]
    lan = vim.vm.device.VirtualEthernetCard.NetworkBackingInfo(deviceName="Lab")
    made = settings.changes_of(
        devices, {2000: ("[b] c/d.vmdk", 1 << 30)}, {4000: (lan, True, True)}
    )
    controller, disk, card = (one.device for one in made)
    assert disk.controllerKey == controller.key < 0
    assert (disk.unitNumber, disk.backing.fileName) == (1, "[b] c/d.vmdk")
    assert all(one.fileOperation is None for one in made)
    assert (card.macAddress, card.addressType) == ("00:50:56:80:00:01", "assigned")
    assert card.backing.deviceName == "Lab"
    (other,) = settings.changes_of(devices, {}, {4000: (lan, False, False)})
    assert (other.device.macAddress, other.device.addressType) == (None, "generated")
    assert other.device.connectable.startConnected is False


def test_what_is_no_definition_of_vmware_is_said() -> None:
    with pytest.raises(Unsupported, match="web"):
        settings.from_bytes(None, "web")
    for data in (b"", b"[]", b"{}", b"\xff", b'{"_vimtype": "vim.VirtualMachine"}', b"[" * 9999):
        with pytest.raises(DiskUnreadable):
            settings.from_bytes(data, "web")


def test_a_definition_makes_only_values_of_vmware() -> None:
    for name in ("builtins.object", "os.system", "vim.nothing", "", "vim"):
        assert settings.typed({"_vimtype": name}) is None
    nested: dict[str, object] = {"_vimtype": "vim.vm.BootOptions"}
    for _ in range(99):
        nested = {"_vimtype": "vim.vm.ConfigInfo", "bootOptions": nested}
    with pytest.raises(ValueError, match="deep"):
        settings.typed(json.loads(json.dumps(nested)))
    with pytest.raises((AttributeError, TypeError)):
        settings.typed({"_vimtype": "vim.vm.BootOptions", "__class__x": 1, "nothing": 2})


def test_the_guide_lists_the_rights_that_are_asked_for() -> None:
    listed = dict(
        re.findall(r"^\| `([A-Z]\w+(?:\.\w+)+)` \| (.+) \|$", GUIDE.read_text(), re.MULTILINE)
    )
    assert listed == rights.OF_BACKUPS | rights.OF_READING | rights.OF_RESTORES


def test_custom_attributes_are_tags() -> None:
    names = inventory.Names(attributes={101: "tier", 102: "owner"})
    values = [
        SimpleNamespace(key=101, value="gold"),
        SimpleNamespace(key=102, value=""),
        SimpleNamespace(key=103, value="unknown"),
    ]
    assert list(inventory._tags(values, names)) == ["tier=gold"]
