"""A real pool, reached over real connections: what comes back is what was there."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import Cancelled, Fenced, Forbidden, TargetNotEmpty
from holdfast.base.ids import ClientName, ImageId
from holdfast.engine import Pool, PoolConfig, RemotePool
from holdfast.movers.backup_run import BackupOrder
from holdfast.movers.restore_run import RestoreOrder
from holdfast.movers.transfer.client import TransferLink
from holdfast.movers.transfer.opened import Opened
from holdfast.movers.transfer.remote_runs import TransferTarget, remote_backup, remote_restore
from holdfast.wire.transfer_tokens import sign
from tests.kit.clock import FakeClock
from tests.kit.transfer_site import TransferSite, transfer_site
from tests.kit.trees import assert_same_tree, change_tree, make_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.engine import Image


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TransferSite]:
    pool = Pool.create(str(tmp_path / "pool"), bytes(range(32)), PoolConfig(), 0)
    with transfer_site(tmp_path, pool, pool_id=pool.id.hex()) as made:
        yield made


def target(site: TransferSite, client: str = "alpha", **grant: Any) -> TransferTarget:
    return TransferTarget(
        urls=(f"https://127.0.0.1:{site.port}",),
        context=site.machines.client(client),
        token=lambda: sign(site.grant(client, **grant), site.key),
        remote_pool=RemotePool,
        deadline_s=20,
    )


def back_up(site: TransferSite, tree: Path, client: str = "alpha", **grant: Any) -> Image:
    order = BackupOrder(ClientName(client), (os.fsencode(tree),))
    # What changed just before a backup began is read again by the next: here nothing did.
    later = FakeClock(SystemClock().now() + timedelta(minutes=1))
    return remote_backup(target(site, client, **grant), order, later)


def restore(site: TransferSite, image: Image, to: Path, client: str = "alpha") -> None:
    reading = target(
        site, client, job=9, verbs=frozenset({"restore"}), images=frozenset({image.id})
    )
    order = RestoreOrder(ImageId(image.id), (), os.fsencode(to), verify=True)
    result = remote_restore(reading, order)
    assert result.findings_total == 0


def test_what_was_backed_up_comes_back(site: TransferSite, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    make_tree(tree)
    image = back_up(site, tree, labels={"policy": "nightly"})
    assert (image.source, image.host, image.labels) == (
        "alpha:/data",
        "alpha",
        {"policy": "nightly"},
    )
    assert [made.id for _, made in site.images] == [image.id]
    restore(site, image, tmp_path / "back")
    assert_same_tree(tree, os.fsencode(tmp_path / "back") + os.fsencode(tree))
    assert site.pool.check(read_data=True).result().problems_total == 0
    assert site.refusals == []
    assert len(site.server.uploads) == 1


def text_tree(directory: Path) -> None:
    directory.mkdir()
    for number in range(8):
        lines = (f"{number * at % 9973} and again {at}\n" for at in range(120_000))
        (directory / f"{number}").write_text("".join(lines))


@pytest.mark.parametrize("way", ["here", "there", "measured"])
def test_the_pool_is_as_small_whoever_compresses(
    site: TransferSite, tmp_path: Path, way: str
) -> None:
    tree = tmp_path / "tree"
    text_tree(tree)
    order = BackupOrder(ClientName("alpha"), (os.fsencode(tree),))
    image = remote_backup(replace(target(site), compress=way), order, SystemClock())
    new, left, sent = (image.stats[f"bytes_{name}"] for name in ("new", "left", "transmitted"))
    if way == "there":
        assert (left > new * 0.99, sent > new * 0.99) == (True, True)
    else:
        # So short a backup measures nothing.
        assert (left, sent < new / 2) == (0, True)
    assert image.stats["bytes_stored"] < new / 2
    restore(site, image, tmp_path / "back")
    assert_same_tree(tree, os.fsencode(tmp_path / "back") + os.fsencode(tree))


def test_to_a_media_server_that_compresses_nothing_nothing_is_left(
    site: TransferSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    text_tree(tree)
    opened = TransferLink.open_upload

    def older(link: TransferLink, **given: Any) -> Opened:
        return replace(opened(link, **given), compresses=False)

    monkeypatch.setattr(TransferLink, "open_upload", older)
    order = BackupOrder(ClientName("alpha"), (os.fsencode(tree),))
    image = remote_backup(replace(target(site), compress="there"), order, SystemClock())
    assert image.stats["bytes_left"] == 0


def test_a_second_backup_compares_with_the_parent_of_its_token(
    site: TransferSite, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    make_tree(tree)
    first = back_up(site, tree)
    change_tree(tree)
    second = back_up(site, tree, job=2, parent=first.id)
    assert second.parent == first.id
    assert 0 < second.stats["files_changed"] < 10
    restore(site, second, tmp_path / "back")
    assert_same_tree(tree, os.fsencode(tmp_path / "back") + os.fsencode(tree))


def test_a_backup_that_is_stopped_leaves_no_image_and_no_upload(
    site: TransferSite, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "large").write_bytes(os.urandom(60_000_000))

    def stop(_: object) -> None:
        raise Cancelled("told to stop")

    order = BackupOrder(ClientName("alpha"), (os.fsencode(tree),))
    with pytest.raises(Cancelled, match="told to stop"):
        remote_backup(target(site), order, SystemClock(), stop)
    assert (site.pool.image_ids(), len(site.server.uploads)) == ([], 0)
    # What was sent is kept, and not sent again.
    image = back_up(site, tree, job=2)
    assert image.stats["files"] == 1


def test_a_backup_whose_job_is_anothers_commits_nothing(site: TransferSite, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    make_tree(tree)
    site.fences[1] = 2
    with pytest.raises(Fenced):
        back_up(site, tree)
    assert site.pool.image_ids() == []


def test_a_restore_needs_a_token_that_names_the_image(site: TransferSite, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    make_tree(tree)
    image = back_up(site, tree)
    order = RestoreOrder(ImageId(image.id), (), os.fsencode(tmp_path / "back"))
    reading = target(site, "beta", verbs=frozenset({"restore"}), images=frozenset({"ab" * 16}))
    with pytest.raises(Forbidden):
        remote_restore(reading, order)
    assert not (tmp_path / "back").exists()
    with pytest.raises(TargetNotEmpty):
        remote_restore(reading, RestoreOrder(ImageId(image.id), (), os.fsencode(tree)))
