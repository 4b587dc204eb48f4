"""Whatever a disk has on it, looking at it ends soon, reads little, and raises nothing."""

from __future__ import annotations

import struct
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.sources.filesystems import lvm
from holdfast.sources.filesystems.disk import Part, Pieces, Striped
from holdfast.sources.filesystems.partitions import Partition, read_table
from holdfast.sources.filesystems.volumes import look
from tests.kit.disks import MIB, BytesDisk

SIZE = 2 * MIB


def mbr(*entries: tuple[int, int, int, int]) -> bytes:
    packed = b"".join(
        struct.pack("<B3xB3xII", status, kind, start, size) for status, kind, start, size in entries
    )
    return bytes(446) + packed.ljust(64, b"\0") + b"\x55\xaa"


def gpt(parts: list[tuple[int, int]], count: int = 128, each: int = 128) -> bytes:
    entries = b"".join(
        struct.pack("<16s16sQQQ72x", b"k" * 16, b"i" * 16, first, last, 0).ljust(each, b"\0")
        for first, last in parts
    ).ljust(min(count * each, SIZE), b"\0")
    header = bytearray(
        struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, 1, SIZE // 512 - 1, 34, 4000,
            b"d" * 16, 2, count, each, zlib.crc32(entries),
        )
    )  # fmt: skip
    header[16:20] = struct.pack("<I", zlib.crc32(header))
    return mbr((0, 0xEE, 1, 0xFFFFFFFF)) + bytes(header).ljust(512, b"\0") + entries


def pv(text: bytes, areas: list[tuple[int, int]]) -> bytes:
    body = b"A" * 32 + struct.pack("<QQQQQ", SIZE, MIB, 0, 0, 0)
    body += b"".join(struct.pack("<QQ", *one) for one in areas)
    sector = bytearray(struct.pack("<8sQII8s", b"LABELONE", 1, 0, 32, b"LVM2 001") + body)
    sector = sector[:512].ljust(512, b"\0")
    sector[16:20] = struct.pack("<I", lvm._sum(bytes(sector[20:])))
    header = bytearray(
        struct.pack("<I16sIQQ", 0, b" LVM2 x[5A%r0N*>", 1, 4096, MIB - 4096)
        + struct.pack("<QQII", 512, len(text), lvm._sum(text), 0)
    ).ljust(512, b"\0")
    header[:4] = struct.pack("<I", lvm._sum(bytes(header[4:])))
    return (bytes(512) + bytes(sector)).ljust(4096, b"\0") + bytes(header) + text


TEXT = b"""vg { id = "g" seqno = 1 extent_size = 8
physical_volumes { pv0 { id = "AAAAAA-AA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA" pe_start = 2048
pe_count = 99 } }
logical_volumes { lv { id = "x" status = ["READ", "VISIBLE"] segment_count = 1
segment1 { start_extent = 0 extent_count = 9 type = "striped" stripe_count = 1 stripe_size = 8
stripes = ["pv0", 3] } } } }
"""

BEGINNINGS = [
    mbr((0x80, 0x83, 64, 1000), (0, 0x05, 2000, 1000), (0, 7, 3000, 99999)),
    gpt([(40, 100), (101, 4000), (5000, 1), (1, 1 << 60)]),
    gpt([], count=1 << 31, each=1 << 31),
    pv(TEXT, [(4096, MIB - 4096)]),
    pv(TEXT.replace(b"= 9", b"= 999999999999999999"), [(4096, MIB), (1 << 60, 1 << 60)]),
]

small = st.integers(0, 20_000)
changes = st.lists(st.tuples(small, st.binary(min_size=1, max_size=12)), max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(BEGINNINGS), changes, st.integers(0, SIZE))
def test_a_damaged_disk_does_no_harm(
    beginning: bytes, damage: list[tuple[int, bytes]], size: int
) -> None:
    data = bytearray(beginning.ljust(SIZE, b"\0")[:SIZE])
    for at, put in damage:
        data[at : at + len(put)] = put
    disk = BytesDisk(bytes(data[: max(size, 1)]))
    layout = look({"vda": disk})
    assert disk.reads < 5000
    assert disk.bytes_read < 20 * SIZE
    for one in layout.volumes:
        assert not {"", ".", ".."} & set(one.name.split("/"))
        assert len(one.disk.read_at(0, 4096)) <= 4096


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000))
def test_any_text_of_a_group_is_read_or_refused(text: bytes) -> None:
    data = pv(text, [(4096, MIB - 4096)]).ljust(SIZE, b"\0")
    look({"vda": BytesDisk(data)})


@given(st.lists(st.tuples(st.integers(2, 2000), st.integers(0, 1500)), max_size=20))
def test_gpt_entries_are_told_as_they_are(parts: list[tuple[int, int]]) -> None:
    table = read_table(BytesDisk(gpt([(one, one + more) for one, more in parts]).ljust(SIZE)))
    assert table is not None
    expected = [
        Partition(at, first * 512, (more + 1) * 512)
        for at, (first, more) in enumerate(parts, start=1)
    ]
    assert list(table.partitions) == expected
    assert table.kind == "gpt"


@given(st.data())
def test_parts_and_pieces_and_stripes_show_their_own_bytes_only(data: st.DataObject) -> None:
    each = data.draw(st.integers(1, 40), "stripe")
    rows = data.draw(st.integers(1, 6), "rows")
    disks = [BytesDisk(bytes(range(begin, begin + each * rows + 9))) for begin in (0, 5, 10)]
    parts = [Part(one, 3, each * rows) for one in disks]
    striped = Striped(parts, each)
    whole = b"".join(
        one.data[3 + row * each : 3 + (row + 1) * each] for row in range(rows) for one in disks
    )
    pieces = Pieces([(0, striped.size, striped, 0), (striped.size, parts[0].size, parts[0], 0)])
    whole += disks[0].data[3 : 3 + each * rows]
    offset = data.draw(st.integers(0, pieces.size), "offset")
    length = data.draw(st.integers(1, pieces.size + 10), "length")
    assert pieces.read_at(offset, length) == whole[offset : offset + length]
