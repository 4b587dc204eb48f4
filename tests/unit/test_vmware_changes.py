"""What is believed of what VMware says that changed, and what a disk is to it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("pyVmomi", reason="pyVmomi is not installed: see the extra 'vm'")

from hypothesis import given
from hypothesis import strategies as st
from pyVmomi import vim

from holdfast.base.errors import DiskUnreadable, HypervisorError, Invalid, Unsupported
from holdfast.sources.machines.provider import Kind, Range
from holdfast.sources.machines.providers import Credentials
from holdfast.sources.machines.vmware import changes, disks, open_url
from holdfast.sources.machines.vmware.changes import Moment
from holdfast.sources.machines.vmware.connection import place_of

MIB = 1 << 20
IDS = "52 3c ec 11 9e 2c 4c 3d-87 4a c3 4e 85 f2 ea 95"


def test_changes_are_believed_of_one_unbroken_sequence_alone() -> None:
    since = Moment("disk", f"{IDS}/4")
    assert changes.why_not(since, Moment("disk", f"{IDS}/4")) is None
    assert changes.why_not(since, Moment("disk", f"{IDS}/19")) is None
    for now, why in (
        (Moment("disk", f"{IDS.replace('52', '53')}/19"), "anew"),
        (Moment("disk", f"{IDS}/3"), "set back"),
        (Moment("other", f"{IDS}/19"), "another disk"),
        (Moment("disk", ""), "no changes any more"),
        (Moment("disk", "19"), "unknown way"),
        (Moment("disk", f"{IDS}/x"), "unknown way"),
    ):
        assert why in str(changes.why_not(since, now))
    assert "no moment" in str(changes.why_not(None, Moment("disk", f"{IDS}/4")))
    assert changes.why_not(Moment("disk", "garbage"), Moment("disk", f"{IDS}/4"))


def test_a_checkpoint_comes_back_and_nothing_else_is_one() -> None:
    moments = {"scsi0-0": Moment("uuid", f"{IDS}/4"), "scsi0-1": Moment("", "x/1")}
    assert changes.from_checkpoint(changes.to_checkpoint(moments)) == moments
    assert changes.to_checkpoint({}) is None
    for text in (None, "", "holdfast.site.0123", "[1]", '{"a": 1}', '{"a": ["b"]}', "[" * 9999):
        assert changes.from_checkpoint(text) == {}
    assert changes.from_checkpoint('{"a": ["b", 1], "c": ["d", "e/1"]}') == {
        "c": Moment("d", "e/1")
    }


def answers(areas: list[tuple[int, int]], size: int, at_once: int) -> object:
    """Who is asked again and again, and tells a few areas each time."""

    def ask(offset: int) -> SimpleNamespace:
        left = [one for one in areas if one[0] + one[1] > offset]
        told = left[:at_once]
        end = left[at_once][0] if len(left) > at_once else size
        area = [SimpleNamespace(start=start, length=length) for start, length in told]
        return SimpleNamespace(startOffset=offset, length=end - offset, changedArea=area)

    return ask


@given(st.lists(st.tuples(st.integers(0, 63), st.integers(1, 8)), max_size=20), st.integers(1, 4))
def test_areas_of_several_answers_are_those_of_one(
    given_areas: list[tuple[int, int]], at_once: int
) -> None:
    size = 80 * 65536
    areas = changes.joined((start * 65536, length * 65536) for start, length in given_areas)
    found = changes.all_areas(answers(areas, size, at_once), size)  # type: ignore[arg-type]
    assert found == areas
    told = changes.ranges(found, size, Kind.SAME)
    assert sum(one.length for one in told) == size
    assert [one.offset for one in told] == [
        sum(each.length for each in told[:at]) for at in range(len(told))
    ]
    assert [(one.offset, one.length) for one in told if one.kind is Kind.DATA] == areas


def test_answers_that_lead_nowhere_are_an_error() -> None:
    def nothing(offset: int) -> SimpleNamespace:
        return SimpleNamespace(startOffset=offset, length=0, changedArea=[])

    def beyond(offset: int) -> SimpleNamespace:
        area = [SimpleNamespace(start=MIB - 1, length=2)]
        return SimpleNamespace(startOffset=offset, length=MIB, changedArea=area)

    with pytest.raises(HypervisorError, match="nothing is told"):
        changes.all_areas(nothing, MIB)
    with pytest.raises(HypervisorError, match="not on the disk"):
        changes.all_areas(beyond, MIB)


def test_a_disk_of_nothing_has_no_ranges() -> None:
    assert changes.ranges([], 0, Kind.HOLE) == []
    assert changes.ranges([], 5, Kind.HOLE) == [Range(0, 5, Kind.HOLE)]


def device(backing: object, **others: object) -> object:
    return vim.vm.device.VirtualDisk(
        key=2000, controllerKey=1000, unitNumber=3, capacityInBytes=MIB, backing=backing, **others
    )


def found(backing: object) -> disks.DeviceDisk:
    controller = vim.vm.device.ParaVirtualSCSIController(key=1000, busNumber=1)
    (one,) = disks.of_devices([controller, device(backing)])
    return one


FLAT = vim.vm.device.VirtualDisk.FlatVer2BackingInfo


def test_a_disk_is_named_by_its_place_on_the_bus() -> None:
    one = found(FLAT(fileName="[ds one] web 1/web.vmdk", diskMode="persistent", uuid="u"))
    assert (one.name, one.datastore, one.path) == ("scsi1-3", "ds one", "web 1/web.vmdk")
    assert one.disk.left_out is None
    assert one.below is None
    assert one.identity == "u"


def test_disks_that_no_snapshot_holds_are_left_out_by_name() -> None:
    mapped = vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo
    for backing, why in (
        (FLAT(fileName="[a] b", diskMode="independent_persistent"), "independent_persistent"),
        (FLAT(fileName="[a] b", diskMode="persistent", sharing="sharingMultiWriter"), "write it"),
        (mapped(fileName="[a] b", compatibilityMode="physicalMode"), "physical mode"),
        (mapped(fileName="[a] b", compatibilityMode="virtualMode"), "virtual mode"),
        (
            FLAT(
                fileName="[a] b", diskMode="persistent", keyId=vim.encryption.CryptoKeyId(keyId="k")
            ),
            "encrypted",
        ),
        (vim.vm.device.VirtualDisk.LocalPMemBackingInfo(fileName="[a] b"), "no file"),
    ):
        assert why in str(found(backing).disk.left_out), backing


def test_a_disk_over_another_file_is_refused_by_name() -> None:
    below = FLAT(fileName="[a] web/web.vmdk", diskMode="persistent")
    chain = found(FLAT(fileName="[a] web/web-000001.vmdk", diskMode="persistent", parent=below))
    with pytest.raises(Unsupported, match=r"'scsi1-3' of 'web' lies over '\[a\] web/web.vmdk'"):
        disks.refuse_chain([chain], "web")
    sparse = vim.vm.device.VirtualDisk.SeSparseBackingInfo(fileName="[a] b", diskMode="persistent")
    with pytest.raises(Unsupported):
        disks.refuse_chain([found(sparse)], "web")


DESCRIPTOR = '# Disk DescriptorFile\nversion=1\n\nRW 2048 VMFS "web-flat.vmdk"\n'


def test_the_file_with_the_bytes_is_the_one_that_the_descriptor_names() -> None:
    assert disks.extent_of(DESCRIPTOR, "web/web.vmdk", MIB) == "web/web-flat.vmdk"
    assert disks.extent_of(DESCRIPTOR, "web.vmdk", MIB) == "web-flat.vmdk"


def test_bytes_that_are_not_one_flat_file_are_never_read_as_such() -> None:
    for text in (
        DESCRIPTOR.replace("VMFS", "SESPARSE"),
        DESCRIPTOR.replace("VMFS", "VMFSSPARSE"),
        DESCRIPTOR.replace("web-flat", "vsan://522c-33"),
        DESCRIPTOR.replace("web-flat", "../other/web-flat"),
        DESCRIPTOR + 'RW 2048 VMFS "web-2-flat.vmdk"\n',
    ):
        with pytest.raises(Unsupported):
            disks.extent_of(text, "web/web.vmdk", MIB)
    for text in ("", "KDMV\0\1", DESCRIPTOR.replace("2048", "2049")):
        with pytest.raises(DiskUnreadable):
            disks.extent_of(text, "web/web.vmdk", MIB)


def test_where_a_vcenter_is() -> None:
    print_ = "AB:" * 31 + "CD"
    assert str(place_of("https://vc.example.com")) == "vc.example.com"
    assert place_of("https://10.0.0.5:8443/sdk").port == 8443
    assert place_of(f"https://vc/?thumbprint={print_}").thumbprint == "ab" * 31 + "cd"
    for wrong in (
        "vc.example.com",
        "http://vc",
        "https://",
        "https://vc/ui",
        "https://vc:99999",
        "https://vc?x=1",
        "https://vc#x",
        "https://user:secret@vc",
        "https://vc/?thumbprint=",
        "https://vc/?thumbprint=" + "ab" * 20,
        "https://vc/?thumbprint=" + "zz" * 32,
    ):
        with pytest.raises(Invalid) as told:
            open_url(wrong, Credentials())
        assert told.value.hint
        assert "secret" not in str(told.value.message)
