"""A client that writes a tree by hand and sends it as its backup, with the right names for it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cbor2
from blake3 import blake3

if TYPE_CHECKING:
    from tests.kit.transfer_site import TransferSite

FILE, DIRECTORY, LINK, FIFO, CHARACTERS = 0, 1, 2, 3, 5
DATA, TREE = 0, 1


@dataclass
class HostileTree:
    """Chunks that are what they say, of a tree that no walk over files would make.

    Attributes:
        keys: With which the pool names data and trees: any client is told them.
    """

    keys: tuple[bytes, bytes]
    chunks: list[tuple[int, bytes]] = field(default_factory=list)

    @classmethod
    def by_terms(cls, terms: bytes) -> HostileTree:
        naming = cbor2.loads(terms)[2]
        return cls((naming[:32], naming[32:64]))

    def chunk(self, kind: int, plain: bytes) -> bytes:
        """Take a chunk in; its reference."""
        self.chunks.append((kind, plain))
        return self._name(kind, plain) + struct.pack("<I", len(plain))

    def entry(self, name: bytes, kind: int, mode: int = 0o755, **more: Any) -> dict[int, Any]:
        """An entry; more fields are named ``k13``, ``k14``, …"""
        time = [1_600_000_000, 0]
        made = {1: name, 2: kind, 3: mode, 4: 0, 5: 0, 8: time, 9: time, 10: 7, 11: 1}
        return made | {int(key[1:]): value for key, value in more.items()}

    def file(self, name: bytes, content: bytes = b"evil", **more: Any) -> dict[int, Any]:
        return self.entry(
            name, FILE, 0o644, k13=len(content), k14=self.chunk(DATA, content), **more
        )

    def directory(self, name: bytes, *entries: dict[int, Any]) -> dict[int, Any]:
        """A directory, with its entries in the order that is given."""
        plain = cbor2.dumps([1, 0, [dict(sorted(one.items())) for one in entries]])
        return self.entry(name, DIRECTORY, k17=self.chunk(TREE, plain))

    def body(self) -> bytes:
        """All chunks, a block each."""
        blocks = b"".join(
            struct.pack("<BBHIII", kind != DATA, 0, 0, 1, len(plain), len(plain))
            + self._name(kind, plain)
            + struct.pack("<IB3x", len(plain), kind)
            + plain
            for kind, plain in self.chunks
        )
        return b"HFB1" + struct.pack("<I", len(self.chunks)) + blocks

    def draft(self, root: dict[int, Any], paths: tuple[bytes, ...] = (b"/data",)) -> bytes:
        return cbor2.dumps(
            {
                "version": 1,
                "id": bytes(16),
                "number": 1,
                "source": {"host": "mallory", "name": "mallory:/data", "paths": list(paths)},
                "started_ns": 1,
                "finished_ns": 2,
                "root": dict(sorted(root.items())),
                "parent": None,
                "status": "completed",
                "stats": {},
                "findings": [],
                "findings_total": 0,
                "options": {},
                "software": "mallory",
            }
        )

    def _name(self, kind: int, plain: bytes) -> bytes:
        return bytes(blake3(plain, key=self.keys[kind]).digest())


def back_up(
    site: TransferSite, make: Any, client: str = "mallory", job: int = 1, **more: Any
) -> str:
    """Have a client send what ``make(tree)`` says stands in ``/``; the image."""
    import base64
    import json

    peer, token = site.peer(client), site.token(client, job=job)
    status, said = peer.ask(
        "POST", "/uploads", json.dumps({"read_all": True, "attempt": "a"}).encode(), token
    )
    assert status == 200, said
    opened = json.loads(said)
    tree = HostileTree.by_terms(base64.b64decode(opened["terms"]))
    root = tree.directory(b"/", *make(tree))
    at = f"/uploads/{opened['upload']}"
    assert peer.ask("POST", f"{at}/blocks?seq=0", tree.body(), token) == (204, b"")
    status, said = peer.ask("POST", f"{at}/commit", tree.draft(root, **more), token)
    assert status == 200, said
    (image,) = [one.id for grant, one in site.images if grant.job == job]
    return str(image)
