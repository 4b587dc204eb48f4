"""All vectors of the format pages, made anew by the golden writer.

`python -m tests.formats.page_vectors PAGE NAME` prints one as it stands in a page.
"""

from __future__ import annotations

import base64
import json
import struct
import sys
from typing import TYPE_CHECKING

import cbor2
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.formats import golden, golden_client
from tests.formats.golden import DATA, LIST, TREE, entry, name, ref, sub_key

if TYPE_CHECKING:
    from collections.abc import Callable

ZSTD_PLAIN = b"again and " * 100
PURPOSES = (
    "name data chunk",
    "name tree chunk",
    "name list chunk",
    "chunker gear",
    "pack",
    "index",
    "index records",
    "object",
    "header",
    "header naming",
)


def pool_header() -> dict[str, bytes]:
    found = {"pool-key": golden.POOL_KEY}
    found |= {f"sub-key-{purpose.replace(' ', '-')}": sub_key(purpose) for purpose in PURPOSES}
    kinds = (("data", DATA), ("tree", TREE), ("list", LIST))
    found |= {f"name-abc-{label}": name(kind, b"abc") for label, kind in kinds}
    other = bytes(range(32, 64))
    found |= {"other-pool-key": other, "other-naming": golden.naming(other)}
    return found | {"header": golden.header(), "header-sharing": golden.sharing_header(other)}


def chunking() -> dict[str, bytes]:
    table = struct.pack("<256Q", *golden.gear())
    noise = blake3(b"chunking vector")

    def lengths(length: int, *sizes: int) -> bytes:
        found = golden.cut_lengths(noise.digest(length=length), *sizes)
        return struct.pack(f"<{len(found)}I", *found)

    return {
        "gear-front": table[:32],
        "gear-hash": blake3(table).digest(),
        "lengths-small": lengths(4096, 64, 256, 1024),
        "lengths-default": lengths(400_001, 8192, 32768, 131072),
    }


def page_pack(frame: bytes) -> golden.Pack:
    first = golden.Block([(DATA, b"hello holdfast\n"), (DATA, bytes(range(64)))])
    return golden.pack(b"\x44" * 32, 0, [first, golden.Block([(DATA, ZSTD_PLAIN)], frame)])


def pack(frame: bytes) -> dict[str, bytes]:
    made = page_pack(frame)
    return {
        "zstd-frame": frame,
        "salt": b"\x44" * 32,
        "footer-plain": made.footer_plain,
        "pack": made.raw,
        "pack-id": made.id,
    }


def index(frame: bytes) -> dict[str, bytes]:
    made = page_pack(frame)
    return {"names": b"".join(made.places), "segment": golden.segment([made])}


def page_leaf() -> bytes:
    two = ref(DATA, b"hello holdfast\n") + ref(DATA, bytes(range(64)))
    listed = ref(LIST, ref(DATA, b"hello holdfast\n"))
    return golden.leaf(
        [
            entry(b"attributes", 0, 0o4755, k13=79, k14=two, k20={b"user.a": b"", b"user.b": b"2"}),
            entry(b"directory", 1, 0o1777, k17=ref(TREE, golden.leaf([]))),
            entry(b"hole", 0, 0o600, k13=1 << 40, k16=b""),
            entry(b"linked", 0, 0o604, k12=2, k13=15, k15=[1, listed]),
            entry(b"null", 5, 0o666, k19=[1, 3]),
            entry(b"sparse", 0, 0o644, k13=300_000, k14=ref(DATA, b"S" * 1000), k16=page_extents()),
            entry(b"symlink", 2, 0o777, k18=b"../\xff"),
        ]
    )


def page_sliced() -> bytes:
    """A leaf of version 2: of each of two chunks a part is passed over, across their border."""
    chunks = ref(DATA, bytes(range(64))) + ref(DATA, b"S" * 1000)
    more = {"k22": golden.varints(0, 10, 30, 124), "k23": golden.varints(1064)}
    sliced = entry(b"vda", 0, 0o600, k13=930, k15=[1, ref(LIST, chunks)], **more)
    return golden.leaf([sliced])


def page_extents() -> bytes:
    return golden.varints(4096, 500, 65536, 500)


def tree() -> dict[str, bytes]:
    leaf = page_leaf()
    second = golden.leaf([entry(b"zzz", 4, 0o755)])
    items = [(b"attributes", ref(TREE, leaf)), (b"zzz", ref(TREE, second))]
    return {
        "leaf": leaf,
        "leaf-ref": ref(TREE, leaf),
        "node": golden.node(1, items),
        "extents": page_extents(),
        "sliced": page_sliced(),
    }


def manifest() -> dict[str, bytes]:
    root = entry(b"/", 1, 0o755, k17=ref(TREE, page_leaf()))
    plain = golden.manifest(root)
    key = f"images/{golden.IMAGE_ID.hex()}"
    return {
        "manifest-plain": cbor2.dumps(plain),
        "salt": b"\x55" * 32,
        "manifest": golden.sealed_object(b"I", b"\x55" * 32, key, plain),
    }


