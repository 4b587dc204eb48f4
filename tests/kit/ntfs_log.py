"""The log of an NTFS as Windows leaves it: a change that is written down, and not yet made.

No driver of Linux writes such a log, so the one between two states of a file system is made here.
Format: as ``ntfs3`` (``fslog.c``) and ``ntfsrecover`` read it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

_PAGE = 4096
_FIRST = {1: 4, 2: 34}
"""By major version, pages before those that go round: two of restarts, the others copies."""
_HEAD = 0x40

_NOOP, _INITIALIZE, _ADD_TO_ROOT, _SET_BITS, _FORGET, _OPEN = 0, 0x02, 0x0C, 0x15, 0x1B, 0x1C
_CLEAR_BITS, _REMOVE_FROM_ROOT, _COMPENSATION = 0x16, 0x0D, 0x01
_DATA, _BITMAP, _INDEX_ROOT, _END = 0x80, 0xB0, 0x90, 0xFFFFFFFF
_MFT_ATTRIBUTE, _BITMAP_ATTRIBUTE = 0x18, 0x40
"""Where the two open attributes are in the table of those: behind its head, 40 bytes each."""


class Volume:
    """An NTFS in bytes, as far as it is needed here."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        sector, per = struct.unpack_from("<HB", data, 11)
        self.cluster = sector * per
        (self._table,) = struct.unpack_from("<Q", data, 48)
        (code,) = struct.unpack_from("<b", data, 64)
        self.record_size = code * self.cluster if code > 0 else 1 << -code

    def record(self, number: int) -> bytes:
        """A record of the file table, its sectors' ends put back."""
        at = self._table * self.cluster + number * self.record_size
        raw = bytearray(self.data[at : at + self.record_size])
        if raw[:4] == b"FILE":
            first, count = struct.unpack_from("<HH", raw, 4)
            for sector in range(1, count):
                where = first + 2 * sector
                raw[sector * 512 - 2 : sector * 512] = raw[where : where + 2]
        return bytes(raw)

    def place(self, number: int) -> tuple[int, int, int]:
        """Of a record: its cluster in the table, on the disk, and its first sector in there."""
        clusters, rest = divmod(number * self.record_size, self.cluster)
        return clusters, self._table + clusters, rest // 512

    def run(self, number: int, kind: int) -> tuple[int, int]:
        """First cluster and length in bytes of a large attribute."""
        record = self.record(number)
        at = attribute(record, kind)
        assert record[at + 8], "it lies in the record"
        (runs,) = struct.unpack_from("<H", record, at + 32)
        (size,) = struct.unpack_from("<Q", record, at + 48)
        lengths, places = record[at + runs] & 15, record[at + runs] >> 4
        begin = at + runs + 1 + lengths
        return int.from_bytes(record[begin : begin + places], "little", signed=True), size


def attribute(record: bytes, kind: int) -> int:
    """Where an attribute without a name, or an index, begins in a record."""
    (at,) = struct.unpack_from("<H", record, 20)
    while (found := struct.unpack_from("<I", record, at)[0]) != _END:
        if found == kind:
            return int(at)
        at += struct.unpack_from("<I", record, at + 4)[0]
    raise AssertionError(f"a record has no attribute {kind:#x}")


