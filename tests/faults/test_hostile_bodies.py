"""Bodies that a real pool is given by a client that lies: refused, and nothing of them kept."""

from __future__ import annotations

import os
import resource
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard

from holdfast.base.clock import SystemClock
from holdfast.base.ids import ClientName
from holdfast.engine import Pool, PoolConfig, RemotePool
from holdfast.movers.backup_run import BackupOrder
from holdfast.movers.transfer.client import TransferLink
from holdfast.movers.transfer.remote_runs import TransferTarget, remote_backup
from tests.kit.transfer_site import TransferSite, transfer_site

if TYPE_CHECKING:
    from collections.abc import Iterator

STORED, ZSTD = 0, 1
BLOCK = 1 << 20


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TransferSite]:
    pool = Pool.create(str(tmp_path / "pool"), bytes(range(32)), PoolConfig(), 0)
    with transfer_site(tmp_path, pool, pool_id=pool.id.hex()) as made:
        yield made


def body(
    chunks: list[tuple[bytes, int]],
    data: bytes,
    *,
    kind: int = 0,
    codec: int = STORED,
    plain_len: int | None = None,
    body_len: int | None = None,
    blocks: int = 1,
) -> bytes:
    """A body of one block, of which anything may be a lie."""
    plain_len = sum(length for _, length in chunks) if plain_len is None else plain_len
    body_len = len(data) if body_len is None else body_len
    head = struct.pack(
        "<4sIBBHIII", b"HFB1", blocks, kind, codec, 0, len(chunks), plain_len, body_len
    )
    listed = b"".join(struct.pack("<32sIBBH", name, length, 0, 0, 0) for name, length in chunks)
    return head + listed + data


def bomb(size_bytes: int) -> bytes:
    """A small frame of zstd that yields so many bytes."""
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    piece = bytes(BLOCK)
    return b"".join(packer.compress(piece) for _ in range(size_bytes // BLOCK)) + packer.flush()


NAME = b"\x5a" * 32
LIES = {
    "empty": b"",
    "other magic": b"HFB2" + bytes(4),
    "no blocks, and bytes after": b"HFB1" + bytes(5),
    "four thousand million blocks": b"HFB1" + b"\xff" * 4,
    "a name that is not of its bytes": body([(NAME, 5)], b"hello"),
    "cut short": body([(NAME, 5)], b"hello")[:-1],
    "bytes after": body([(NAME, 5)], b"hello") + b"x",
    "of no kind": body([(NAME, 5)], b"hello", kind=7),
    "no codec": body([(NAME, 5)], b"hello", codec=9),
    "no chunks": body([], b"hello", plain_len=5),
    "lengths that do not add up": body([(NAME, 5), (NAME, 5)], b"hello", plain_len=5),
    "a chunk of four thousand million bytes": body([(NAME, 0xFFFFFFFF)], b"hello"),
    "a body of four thousand million bytes": body([(NAME, 5)], b"hello", body_len=0xFFFFFFFF),
    "no frame of zstd": body([(NAME, 5)], b"hello", codec=ZSTD),
    "a bomb that says that it is small": body([(NAME, 1000)], bomb(1 << 30), codec=ZSTD),
    "a bomb that says what it is": body([(NAME, 1 << 30)], bomb(1 << 30), codec=ZSTD),
    "blocks without end": b"HFB1"
    + struct.pack("<I", 300)
    + body([(NAME, BLOCK)], bomb(BLOCK), codec=ZSTD)[8:] * 300,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_body_that_lies_is_refused(site: TransferSite, lie: str) -> None:
    mallory = site.peer("mallory")
    upload = mallory.open()
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = mallory.code("POST", f"/uploads/{upload}/blocks?seq=0", LIES[lie])
    assert code in ("invalid", "integrity")
    assert site.codes() == [("mallory", code)]
    site.assert_audited()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 200 << 10
    assert mallory.ask("DELETE", f"/uploads/{upload}")[0] == 204
    assert site.pool.stats().chunks == 0
    assert site.pool.check(read_data=True).result().problems_total == 0


def test_wrong_bytes_under_a_right_name_poison_nobody(site: TransferSite, tmp_path: Path) -> None:
    sent: list[bytes] = []

    class Listening(TransferLink):
        def send(self, body: bytes) -> None:
            sent.append(body)
            super().send(body)

    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(50_000))

    class Target(TransferTarget):
        def link(self) -> TransferLink:
            found = super().link()
            return Listening(found.paths, found.context, found.token)

    def target(client: str) -> Target:
        return Target(
            urls=(f"https://127.0.0.1:{site.port}",),
            context=site.machines.client(client),
            token=lambda: site.token(client, job=2),
            remote_pool=RemotePool,
        )

    # What an honest client would send: into a pool with the same key, elsewhere.
    order = BackupOrder(ClientName("alpha"), (os.fsencode(tree),))
    twin = Pool.create(str(tmp_path / "twin"), bytes(range(32)), PoolConfig(), 0)
    real, site.pool = site.pool, twin
    first = site.pool_id
    remote_backup(target("alpha"), order, SystemClock())
    site.pool = real
    assert site.pool_id == first
    data = next(one for one in sent if len(one) > 40_000)

    mallory = site.peer("mallory")
    upload = mallory.open()
    poisoned = data[:-1] + bytes([data[-1] ^ 1])
    code = mallory.code("POST", f"/uploads/{upload}/blocks?seq=0", poisoned)
    assert code == "integrity"
    image = remote_backup(target("alpha"), order, SystemClock())
    # The body was right but for that one bit.
    assert mallory.ask("POST", f"/uploads/{upload}/blocks?seq=1", data) == (204, b"")
    assert site.pool.verify([image.id], read_data=True).result().problems_total == 0
    assert (
        site.pool.open_file(image.id, os.fsencode(tree / "file")).read_at(0, 50_000)
        == (tree / "file").read_bytes()
    )


@pytest.mark.parametrize(
    "draft", [b"", b"rubbish", b"\xa0", b"\xbb" + b"\xff" * 8, b"\x9f" * 60_000, bytes(70_000)]
)
def test_a_draft_that_is_none_makes_no_image(site: TransferSite, draft: bytes) -> None:
    mallory = site.peer("mallory")
    upload = mallory.open()
    code = mallory.code("POST", f"/uploads/{upload}/commit", draft)
    assert code in ("invalid", "integrity")
    assert site.codes() == [("mallory", code)]
    site.assert_audited()
    assert site.pool.image_ids() == []
