"""A bad network between an agent and a media server costs time, and nothing else.

`HOLDFAST_TEST_SCHEDULES=200` runs as many schedules of harm; each is made from its number.
`HOLDFAST_TEST_LINK_DOWN_S=90` has a link down for as many seconds in the middle of a backup.
"""

from __future__ import annotations

import os
import random
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import Cancelled, Unreachable
from holdfast.base.ids import ClientName, ImageId
from holdfast.engine import Pool, PoolConfig, RemotePool
from holdfast.movers.backup_run import BackupOrder
from holdfast.movers.restore_run import RestoreOrder
from holdfast.movers.transfer import connection
from holdfast.movers.transfer.ports import TransferLimits
from holdfast.movers.transfer.remote_runs import TransferTarget, remote_backup, remote_restore
from holdfast.wire.transfer_tokens import sign
from tests.kit.clock import FakeClock
from tests.kit.fault_relay import FaultRelay
from tests.kit.transfer_site import TransferSite, transfer_site
from tests.kit.trees import assert_same_tree, make_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEDULES = int(os.environ.get("HOLDFAST_TEST_SCHEDULES", "6"))
DOWN_S = float(os.environ.get("HOLDFAST_TEST_LINK_DOWN_S", "3"))
"""For how long a link is down. For longer than a few seconds who wants to know says so: 90."""

LIMITS = TransferLimits(sign_of_life_s=0.2, gap_s=1.0)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TransferSite]:
    # A stall of the relay outlasts this: the client has to give a connection up by itself.
    monkeypatch.setattr(connection, "STALL_S", 1.0)
    pool = Pool.create(str(tmp_path / "pool"), bytes(range(32)), PoolConfig(), 0)
    with transfer_site(tmp_path, pool, LIMITS, pool_id=pool.id.hex()) as made:
        yield made


def target(site: TransferSite, port: int, deadline_s: float = 60, **grant: Any) -> TransferTarget:
    return TransferTarget(
        urls=(f"https://127.0.0.1:{port}",),
        context=site.machines.client("alpha"),
        token=lambda: sign(site.grant(**grant), site.key),
        remote_pool=RemotePool,
        deadline_s=deadline_s,
    )


def order(tree: Path) -> BackupOrder:
    return BackupOrder(ClientName("alpha"), (os.fsencode(tree),))


def later() -> FakeClock:
    return FakeClock(SystemClock().now() + timedelta(minutes=1))


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_whatever_the_network_does_the_data_is_right(
    site: TransferSite, tmp_path: Path, seed: int
) -> None:
    made = random.Random(seed)
    tree = tmp_path / "tree"
    make_tree(tree, seed)
    (tree / "large").write_bytes(made.randbytes(made.randrange(20_000_000, 40_000_000)))
    relay = FaultRelay(site.port, seed)
    try:
        first = remote_backup(target(site, relay.port), order(tree), later())
        with (tree / "large").open("r+b") as file:
            file.seek(made.randrange(10_000_000))
            file.write(made.randbytes(9_000_000))
        second = remote_backup(
            target(site, relay.port, job=2, parent=first.id), order(tree), later()
        )
        reading = target(
            site, relay.port, job=3, verbs=frozenset({"restore"}), images=frozenset({second.id})
        )
        back = tmp_path / "back"
        remote_restore(reading, RestoreOrder(ImageId(second.id), (), os.fsencode(back)))
    finally:
        relay.close()
    assert_same_tree(tree, os.fsencode(back) + os.fsencode(tree))
    assert site.pool.check(read_data=True).result().problems_total == 0
    assert {one.id for one in site.pool.images()} == {first.id, second.id}
    assert [image.id for _, image in site.images] == [first.id, second.id]
    assert relay.harms
    assert {code for _, code in site.codes()} <= {"too-slow"}


def test_a_link_that_is_down_for_a_while_goes_on_where_it_was(
    site: TransferSite, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "large").write_bytes(random.Random(1).randbytes(60_000_000))
    relay = FaultRelay(site.port, 1, most=0)
    cut = threading.Event()

    def cut_off(_: object) -> None:
        if relay.passed_bytes > 20_000_000 and not cut.is_set():
            cut.set()
            relay.cut_off(DOWN_S)

    began_s = time.monotonic()
    patient = target(site, relay.port, deadline_s=DOWN_S + 60)
    image = remote_backup(patient, order(tree), later(), cut_off)
    relay.close()
    assert time.monotonic() - began_s > DOWN_S
    assert cut.is_set()
    assert image.stats["bytes_new"] >= 60_000_000
    # What was on its way is sent again, and no more.
    assert relay.passed_bytes < 60_000_000 * 1.6
    assert site.pool.check(read_data=True).result().problems_total == 0


def test_a_link_that_stays_down_ends_the_backup_with_words(
    site: TransferSite, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    make_tree(tree)
    relay = FaultRelay(site.port, 1, most=0)
    relay.cut_off(3600)
    with pytest.raises(Unreachable, match="could not be reached for 1 s"):
        remote_backup(target(site, relay.port, deadline_s=1), order(tree), later())
    relay.close()


def test_a_backup_can_be_stopped_while_the_link_is_down(site: TransferSite, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "large").write_bytes(random.Random(1).randbytes(60_000_000))
    relay = FaultRelay(site.port, 1, most=0)

    def stop(_: object) -> None:
        if relay.passed_bytes > 10_000_000:
            relay.cut_off(3600)
            raise Cancelled("told to stop")

    with pytest.raises(Cancelled, match="told to stop"):
        remote_backup(target(site, relay.port), order(tree), later(), stop)
    relay.close()
    assert site.pool.image_ids() == []
