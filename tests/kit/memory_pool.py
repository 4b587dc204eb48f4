"""A pool of a media server in memory, with blocks of its own simple kind.

A body is any number of ``name (32) | u32 length | bytes``; a name is the SHA-256 of its bytes. A
draft is the names of an image, and a manifest is its id and its draft.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from holdfast.base.errors import Cancelled, ChunkMissing, ImageMissing, IntegrityError, Invalid


def name_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def body_of(*chunks: bytes) -> bytes:
    return b"".join(name_of(one) + len(one).to_bytes(4, "little") + one for one in chunks)


def chunks_in(body: bytes) -> dict[bytes, bytes]:
    """Read a body, strictly."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(body):
        name = body[at : at + 32]
        size = int.from_bytes(body[at + 32 : at + 36], "little")
        data = body[at + 36 : at + 36 + size]
        if at + 36 > len(body) or len(data) != size:
            raise Invalid("a body of blocks ends too early")
        if name_of(data) != name:
            raise IntegrityError("a chunk is not what its name says")
        found[name] = data
        at += 36 + size
    return found


def wanted_of(*chunks: bytes) -> bytes:
    return b"".join(name_of(one) + len(one).to_bytes(4, "little") + b"\0" for one in chunks)


@dataclass
class MemoryPool:
    """Thread-safe enough. `calls` tells what was asked.

    `gate` keeps bodies waiting, and `door` uploads; `links` is how fast those were that read.
    """

    chunks: dict[bytes, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    images: list[SimpleNamespace] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    receivers: list[MemoryReceiver] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    door: threading.Event = field(default_factory=threading.Event)
    failures: list[Exception] = field(default_factory=list)
    links: list[int | None] = field(default_factory=list)
    terms: bytes = b"the terms"

    def __post_init__(self) -> None:
        self.gate.set()
        self.door.set()

    def abandoned(self) -> list[bool]:
        """Of each backup that was begun, whether it was given up."""
        return [one.abandoned for one in self.receivers]

    def receive(self, *, started_ns: int) -> MemoryReceiver:
        self.calls.append("receive")
        assert self.door.wait(30)
        self.receivers.append(MemoryReceiver(self))
        return self.receivers[-1]

    def deliver(self, wanted: bytes, *, link_bytes_per_s: int | None = None) -> bytes:
        self.links.append(link_bytes_per_s)
        names = [wanted[at : at + 32] for at in range(0, len(wanted), 37)]
        if any(name not in self.chunks for name in names):
            raise ChunkMissing("there is no such chunk")
        return body_of(*(self.chunks[name] for name in names))

    def manifest(self, image: str, /) -> bytes:
        if image not in self.manifests:
            raise ImageMissing(f"there is no image {image}")
        return self.manifests[image]


@dataclass(eq=False)
class MemoryReceiver:
    pool: MemoryPool
    abandoned: bool = False
    terms: bytes = b"the terms"

    def missing(self, names: bytes) -> bytes:
        self.pool.calls.append("missing")
        bits = 0
        for at in range(0, len(names), 32):
            bits |= (names[at : at + 32] not in self.pool.chunks) << (at // 32)
        return bits.to_bytes((len(names) // 32 + 7) // 8, "little")

    def take(self, body: bytes) -> None:
        self.pool.calls.append("take")
        assert self.pool.gate.wait(30)
        if self.abandoned:
            raise Cancelled("it was abandoned")
        if self.pool.failures:
            raise self.pool.failures.pop()
        found = chunks_in(body)
        self.pool.chunks.update(found)

    def commit(
        self, draft: bytes, *, source: str, host: str, labels: dict[str, str], finished_ns: int
    ) -> Any:
        self.pool.calls.append("commit")
        if self.abandoned:
            raise Cancelled("it was abandoned")
        names = [draft[at : at + 32] for at in range(0, len(draft), 32)]
        if any(name not in self.pool.chunks for name in names):
            raise ChunkMissing("the draft names a chunk that never came")
        image = SimpleNamespace(
            id=f"{len(self.pool.images):032x}", source=source, host=host, labels=labels
        )
        self.pool.images.append(image)
        self.pool.manifests[image.id] = image.id.encode() + draft
        return image

    def abandon(self) -> None:
        self.pool.calls.append("abandon")
        self.abandoned = True
