"""Tables of partitions are read as Linux reads them, and broken ones do no harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.sources.filesystems.partitions import LOGICAL_AT_MOST, Partition, read_table
from tests.kit.disks import MIB, BytesDisk, FileDisk, blank, need, run


def partitioned(path: Path, script: str, size: int = 64 * MIB) -> list[Partition]:
    """Make a disk by `sfdisk`; what `sfdisk` then says of it."""
    need("sfdisk")
    blank(path, size)
    run("sfdisk", "--quiet", path, text=script)
    table = json.loads(run("sfdisk", "--json", path))["partitiontable"]
    sector = table.get("sectorsize", 512)
    extended = {"5", "f", "85"}
    return [
        Partition(
            int(one["node"].removeprefix(str(path))), one["start"] * sector, one["size"] * sector
        )
        for one in table["partitions"]
        if one["type"].lower() not in extended
    ]


@pytest.mark.parametrize(
    ("kind", "script"),
    [
        ("mbr", "label: dos\nsize=10M, type=83, bootable\nsize=20M, type=7\n"),
        ("mbr", "label: dos\nsize=10M\nsize=40M, type=5\n5: size=8M\n6: size=8M, type=82\n"),
        ("gpt", "label: gpt\nsize=10M\nsize=10M, name=é\n"),
        ("gpt", "label: gpt\nlabel-id: 5A0B8D4E-33D5-4F3B-9DCB-8C3B0B2B7F11\n7: size=10M\n"),
    ],
)
def test_a_table_is_read_as_it_was_made(tmp_path: Path, kind: str, script: str) -> None:
    expected = partitioned(tmp_path / "disk", script)
    with FileDisk(tmp_path / "disk") as disk:
        table = read_table(disk)
    assert table is not None
    assert (table.kind, list(table.partitions), table.remarks) == (kind, expected, ())


@pytest.mark.parametrize("wiped", [(512, 512), (1024, 16384), (0, 17408)])
def test_a_second_copy_stands_in_for_a_broken_first(tmp_path: Path, wiped: tuple[int, int]) -> None:
    expected = partitioned(tmp_path / "disk", "label: gpt\nsize=10M\nsize=10M\n")
    data = bytearray((tmp_path / "disk").read_bytes())
    data[wiped[0] : wiped[0] + wiped[1]] = bytes(wiped[1])
    table = read_table(BytesDisk(bytes(data)))
    assert table is not None
    assert list(table.partitions) == expected
    assert [one.code for one in table.remarks] == ["gpt-backup"]


def test_a_table_of_which_both_copies_are_broken_is_told_of(tmp_path: Path) -> None:
    partitioned(tmp_path / "disk", "label: gpt\nsize=10M\n")
    data = bytearray((tmp_path / "disk").read_bytes())
    data[512] ^= 1
    data[-512] ^= 1
    table = read_table(BytesDisk(bytes(data)))
    assert table is not None
    assert table.partitions == ()
    assert [one.code for one in table.remarks] == ["gpt-broken"]


def test_a_disk_that_was_cut_off_still_has_what_is_left_of_it(tmp_path: Path) -> None:
    first, second, _ = partitioned(tmp_path / "disk", "label: dos\nsize=10M\nsize=20M\nsize=20M\n")
    data = (tmp_path / "disk").read_bytes()[: 16 * MIB]
    table = read_table(BytesDisk(data))
    assert table is not None
    assert table.partitions == (first, second)
    assert [one.code for one in table.remarks] == ["partition-cut", "partition-outside"]


def test_a_chain_that_bites_its_tail_ends(tmp_path: Path) -> None:
    script = "label: dos\nsize=40M, type=5\n5: size=8M\n6: size=8M\n"
    partitioned(tmp_path / "disk", script)
    data = bytearray((tmp_path / "disk").read_bytes())
    # the first link of the chain leads back to itself
    data[MIB + 446 + 16 + 8 : MIB + 446 + 16 + 12] = bytes(4)
    disk = BytesDisk(bytes(data))
    table = read_table(disk)
    assert table is not None
    assert [one.number for one in table.partitions] == [5]
    assert [one.code for one in table.remarks] == ["logical-broken"]
    assert disk.reads < LOGICAL_AT_MOST


@pytest.mark.parametrize("data", [b"", b"x" * 100, bytes(MIB), b"\xff" * MIB])
def test_what_has_no_table_has_none(data: bytes) -> None:
    assert read_table(BytesDisk(data)) is None
