"""A client whose clock is wrong, or that says so, changes nothing of how long images are kept."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.ids import ClientName, ImageId
from holdfast.control.retention import Rules
from holdfast.engine import RemotePool
from holdfast.movers.backup_run import BackupOrder
from holdfast.movers.transfer.remote_runs import TransferTarget, remote_backup
from holdfast.site import retention
from holdfast.site.secrets import SecretSource
from holdfast.site.site import Site
from holdfast.wire.transfer_tokens import sign
from tests.kit.clock import FakeClock
from tests.kit.transfer_site import TransferSite, transfer_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.engine import Image

YEAR = timedelta(days=365)
DAY = timedelta(days=1)

CLOCKS = {"ahead": (YEAR, YEAR), "behind": (-YEAR, -YEAR), "jumping": (YEAR, -YEAR)}
"""By how much a hostile client's clock is wrong at its second and third backup."""

RULES = (
    *(Rules(last=1), Rules(last=2), Rules(daily=2), Rules(yearly=2), Rules(monthly=1)),
    *(Rules(within=timedelta(hours=36)), Rules(within=2 * YEAR)),
)


@pytest.fixture
def clock() -> FakeClock:
    """The clock of the site."""
    return FakeClock(SystemClock().now())


@pytest.fixture
def home(tmp_path: Path, clock: FakeClock) -> Iterator[Site]:
    with Site.create(tmp_path / "home", None, SecretSource(), clock) as made:
        yield made


@pytest.fixture
def media(tmp_path: Path, home: Site, clock: FakeClock) -> Iterator[TransferSite]:
    """The data path of the site's pool."""
    (tmp_path / "media").mkdir()
    pool = home.pool
    with transfer_site(tmp_path / "media", pool, clock=clock, pool_id=pool.id.hex()) as made:
        yield made


def back_up(media: TransferSite, client: str, job: int, tree: Path, clock: FakeClock) -> Image:
    """A backup over the network by a client that has this clock."""
    target = TransferTarget(
        urls=(f"https://127.0.0.1:{media.port}",),
        context=media.machines.client(client),
        token=lambda: sign(media.grant(client, job=job), media.key),
        remote_pool=RemotePool,
        deadline_s=20,
    )
    return remote_backup(target, BackupOrder(ClientName(client), (os.fsencode(tree),)), clock)


def moment(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, UTC)


@pytest.mark.parametrize("wrong", CLOCKS)
def test_images_of_a_client_with_a_wrong_clock_are_judged_like_its_neighbours(
    home: Site, media: TransferSite, clock: FakeClock, tmp_path: Path, wrong: str
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"a")
    images: dict[str, list[Image]] = {"hostile": [], "right": []}
    for number, off in enumerate((timedelta(), *CLOCKS[wrong], timedelta())):
        for client, shown in (("hostile", off), ("right", timedelta())):
            now = clock.now()
            image = back_up(media, client, 2 * number + len(client), tree, FakeClock(now + shown))
            assert moment(image.started_ns) == moment(clock.now_ns())
            assert abs(moment(image.finished_ns) - now) < timedelta(minutes=5)
            home.catalog.record_image(image, home.pool.id.hex())
            images[client].append(image)
        clock.move(DAY)
    for one, other in zip(images["hostile"], images["right"], strict=True):
        assert one.number < other.number
        assert one.started_ns == other.started_ns
    for rules in RULES:
        assert stays(home, rules, images["hostile"]) == stays(home, rules, images["right"])
    # Each rule that counts lets some go: a wrong clock neither keeps them nor lets others go.
    assert stays(home, Rules(last=2), images["hostile"]) == [False, False, True, True]
    assert stays(home, Rules(within=timedelta(hours=36)), images["hostile"]) == [
        *(False, False, False, True)
    ]


def stays(home: Site, rules: Rules, images: list[Image]) -> list[bool]:
    """Which of a client's images the rules keep."""
    kept: dict[ImageId, bool] = {}
    for judgement in retention.judgements(home, rules):
        assert judgement.doubts == {}
        kept |= {one.image.id: one.stays for one in judgement.verdicts}
    return [kept[ImageId(one.id)] for one in images]
