"""What a guest stores past QEMU is told of, as QEMU tells what devices there are."""

from __future__ import annotations

from typing import Any, cast

import pytest

from holdfast.base.errors import HypervisorError
from holdfast.sources.machines.qmp.devices import devices
from holdfast.sources.machines.qmp.monitor import Monitor
from holdfast.sources.machines.qmp.past_qemu import left_out_past_qemu


class Told:
    """A monitor that has these objects, and one disk."""

    def __init__(self, objects: dict[str, list[dict[str, str]]], kind: str = "") -> None:
        self.objects = objects
        self.kind = kind

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Answer as QEMU does."""
        if command == "qom-list":
            assert arguments is not None
            return self.objects.get(arguments["path"], [])
        if command == "qom-get":
            if not self.kind:
                raise HypervisorError("no object has that name")
            return self.kind
        assert command == "query-block"
        image = {"virtual-size": 512, "filename": "/dev/sdb"}
        inserted = {"image": image, "drv": "host_device", "ro": False, "node-name": "n0"}
        return [{"device": "", "qdev": "/machine/peripheral/d0", "inserted": inserted}]

    def monitor(self) -> Monitor:
        """As one."""
        return cast("Monitor", self)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("vfio-pci", "a PCI device of the host"),
        ("usb-host", "a USB device of the host"),
        ("usb-redir", "a USB device from elsewhere"),
        ("vhost-user-blk-pci", "another program serves"),
        ("vhost-user-scsi-pci-non-transitional", "another program serves"),
        ("vhost-scsi-pci", "another program serves"),
        ("vhost-vdpa-device-pci", "another program serves"),
        ("nvdimm", "keeps its content"),
        ("virtio-pmem-pci", "keeps its content"),
    ],
)
@pytest.mark.parametrize("place", ["peripheral", "peripheral-anon"])
def test_each_kind_is_told_with_its_reason(kind: str, words: str, place: str) -> None:
    other = {"name": "net0", "type": "child<virtio-net-pci>"}
    found = {"name": "d7", "type": f"child<{kind}>"}
    plain = {"name": "type", "type": "string"}
    told = Told({f"/machine/{place}": [plain, other, found]})
    (remark,) = left_out_past_qemu(told.monitor())
    assert (remark.severity, remark.code) == ("warning", "disk-left-out")
    assert "d7" in remark.message
    assert words in remark.message


@pytest.mark.parametrize(
    ("kind", "is_left_out"),
    [("scsi-block", True), ("scsi-generic", True), ("scsi-hd", False), ("", False)],
)
def test_a_disk_whose_guest_speaks_to_the_hardware_is_left_out(
    kind: str, is_left_out: bool
) -> None:
    (found,) = devices(Told({}, kind).monitor())
    assert ("past QEMU" in (found.disk.left_out or "")) is is_left_out
