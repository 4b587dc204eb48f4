"""What a machine of VMware's stores elsewhere than in files of a datastore is known by its kind."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("pyVmomi")

from pyVmomi import vim

from holdfast.sources.machines.vmware.disks import past_files


def device(kind: str, label: str = "") -> Any:
    """A device of that kind."""
    made = getattr(vim.vm.device, kind)(key=13000)
    if label:
        made.deviceInfo = vim.Description(label=label, summary="")
    return made


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("VirtualPCIPassthrough", "PCI device"),
        ("VirtualSCSIPassthrough", "SCSI device"),
        ("VirtualUSB", "USB device"),
        ("VirtualNVDIMM", "keeps its content"),
    ],
)
def test_each_is_told_by_its_label_or_number(kind: str, words: str) -> None:
    others = [device("VirtualDisk"), device("VirtualUSBController"), device("VirtualE1000")]
    ((name, reason),) = past_files([*others, device(kind, "PCI device 0")])
    assert name == "PCI device 0"
    assert words in reason
    ((name, _),) = past_files([device(kind)])
    assert name == "device 13000"