@dataclass(frozen=True)
class _Record:
    """One entry of the log, without its number."""

    redo: int
    undo: int
    target: int = 0
    clusters: tuple[int, ...] = ()
    vcn: int = 0
    sector: int = 0
    record_at: int = 0
    attribute_at: int = 0
    data: bytes = b""
    before: bytes = b""
    transaction: int = 0x18

    def body(self) -> bytes:
        head = 0x20 + 8 * max(1, len(self.clusters))
        begin = head + -(-len(self.data) // 8) * 8
        fields = (self.redo, self.undo, head, len(self.data), begin, len(self.before))
        on_table = 2 if self.clusters and self.target == _MFT_ATTRIBUTE else 0
        places = (self.target, len(self.clusters), self.record_at, self.attribute_at)
        body = struct.pack("<6H", *fields) + struct.pack("<6H", *places, self.sector, on_table)
        body += struct.pack("<Q", self.vcn)
        body += struct.pack(f"<{max(1, len(self.clusters))}Q", *(self.clusters or (0,)))
        body += self.data.ljust(begin - head, b"\0") + self.before
        return body.ljust(-(-len(body) // 8) * 8, b"\0")


def with_logged_files(
    before: bytes, after: bytes, directory: int, files: dict[int, bool], version: int
) -> bytes:
    """A file system without some new files, in whose log those files are.

    Args:
        before: Without the files; nothing of the log is in use.
        after: With them, by whoever can write to an NTFS.
        directory: Of their directory's record; its index is so small that it lies in the record.
        files: Numbers of their records, which the table has before, by their names; and whether
            Windows came to the end of making them.
        version: Major one of the log: 1 up to Windows 7, 2 since Windows 8 while it is in use.
    """
    old, new = Volume(before), Volume(after)
    changes = _opened()
    for at, (number, finished) in enumerate(files.items()):
        changes += _made(old, new, number, directory, 0x18 + 0x28 * at, finished=finished)
    return _logged(old, changes, version)


def _opened() -> list[_Record]:
    """The table of files, and the bits that say which of its records are in use."""
    # 64 bits, as since Windows 2000: the file is the table itself
    data = [struct.pack("<IIIIQQQ", _END, 0, one, 0, 1 << 48, 0, 0) for one in (_DATA, _BITMAP)]
    return [
        _Record(_OPEN, _NOOP, _MFT_ATTRIBUTE, data=data[0]),
        _Record(_OPEN, _NOOP, _BITMAP_ATTRIBUTE, data=data[1]),
    ]


def _made(
    old: Volume, new: Volume, number: int, directory: int, transaction: int, *, finished: bool
) -> list[_Record]:
    record, parent = new.record(number), new.record(directory)
    root = attribute(parent, _INDEX_ROOT)
    (value,) = struct.unpack_from("<H", parent, root + 20)
    at = root + value + 16 + struct.unpack_from("<I", parent, root + value + 16)[0]
    while struct.unpack_from("<I", parent, at)[0] != number:
        at += struct.unpack_from("<H", parent, at + 8)[0]
    entry = parent[at : at + struct.unpack_from("<H", parent, at + 8)[0]]
    (used,) = struct.unpack_from("<I", record, 24)
    bits_at, _ = old.run(0, _BITMAP)
    bit = struct.pack("<II", number, 1)
    file_vcn, file_lcn, file_sector = old.place(number)
    vcn, lcn, sector = old.place(directory)
    changes = [
        _Record(_SET_BITS, _CLEAR_BITS, _BITMAP_ATTRIBUTE, (bits_at,), data=bit, before=bit),
        _Record(
            _INITIALIZE, _NOOP, _MFT_ATTRIBUTE, (file_lcn,), file_vcn, file_sector,
            data=record[:used],
        ),
        _Record(
            _ADD_TO_ROOT, _REMOVE_FROM_ROOT, _MFT_ATTRIBUTE, (lcn,), vcn, sector,
            record_at=root, attribute_at=at - root, data=entry,
        ),
        *([_Record(_FORGET, _COMPENSATION)] if finished else []),
    ]  # fmt: skip
    return [replace(one, transaction=transaction) for one in changes]


def _logged(old: Volume, changes: list[_Record], version: int) -> bytes:
    start, size = old.run(2, _DATA)
    bits = 67 - size.bit_length()

    def lsn(offset: int) -> int:
        return 1 << (64 - bits) | offset >> 3

    found = [(1, one.body(), one.transaction) for one in changes]
    old_one = _Record(_FORGET, _COMPENSATION, data=bytes(_PAGE - _HEAD - 0x30 - 0x28))
    # a checkpoint that has no tables, as right behind a start; what is behind it fills its page
    restarted = struct.pack("<II", 1, 0).ljust(0x70, b"\0")
    filled = found[0][1].ljust(_PAGE - _HEAD - 2 * 0x30 - len(restarted), b"\0")
    # the newest page, one before it, and one that was through with before: who reads backwards
    # looks at that one, too
    parts = [[(1, old_one.body(), 0x18)], [(2, restarted, 0), (1, filled, 0x18)], found[1:]]
    pages: list[bytes] = []
    previous = last = last_length = checkpoint = 0
    for some in parts:
        begin = (_FIRST[version] + len(pages)) * _PAGE
        written = bytearray()
        for kind, body, transaction in some:
            last, last_length = lsn(begin + _HEAD + len(written)), len(body)
            links = (last, previous, previous, len(body), 0, 0, kind, transaction)
            written += struct.pack("<QQQIHHII8x", *links) + body
            previous = last if transaction and checkpoint else 0
            checkpoint = last if kind == 2 else checkpoint
        end = _HEAD + len(written)
        assert end <= _PAGE, "more than a page"
        head = struct.pack("<4sHHQIHHH6xQ", b"RCRD", 0x28, 9, last, 1, 1, 1, end, last)
        pages.append(head.ljust(_HEAD, b"\0") + written)
    area = struct.pack("<QHHHHIHHQI", last, 1, 0xFFFF, 0, 0, bits, 0xE0, 0x40, size, last_length)
    area += struct.pack("<HHI", 0x30, 0x40, 1)
    client = struct.pack("<QQHHH6xI", checkpoint, checkpoint, 0xFFFF, 0xFFFF, 0, 8)
    client += "NTFS".encode("utf-16-le")
    versions = (1, 1) if version == 1 else (0, 2)
    restart = struct.pack("<4sHHQIIHHH", b"RSTR", 0x1E, 9, 0, _PAGE, _PAGE, 0x30, *versions)
    restart = restart.ljust(0x30, b"\0") + area.ljust(0x40, b"\0") + client.ljust(0xA0, b"\0")
    log = bytearray(b"\xff" * size)
    log[: 2 * _PAGE] = _protected(restart) * 2
    for number, one in enumerate(pages):
        place = _FIRST[version] + number
        log[place * _PAGE : (place + 1) * _PAGE] = _protected(one)
        # the newest are there twice, in turn
        at = 2 + number % 2 * (_FIRST[version] // 2 - 1)
        copy = bytearray(one)
        if version == 1:
            struct.pack_into("<Q", copy, 8, place * _PAGE)
        else:
            struct.pack_into("<I", copy, 0x3C, place * _PAGE)
        log[at * _PAGE : (at + 1) * _PAGE] = _protected(copy)
    begin = start * old.cluster
    return old.data[:begin] + bytes(log) + old.data[begin + size :]


def _protected(page: bytes | bytearray) -> bytes:
    """A page, the last two bytes of each sector moved to its head."""
    raw = bytearray(page.ljust(_PAGE, b"\0"))
    (at,) = struct.unpack_from("<H", raw, 4)
    struct.pack_into("<H", raw, at, 1)
    for sector in range(1, 9):
        end = sector * 512
        raw[at + 2 * sector : at + 2 * sector + 2] = raw[end - 2 : end]
        raw[end - 2 : end] = raw[at : at + 2]
    return bytes(raw)
