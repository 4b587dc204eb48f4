"""Disk files of every format, with every kind of definition, as `qemu-img convert` reads them."""

from __future__ import annotations

import os
import tarfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.sources.machines.machine import State
from holdfast.sources.machines.provider import Kind, NewMachine
from holdfast.sources.machines.providers import open_provider
from tests.kit.disk_images import MIB, content, create, fill, needs_qemu, overlay, run, write
from tests.kit.machine_providers import (
    Writer,
    assert_whole,
    domain_xml,
    names,
    order,
    read,
)

if TYPE_CHECKING:
    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import Provider

pytestmark = needs_qemu

KNOWN = "0c6a2c52-7d4e-4a11-9f0b-b4dd2f3a9a10"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    made = tmp_path / "store"
    made.mkdir()
    return made


def opened(store: Path, query: str = "") -> Provider:
    return open_provider("diskfiles", f"{store}{query}")


def only(store: Path) -> Machine:
    (machine,) = opened(store).machines()
    return machine


def all_read(store: Path, machine: Machine, scratch: Path) -> list[bytes]:
    with opened(store).snapshot(order(machine.uuid, scratch)) as frozen:
        found = []
        for disk in frozen.disks:
            assert_whole(list(disk.ranges()), disk.size)
            found.append(read(disk))
        frozen.check()
        return found


FEATURES = [
    ("qcow2", "qcow2", ()),
    ("qcow2", "qcow2", ("compat=0.10",)),
    ("qcow2", "qcow2", ("extended_l2=on", "cluster_size=128k")),
    ("qcow2", "qcow2", ("cluster_size=512",)),
    ("qcow2", "qcow2", ("preallocation=metadata",)),
    ("raw", "raw", ()),
    ("img", "raw", ()),
    ("vmdk", "vmdk", ("subformat=monolithicSparse",)),
    ("vmdk", "vmdk", ("subformat=monolithicFlat",)),
    ("vmdk", "vmdk", ("subformat=twoGbMaxExtentSparse",)),
    ("vmdk", "vmdk", ("subformat=twoGbMaxExtentFlat",)),
    ("vhd", "vpc", ("subformat=dynamic", "force_size=on")),
    ("vhd", "vpc", ("subformat=fixed", "force_size=on")),
    ("vhdx", "vhdx", ("subformat=dynamic",)),
    ("vhdx", "vhdx", ("subformat=fixed",)),
    ("vdi", "vdi", ()),
    ("vdi", "vdi", ("static=on",)),
]


@pytest.mark.parametrize(("suffix", "image_format", "options"), FEATURES)
def test_a_disk_file_without_a_definition_is_a_machine(
    store: Path, tmp_path: Path, suffix: str, image_format: str, options: tuple[str, ...]
) -> None:
    path = create(store / f"web.{suffix}", image_format, 8 * MIB, *options)
    fill(path, image_format)
    machine = only(store)
    assert (machine.name, machine.state) == ("web", State.OFF)
    (disk,) = machine.disks
    assert (disk.size, disk.format, disk.place) == (8 * MIB, image_format, str(path))
    truth = content(path, image_format, tmp_path / "raw")
    assert all_read(store, machine, tmp_path) == [truth]


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("qcow2", ("-c",)),
        ("qcow2", ("-c", "-o", "compression_type=zstd")),
        ("vmdk", ("-o", "subformat=streamOptimized")),
    ],
)
def test_a_compressed_disk_is_read(
    store: Path, tmp_path: Path, image_format: str, options: tuple[str, ...]
) -> None:
    raw = fill(create(tmp_path / "disk.raw", "raw", 8 * MIB), "raw")
    path = store / f"web.{image_format}"
    run("qemu-img", "convert", "-f", "raw", "-O", image_format, *options, raw, path)
    assert all_read(store, only(store), tmp_path) == [raw.read_bytes()]


