"""Machines with block devices of their host for disks, and with what no image can hold."""

# Where a snapshot ends is where it fails: blocks within blocks say what happens in which.
# ruff: noqa: PT012, SIM117

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from holdfast.base.errors import SnapshotBroken
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.provider import Kind, NewMachine
from holdfast.sources.machines.providers import open_provider
from tests.kit.image_chain import ImageChain, lost, snapshot_order, writer
from tests.kit.libvirtd import (
    IMAGES,
    SIZE,
    Libvirtd,
    LibvirtMachine,
    libvirt_machines,
    libvirtd_kit,
    needs_libvirt,
)
from tests.kit.loop_devices import loop_device, needs_loop_devices
from tests.kit.qemu import MIB, bytes_of, needs_qemu, read_disk
from tests.kit.sshd import Sshd, needs_sshd

pytestmark = [needs_qemu, needs_libvirt, needs_sshd, needs_loop_devices]

Make = Callable[..., LibvirtMachine]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    with libvirtd_kit() as made:
        connection = made.open()
        assert made.images.exists()
        target = f"<target><path>{IMAGES}</path></target>"
        connection.storagePoolCreateXML(f"<pool type='dir'><name>default</name>{target}</pool>")
        connection.close()
        yield made


@pytest.fixture(scope="module")
def sshd(daemon: Libvirtd) -> Iterator[Sshd]:
    made = Sshd(daemon)
    yield made
    made.end()


@pytest.fixture(params=["here", "by ssh"])
def url(request: pytest.FixtureRequest, daemon: Libvirtd, sshd: Sshd) -> str:
    return daemon.url if request.param == "here" else sshd.url()


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    with (
        loop_device(tmp_path / "first", SIZE) as first,
        loop_device(tmp_path / "second", 2 * SIZE) as second,
    ):
        yield first, second


@pytest.fixture
def make(daemon: Libvirtd, devices: tuple[Path, Path]) -> Iterator[Make]:
    """Machines with a raw disk and a qcow2, each a block device."""
    with libvirt_machines(daemon, formats=("raw", "qcow2"), devices=devices) as make:
        yield make


def chain(machine: LibvirtMachine, url: str) -> ImageChain:
    return ImageChain(machine, "libvirt", url, machine.daemon.scratch)


def on(device: Path, image_format: str) -> bytes:
    """What is on a device, as `qemu-img` reads it."""
    into = Path(f"/tmp/hf-{device.name}.raw")
    words = ["qemu-img", "convert", "-U", "-f", image_format, "-O", "raw", str(device), str(into)]
    try:
        subprocess.run(words, check=True)
        return into.read_bytes()
    finally:
        into.unlink(missing_ok=True)


def test_block_devices_are_read_while_the_machine_runs_and_when_it_is_off(
    make: Make, devices: tuple[Path, Path], url: str
) -> None:
    machine = make()
    machine.start()
    images, random = chain(machine, url), Random(1)
    machine.some_writes(random, 20)
    full = images.back_up()
    assert [one.code for one in full.remarks if one.severity == "warning"] == []
    machine.some_writes(random, 4)
    with images.provider.snapshot(images.order()) as increment:
        raw, qcow2 = increment.disks
        assert bytes_of(raw, Kind.SAME) == 0, "a raw disk has no bitmap"
        assert bytes_of(qcow2, Kind.SAME) > 0
    assert lost(images.back_up()) == []
    machine.some_writes(random, 4)
    machine.shut_down()
    off = images.back_up()
    assert (off.machine.state, lost(off)) == (State.OFF, [])
    assert [one.code for one in off.remarks if one.severity == "warning"] == []
    assert images.held == {"vda": on(devices[0], "raw"), "vdb": on(devices[1], "qcow2")}
    machine.start()
    machine.some_writes(random, 4)
    assert lost(images.back_up()) == []
    assert machine.checkpoints() == {images.checkpoint}


def test_a_block_device_that_is_written_while_it_is_read_fails_the_backup(
    make: Make, devices: tuple[Path, Path], url: str, tmp_path: Path
) -> None:
    """Through another node for it, as a machine does that has nodes of its own."""
    machine = make()
    device = devices[0].stat()
    node = tmp_path / "node"
    os.mknod(node, stat.S_IFBLK | 0o600, device.st_rdev)
    provider = open_provider("libvirt", url)
    order = snapshot_order(machine, machine.daemon.scratch)
    with provider.snapshot(order) as snapshot:
        assert read_disk(snapshot.disks[0]) == bytes(SIZE)
        snapshot.check()
    with pytest.raises(SnapshotBroken, match="its disks written"):
        with provider.snapshot(order) as snapshot:
            read_disk(snapshot.disks[0])
            with node.open("r+b", buffering=0) as file:
                file.write(bytes([7]) * 4096)
            snapshot.check()


LUN = """<disk type='block' device='lun'{}><driver name='qemu' type='raw'/><source dev='{}'/>
<target dev='{}' bus='{}'/></disk>"""
HOST_DEVICES = """<hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host0'/>
<address bus='0' target='3' unit='0'/></source></hostdev>
<hostdev mode='subsystem' type='pci' managed='yes'><source>
<address domain='0x0000' bus='0x03' slot='0x00' function='0x0'/></source></hostdev>
<hostdev mode='subsystem' type='usb' managed='yes'><source><vendor id='0x0951'/>
<product id='0x1666'/></source></hostdev>"""

OLDER = """<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
<qemu:arg value='-global'/><qemu:arg value='virtio-blk-pci.disable-modern=on'/></qemu:commandline>
"""


