"""Logical volumes that LVM2's own programs made are put together as LVM2 says they are."""

from __future__ import annotations

import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast.sources.filesystems import lvm
from holdfast.sources.filesystems.disk import Malformed
from holdfast.sources.filesystems.lvm_text import parse
from tests.kit import disks
from tests.kit.disks import MIB, BytesDisk, blank, need

EXTENT = 4 * MIB
STRIPE = 64 << 10


def stamped(path: Path, number: int, size: int) -> None:
    """Have each 4 KiB of a disk say where it is."""
    with path.open("r+b") as file:
        for at in range(MIB, size, 4096):
            file.seek(at)
            file.write(struct.pack("<II", number, at // 4096))


def stamps(disk: object) -> list[tuple[int, int]]:
    size: int = disk.size  # type: ignore[attr-defined]
    read = disk.read_at  # type: ignore[attr-defined]
    data = b"".join(read(at, min(MIB + 4096, size - at)) for at in range(0, size, MIB + 4096))
    assert len(data) == size
    return [struct.unpack_from("<II", data, at) for at in range(0, size, 4096)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], dict[str, list[str]]]:
    """Two disks of one group; and of each volume, on which extents of which it lies."""
    need("pvcreate", "vgcreate", "lvcreate", "lvs")
    directory = tmp_path_factory.mktemp("lvm")
    paths = [blank(directory / name, 64 * MIB) for name in ("a", "b")]
    with ExitStack() as stack:
        devices = [stack.enter_context(disks.loop(one)) for one in paths]
        disks.lvm(devices, "pvcreate", "-y", *devices)
        disks.lvm(devices, "vgcreate", "vg-0", *devices)
        make = ("lvcreate", "-an", "-Zn", "-Wn", "-y")
        disks.lvm(devices, *make, "-n", "linear", "-L", "20M", "vg-0")
        disks.lvm(devices, *make, "-i", "2", "-I", "64k", "-n", "striped", "-L", "24M", "vg-0")
        disks.lvm(devices, *make, "-n", "wide", "-L", "70M", "vg-0")
        asked = ("--noheadings", "--units", "b", "--nosuffix", "--segments")
        said = disks.lvm(devices, "lvs", *asked, "-o", "lv_name,seg_start,seg_pe_ranges")
        lines = [line.split() for line in said.splitlines()]
        lines.sort(key=lambda one: (one[0], int(one[1])))
    for number, path in enumerate(paths):
        stamped(path, number, 64 * MIB)
    ranges: dict[str, list[str]] = {}
    for name, _, *places in lines:
        for place in places:
            device, _, extents = place.partition(":")
            ranges.setdefault(name, []).append(f"{devices.index(device)}:{extents}")
    return paths, ranges


def physical(paths: list[Path]) -> list[lvm.PhysicalVolume]:
    found = [lvm.physical_volume(BytesDisk(one.read_bytes())) for one in paths]
    assert all(found)
    return [one for one in found if one is not None]


def lies_at(place: str) -> list[tuple[int, int]]:
    number, _, extents = place.partition(":")
    first, _, last = extents.partition("-")
    begin, end = MIB + int(first) * EXTENT, MIB + (int(last) + 1) * EXTENT
    return [(int(number), at // 4096) for at in range(begin, end, 4096)]


def test_volumes_are_put_together_across_disks(
    made: tuple[list[Path], dict[str, list[str]]],
) -> None:
    paths, ranges = made
    found, wrong = lvm.logical_volumes(physical(paths))
    assert wrong == []
    assert {one.name for one in found} == {"linear", "striped", "wide"}
    assert {one.group for one in found} == {"vg-0"}
    assert len(ranges["wide"]) > 1
    for one in found:
        assert one.disk is not None
        expected = [place for each in ranges[one.name] for place in lies_at(each)]
        if one.name == "striped":
            left, right = (lies_at(each) for each in ranges["striped"])
            each = STRIPE // 4096
            expected = [
                place
                for at in range(0, len(left), each)
                for place in (*left[at : at + each], *right[at : at + each])
            ]
        assert stamps(one.disk) == expected


def test_a_volume_that_lies_on_a_disk_that_is_away_is_named(
    made: tuple[list[Path], dict[str, list[str]]],
) -> None:
    paths, ranges = made
    found, _ = lvm.logical_volumes(physical(paths[:1]))
    for one in found:
        whole = all(place.startswith("0:") for place in ranges[one.name])
        assert (one.disk is not None) == whole
        assert whole or "which no disk here has" in str(one.trouble)


def test_the_newest_text_counts(made: tuple[list[Path], dict[str, list[str]]]) -> None:
    paths, _ = made
    one, other = physical(paths)
    old = one.texts[0].replace("seqno = 4", "seqno = 3").replace("linear", "gone")
    found, _ = lvm.logical_volumes(
        [
            lvm.PhysicalVolume(one.id, one.disk, (old,)),
            lvm.PhysicalVolume(other.id, other.disk, other.texts),
        ]
    )
    assert {each.name for each in found} == {"linear", "striped", "wide"}


@pytest.mark.parametrize("kind", ["thin", "thin-pool", "raid1", "snapshot", "cache", "mirror"])
def test_what_is_not_read_is_named_with_its_type(
    made: tuple[list[Path], dict[str, list[str]]], kind: str
) -> None:
    one, _ = physical(made[0])
    text = one.texts[0].replace('type = "striped"', f'type = "{kind}"')
    found, _ = lvm.logical_volumes([lvm.PhysicalVolume(one.id, one.disk, (text,))])
    assert found
    assert all(each.disk is None and f"'{kind}'" in str(each.trouble) for each in found)


def test_groups_of_one_name_stay_apart(made: tuple[list[Path], dict[str, list[str]]]) -> None:
    one, other = physical(made[0])
    text = one.texts[0]
    identity = text.split('id = "', 1)[1].split('"', 1)[0]
    second = text.replace(identity, "zzzzzz" + identity[6:])
    found, _ = lvm.logical_volumes([one, other, lvm.PhysicalVolume(one.id, one.disk, (second,))])
    assert {each.group for each in found} == {
        "vg-0",
        f"vg-0-zzzzzz{identity.replace('-', '')[6:8]}",
    }


def test_a_label_that_was_damaged_is_told_of(
    made: tuple[list[Path], dict[str, list[str]]],
) -> None:
    data = bytearray(made[0][0].read_bytes())
    data[512 + 40] ^= 1
    with pytest.raises(Malformed, match="wrong sum"):
        lvm.physical_volume(BytesDisk(bytes(data)))


def test_a_text_that_was_damaged_is_not_believed(
    made: tuple[list[Path], dict[str, list[str]]],
) -> None:
    data = bytearray(made[0][0].read_bytes())
    for at in range(4096 + 512, MIB):
        if data[at : at + 5] == b"seqno":
            data[at + 8] ^= 1
    found = lvm.physical_volume(BytesDisk(bytes(data)))
    assert found is not None
    assert found.texts == ()
    assert "no description" in lvm.logical_volumes([found])[1][0]


def test_a_text_is_read_as_it_is_meant() -> None:
    text = 'a { # c\n b = "x\\"y#" c=[1, "2",\n3.5] 9d { e = -1 } }\nf = []'
    assert parse(text) == {
        "a": {"b": 'x"y#', "c": [1, "2", 3.5], "9d": {"e": -1}},
        "f": [],
    }


@pytest.mark.parametrize(
    "text", ["a {", "}", "a = ", "a = [1", "= 1", "a b = 1", 'a = "x', "a { " * 100, "\x01"]
)
def test_a_text_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse(text)