def test_holes_cost_nothing_where_a_format_tells_of_them(store: Path, tmp_path: Path) -> None:
    path = create(store / "web.qcow2", "qcow2", 1024 * MIB)
    write(path, "qcow2", "write -P 3 512M 64k")
    machine = only(store)
    assert 0 < (machine.disks[0].allocated or 0) < 2 * MIB
    with opened(store).snapshot(order(machine.uuid, tmp_path)) as frozen:
        ranges = frozen.disks[0].ranges()
    data = [(one.offset, one.length) for one in ranges if one.kind is Kind.DATA]
    assert data == [(512 * MIB, 65536)]


class TestChains:
    def test_a_disk_over_others_is_one_machine(self, store: Path, tmp_path: Path) -> None:
        base = fill(create(store / "base.qcow2", "qcow2", 8 * MIB), "qcow2")
        middle = overlay(store / "middle.qcow2", "base.qcow2")
        write(middle, "qcow2", "write -P 70 2M 1M", "write -z 0 4k")
        top = write(overlay(store / "top.qcow2", middle), "qcow2", "write -P 71 6M 100k")
        machine = only(store)
        assert (machine.name, machine.disks[0].size) == ("top", 8 * MIB)
        assert all_read(store, machine, tmp_path) == [content(top, "qcow2", tmp_path / "raw")]
        assert base.exists()

    @pytest.mark.parametrize("lower", ["raw", "vmdk", "vdi", "vhdx"])
    def test_it_may_lie_over_another_format(self, store: Path, tmp_path: Path, lower: str) -> None:
        base = fill(create(store / f"base.{lower}", lower, 8 * MIB), lower)
        top = write(overlay(store / "top.qcow2", base, lower), "qcow2", "write -P 70 5M 64k")
        machine = only(store)
        assert all_read(store, machine, tmp_path) == [content(top, "qcow2", tmp_path / "raw")]

    def test_two_that_share_one_below_are_two_machines(self, store: Path, tmp_path: Path) -> None:
        base = fill(create(store / "base.qcow2", "qcow2", 8 * MIB), "qcow2")
        tops = [overlay(store / f"{name}.qcow2", base) for name in ("web", "db")]
        write(tops[0], "qcow2", "write -P 70 5M 64k")
        found = {one.name: one for one in opened(store).machines()}
        assert set(found) == {"web", "db"}
        for path in tops:
            truth = content(path, "qcow2", tmp_path / "raw")
            assert all_read(store, found[path.stem], tmp_path) == [truth]

    def test_a_vmdk_over_another_is_followed(self, store: Path, tmp_path: Path) -> None:
        base = fill(create(store / "base.vmdk", "vmdk", 8 * MIB), "vmdk")
        top = store / "top.vmdk"
        run("qemu-img", "create", "-q", "-f", "vmdk", "-b", base, "-F", "vmdk", top)
        write(top, "vmdk", "write -P 70 5M 64k")
        machine = only(store)
        assert machine.name == "top"
        assert all_read(store, machine, tmp_path) == [content(top, "vmdk", tmp_path / "raw")]

    def test_snapshots_inside_of_an_image_do_not_matter(self, store: Path, tmp_path: Path) -> None:
        path = fill(create(store / "web.qcow2", "qcow2", 8 * MIB), "qcow2")
        run("qemu-img", "snapshot", "-c", "monday", path)
        write(path, "qcow2", "write -P 70 0 3M")
        assert all_read(store, only(store), tmp_path) == [content(path, "qcow2", tmp_path / "raw")]

    def test_content_in_a_file_of_its_own_is_read(self, store: Path, tmp_path: Path) -> None:
        path = store / "web.qcow2"
        run(
            *("qemu-img", "create", "-q", "-f", "qcow2"),
            *("-o", f"data_file={store / 'web.data'},data_file_raw=off", path, 8 * MIB),
        )
        fill(path, "qcow2")
        assert all_read(store, only(store), tmp_path) == [content(path, "qcow2", tmp_path / "raw")]

    def test_a_base_in_another_directory_has_to_be_allowed(
        self, store: Path, tmp_path: Path
    ) -> None:
        golden = tmp_path / "golden"
        golden.mkdir()
        base = fill(create(golden / "base.qcow2", "qcow2", 8 * MIB), "qcow2")
        overlay(store / "web.qcow2", base)
        known = only(store).uuid
        remarks = list(opened(store).try_out(known, tmp_path))
        assert [(one.severity, one.code) for one in remarks] == [("error", "forbidden")]
        assert f"also={golden}" in remarks[0].message
        provider = opened(store, f"?also={golden}")
        assert list(provider.try_out(known, tmp_path)) == []
        with provider.snapshot(order(known, tmp_path)) as frozen:
            assert read(frozen.disks[0]) == content(base, "qcow2", tmp_path / "raw")