def warned(remarks: Any) -> dict[str, str]:
    """The disks that a warning says are left out, and what it says."""
    return {
        str(one.about): one.message
        for one in remarks
        if one.code == "disk-left-out" and one.severity == "warning"
    }


def test_what_is_passed_through_is_read_when_it_can_be_and_else_named(
    daemon: Libvirtd, devices: tuple[Path, Path]
) -> None:
    lun = LUN.format(" rawio='no'", devices[1], "sda", "scsi")
    with libvirt_machines(daemon, formats=("raw",), devices=devices[:1]) as make:
        machine = make(more=lun + HOST_DEVICES)
        words = ["qemu-io", "-f", "raw", "-c", f"write -P 9 {MIB} 65536", str(devices[1])]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        provider = open_provider("libvirt", daemon.url)
        with provider.snapshot(snapshot_order(machine, daemon.scratch)) as snapshot:
            held = {one.name: read_disk(one) for one in snapshot.disks}
            snapshot.check()
        assert held == {"vda": bytes(SIZE), "sda": on(devices[1], "raw")}
        told = warned(snapshot.remarks)
        assert set(told) == {"hostdev0", "hostdev1", "hostdev2"}
        assert all("device of the host that is passed through" in one for one in told.values())
        assert "vendor=0x0951 product=0x1666" in told["hostdev2"]
        assert "should it be a disk" in told["hostdev2"]
        unwanted = ("hostdev0", "hostdev1", "hostdev2")
        order = snapshot_order(machine, daemon.scratch, leave_out=unwanted)
        with provider.snapshot(order) as snapshot:
            assert warned(snapshot.remarks) == {}
        assert warned(provider.try_out(machine.uuid, daemon.scratch)) == told
        # What is made again has the disk that was read, and nothing of this host.
        place = str(daemon.directory / "new")
        new = NewMachine(
            snapshot.machine, snapshot.definitions, f"{machine.name}-2", False, (), place, "qcow2"
        )
        made = provider.restore(new, writer(held))
        try:
            with provider.snapshot(
                snapshot_order(machine, daemon.scratch, uuid=made.uuid)
            ) as again:
                assert {one.name: read_disk(one) for one in again.disks} == held
            assert warned(again.remarks) == {}
        finally:
            machine.connection.lookupByUUIDString(made.uuid).undefine()


def test_a_passed_through_disk_of_a_machine_that_runs_is_named(
    daemon: Libvirtd, devices: tuple[Path, Path]
) -> None:
    """Of virtio's older form, which passes SCSI through to any block device."""
    lun = LUN.format("", devices[1], "vdb", "virtio")
    with libvirt_machines(daemon, formats=("raw",), devices=devices[:1]) as make:
        machine = make(more=lun)
        older = machine.xml.replace("</devices>", f"</devices>{OLDER}")
        machine.domain = machine.connection.defineXML(older)
        machine.start()
        images = chain(machine, daemon.url)
        machine.some_writes(Random(3), 8)
        for _ in range(2):
            snapshot = images.back_up()
            assert set(images.held) == {"vda"}
            told = warned(snapshot.remarks)
            assert set(told) == {"vdb"}
            assert "device='lun'" in told["vdb"]
        assert warned(images.provider.try_out(machine.uuid, daemon.scratch)) == told


KEPT = """<memory model='nvdimm'><source><path>{}</path></source><target>
<size unit='MiB'>16</size><node>0</node></target></memory>
"""
ROOM = "<maxMemory slots='4' unit='MiB'>256</maxMemory>"
NODES = "<numa><cell id='0' cpus='0' memory='32' unit='MiB'/></numa></cpu>"


def test_memory_that_keeps_its_content_is_named(daemon: Libvirtd) -> None:
    file = daemon.directory / "disks" / "kept"
    file.write_bytes(bytes(16 * MIB))
    with libvirt_machines(daemon, formats=("qcow2",)) as make:
        machine = make()
        xml = machine.xml.replace("<metadata>", f"{ROOM}<metadata>").replace("</cpu>", NODES)
        xml = xml.replace("<cpu ", "<features><acpi/></features><cpu ")
        xml = xml.replace("<memballoon", f"{KEPT.format(file)}<memballoon")
        machine.domain = machine.connection.defineXML(xml)
        provider = open_provider("libvirt", daemon.url)

        def told() -> list[tuple[str, str | None]]:
            found = provider.try_out(machine.uuid, daemon.scratch)
            assert [one for one in found if one.severity == "error"] == []
            named = [one for one in found if "memory that keeps" in one.message]
            assert all(f"({file})" in one.message for one in named)
            return [(one.severity, one.about) for one in named]

        assert told() == [("warning", "nvdimm0")]
        machine.start()
        assert told() == [("warning", "nvdimm0")]
        with provider.snapshot(snapshot_order(machine, daemon.scratch)) as snapshot:
            held = {one.name: read_disk(one) for one in snapshot.disks}
            snapshot.check()
        assert set(held) == {"vda"}
        assert "nvdimm0" in {one.about for one in snapshot.remarks}
        order = snapshot_order(machine, daemon.scratch, leave_out=("nvdimm0",))
        with provider.snapshot(order) as snapshot:
            pass
        assert [one.severity for one in snapshot.remarks if one.about == "nvdimm0"] == ["info"]
        # Another machine does not get what the first one stores there.
        place = str(daemon.directory / "new")
        new = NewMachine(
            snapshot.machine, snapshot.definitions, f"{machine.name}-2", False, (), place, "qcow2"
        )
        made = provider.restore(new, writer(held))
        restored = machine.connection.lookupByUUIDString(made.uuid)
        assert "nvdimm" not in restored.XMLDesc()
        restored.undefine()