def jobs_and_marks() -> dict[str, bytes]:
    job_id, mark_key = b"\xc3" * 16, "marks/" + "7".zfill(32)
    process = ["client01", "0b7f4c1e-boot", 4026531836, 4711, 123456]
    job = [1, job_id, "backup", process, golden.CREATED_NS, golden.CREATED_NS + 5]
    mark = [1, b"\xd4" * 16, [b"\x01" * 32, b"\x02" * 32], [job_id]]
    job_key = f"jobs/{job_id.hex()}"
    return {
        "job-plain": cbor2.dumps(job),
        "job": golden.sealed_object(b"J", b"\x66" * 32, job_key, job),
        "mark-plain": cbor2.dumps(mark),
        "mark": golden.sealed_object(b"M", b"\x77" * 32, mark_key, mark),
    }


def key_slots() -> dict[str, bytes]:
    salt, nonce = b"\x88" * 32, b"\x99" * 12
    words, file_secret = b"correct horse", bytes(range(0x40, 0x60))
    cost = {"memory_kib": 64, "passes": 1, "lanes": 1}
    from_words = Argon2id(salt=salt, length=32, iterations=1, lanes=1, memory_cost=64).derive(words)
    info = b"holdfast key slot v1: key file"
    from_file = HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(file_secret)
    front = b"holdfast key slot\x01" + golden.POOL_ID
    words_bound = front + struct.pack("<BIII", 1, 64, 1, 1) + salt
    file_bound = front + struct.pack("<BIII", 2, 0, 0, 0) + salt

    def slot(kind: str, extra: dict[str, object], wrapping: bytes, bound: bytes) -> bytes:
        wrapped = AESGCM(wrapping).encrypt(nonce, golden.POOL_KEY, bound)
        fields = {
            "format": "holdfast key slot",
            "version": 1,
            "pool": golden.POOL_ID.hex(),
            "kind": kind,
            **extra,
            "salt": salt.hex(),
            "nonce": nonce.hex(),
            "wrapped": wrapped.hex(),
        }
        return json.dumps(fields, indent=2).encode()

    return {
        "passphrase": words,
        "passphrase-salt": salt,
        "passphrase-wrapping-key": from_words,
        "passphrase-bound": words_bound,
        "passphrase-slot": slot("passphrase", {"argon2id": cost}, from_words, words_bound),
        "key-file": b"holdfast key file v1: " + file_secret.hex().encode(),
        "key-file-wrapping-key": from_file,
        "key-file-slot": slot("key-file", {}, from_file, file_bound),
    }


def store_layout(frame: bytes) -> dict[str, bytes]:
    objects = golden.golden_pool((ZSTD_PLAIN, frame)).objects
    lines = [f"{key} {blake3(data).hexdigest()}" for key, data in sorted(objects.items())]
    return {"golden-pool": "\n".join(lines).encode()}


def transfer() -> dict[str, bytes]:
    seed = bytes(range(32))
    key = Ed25519PrivateKey.from_private_bytes(seed)
    said = {
        "v": 1,
        "job": 7,
        "fence": 3,
        "client": "alpha",
        "source": "alpha:/srv,/gr\u00f6\u00dfe",
        "pool": golden.POOL_ID.hex(),
        "verbs": ["backup"],
        "images": [],
        "labels": {"kind": "full", "policy": "nightly"},
        "parent": "e1" * 16,
        "expires": 1_800_000_000,
        "nonce": "00112233445566778899aabbccddeeff",
    }
    payload = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    signature = key.sign(b"holdfast transfer token 1\n" + payload)
    token = b".".join(base64.urlsafe_b64encode(one).rstrip(b"=") for one in (payload, signature))
    return {
        "private-key": seed,
        "public-key": key.public_key().public_bytes_raw(),
        "payload": payload,
        "token": token,
    }


def all_pages(frame: bytes) -> dict[str, Callable[[], dict[str, bytes]]]:
    """Return for each page what makes its vectors; the zstd frame is given, not made."""
    return {
        "pool-header": pool_header,
        "chunking": chunking,
        "pack": lambda: pack(frame),
        "index": lambda: index(frame),
        "tree": tree,
        "manifest": manifest,
        "jobs-and-marks": jobs_and_marks,
        "key-slots": key_slots,
        "store-layout": lambda: store_layout(frame),
        "transfer": transfer,
        "client-keys": lambda: golden_client.vectors(ZSTD_PLAIN, frame),
    }


def shown(raw: bytes) -> str:
    """Return bytes as they stand in a page."""
    digits = raw.hex()
    return "\n".join(digits[at : at + 64] for at in range(0, len(digits), 64))


if __name__ == "__main__":
    from tests.formats import pages

    made = all_pages(pages.vector("pack", "zstd-frame"))[sys.argv[1]]()
    print(shown(made[sys.argv[2]]))
