"""A bad network between a master and a media server's own pool costs time, and nothing else.

`HOLDFAST_TEST_SCHEDULES=200` runs as many schedules of harm; each is made from its number.
"""

from __future__ import annotations

import contextlib
import os
import random
from functools import partial
from typing import TYPE_CHECKING

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.ids import ClientName, ImageId
from holdfast.engine import PoolConfig
from holdfast.movers.backup_run import BackupOrder, run_backup
from holdfast.movers.pool_runs import run_check, run_garbage_collection
from holdfast.movers.restore_run import RestoreOrder, run_restore
from holdfast.movers.transfer import connection
from holdfast.movers.transfer.machine import require_media
from holdfast.movers.transfer.ports import TransferLimits
from holdfast.movers.transfer.remote_store import RemoteStore
from holdfast.vault import PoolKey, create_pool, open_pool, open_pool_on
from holdfast.vault.backends.open_directory import OpenDirectory
from holdfast.wire.identity import MachineRole, client_context
from tests.kit.fault_relay import FaultRelay
from tests.kit.store_site import POOL, store_site
from tests.kit.trees import assert_same_tree, make_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.store_site import StoreSite

SCHEDULES = int(os.environ.get("HOLDFAST_TEST_SCHEDULES", "3"))
LIMITS = TransferLimits(sign_of_life_s=0.2, gap_s=1.0)
KEY = PoolKey(bytes(range(32)))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreSite]:
    # A stall of the relay outlasts this: the master has to give a connection up by itself.
    monkeypatch.setattr(connection, "STALL_S", 1.0)
    config = PoolConfig(pack_bytes=1 << 20)
    place = str(tmp_path / "pool")
    create_pool(place, secret=KEY, clock=SystemClock(), config=config)
    with contextlib.closing(OpenDirectory(place)) as disk, store_site(disk, LIMITS) as made:
        yield made


def remote(site: StoreSite, port: int) -> RemoteStore:
    me = site.machines.identity(MachineRole.MASTER, "master")
    context = client_context(me, (MachineRole.MEDIA,))
    return RemoteStore((f"https://127.0.0.1:{port}",), context, partial(require_media, me), POOL)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_whatever_the_network_does_the_pool_is_sound(
    site: StoreSite, tmp_path: Path, seed: int
) -> None:
    made = random.Random(seed)
    tree, clock = tmp_path / "tree", SystemClock()
    make_tree(tree, seed)
    (tree / "large").write_bytes(made.randbytes(made.randrange(4_000_000, 12_000_000)))
    order = BackupOrder(ClientName("web1"), (os.fsencode(tree),))
    relay = FaultRelay(site.port, seed, most=16, every=1 << 20)
    try:
        with contextlib.closing(remote(site, relay.port)) as store:
            far = open_pool_on(store, key=KEY, cache_dir=None)
            first = run_backup(far, order, clock)
            (tree / "large").write_bytes(made.randbytes(made.randrange(4_000_000, 12_000_000)))
            second = run_backup(far, order, clock)
            assert (second.parent, second.number) == (first.id, first.number + 1)
            far.expire(first.id)
            run_garbage_collection(far, clock, dry_run=False)
            back = tmp_path / "back"
            run_restore(far, RestoreOrder(ImageId(second.id), (), os.fsencode(back)))
            assert_same_tree(tree, os.fsencode(back) + os.fsencode(tree))
        assert relay.harms
    finally:
        relay.close()
    near = open_pool(str(tmp_path / "pool"), secret=KEY, cache_dir=None)
    assert near.image_ids() == [second.id]
    found = run_check(near, read_data=True)
    assert found.problems_total == 0, found.problems
    run_garbage_collection(near, clock, dry_run=False)
    # Nothing is left of what was said twice or came late.
    for folder in ("jobs", "marks", "tmp"):
        place = tmp_path / "pool" / folder
        assert not place.exists() or os.listdir(place) == [], folder
