"""Writes every stored structure from the format pages alone, with fixed keys and salts.

Shares no code with the product or with the independent reader, so that agreement of the three
means something. Nothing here is random: the same call gives the same bytes for ever.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cbor2
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from collections.abc import Iterable

POOL_KEY = bytes(range(32))
POOL_ID = bytes(range(0xA0, 0xB0))
CREATED_NS = 1_700_000_000_123_456_789
CONFIG = {
    "chunk_min": 8192,
    "chunk_avg": 32768,
    "chunk_max": 131072,
    "block_bytes": 1048576,
    "pack_bytes": 67108864,
}
DATA, TREE, LIST = 0, 1, 2
STORED, ZSTD = 0, 1

# By the logarithm of the average length; from the FastCDC reference implementation.
MASKS = {
    6: 0x0000000001803110,
    7: 0x0000000018035100,
    8: 0x0000001800035300,
    9: 0x0000019000353000,
    10: 0x0000590003530000,
    11: 0x0000D90003530000,
    12: 0x0000D90103530000,
    13: 0x0000D90303530000,
    14: 0x0000D90313530000,
    15: 0x0000D90F03530000,
    16: 0x0000D90303537000,
    17: 0x0000D90703537000,
    18: 0x0000D90707537000,
    19: 0x0000D91707537000,
    20: 0x0000D91747537000,
    21: 0x0000D91767537000,
    22: 0x0000D93767537000,
    23: 0x0000D93777537000,
}


def sub_key(purpose: str, pool_key: bytes = POOL_KEY) -> bytes:
    return blake3(pool_key, derive_key_context=f"holdfast pool v1: {purpose}").digest()


def keyed(purpose: str, data: bytes) -> bytes:
    return blake3(data, key=sub_key(purpose)).digest()


def name(kind: int, plain: bytes) -> bytes:
    return keyed(f"name {('data', 'tree', 'list')[kind]} chunk", plain)


def ref(kind: int, plain: bytes) -> bytes:
    return name(kind, plain) + struct.pack("<I", len(plain))


def seal(purpose: str, salt: bytes, place: int, plain: bytes, bound_to: bytes) -> bytes:
    nonce = struct.pack("<IQ", place, 0)
    return AESGCM(keyed(purpose, salt)).encrypt(nonce, plain, bound_to)


# Chunking


def gear() -> list[int]:
    raw = blake3(b"", key=sub_key("chunker gear")).digest(length=2048)
    return list(struct.unpack("<256Q", raw))


def cut_lengths(data: bytes, smallest: int, average: int, largest: int) -> list[int]:
    table, bits = gear(), average.bit_length() - 1
    strict, relaxed = MASKS[bits + 1], MASKS[bits - 1]
    found, start = [], 0
    while start < len(data):
        length = _cut(data[start : start + largest], smallest, average, strict, relaxed, table)
        found.append(length)
        start += length
    return found


def _cut(
    window: bytes, smallest: int, average: int, strict: int, relaxed: int, table: list[int]
) -> int:
    if len(window) <= smallest:
        return len(window)
    centre = min(average, len(window)) & ~1
    rolling = 0
    for at in range(smallest, len(window) & ~1):
        rolling = (rolling * 2 + table[window[at]]) % (1 << 64)
        if rolling & (strict if at < centre else relaxed) == 0:
            return at
    return len(window)


# Header


def header(pool_id: bytes = POOL_ID) -> bytes:
    fields = {"id": pool_id, **CONFIG, "created_ns": CREATED_NS}
    encoded = cbor2.dumps(fields)
    front = b"HFPOOL\0\x01" + struct.pack("<I", len(encoded)) + encoded
    return front + keyed("header", front)


def naming(pool_key: bytes) -> bytes:
    """What names and cuts chunks in the pool of this key."""
    purposes = ("name data chunk", "name tree chunk", "name list chunk", "chunker gear")
    return b"".join(sub_key(purpose, pool_key) for purpose in purposes)


def sharing_header(named_by: bytes, pool_id: bytes = POOL_ID) -> bytes:
    """The header of a pool that names chunks as the pool of another key does."""
    salt = bytes(range(0xC0, 0xE0))
    sealed = salt + seal("header naming", salt, 0, naming(named_by), pool_id)
    fields = {"id": pool_id, **CONFIG, "created_ns": CREATED_NS, "naming": sealed}
    encoded = cbor2.dumps(fields)
    front = b"HFPOOL\0\x02" + struct.pack("<I", len(encoded)) + encoded
    return front + keyed("header", front)


# Packs


@dataclass(frozen=True)
class Block:
    """Chunks as (kind, plain bytes), and the body if it is not simply those bytes."""

    chunks: list[tuple[int, bytes]]
    zstd_frame: bytes | None = None

    @property
    def plain(self) -> bytes:
        return b"".join(plain for _, plain in self.chunks)


@dataclass(frozen=True)
class Pack:
    raw: bytes
    footer_plain: bytes
    footer_sealed_len: int
    kind: int
    places: dict[bytes, tuple[int, int, int]]

    @property
    def id(self) -> bytes:
        return blake3(self.raw).digest()

    @property
    def key(self) -> str:
        return f"packs/{self.id.hex()[:2]}/{self.id.hex()}"


def pack(salt: bytes, kind: int, blocks: list[Block]) -> Pack:
    front = b"HFPACK\0\x01" + salt
    raw, block_table, chunk_table, places = front, b"", b"", {}
    for number, block in enumerate(blocks):
        body = block.plain if block.zstd_frame is None else block.zstd_frame
        codec = STORED if block.zstd_frame is None else ZSTD
        sealed = seal("pack", salt, number, body, front)
        block_table += struct.pack(
            "<QIIIB3x", len(raw), len(sealed), len(block.plain), len(block.chunks), codec
        )
        raw += sealed
        offset = 0
        for chunk_kind, plain in block.chunks:
            chunk_name = name(chunk_kind, plain)
            chunk_table += chunk_name + struct.pack("<IB3x", len(plain), chunk_kind)
            places[chunk_name] = (number, offset, len(plain))
            offset += len(plain)
    counts = struct.pack("<B7xII", kind, len(blocks), len(places))
    footer = counts + block_table + chunk_table
    sealed = seal("pack", salt, 0xFFFFFFFF, footer, front)
    raw += sealed + struct.pack("<II", len(sealed), 0) + b"HFPKEND\x01"
    return Pack(raw, footer, len(sealed), kind, places)


# Index

SALTS = (
    0x47B6137B,
    0x44974D91,
    0x8824AD5B,
    0xA2B7289D,
    0x705495C7,
    0x2DF1424B,
    0x9EFC4947,
    0x5C6BFB31,
)


def filter_blocks(names: Iterable[bytes], count: int) -> bytes:
    words = [0] * (8 * count)
    for chunk_name in names:
        high, low = struct.unpack_from(">II", chunk_name)
        block = high * count >> 32
        for word, salt in enumerate(SALTS):
            bit = (low * salt % (1 << 32)) >> 27
            words[8 * block + word] |= 1 << bit
    return struct.pack(f"<{len(words)}I", *words)


SEGMENT_ID = b"\x4d" * 16


def segment(packs: list[Pack], pool_id: bytes = POOL_ID) -> bytes:
    packs = sorted(packs, key=lambda each: each.id)
    records = sorted(
        (chunk_name[:16], ordinal, block << 48 | offset << 24 | length)
        for ordinal, each in enumerate(packs)
        for chunk_name, (block, offset, length) in each.places.items()
    )
    blocks = -(-len(records) * 10 // 256)
    head = b"HFINDX\0\x01" + pool_id + struct.pack("<QII", len(records), len(packs), blocks)
    head += SEGMENT_ID + bytes(8)
    for each in packs:
        sizes = struct.pack("<QIB3x", len(each.raw), each.footer_sealed_len, each.kind)
        head += each.id + sizes
    raw = head + keyed("index", head)
    raw += filter_blocks((chunk_name for each in packs for chunk_name in each.places), blocks)
    for prefix, ordinal, place in records:
        mask = blake3(prefix, key=keyed("index records", SEGMENT_ID)).digest(length=12)
        clear = struct.pack("<IQ", ordinal, place)
        raw += prefix + bytes(one ^ other for one, other in zip(clear, mask, strict=True))
    return raw + keyed("index", raw)


# Sealed objects


def sealed_object(letter: bytes, salt: bytes, key: str, content: Any) -> bytes:
    front = b"HFOBJ\0" + letter + b"\x01" + salt
    return front + seal("object", salt, 0, cbor2.dumps(content), front + key.encode())


# Trees


def varints(*numbers: int) -> bytes:
    raw = bytearray()
    for number in numbers:
        rest = number
        while rest > 0x7F:
            raw.append(rest & 0x7F | 0x80)
            rest >>= 7
        raw.append(rest)
    return bytes(raw)


def leaf(entries: list[dict[int, Any]]) -> bytes:
    ordered = sorted(entries, key=lambda entry: entry[1])
    version = 2 if any({22, 23} & entry.keys() for entry in entries) else 1
    return cbor2.dumps([version, 0, [dict(sorted(entry.items())) for entry in ordered]])


def node(level: int, items: list[tuple[bytes, bytes]]) -> bytes:
    return cbor2.dumps([1, level, [list(item) for item in items]])


MTIME = (1_600_000_000, 987_654_321)
CTIME = (1_600_000_001, 5)


def entry(entry_name: bytes, kind: int, mode: int, **extra: Any) -> dict[int, Any]:
    """Make an entry; extra fields are named ``k13``, ``k14``, …."""
    found: dict[int, Any] = {
        1: entry_name,
        2: kind,
        3: mode,
        4: 1000,
        5: 1000,
        6: "nobody-alice",
        7: "nobody-staff",
        8: list(MTIME),
        9: list(CTIME),
        10: 4711,
        11: 2049,
    }
    found.update({int(label[1:]): value for label, value in extra.items()})
    return found


# A whole pool


@dataclass
class GoldenPool:
    """Objects by key, as a store would hold them."""

    objects: dict[str, bytes] = field(default_factory=dict)
    _data: list[tuple[int, bytes]] = field(default_factory=list)
    _metadata: list[tuple[int, bytes]] = field(default_factory=list)

    def chunk(self, kind: int, plain: bytes) -> bytes:
        """Keep a chunk once; returns its reference."""
        chunks = self._data if kind == DATA else self._metadata
        if (kind, plain) not in chunks:
            chunks.append((kind, plain))
        return ref(kind, plain)

    def file(self, *chunks: bytes) -> bytes:
        return b"".join(self.chunk(DATA, plain) for plain in chunks)

    def close(self, frame: tuple[bytes, bytes]) -> None:
        """Write header, packs and index. `frame`: plain bytes of a chunk and its zstd frame."""
        plain, compressed = frame
        rest = [chunk for chunk in self._data if chunk != (DATA, plain)]
        packs = [
            pack(b"\x11" * 32, 0, [Block(rest[:2]), Block([(DATA, plain)], compressed)]),
            pack(b"\x22" * 32, 0, [Block(rest[2:])]),
            pack(b"\x33" * 32, 1, [Block(self._metadata)]),
        ]
        self.objects["pool"] = header()
        self.objects["index/" + SEGMENT_ID.hex()] = segment(packs)
        self.objects.update((each.key, each.raw) for each in packs)


IMAGE_ID = bytes.fromhex("e1" * 16)


def manifest(root: dict[int, Any]) -> dict[str, Any]:
    return {
        "version": 1,
        "id": IMAGE_ID,
        "number": 1,
        "source": {"host": "golden", "name": "golden:/srv", "paths": [b"/srv"]},
        "started_ns": CREATED_NS,
        "finished_ns": CREATED_NS + 1_500_000_000,
        "root": root,
        "parent": None,
        "status": "completed with errors",
        "stats": {"dirs": 4, "files": 9},
        "findings": [[b"/srv/locked", "no-permission", "permission denied", "error"]],
        "findings_total": 1,
        "options": {},
        "software": "golden writer",
    }


def golden_pool(frame: tuple[bytes, bytes]) -> GoldenPool:
    """Build a pool that has one of everything. See `docs/formats/store-layout.md`."""
    pool = GoldenPool()
    text = pool.file(b"hello holdfast\n")
    parts = pool.file(bytes(range(256)), frame[0])
    pieces = [bytes([number]) * (number + 1) for number in range(6)]
    piece_refs = [pool.chunk(DATA, piece) for piece in pieces]
    low = [
        pool.chunk(LIST, b"".join(piece_refs[:4])),
        pool.chunk(LIST, b"".join(piece_refs[4:])),
    ]
    listed = sum(map(len, pieces))
    sparse = pool.file(b"S" * 1000)
    linked = {"k12": 2, "k13": 15, "k14": text, "k10": 99}
    deep = leaf([entry(b"\xff\xfe not text", 0, 0o600, k13=15, k14=text)])
    large = [entry(b"n%03d" % number, 0, 0o644, k13=0) for number in range(7)]
    halves = [leaf(large[:4]), leaf(large[4:])]
    names = (b"n000", b"n004")
    cut = node(
        1, [(first, pool.chunk(TREE, half)) for first, half in zip(names, halves, strict=True)]
    )
    contents = leaf(
        [
            entry(b"deep", 1, 0o755, k17=pool.chunk(TREE, deep)),
            entry(b"empty", 0, 0o640, k13=0),
            entry(b"empty-dir", 1, 0o1777, k17=pool.chunk(TREE, leaf([]))),
            entry(b"fifo", 3, 0o622),
            entry(b"hole", 0, 0o600, k13=1 << 20, k16=b""),
            entry(b"large", 1, 0o700, k17=pool.chunk(TREE, cut)),
            entry(b"link", 2, 0o777, k18=b"text/../\xff"),
            entry(b"linked-1", 0, 0o604, **linked),
            entry(b"linked-2", 0, 0o604, **linked),
            entry(b"listed", 0, 0o644, k13=listed, k15=[2, pool.chunk(LIST, low[0] + low[1])]),
            entry(b"parts", 0, 0o4755, k13=256 + len(frame[0]), k14=parts),
            entry(b"sparse", 0, 0o644, k13=300_000, k14=sparse, k16=varints(4096, 500, 65536, 500)),
            entry(b"socket", 4, 0o755),
            entry(b"text", 0, 0o644, k13=15, k14=text, k20={b"user.colour": b"blue\0"}),
        ]
    )
    top = leaf([entry(b"srv", 1, 0o750, k17=pool.chunk(TREE, contents))])
    root = entry(b"/", 1, 0o755, k17=pool.chunk(TREE, top))
    pool.close(frame)
    key = f"images/{IMAGE_ID.hex()}"
    pool.objects[key] = sealed_object(b"I", b"\x55" * 32, key, manifest(root))
    return pool
