"""What a client seals with its own key, as the page says; shares no code with the product."""

from __future__ import annotations

import base64
import struct
from typing import Any

import cbor2
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.formats import golden
from tests.formats.golden import DATA, entry, sub_key

CLIENT_KEY = bytes(range(0x20, 0x40))
SEAL_BYTES = 52
PURPOSES = (
    "id",
    "chunk id",
    "chunk seal",
    "entry id",
    "entry seal",
    "name id",
    "name seal",
    "root directory",
    "chunker gear",
    "image",
)


def sub(purpose: str) -> bytes:
    """A sub-key of the client key."""
    return blake3(CLIENT_KEY, derive_key_context=f"holdfast client key v1: {purpose}").digest()


def name_of(what: str, context: bytes, plain: bytes) -> bytes:
    said = struct.pack("<Q", len(context)) + context + plain
    return blake3(said, key=sub(f"{what} id")).digest()


def box(what: str, context: bytes, plain: bytes) -> bytes:
    name = name_of(what, context, plain)
    cipher = AESGCM(blake3(name, key=sub(f"{what} seal")).digest())
    return name + cipher.encrypt(bytes(12), plain, b"")


def chunk(plain_bytes: int, codec: int, body: bytes) -> tuple[bytes, int]:
    """A sealed chunk, and the length field of its reference."""
    most = plain_bytes + SEAL_BYTES
    parts = -(-(len(body) + SEAL_BYTES) * 255 // most)
    stored = -(-most * parts // 255)
    plain = struct.pack("<I", codec | len(body) << 8) + body
    return box("chunk", b"", plain.ljust(stored - 48, b"\0")), plain_bytes | parts << 24


def ref(sealed: bytes, length: int) -> bytes:
    return golden.name(DATA, sealed) + struct.pack("<I", length)


def child(directory: bytes, name: bytes) -> bytes:
    return blake3(name, key=directory).digest()


def sealed_name(directory: bytes, name: bytes) -> bytes:
    padded = name.ljust(-(-len(name) // 16) * 16, b"\0")
    name_id = name_of("name", directory, padded)[:16]
    stream = blake3(directory + name_id, key=sub("name seal")).digest(length=len(padded))
    masked = bytes(a ^ b for a, b in zip(padded, stream, strict=True))
    return b"sealed:" + base64.b32encode(name_id + masked).rstrip(b"=").lower()


def sealed_entry(directory: bytes, plain: dict[int, Any], name: bytes | None = None) -> Any:
    """The entry as the pool sees it."""
    name = sealed_name(directory, plain[1]) if name is None else name
    hidden = cbor2.dumps({k: v for k, v in plain.items() if k not in {1, 14, 15, 17}})
    hidden = hidden.ljust(-(-len(hidden) // 32) * 32, b"\0")
    is_dir = plain[2] == 1
    found = {1: name, 2: 1 if is_dir else 0, 3: 0, 4: 0, 5: 0, 8: [0, 0], 9: [0, 0], 10: 0, 11: 0}
    if not is_dir:
        refs = plain.get(14, b"")
        lengths = [
            struct.unpack("<I", refs[at + 32 : at + 36])[0] for at in range(0, len(refs), 36)
        ]
        found[13] = sum(length & 0xFFFFFF for length in lengths)
    found |= {k: plain[k] for k in (14, 15, 17) if k in plain}
    return found | {21: box("entry", directory + name, hidden)}


def vectors(zstd_plain: bytes, frame: bytes) -> dict[str, bytes]:
    """All vectors of the page."""
    stored, stored_length = chunk(15, 0, b"hello holdfast\n")
    packed, packed_length = chunk(len(zstd_plain), 1, frame)
    srv = child(sub("root directory"), b"srv")
    plain = [
        entry(b"quarterly figures", 0, 0o640, k13=15, k14=ref(stored, stored_length)),
        entry(b"way there", 2, 0o777, k18=b"../\xff"),
    ]
    leaf = golden.leaf(sorted((sealed_entry(srv, one) for one in plain), key=lambda one: one[1]))
    root = sealed_entry(
        sub("root directory"), entry(b"/", 1, 0o755, k17=golden.ref(golden.TREE, leaf)), b"/"
    )
    naming = b"".join(
        sub_key(purpose)
        for purpose in ("name data chunk", "name tree chunk", "name list chunk", "chunker gear")
    )
    paths = ["sealed", "golden:/srv", [b"/srv"], golden.CREATED_NS, root]
    said = ["holdfast image under a client key", 1, blake3(naming).digest(), *paths]
    found = {"client-key": CLIENT_KEY}
    found |= {f"sub-key-{purpose.replace(' ', '-')}": sub(purpose) for purpose in PURPOSES}
    return found | {
        "chunk-stored": stored,
        "chunk-stored-length": struct.pack("<I", stored_length),
        "chunk-zstd": packed,
        "chunk-zstd-length": struct.pack("<I", packed_length),
        "name": sealed_name(srv, b"quarterly figures"),
        "leaf": leaf,
        "root": cbor2.dumps(root),
        "proof": blake3(cbor2.dumps(said), key=sub("image")).digest(),
    }
