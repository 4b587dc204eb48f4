"""A machine that brings an image of another pool and lies: refused, and the pool stays sound."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import Invalid
from holdfast.base.ids import ClientName, ImageId
from holdfast.engine import Pool, PoolConfig, RemotePool
from holdfast.movers.backup_run import BackupOrder, run_backup
from holdfast.movers.transfer.client import TransferLink
from holdfast.movers.transfer.remote_runs import TransferTarget
from holdfast.movers.transfer.replicate_run import remote_replicate
from tests.kit.transfer_site import RawPeer, TransferSite, transfer_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.engine import Image

KEY, OTHER = bytes(range(32)), bytes(range(32, 64))


@pytest.fixture
def source(tmp_path: Path) -> Pool:
    return Pool.create(str(tmp_path / "source"), KEY, PoolConfig(), 0)


@pytest.fixture
def site(tmp_path: Path, source: Pool) -> Iterator[TransferSite]:
    place = str(tmp_path / "pool")
    pool = Pool.create(place, OTHER, PoolConfig(), 0, naming=source.naming)
    with transfer_site(tmp_path, pool, pool_id=pool.id.hex()) as made:
        yield made


@pytest.fixture
def images(source: Pool, tmp_path: Path) -> list[Image]:
    """Two images of one source, which have most in common."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "large").write_bytes(os.urandom(300_000))
    order = BackupOrder(ClientName("alpha"), (os.fsencode(tree),))
    made = [run_backup(source, order, SystemClock())]
    (tree / "more").write_bytes(os.urandom(50_000))
    return [*made, run_backup(source, order, SystemClock())]


def token(site: TransferSite, image: Image, name: str = "mallory", **changes: Any) -> str:
    said = {
        "verbs": frozenset({"replicate"}),
        "images": frozenset({image.id}),
        "source": image.source,
        **changes,
    }
    return site.token(name, **said)


def bring(site: TransferSite, source: Pool, image: Image, **changes: Any) -> None:
    remote_replicate(sender(site, image, **changes), source, ImageId(image.id))


def sender(
    site: TransferSite, image: Image, link: type[TransferLink] = TransferLink, **changes: Any
) -> TransferTarget:
    class Target(TransferTarget):
        def link(self) -> TransferLink:
            found = super().link()
            return link(found.paths, found.context, found.token, deadline_s=20)

    return Target(
        urls=(f"https://127.0.0.1:{site.port}",),
        context=site.machines.client("mallory", "media"),
        token=lambda: token(site, image, **changes),
        remote_pool=RemotePool,
    )


def opened(mallory: RawPeer, said: str, attempt: str = "a") -> dict[str, Any]:
    body = json.dumps({"read_all": False, "attempt": attempt}).encode()
    status, answer = mallory.ask("POST", "/uploads", body, said)
    assert status == 200, answer
    found: dict[str, Any] = json.loads(answer)
    return found


def test_a_manifest_that_is_not_the_tokens_image_is_refused(
    site: TransferSite, source: Pool, images: list[Image]
) -> None:
    first, second = images
    mallory = site.peer("mallory", "media")
    said = token(site, first)
    upload = opened(mallory, said)["upload"]
    for bad in (b"", b"rubbish", source.manifest(second.id), source.manifest(first.id) + b"\0"):
        assert mallory.code("POST", f"/uploads/{upload}/commit", bad, said) == "invalid"
    # Of another source than the token says.
    other = token(site, first, source="beta:/srv", job=2)
    upload = opened(mallory, other)["upload"]
    manifest = source.manifest(first.id)
    assert mallory.code("POST", f"/uploads/{upload}/commit", manifest, other) == "invalid"
    assert (site.pool.image_ids(), site.images) == ([], [])


def test_an_image_of_which_chunks_are_missing_is_refused_with_a_name(
    site: TransferSite, source: Pool, images: list[Image]
) -> None:
    class Forgetful(TransferLink):
        def send(self, body: bytes) -> None:
            """Let it fall."""

    image = images[0]
    with pytest.raises(Invalid, match=r"is not whole in this pool: chunk [0-9a-f]{64} of"):
        remote_replicate(sender(site, image, Forgetful), source, ImageId(image.id))
    assert site.pool.image_ids() == []
    assert [code for _, code in site.codes()] == ["invalid"]
    site.assert_audited()
    bring(site, source, image, job=2)
    assert site.pool.verify([image.id], read_data=True).result().problems_total == 0


def test_a_sender_that_says_the_base_has_what_it_has_not_is_refused(
    site: TransferSite, source: Pool, images: list[Image]
) -> None:
    first, second = images
    bring(site, source, first)
    # It claims that nothing is missing, with a base that vouches for most.
    mallory = site.peer("mallory", "media")
    said = token(site, second, job=2, parent=first.id)
    found = opened(mallory, said)
    assert found["parent"] is not None
    at = f"/uploads/{found['upload']}/commit"
    status, answer = mallory.ask("POST", at, source.manifest(second.id), said)
    assert (status, json.loads(answer)["code"]) == (400, "invalid")
    assert "is not whole" in json.loads(answer)["message"]
    assert site.pool.image_ids() == [first.id]
    bring(site, source, second, job=3, parent=first.id)
    assert site.pool.check(read_data=True).result().problems_total == 0


def test_only_media_servers_and_the_master_bring_images_and_they_do_nothing_else(
    site: TransferSite, images: list[Image]
) -> None:
    image = images[0]
    body = json.dumps({"read_all": False, "attempt": "a"}).encode()
    agent = site.peer("mallory")
    assert agent.code("POST", "/uploads", body, token(site, image)) == "forbidden"
    for role in ("media", "master"):
        peer = site.peer("mallory", role)
        for verb in ("backup", "restore"):
            given = token(site, image, verbs=frozenset({verb}))
            assert peer.code("POST", "/uploads", body, given) == "forbidden"
            assert peer.code("GET", f"/images/{image.id}", None, given) == "forbidden"
        # Another's token.
        given = token(site, image, "store")
        assert peer.code("POST", "/uploads", body, given) == "forbidden"
        # What one may bring one may not read.
        given = token(site, image)
        assert peer.code("GET", f"/images/{image.id}", None, given) == "forbidden"
        assert peer.code("POST", "/read", bytes(37), given) == "forbidden"
        assert len(opened(peer, given, role)["upload"]) == 32
    assert all(code == "forbidden" for _, code in site.codes())
    site.assert_audited()


def test_another_image_under_an_id_that_is_taken_changes_nothing(
    site: TransferSite, source: Pool, images: list[Image]
) -> None:
    first, _ = images
    bring(site, source, first)
    before = site.pool.manifest(first.id)
    forged = before.replace(b"completed", b"completed", 1)
    at = forged.index(b"finished_ns") + len(b"finished_ns") + 5
    forged = forged[:at] + bytes([forged[at] ^ 1]) + forged[at + 1 :]
    assert forged != before
    mallory = site.peer("mallory", "media")
    said = token(site, first, job=2)
    upload = opened(mallory, said)["upload"]
    assert mallory.code("POST", f"/uploads/{upload}/commit", forged, said) == "invalid"
    assert site.pool.manifest(first.id) == before
