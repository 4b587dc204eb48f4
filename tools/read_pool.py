#!/usr/bin/env python3
"""Read a Holdfast pool without Holdfast: list its images, list their files, extract them.

One file that shares no code with the product, written from `docs/formats/` alone, so that data
outlives the program. It stays one file although it is long: recovery kits name it, and whoever has
a copy of it beside a pool has all of it. Needs Python 3.11 and ``cbor2 zstandard blake3
cryptography``. Chunks are found through the packs' own footers; the index is not read. Never writes
to the pool. Nothing is handed on that did not authenticate and hash to its name.

    read_pool.py POOL (--key HEX | --key-file FILE | --passphrase-file FILE) images
    read_pool.py POOL … files IMAGE
    read_pool.py POOL … extract IMAGE DIRECTORY

With ``--client-key HEX`` what clients sealed with that key is opened, too.

IMAGE is an id, a unique prefix of one, or ``latest``.
"""

from __future__ import annotations

import argparse
import base64
import collections
import contextlib
import json
import os
import stat
import struct
import sys
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cbor2
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    from collections.abc import Iterator

POOL_MAGIC, POOL_VERSION, POOL_VERSION_ALONE = b"HFPOOL\0", 2, 1
NAMING_BYTES, NAMING_SALT_BYTES = 176, 32
PACK_MAGIC, PACK_END_MAGIC, PACK_VERSION = b"HFPACK\0", b"HFPKEND", 1
OBJECT_MAGIC, OBJECT_VERSION = b"HFOBJ\0", 1
SLOT_VERSION = 1
PACK_HEADER_BYTES, PACK_TRAILER_BYTES = 40, 16
FOOTER_PLACE = 0xFFFFFFFF
MAX_BLOCK_BYTES = (1 << 24) - 1
MAX_FOOTER_BYTES = 1 << 30
MAX_SLOT_BYTES = 64 << 10
MAX_MEMORY_KIB, MAX_PASSES, MAX_LANES = 1 << 20, 16, 16
MAX_LIST_DEPTH, MAX_NODE_LEVEL = 8, 16
REF_BYTES = 36
CLIENT_SEAL_BYTES = 52
CLIENT_ID_BYTES, NAME_ID_BYTES, NAME_STEP = 32, 16, 16
SEALED_NAME = b"sealed:"
DATA, TREE, LIST = 0, 1, 2
KIND_PURPOSES = ("name data chunk", "name tree chunk", "name list chunk")
FILE, DIR, SYMLINK, FIFO, SOCKET, CHAR, BLOCK = range(7)
KIND_LETTERS = "-dlpscb"
BLOCKS_KEPT = 64


class UnreadableError(Exception):
    """Something stored is not as the format pages say."""


def require(condition: object, what: str) -> None:
    """Raise `UnreadableError` unless the condition holds."""
    if not condition:
        raise UnreadableError(what)


# Keys ------------------------------------------------------------------------------------------


class Keys:
    """Sub-keys of a pool key, each for one purpose."""

    def __init__(self, pool_key: bytes) -> None:
        require(len(pool_key) == 32, "a pool key has 32 bytes")
        self._pool_key = pool_key
        self._naming: list[bytes] = []

    def share(self, pool_id: bytes, naming: bytes) -> None:
        """Name chunks as the pool header says, instead of by this pool's own keys."""
        require(len(naming) == NAMING_BYTES, f"naming of {NAMING_BYTES} bytes in the pool header")
        salt, sealed = naming[:NAMING_SALT_BYTES], naming[NAMING_SALT_BYTES:]
        plain = self.sealer("header naming", salt).decrypt(sealing_nonce(0), sealed, pool_id)
        self._naming = [plain[at : at + 32] for at in range(0, 96, 32)]

    def sub(self, purpose: str) -> bytes:
        """Derive the key for a purpose."""
        context = f"holdfast pool v1: {purpose}"
        return blake3(self._pool_key, derive_key_context=context).digest()

    def name(self, kind: int, plain: bytes) -> bytes:
        """Name a chunk."""
        key = self._naming[kind] if self._naming else self.sub(KIND_PURPOSES[kind])
        return blake3(plain, key=key).digest()

    def sealer(self, purpose: str, salt: bytes) -> AESGCM:
        """Return the cipher of the pack or object with this salt."""
        return AESGCM(blake3(salt, key=self.sub(purpose)).digest())