class TestDefinitions:
    def test_libvirt(self, store: Path, tmp_path: Path) -> None:
        disks = [
            fill(create(store / "one.img", "raw", 8 * MIB), "raw"),
            fill(create(store / "two.qcow2", "qcow2", 4 * MIB), "qcow2"),
        ]
        (store / "web.xml").write_text(domain_xml("web", KNOWN, disks))
        machine = only(store)
        assert (machine.uuid, machine.name, machine.state) == (KNOWN, "web", State.OFF)
        assert (machine.memory, machine.cpus) == (512 * MIB, 2)
        assert [(one.mac, one.network, one.model) for one in machine.networks] == [
            ("52:54:00:12:34:56", "office", "virtio")
        ]
        assert [(one.name, one.format) for one in machine.disks] == [
            ("vda", "raw"),
            ("vdb", "qcow2"),
        ]
        assert all_read(store, machine, tmp_path) == [
            content(disks[0], "raw", tmp_path / "raw"),
            content(disks[1], "qcow2", tmp_path / "raw"),
        ]

    def test_disks_that_are_no_files_are_named(self, store: Path, tmp_path: Path) -> None:
        disk = fill(create(store / "one.qcow2", "qcow2", 4 * MIB), "qcow2")
        text = domain_xml("web", KNOWN, [disk]).replace(
            "<devices>",
            "<devices><disk type='network' device='disk'><source protocol='rbd' name='pool/x'/>"
            "<target dev='vdx'/></disk>",
        )
        (store / "web.xml").write_text(text)
        machine = only(store)
        assert names(machine) == ["vda"]
        with opened(store).snapshot(order(KNOWN, tmp_path)) as frozen:
            (remark,) = frozen.remarks
            assert (remark.severity, remark.code, remark.about) == (
                "warning",
                "disk-left-out",
                "vdx",
            )
            assert "another server" in remark.message

    def test_disks_that_are_passed_through_are_named(self, store: Path, tmp_path: Path) -> None:
        lun = fill(create(store / "lun.raw", "raw", 4 * MIB), "raw")
        passed = (
            f"<disk type='file' device='lun' rawio='yes' sgio='filtered'><source file='{lun}'/>"
            "<target dev='sda' bus='scsi'/></disk><hostdev mode='subsystem' type='scsi'><source>"
            "<adapter name='scsi_host0'/><address bus='0' target='3' unit='0'/></source></hostdev>"
            "<memory model='dimm'><target><size>1</size></target></memory>"
            "<memory model='nvdimm'><source><path>/kept</path></source></memory>"
        )
        text = domain_xml("web", KNOWN, []).replace("<devices>", f"<devices>{passed}")
        (store / "web.xml").write_text(text)
        with opened(store).snapshot(order(KNOWN, tmp_path)) as frozen:
            assert [(one.severity, one.code, one.about) for one in frozen.remarks] == [
                ("warning", "disk-left-out", "hostdev0"),
                ("warning", "disk-left-out", "nvdimm1"),
            ]
            assert "passed through" in frozen.remarks[0].message
            assert "memory that keeps its content" in frozen.remarks[1].message
            held = {one.name: read(one) for one in frozen.disks}
            assert held == {"sda": lun.read_bytes()}
        new = NewMachine(frozen.machine, frozen.definitions, "again", False, None, None, "qcow2")
        opened(store).restore(new, Writer(held))
        made = (store / "again" / "domain.xml").read_text()
        assert "hostdev" not in made
        assert "nvdimm" not in made
        assert "dimm" in made
        assert "rawio" not in made, "libvirt takes that of a disk that is passed through alone"
        assert "sgio" not in made

    def test_vmx(self, store: Path, tmp_path: Path) -> None:
        disk = fill(create(store / "web.vmdk", "vmdk", 8 * MIB), "vmdk")
        (store / "web.nvram").write_bytes(b"settings")
        (store / "web.vmx").write_text(VMX)
        machine = only(store)
        assert machine.uuid == "564d1f1e-2d3c-4b5a-6978-8796a5b4c3d2"
        assert (machine.name, machine.guest) == ("Web server", "debian12-64")
        assert (machine.memory, machine.cpus) == (2048 * MIB, 4)
        assert [one.name for one in machine.disks] == ["scsi0-0", "scsi0-2"]
        assert machine.disks[1].left_out == "it is a device of its host"
        assert [(one.mac, one.network) for one in machine.networks] == [
            ("00:0c:29:11:22:33", "VM Network")
        ]
        with opened(store).snapshot(order(machine.uuid, tmp_path)) as frozen:
            assert frozen.definitions == {"web.vmx": VMX.encode(), "nvram": b"settings"}
            assert [read(one) for one in frozen.disks] == [content(disk, "vmdk", tmp_path / "raw")]

    def test_devices_that_a_vmx_passes_through_are_named(self, store: Path, tmp_path: Path) -> None:
        fill(create(store / "web.vmdk", "vmdk", 8 * MIB), "vmdk")
        passed = (
            'pciPassthru0.present = "TRUE"\nusb_xhci:4.present = "TRUE"\n'
            'usb_xhci:4.deviceType = "hid"\nusb_xhci:6.present = "TRUE"\n'
            'usb.present = "TRUE"\nnvdimm0:0.present = "TRUE"\npciPassthru1.present = "FALSE"\n'
        )
        (store / "web.vmx").write_text(VMX + passed)
        machine = only(store)
        named = [one.name for one in machine.disks if "passed through" in (one.left_out or "")]
        assert named == ["nvdimm0-0", "pcipassthru0", "usb_xhci-6"]
        with opened(store).snapshot(order(machine.uuid, tmp_path)) as frozen:
            said = [one.about for one in frozen.remarks if one.code == "disk-left-out"]
        assert {*named} < {*said}

    @pytest.mark.parametrize("kind", ["ovf", "ova"])
    def test_ovf(self, store: Path, tmp_path: Path, kind: str) -> None:
        raw = fill(create(tmp_path / "disk.raw", "raw", 8 * MIB), "raw")
        made = store if kind == "ovf" else tmp_path
        disk, document = made / "web-disk1.vmdk", made / "web.ovf"
        stream = ("-o", "subformat=streamOptimized")
        run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", *stream, raw, disk)
        document.write_text(OVF)
        if kind == "ova":
            with tarfile.open(store / "web.ova", "w") as archive:
                archive.add(document, "web.ovf")
                archive.add(disk, "web-disk1.vmdk")
        machine = only(store)
        assert (machine.name, machine.guest) == ("web", "Debian 12")
        assert (machine.memory, machine.cpus) == (1024 * MIB, 2)
        assert [one.network for one in machine.networks] == ["VM Network"]
        assert names(machine) == ["disk0"]
        assert machine.disks[1].left_out == "it is empty in the OVF, and has no file"
        assert all_read(store, machine, tmp_path) == [raw.read_bytes()]

    def test_a_raw_disk_in_an_ova_is_read_where_it_lies(self, store: Path, tmp_path: Path) -> None:
        raw = fill(create(tmp_path / "disk.raw", "raw", 8 * MIB), "raw")
        plain = OVF.replace("web-disk1.vmdk", "disk.raw").replace("vmdk.html", "raw")
        (tmp_path / "web.ovf").write_text(plain)
        with tarfile.open(store / "web.ova", "w") as archive:
            archive.add(tmp_path / "web.ovf", "web.ovf")
            archive.add(raw, "disk.raw")
        assert all_read(store, only(store), tmp_path) == [raw.read_bytes()]

    def test_of_two_definitions_with_one_uuid_the_first_keeps_it(self, store: Path) -> None:
        (store / "copy").mkdir()
        for directory in (store, store / "copy"):
            disk = create(directory / "web.qcow2", "qcow2", MIB)
            (directory / "web.xml").write_text(domain_xml("web", KNOWN, [disk]))
        first, second = sorted(opened(store).machines(), key=lambda one: one.folder)
        assert (first.uuid, first.folder, second.folder) == (KNOWN, "", "copy")
        assert second.uuid != KNOWN
        assert [one.uuid for one in sorted(opened(store).machines(), key=lambda m: m.folder)] == [
            KNOWN,
            second.uuid,
        ]

    def test_machines_of_two_hosts_are_two(self, store: Path) -> None:
        create(store / "web.qcow2", "qcow2", MIB)
        one, other = (opened(store, f"?host={name}").machines()[0] for name in ("one", "other"))
        assert (one.host, other.host) == ("one", "other")
        assert one.uuid != other.uuid


