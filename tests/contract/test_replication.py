"""An image goes from one real pool to another over real connections, and is the same there."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import Cancelled, Fenced, ImageMissing, Invalid
from holdfast.base.ids import ClientName, ImageId
from holdfast.engine import Pool, PoolConfig, RemotePool
from holdfast.movers.backup_run import BackupOrder, run_backup
from holdfast.movers.remote_agent import Transfer
from holdfast.movers.transfer.machine import FarMovers
from holdfast.movers.transfer.remote_runs import TransferTarget, linked
from holdfast.movers.transfer.replicate_run import remote_replicate
from holdfast.wire.identity import MachineRole
from holdfast.wire.messages import BackupWork, WorkOffer
from holdfast.wire.transfer_tokens import sign
from tests.kit.real_machines import RealMachines
from tests.kit.transfer_site import TransferSite, transfer_site
from tests.kit.trees import assert_same_tree, change_tree, make_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.engine import Image
    from holdfast.movers.transfer.client import TransferLink

KEY, OTHER = bytes(range(32)), bytes(range(32, 64))


@pytest.fixture
def source(tmp_path: Path) -> Pool:
    return Pool.create(str(tmp_path / "source"), KEY, PoolConfig(), 0)


@pytest.fixture
def site(tmp_path: Path, source: Pool) -> Iterator[TransferSite]:
    """The media server of the other pool."""
    place = str(tmp_path / "pool")
    pool = Pool.create(place, OTHER, PoolConfig(), 0, naming=source.naming)
    with transfer_site(tmp_path, pool, pool_id=pool.id.hex()) as made:
        yield made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    make_tree(made)
    return made


def back_up(pool: Pool, tree: Path) -> Image:
    return run_backup(pool, BackupOrder(ClientName("alpha"), (os.fsencode(tree),)), SystemClock())


def target(site: TransferSite, image: Image, role: str = "media", **grant: Any) -> TransferTarget:
    said = {
        "verbs": frozenset({"replicate"}),
        "images": frozenset({image.id}),
        "source": image.source,
        **grant,
    }
    return TransferTarget(
        urls=(f"https://127.0.0.1:{site.port}",),
        context=site.machines.client("store", role),
        token=lambda: sign(site.grant("store", **said), site.key),
        remote_pool=RemotePool,
        deadline_s=20,
    )


def assert_restores(pool: Pool, image: Image, tree: Path, back: Path) -> None:
    result = pool.restore(image.id, paths=[], to=os.fsencode(back), verify=True).result()
    assert result.findings_total == 0
    assert_same_tree(tree, os.fsencode(back) + os.fsencode(tree))


@pytest.mark.parametrize("role", ["media", "master"])
def test_a_copy_is_the_same_image_and_restores_with_its_source_gone(
    site: TransferSite, source: Pool, tree: Path, tmp_path: Path, role: str
) -> None:
    back_up(source, tree)
    change_tree(tree)
    image = back_up(source, tree)
    seen: list[Any] = []
    copied = remote_replicate(target(site, image, role), source, ImageId(image.id), seen.append)
    assert (copied.id, copied.number) == (image.id, image.number)
    assert site.pool.manifest(image.id) == source.manifest(image.id)
    assert [(grant.job, made.id) for grant, made in site.images] == [(1, image.id)]
    assert site.refusals == []
    last = [counters for counters in seen if counters is not None][-1]
    assert last.bytes_total == last.bytes_read > 0
    shutil.rmtree(tmp_path / "source")
    assert_restores(site.pool, image, tree, tmp_path / "back")
    assert site.pool.check(read_data=True).result().problems_total == 0


def test_the_next_copy_sends_what_is_new_and_an_image_that_is_there_costs_nothing(
    site: TransferSite, source: Pool, tree: Path, tmp_path: Path
) -> None:
    (tree / "large").write_bytes(os.urandom(3_000_000))
    first = back_up(source, tree)
    remote_replicate(target(site, first), source, ImageId(first.id))
    stored = site.pool.stats().chunk_bytes
    (tree / "small").write_bytes(os.urandom(10_000))
    second = back_up(source, tree)
    totals: list[int] = []

    def note(counters: Any) -> None:
        if counters is not None:
            totals.append(counters.bytes_total)

    for job in (2, 3):
        there = target(site, second, job=job, parent=first.id)
        remote_replicate(there, source, ImageId(second.id), note)
    assert 10_000 < max(totals) < 100_000
    assert totals[-1] == 0, "of an image that is there nothing is asked for"
    assert site.pool.stats().chunk_bytes - stored < 100_000
    assert [made.id for _, made in site.images] == [first.id, second.id, second.id]
    assert_restores(site.pool, second, tree, tmp_path / "back")


def test_a_base_that_the_other_pool_does_not_have_is_no_trouble(
    site: TransferSite, source: Pool, tree: Path, tmp_path: Path
) -> None:
    first = back_up(source, tree)
    change_tree(tree)
    second = back_up(source, tree)
    remote_replicate(target(site, second, parent=first.id), source, ImageId(second.id))
    assert site.pool.image_ids() == [second.id]
    assert_restores(site.pool, second, tree, tmp_path / "back")


def test_a_copy_that_is_stopped_leaves_no_image_and_what_was_sent_is_kept(
    site: TransferSite, source: Pool, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "large").write_bytes(os.urandom(60_000_000))
    image = back_up(source, tree)

    def stop(counters: Any) -> None:
        if site.pool.stats().chunks or (counters is not None and counters.bytes_transmitted > 1e7):
            raise Cancelled("told to stop")

    with pytest.raises(Cancelled, match="told to stop"):
        remote_replicate(target(site, image), source, ImageId(image.id), stop)
    assert (site.pool.image_ids(), len(site.server.uploads)) == ([], 0)
    remote_replicate(target(site, image, job=2), source, ImageId(image.id))
    assert_restores(site.pool, image, tree, tmp_path / "back")
    stats, mine = site.pool.stats(), source.stats()
    assert (stats.chunks, stats.chunk_bytes) == (mine.chunks, mine.chunk_bytes), "no chunk twice"


def test_a_question_about_nothing_is_a_sign_of_life(
    site: TransferSite, source: Pool, tree: Path
) -> None:
    with linked(target(site, back_up(source, tree))) as link:
        link.open_upload(read_all=False)
        (upload,) = site.server.uploads._by_id.values()
        heard_s = upload.heard_s
        assert link.missing(b"") == b""
        # The answer may be here before the server has noted that it is out.
        site.in_loop(asyncio.sleep(0))
        assert upload.heard_s > heard_s
        link.abandon()


def test_a_job_that_is_anothers_brings_nothing(
    site: TransferSite, source: Pool, tree: Path
) -> None:
    image = back_up(source, tree)
    site.fences[1] = 2
    with pytest.raises(Fenced):
        remote_replicate(target(site, image), source, ImageId(image.id))
    site.fences.clear()

    # The fence passes while the image is on its way.
    def later(terms: bytes, link: TransferLink) -> RemotePool:
        site.fences[1] = 2
        return RemotePool(terms, link)

    there = replace(target(site, image), remote_pool=later)
    with pytest.raises(Fenced):
        remote_replicate(there, source, ImageId(image.id))
    assert site.pool.image_ids() == []


def test_what_is_not_here_or_is_named_otherwise_is_said_so(
    site: TransferSite, source: Pool, tree: Path, tmp_path: Path
) -> None:
    image = back_up(source, tree)
    stranger = Pool.create(str(tmp_path / "stranger"), KEY[::-1], PoolConfig(), 0)
    foreign = back_up(stranger, tree)
    with pytest.raises(Invalid, match="each names chunks in its own way"):
        remote_replicate(target(site, foreign), stranger, ImageId(foreign.id))
    source.expire(image.id)
    with pytest.raises(ImageMissing):
        remote_replicate(target(site, image, job=2), source, ImageId(image.id))
    assert len(site.server.uploads) == 0


def test_machines_of_a_site_replicate_with_their_certificates(
    source: Pool, tree: Path, tmp_path: Path
) -> None:
    place = str(tmp_path / "pool")
    pool = Pool.create(place, OTHER, PoolConfig(), 0, naming=source.naming)
    image = back_up(source, tree)
    machines: Any = RealMachines()
    with transfer_site(tmp_path, pool, machines=machines, pool_id=pool.id.hex()) as site:
        grant = {
            "verbs": frozenset({"replicate"}),
            "images": frozenset({image.id}),
            "source": image.source,
        }
        transfer = Transfer(
            offer=WorkOffer(1, 1, 60.0, BackupWork("alpha", "alpha:/data", ("/data",))),
            urls=(f"https://127.0.0.1:{site.port}",),
            pool=site.pool_id,
            token=lambda: site.token("branch", **grant),
            identity=machines.identity(MachineRole.MEDIA, "branch"),
        )
        copied = FarMovers().replicate(transfer, source, ImageId(image.id))
        assert pool.manifest(copied.id) == source.manifest(image.id)
        assert site.refusals == []