def key_from_slots(pool: Path, pool_id: bytes, kind: str, secret: bytes) -> bytes:
    """Unwrap the pool key from the first slot of a kind that the secret opens."""
    tried = 0
    for path in sorted((pool / "keys").glob("*.json")):
        require(path.stat().st_size <= MAX_SLOT_BYTES, f"{path.name} is no key slot: too large")
        slot = json.loads(path.read_bytes())
        if slot.get("format") != "holdfast key slot" or slot.get("kind") != kind:
            continue
        require(
            slot["version"] == SLOT_VERSION, f"{path.name} has format version {slot['version']}"
        )
        if bytes.fromhex(slot["pool"]) != pool_id:
            continue
        tried += 1
        salt, nonce = bytes.fromhex(slot["salt"]), bytes.fromhex(slot["nonce"])
        require(len(salt) == 32 and len(nonce) == 12, f"{path.name}: salt or nonce length")
        cost = (0, 0, 0)
        if kind == "passphrase":
            given = slot["argon2id"]
            cost = (given["memory_kib"], given["passes"], given["lanes"])
            bounds = (MAX_MEMORY_KIB, MAX_PASSES, MAX_LANES)
            require(
                all(0 < value <= bound for value, bound in zip(cost, bounds, strict=True)),
                f"{path.name} asks for unreasonable work: {cost}",
            )
            wrapping = Argon2id(
                salt=salt, length=32, iterations=cost[1], lanes=cost[2], memory_cost=cost[0]
            ).derive(secret)
        else:
            info = b"holdfast key slot v1: key file"
            wrapping = HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)
        bound_to = b"holdfast key slot" + struct.pack(
            "<B16sBIII32s", SLOT_VERSION, pool_id, 1 if kind == "passphrase" else 2, *cost, salt
        )
        with contextlib.suppress(InvalidTag):
            return AESGCM(wrapping).decrypt(nonce, bytes.fromhex(slot["wrapped"]), bound_to)
    raise UnreadableError(f"none of {tried} {kind} slots opens with this secret")


class ClientKey:
    """Sub-keys of a client key, and what they open."""

    def __init__(self, secret: bytes) -> None:
        require(len(secret) == 32, "a client key has 32 bytes")
        self._secret = secret
        self.id = self.sub("id")[:16]
        self.root = self.sub("root directory")

    def sub(self, purpose: str) -> bytes:
        """Derive the key for a purpose."""
        context = f"holdfast client key v1: {purpose}"
        return blake3(self._secret, derive_key_context=context).digest()

    def open(self, what: str, context: bytes, sealed: bytes) -> bytes:
        """Open what was sealed for a purpose in a context."""
        name, rest = sealed[:CLIENT_ID_BYTES], sealed[CLIENT_ID_BYTES:]
        cipher = AESGCM(blake3(name, key=self.sub(f"{what} seal")).digest())
        try:
            plain = cipher.decrypt(bytes(12), rest, b"")
        except InvalidTag:
            raise UnreadableError(f"a sealed {what} does not authenticate") from None
        require(self._id(what, context, plain) == name, f"a sealed {what} has another id")
        return plain

    def _id(self, what: str, context: bytes, plain: bytes) -> bytes:
        said = struct.pack("<Q", len(context)) + context + plain
        return blake3(said, key=self.sub(f"{what} id")).digest()

    def chunk(self, sealed: bytes, plain_bytes: int) -> bytes:
        """Open a chunk of data."""
        plain = self.open("chunk", b"", sealed)
        head = struct.unpack_from("<I", plain)[0]
        codec, length = head & 0xFF, head >> 8
        body = plain[4 : 4 + length]
        require(codec in {0, 1} and not any(plain[4 + length :]), "a sealed chunk is malformed")
        if codec == 1:
            body = zstandard.ZstdDecompressor().decompress(body, max_output_size=plain_bytes)
        require(len(body) == plain_bytes, "a sealed chunk has another length than stated")
        return body

    def name(self, directory: bytes, sealed: bytes) -> bytes:
        """Open a name that was sealed in a directory."""
        require(sealed.startswith(SEALED_NAME), f"{sealed!r} is no sealed name")
        letters = sealed.removeprefix(SEALED_NAME).upper()
        raw = base64.b32decode(letters + b"=" * (-len(letters) % 8))
        name_id, masked = raw[:NAME_ID_BYTES], raw[NAME_ID_BYTES:]
        stream = blake3(directory + name_id, key=self.sub("name seal")).digest(length=len(masked))
        padded = bytes(a ^ b for a, b in zip(masked, stream, strict=True))
        require(self._id("name", directory, padded)[:NAME_ID_BYTES] == name_id, "a name is not its")
        return padded.rstrip(b"\0")

    def entry(self, directory: bytes, entry: dict[int, Any]) -> dict[int, Any]:
        """Open an entry that was sealed in a directory."""
        plain = self.open("entry", directory + entry[1], entry[21])
        hidden = cbor2.loads(plain)
        kept = {key: entry[key] for key in (14, 15, 17) if key in entry}
        return {1: self.name(directory, entry[1]), **hidden, **kept}