def restored(store: Path, machine: Machine, scratch: Path, **others: object) -> Machine:
    with opened(store).snapshot(order(machine.uuid, scratch)) as frozen:
        disks = {one.name: read(one) for one in frozen.disks}
        given: dict[str, object] = {
            "name": "again",
            "keep_identity": False,
            "networks": None,
            "storage": None,
            "format": "qcow2",
        }
        new = NewMachine(frozen.machine, frozen.definitions, **(given | others))  # type: ignore[arg-type]
    return opened(store).restore(new, Writer(disks))


class TestRestores:
    def test_a_definition_of_libvirt_is_kept_but_for_what_is_new(
        self, store: Path, tmp_path: Path
    ) -> None:
        disk = fill(create(store / "one.img", "raw", 8 * MIB), "raw")
        (store / "web.xml").write_text(domain_xml("web", KNOWN, [disk]))
        made = restored(store, only(store), tmp_path, networks=("lab",))
        text = (store / "again" / "domain.xml").read_text()
        assert "<!-- kept for whoever reads it -->" in text
        assert f"<uuid>{made.uuid}</uuid>" in text
        assert str(store / "again" / "vda.qcow2") in text
        assert str(disk) not in text
        assert "52:54:00:12:34:56" not in text
        assert [one.network for one in made.networks] == ["lab"]
        assert "/srv/cd.iso" not in text
        assert sorted(one.name for one in (store / "again").iterdir()) == [
            "domain.xml",
            "vda.qcow2",
        ]

    def test_a_machine_keeps_its_identity_where_that_is_wanted(
        self, store: Path, tmp_path: Path
    ) -> None:
        disk = fill(create(store / "one.qcow2", "qcow2", 8 * MIB), "qcow2")
        (store / "web.xml").write_text(domain_xml("web", KNOWN, [disk]))
        machine = only(store)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        with opened(store).snapshot(order(KNOWN, tmp_path)) as frozen:
            disks = {one.name: read(one) for one in frozen.disks}
            new = NewMachine(frozen.machine, frozen.definitions, "web", True, (), None, "raw")
        made = opened(elsewhere).restore(new, Writer(disks))
        assert made.uuid == KNOWN
        assert [one.mac for one in made.networks] == [one.mac for one in machine.networks]
        assert '<link state="down"/>' in (elsewhere / "web" / "domain.xml").read_text()

    def test_a_vmx_is_kept_but_for_what_is_new(self, store: Path, tmp_path: Path) -> None:
        fill(create(store / "web.vmdk", "vmdk", 8 * MIB), "vmdk")
        (store / "web.vmx").write_text(VMX)
        made = restored(store, only(store), tmp_path, format="vmdk", networks=("Lab",))
        assert made.uuid != only_named(store, "Web server").uuid
        assert (made.name, made.guest, made.cpus) == ("again", "debian12-64", 4)
        assert [one.name for one in made.disks] == ["scsi0-0"]
        (card,) = made.networks
        assert (card.network, card.mac[:8]) == ("Lab", "00:0c:29")
        assert card.mac != "00:0c:29:11:22:33"

    def test_a_machine_without_a_definition_gets_one(self, store: Path, tmp_path: Path) -> None:
        fill(create(store / "web.vdi", "vdi", 8 * MIB), "vdi")
        made = restored(store, only(store), tmp_path)
        assert (made.name, [one.name for one in made.disks]) == ("again", ["sda"])
        assert uuid.UUID(made.uuid).version == 4

    def test_a_disk_of_odd_length_is_restored_in_every_format(
        self, store: Path, tmp_path: Path
    ) -> None:
        (store / "web.raw").write_bytes(os.urandom(100_001))
        machine = only(store)
        assert machine.disks[0].size == 100_352
        for image_format in ("raw", "qcow2", "vmdk", "vhdx", "vdi", "vpc"):
            made = restored(
                store, only_named(store, "web"), tmp_path, format=image_format, name=image_format
            )
            (found,) = all_read(store, made, tmp_path)
            assert found[:100_001] == (store / "web.raw").read_bytes()
            assert not any(found[100_001:])


