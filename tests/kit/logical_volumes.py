"""File systems in logical volumes, laid out by LVM2 and filled by the kernel, one after the other.

A kernel without a device mapper shows no logical volume, so each file system is made and mounted in
a file of its own, and its bytes are then put where LVM2 says that the volume's extents are. Must
not ask our own reader of LVM anything.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.kit import disks
from tests.kit.disks import MIB, blank, mounted, need, run
from tests.kit.guest_files import Seen, fill, walked

GROUP = "vg-0"
EXTENT = 4 * MIB
STRIPE = 64 << 10
FIRST_EXTENT = MIB
"""Where extents begin on a physical volume, as `pvs -o pe_start` says and the maker asserts."""

_NEW = ("lvcreate", "-an", "-Zn", "-Wn", "-y")


@dataclass(frozen=True)
class Group:
    """A group of two disks, and what a mount showed of each volume's file system."""

    disks: dict[str, Path]
    walked: dict[str, dict[bytes, Seen]]


@dataclass(frozen=True)
class Segment:
    """One piece of a volume: as many extents of each place, in turns of a stripe if many."""

    start: int
    places: list[tuple[int, int, int]]
    """Which disk, its first extent, its last one."""


def make(directory: Path) -> Group:
    """Two disks of 64 MiB with one group; in it a striped volume, and one that begins on the first
    disk and ends on the second."""
    need("pvcreate", "vgcreate", "lvcreate", "lvs", "pvs", "mkfs.ext4")
    names = ("vda", "vdb")
    paths = [blank(directory / name, 64 * MIB) for name in names]
    with ExitStack() as stack:
        devices = [stack.enter_context(disks.loop(one)) for one in paths]
        disks.lvm(devices, "pvcreate", "-y", *devices)
        disks.lvm(devices, "vgcreate", GROUP, *devices)
        disks.lvm(devices, *_NEW, "-i", "2", "-I", "64k", "-n", "striped", "-L", "40M", GROUP)
        disks.lvm(devices, *_NEW, "-n", "wide", "-L", "60M", GROUP)
        segments = _segments(devices)
    assert len(segments["striped"]) == 1
    assert len(segments["striped"][0].places) == 2, "it is striped"
    assert [one.places[0][0] for one in segments["wide"]] == [0, 1], "it is on both disks"
    shown = {}
    for name, pieces in segments.items():
        alone, at = blank(directory / f"{name}.ext4", _size(pieces)), directory / "mnt"
        run("mkfs.ext4", "-q", "-F", alone)
        with mounted(alone, at) as root:
            fill(root)
            (root / "volume").write_text(name)
            shown[name] = walked(root)
        _lay(alone.read_bytes(), pieces, paths)
        alone.unlink()
    return Group(dict(zip(names, paths, strict=True)), shown)


def over_all(disk: Path, name: str) -> int:
    """Lay one volume over all of a disk; where its bytes begin, which go on to the disk's end."""
    need("pvcreate", "vgcreate", "lvcreate", "lvs", "pvs")
    with disks.loop(disk) as device:
        disks.lvm([device], "pvcreate", "-y", device)
        disks.lvm([device], "vgcreate", GROUP, device)
        disks.lvm([device], *_NEW, "-n", name, "-l", "100%FREE", GROUP)
        pieces = _segments([device])[name]
    assert [(one.start, one.places[0][1]) for one in pieces] == [(0, 0)], "it is in one piece"
    assert FIRST_EXTENT + _size(pieces) == disk.stat().st_size
    return FIRST_EXTENT


def _segments(devices: list[str]) -> dict[str, list[Segment]]:
    said = disks.lvm(devices, "pvs", "--noheadings", "--units", "b", "-o", "pe_start")
    assert {one.strip() for one in said.splitlines()} == {f"{FIRST_EXTENT}B"}
    asked = ("--noheadings", "--units", "b", "--nosuffix", "--segments")
    columns = "lv_name,seg_start,stripe_size,seg_pe_ranges"
    found: dict[str, list[Segment]] = {}
    for line in disks.lvm(devices, "lvs", *asked, "-o", columns).splitlines():
        name, start, stripe, *places = line.split()
        assert int(stripe) == (STRIPE if len(places) > 1 else 0)
        found.setdefault(name, []).append(
            Segment(int(start), [_place(one, devices) for one in places])
        )
    return {name: sorted(all_of, key=lambda one: one.start) for name, all_of in found.items()}


def _place(said: str, devices: list[str]) -> tuple[int, int, int]:
    device, _, extents = said.partition(":")
    first, _, last = extents.partition("-")
    return devices.index(device), int(first), int(last)


def _size(pieces: list[Segment]) -> int:
    return EXTENT * sum(last - first + 1 for one in pieces for _, first, last in one.places)


def _lay(data: bytes, pieces: list[Segment], paths: list[Path]) -> None:
    """Write what is in a volume to where it belongs."""
    for piece in pieces:
        offset = piece.start
        grain = STRIPE if len(piece.places) > 1 else EXTENT
        _, first, last = piece.places[0]
        for turn in range((last - first + 1) * EXTENT // grain):
            for number, begin, _ in piece.places:
                with paths[number].open("r+b") as file:
                    file.seek(FIRST_EXTENT + begin * EXTENT + turn * grain)
                    file.write(data[offset : offset + grain])
                offset += grain