def child(directory: bytes, name: bytes) -> bytes:
    """What names in a directory below another are sealed with."""
    return blake3(name, key=directory).digest()


def read_key_file(path: Path) -> bytes:
    """Read the secret out of a key file."""
    label, _, digits = path.read_text("ascii").strip().partition(": ")
    require(label == "holdfast key file v1", f"{path} is not a key file")
    return bytes.fromhex(digits)


# Pool ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block lies and how it is encoded."""

    pack: int
    number: int
    offset: int
    sealed_bytes: int
    plain_bytes: int
    codec: int


@dataclass(slots=True)
class Pack:
    """An open pack."""

    path: Path
    header: bytes
    cipher: AESGCM


def sealing_nonce(place: int) -> bytes:
    """Return the nonce of a block number or of the footer."""
    return struct.pack("<I", place) + bytes(8)


def split_ref(ref: bytes) -> tuple[bytes, int, int]:
    """Take a reference apart into name, plain length and stored length."""
    require(len(ref) == REF_BYTES, "a reference has 36 bytes")
    length = struct.unpack("<I", ref[32:])[0]
    plain, parts = length & 0xFFFFFF, length >> 24
    stored = -(-(plain + CLIENT_SEAL_BYTES) * parts // 255) if parts else plain
    return ref[:32], plain, stored


def split_refs(refs: bytes) -> Iterator[bytes]:
    """Yield references that are laid end to end."""
    require(len(refs) % REF_BYTES == 0, "references of 36 bytes each")
    return (refs[at : at + REF_BYTES] for at in range(0, len(refs), REF_BYTES))


def read_header(pool: Path) -> dict[str, Any]:
    """Read the pool header's map; its MAC is proven by `Pool`."""
    raw = (pool / "pool").read_bytes()
    require(raw[:7] == POOL_MAGIC, f"{pool} is not a Holdfast pool")
    known = (POOL_VERSION_ALONE, POOL_VERSION)
    require(raw[7] in known, f"{pool} has format version {raw[7]}, this reads {known}")
    length = struct.unpack_from("<I", raw, 8)[0]
    require(len(raw) == 12 + length + 32, "the pool header has another length than it states")
    header: dict[str, Any] = cbor2.loads(raw[12 : 12 + length])
    require(("naming" in header) == (raw[7] == POOL_VERSION), "naming in a header of version 2")
    return header


class Pool:
    """A pool directory, opened with its key."""

    def __init__(self, root: Path, pool_key: bytes) -> None:
        self._root = root
        self._keys = Keys(pool_key)
        raw = (root / "pool").read_bytes()
        mac = blake3(raw[:-32], key=self._keys.sub("header")).digest()
        require(mac == raw[-32:], "the key is not this pool's")
        header = read_header(root)
        if "naming" in header:
            self._keys.share(header["id"], header["naming"])
        self._client_key: ClientKey | None = None
        self._packs: list[Pack] = []
        self._chunks: dict[tuple[int, bytes], tuple[Block, int, int]] = {}
        self._cache: collections.OrderedDict[tuple[int, int], bytes] = collections.OrderedDict()
        for path in sorted((root / "packs").glob("*/*")):
            if not path.name.startswith("."):
                self._read_footer(path)

    def _read_footer(self, path: Path) -> None:
        what = f"pack {path.name}"
        size = path.stat().st_size
        require(size >= PACK_HEADER_BYTES + 16 + PACK_TRAILER_BYTES, f"{what} is too short")
        with path.open("rb") as file:
            header = file.read(PACK_HEADER_BYTES)
            require(header[:7] == PACK_MAGIC, f"{what} does not begin as a pack does")
            require(header[7] == PACK_VERSION, f"{what} has format version {header[7]}")
            file.seek(size - PACK_TRAILER_BYTES)
            length, zero, magic, version = struct.unpack("<II7sB", file.read(PACK_TRAILER_BYTES))
            require(
                (zero, magic, version) == (0, PACK_END_MAGIC, PACK_VERSION),
                f"{what} does not end as a pack does",
            )
            require(length <= min(size, MAX_FOOTER_BYTES), f"{what} states a wrong footer length")
            file.seek(size - PACK_TRAILER_BYTES - length)
            sealed = file.read(length)
        cipher = self._keys.sealer("pack", header[8:])
        try:
            footer = cipher.decrypt(sealing_nonce(FOOTER_PLACE), sealed, header)
        except InvalidTag:
            raise UnreadableError(f"the footer of {what} does not authenticate") from None
        self._packs.append(Pack(path, header, cipher))
        self._take_chunks(what, footer)

    def _take_chunks(self, what: str, footer: bytes) -> None:
        block_count, chunk_count = struct.unpack_from("<8xII", footer)
        table = 16 + 24 * block_count
        require(len(footer) == table + 40 * chunk_count, f"the footer of {what} is malformed")
        chunks = struct.iter_unpack("<32sIB3x", footer[table:])
        for number in range(block_count):
            row = struct.unpack_from("<QIIIB3x", footer, 16 + 24 * number)
            offset, sealed_bytes, plain_bytes, count, codec = row
            block = Block(len(self._packs) - 1, number, offset, sealed_bytes, plain_bytes, codec)
            require(plain_bytes <= MAX_BLOCK_BYTES, f"{what} has an oversized block")
            at = 0
            for _ in range(count):
                name, length, kind = next(chunks)
                require(kind <= LIST, f"{what} has a chunk of unknown kind")
                self._chunks[kind, name] = (block, at, length)
                at += length
            require(at == plain_bytes, f"block {number} of {what} contradicts its chunks")

    def _block(self, block: Block) -> bytes:
        key = (block.pack, block.number)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        pack = self._packs[block.pack]
        what = f"block {block.number} of pack {pack.path.name}"
        with pack.path.open("rb") as file:
            file.seek(block.offset)
            sealed = file.read(block.sealed_bytes)
        try:
            plain = pack.cipher.decrypt(sealing_nonce(block.number), sealed, pack.header)
        except InvalidTag:
            raise UnreadableError(f"{what} does not authenticate") from None
        require(block.codec in {0, 1}, f"{what} has unknown codec {block.codec}")
        if block.codec == 1:
            plain = zstandard.ZstdDecompressor().decompress(
                plain, max_output_size=block.plain_bytes
            )
        require(len(plain) == block.plain_bytes, f"{what} has another length than stated")
        self._cache[key] = plain
        if len(self._cache) > BLOCKS_KEPT:
            self._cache.popitem(last=False)
        return plain

    def chunk(self, kind: int, ref: bytes) -> bytes:
        """Return the chunk that a reference names, proven by its name."""
        name, length, wanted = split_ref(ref)
        require((kind, name) in self._chunks, f"chunk {name.hex()} is in no pack")
        block, at, stored = self._chunks[kind, name]
        plain = self._block(block)[at : at + stored]
        require(
            stored == wanted and self._keys.name(kind, plain) == name,
            f"chunk {name.hex()} is not what its name says",
        )
        if wanted == length:
            return plain
        if self._client_key is None:
            raise UnreadableError("this image is sealed with a client key: say --client-key")
        return self._client_key.chunk(plain, length)

    def stored_chunks(self) -> Iterator[bytes]:
        """Yield every chunk of every pack, as it is stored."""
        for block, at, stored in self._chunks.values():
            yield self._block(block)[at : at + stored]

    def use(self, key: ClientKey) -> None:
        """Open with this key what clients sealed."""
        self._client_key = key

    def images(self) -> list[dict[str, Any]]:
        """Return all image manifests by number."""
        paths = [path for path in (self._root / "images").glob("*") if path.name[0] != "."]
        manifests = [self._manifest(path) for path in paths]
        return sorted(manifests, key=lambda manifest: (manifest["number"], manifest["id"]))

    def _manifest(self, path: Path) -> dict[str, Any]:
        what, raw = f"image {path.name}", path.read_bytes()
        require(raw[:6] == OBJECT_MAGIC and raw[6:7] == b"I", f"{what} is not a manifest")
        require(raw[7] == OBJECT_VERSION, f"{what} has format version {raw[7]}")
        cipher = self._keys.sealer("object", raw[8:40])
        bound_to = raw[:40] + f"images/{path.name}".encode("ascii")
        try:
            plain = cipher.decrypt(bytes(12), raw[40:], bound_to)
        except InvalidTag:
            raise UnreadableError(f"{what} does not authenticate") from None
        manifest: dict[str, Any] = cbor2.loads(plain)
        require(manifest["version"] == 1, f"{what} has manifest version {manifest['version']}")
        require(manifest["id"].hex() == path.name, f"{what} is of another image")
        return manifest

    def entries(self, tree: bytes, directory: bytes | None = None) -> Iterator[dict[int, Any]]:
        """Yield the entries of the directory whose tree object this reference names.

        Sealed ones are opened, if it is known what names in this directory are sealed with.
        """
        key = self._client_key
        for entry in self._sound_entries(tree):
            if 21 in entry and key is not None and directory is not None:
                yield key.entry(directory, entry)
            else:
                yield entry

    def _sound_entries(self, tree: bytes) -> Iterator[dict[int, Any]]:
        last = b""
        for entry in self._tree_entries(tree, MAX_NODE_LEVEL + 1):
            name = entry[1]
            sound = name not in {b"", b".", b".."} and b"/" not in name and b"\0" not in name
            require(sound and name > last, f"a directory has the wrong name {name!r}")
            last = name
            yield entry

    def _tree_entries(self, tree: bytes, levels: int) -> Iterator[dict[int, Any]]:
        require(levels, "a tree is too deep")
        version, level, items = cbor2.loads(self.chunk(TREE, tree))
        require(version in {1, 2}, f"a tree object has version {version}")
        if level == 0:
            yield from items
        else:
            for _first_name, ref in items:
                yield from self._tree_entries(ref, levels - 1)

    def content(self, entry: dict[int, Any]) -> Iterator[bytes]:
        """Yield the data chunks of a regular file, in order."""
        refs = split_refs(entry.get(14, b""))
        if 15 in entry:
            depth, ref = entry[15]
            refs = self._listed(depth, ref)
        passed, at = stretches(entry.get(22, b"")), 0
        for ref in refs:
            chunk, start = self.chunk(DATA, ref), at
            at += len(chunk)
            for offset, length in passed:
                if start < offset + length and offset < at:
                    yield chunk[: max(0, offset - start)]
                    cut = min(at, offset + length)
                    chunk, start = chunk[cut - start :], cut
            yield chunk
            passed = [one for one in passed if sum(one) > at]
        told = sum(varints(entry.get(23, b"")))
        require(told in {0, at}, "the lists of a file have other lengths than stated")

    def _listed(self, depth: int, ref: bytes) -> Iterator[bytes]:
        require(1 <= depth <= MAX_LIST_DEPTH, "a content list is too deep")
        for item in split_refs(self.chunk(LIST, ref)):
            if depth == 1:
                yield item
            else:
                yield from self._listed(depth - 1, item)


# Extraction ------------------------------------------------------------------------------------


def varints(data: bytes) -> Iterator[int]:
    """Yield LEB128 numbers."""
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0
    require(shift == 0, "a list of extents ends within a number")


def extents(entry: dict[int, Any]) -> list[tuple[int, int]]:
    """Return (offset, length) of the stretches of a file that hold data."""
    if 16 not in entry:
        return [(0, entry[13])] if entry[13] else []
    found = stretches(entry[16])
    end = sum(found[-1]) if found else 0
    require(end <= entry[13], "an extent reaches past the end of its file")
    return found


def stretches(data: bytes) -> list[tuple[int, int]]:
    """Return (offset, length) of stretches that are stored as gaps and lengths."""
    numbers, found, at = list(varints(data)), [], 0
    require(len(numbers) % 2 == 0, "a list of extents has a gap without a length")
    for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
        found.append((at + gap, length))
        at += gap + length
    return found


@dataclass(slots=True)
class Extractor:
    """Writes one image below the present directory.

    Works by changing directories, so that paths may be deeper than the system's longest.
    """

    pool: Pool
    links: dict[tuple[int, int], bytes] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    root: int = field(default_factory=lambda: os.open(".", os.O_RDONLY | os.O_DIRECTORY))

    def directory(self, tree: bytes, path: bytes, names: bytes | None = None) -> None:
        """Fill the present directory."""
        for entry in self.pool.entries(tree, names):
            name, kind = entry[1], entry[2]
            where = path + b"/" + name
            if kind == DIR:
                os.mkdir(name, 0o700)
                os.chdir(name)
                if 17 in entry:
                    below = None if names is None else child(names, name)
                    self.directory(entry[17], where, below)
                os.chdir("..")
            elif kind == SOCKET:
                self.warnings.append(f"{where!r}: a socket is not made")
                continue
            elif not self._linked(entry, where):
                try:
                    self._make(entry)
                except PermissionError as error:
                    self.warnings.append(f"{where!r}: {error.strerror}")
                    continue
            self._attributes(name, entry, where)

    def _linked(self, entry: dict[int, Any], where: bytes) -> bool:
        """Make another name of a file that is there already, if this is one."""
        if 12 not in entry:
            return False
        first = self.links.setdefault((entry[11], entry[10]), where)
        if first == where:
            return False
        # By path from the root; a link beyond PATH_MAX is made as a file of its own.
        try:
            os.link(first[1:], entry[1], src_dir_fd=self.root, follow_symlinks=False)
        except OSError as error:
            self.warnings.append(f"{where!r}: not linked to {first!r}: {error.strerror}")
            return False
        return True

    def _make(self, entry: dict[int, Any]) -> None:
        name, kind = entry[1], entry[2]
        if kind == FILE:
            self._file(name, entry)
        elif kind == SYMLINK:
            os.symlink(entry[18], name)
        elif kind == FIFO:
            os.mkfifo(name, 0o600)
        else:
            mode = stat.S_IFCHR if kind == CHAR else stat.S_IFBLK
            os.mknod(name, mode | 0o600, os.makedev(*entry[19]))

    def _file(self, name: bytes, entry: dict[int, Any]) -> None:
        chunks, rest = self.pool.content(entry), b""
        with open(name, "xb") as file:
            for offset, length in extents(entry):
                file.seek(offset)
                while length:
                    rest = rest or next((chunk for chunk in chunks if chunk), b"")
                    require(rest, f"{name!r} has less content than its size says")
                    file.write(rest[:length])
                    rest, length = rest[length:], max(0, length - len(rest))  # noqa: PLW2901
            require(not rest and not any(chunks), f"{name!r} has too much content")
            file.truncate(entry[13])

    def _attributes(self, name: bytes, entry: dict[int, Any], where: bytes) -> None:
        """Restore owner, extended attributes, mode and times; in this order."""
        if os.geteuid() == 0:
            os.chown(name, entry[4], entry[5], follow_symlinks=False)
        # A mode that forbids writing would forbid attributes too; capabilities go with chown.
        for attribute, value in entry.get(20, {}).items():
            try:
                os.setxattr(name, attribute, value, follow_symlinks=False)
            except OSError as error:
                self.warnings.append(f"{where!r}: {attribute!r} not set: {error.strerror}")
        if entry[2] != SYMLINK:
            os.chmod(name, entry[3])
        seconds, nanoseconds = entry[8]
        moment = seconds * 1_000_000_000 + nanoseconds
        os.utime(name, ns=(moment, moment), follow_symlinks=False)


# Command line ----------------------------------------------------------------------------------


def walk(
    pool: Pool, tree: bytes, path: str, names: bytes | None = None
) -> Iterator[tuple[str, dict[int, Any]]]:
    """Yield (path, entry) of everything below a directory."""
    for entry in pool.entries(tree, names):
        where = path + "/" + entry[1].decode("utf-8", "backslashreplace")
        yield where, entry
        if entry[2] == DIR and 17 in entry:
            yield from walk(pool, entry[17], where, names and child(names, entry[1]))


def chosen(pool: Pool, text: str) -> dict[str, Any]:
    """Return the manifest that an id, a prefix or ``latest`` names."""
    images = pool.images()
    require(images, "the pool holds no image")
    if text == "latest":
        return images[-1]
    found = [image for image in images if image["id"].hex().startswith(text)]
    require(len(found) == 1, f"'{text}' names {len(found)} images")
    return found[0]


def pool_key(arguments: argparse.Namespace, pool_id: bytes) -> bytes:
    """Find the pool key by whichever secret was given."""
    if arguments.key is not None:
        return bytes.fromhex(arguments.key)
    if arguments.key_file is not None:
        return key_from_slots(
            arguments.pool, pool_id, "key-file", read_key_file(arguments.key_file)
        )
    passphrase = arguments.passphrase_file.read_bytes().decode("utf-8")
    passphrase = passphrase.removesuffix("\n").removesuffix("\r")
    secret = unicodedata.normalize("NFC", passphrase).encode()
    return key_from_slots(arguments.pool, pool_id, "passphrase", secret)


def moment(nanoseconds: int) -> str:
    """Write a time of a manifest."""
    return f"{datetime.fromtimestamp(nanoseconds // 10**9, UTC):%Y-%m-%d %H:%M:%SZ}"


def parsed(words: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("pool", type=Path, help="the pool's directory")
    secret = parser.add_mutually_exclusive_group(required=True)
    secret.add_argument("--key", help="the pool key, 64 hexadecimal digits")
    secret.add_argument("--key-file", type=Path)
    secret.add_argument("--passphrase-file", type=Path)
    parser.add_argument("--client-key", help="a client key, 64 hexadecimal digits")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("images", help="list the images")
    for verb, text in (("files", "list an image's files"), ("extract", "write an image's files")):
        verbs.add_parser(verb, help=text).add_argument("image")
    verbs.choices["extract"].add_argument("directory", type=Path, help="new or empty")
    return parser.parse_args(words)


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit status."""
    pool = Pool(arguments.pool, pool_key(arguments, read_header(arguments.pool)["id"]))
    if arguments.verb == "images":
        for image in pool.images():
            print(image["id"].hex(), image["number"], moment(image["started_ns"]), end=" ")
            print(image["source"]["name"], f"({image['status']})")
        return 0
    names = None
    if arguments.client_key is not None:
        client_key = ClientKey(bytes.fromhex(arguments.client_key))
        pool.use(client_key)
        names = client_key.root
    tree = chosen(pool, arguments.image)["root"].get(17)
    if arguments.verb == "files":
        for path, entry in walk(pool, tree, "", names) if tree else ():
            print(f"{KIND_LETTERS[entry[2]]}{entry[3]:04o} {entry.get(13, 0):>12} {path}")
        return 0
    arguments.directory.mkdir(parents=True, exist_ok=True)
    require(not any(arguments.directory.iterdir()), f"{arguments.directory} is not empty")
    os.chdir(arguments.directory)
    extractor = Extractor(pool)
    if tree:
        extractor.directory(tree, b"", names)
    for warning in extractor.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 1 if extractor.warnings else 0


def main(words: list[str] | None = None) -> int:
    """Run the command line; 0 well, 1 with warnings, 2 failed."""
    sys.setrecursionlimit(100_000)  # one level of directories, one call
    arguments = parsed(words)
    arguments.pool = arguments.pool.absolute()
    try:
        return run(arguments)
    except (UnreadableError, OSError) as error:
        print(f"read_pool: {error}", file=sys.stderr)
    except (
        cbor2.CBORDecodeError,
        zstandard.ZstdError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        print(f"read_pool: stored data is malformed: {error!r}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