def only_named(store: Path, name: str) -> Machine:
    (found,) = (one for one in opened(store).machines() if one.name == name)
    return found


VMX = """.encoding = "UTF-8"
displayName = "Web server"
uuid.bios = "56 4d 1f 1e 2d 3c 4b 5a-69 78 87 96 a5 b4 c3 d2"
memsize = "2048"
numvcpus = "4"
guestOS = "debian12-64"
nvram = "web.nvram"
scsi0.present = "TRUE"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "web.vmdk"
scsi0:1.present = "FALSE"
scsi0:1.fileName = "gone.vmdk"
scsi0:2.present = "TRUE"
scsi0:2.fileName = "raw.vmdk"
scsi0:2.deviceType = "rawDisk"
ide1:0.present = "TRUE"
ide1:0.fileName = "/cd.iso"
ide1:0.deviceType = "cdrom-image"
ethernet0.present = "TRUE"
ethernet0.networkName = "VM Network"
ethernet0.addressType = "generated"
ethernet0.generatedAddress = "00:0c:29:11:22:33"
ethernet1.present = "FALSE"
"""

OVF = """<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
<References><File ovf:id="file1" ovf:href="web-disk1.vmdk"/></References>
<DiskSection><Disk ovf:capacity="8" ovf:diskId="d1" ovf:fileRef="file1"
 ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
<Disk ovf:capacity="8" ovf:diskId="d2"/></DiskSection>
<VirtualSystem ovf:id="web"><Name>web</Name>
<OperatingSystemSection ovf:id="96"><Description>Debian 12</Description></OperatingSystemSection>
<VirtualHardwareSection>
<Item><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
<Item><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>1024</rasd:VirtualQuantity>
</Item>
<Item><rasd:ResourceType>10</rasd:ResourceType><rasd:Connection>VM Network</rasd:Connection></Item>
<Item><rasd:ResourceType>17</rasd:ResourceType><rasd:HostResource>ovf:/disk/d1</rasd:HostResource>
</Item>
<Item><rasd:ResourceType>17</rasd:ResourceType><rasd:HostResource>ovf:/disk/d2</rasd:HostResource>
</Item>
</VirtualHardwareSection></VirtualSystem></Envelope>
"""
