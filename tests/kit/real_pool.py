"""A pool of the engine's, and images in it, for an application that has a catalog of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.clock import SystemClock
from holdfast.base.ids import ClientName, ImageId, pool_id
from holdfast.movers.backup_run import BackupOrder, run_backup
from holdfast.vault import PoolKey, create_pool
from tests.kit.api import give_pool

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.engine import Pool
    from tests.kit.api import Api


def put_pool(api: Api, place: Path) -> Pool:
    """Give an application a real, empty pool."""
    pool = create_pool(str(place), secret=PoolKey(bytes(range(32))), clock=SystemClock())
    give_pool(api.master.site, pool)
    return pool


def put_image(api: Api, client: str, *paths: bytes, fed: bool = False) -> ImageId:
    """Back paths up as some client, and have the catalog know."""
    pool = api.master.site.pool
    order = BackupOrder(client=ClientName(client), paths=tuple(sorted(paths)))
    made = run_backup(pool, order, SystemClock())
    api.master.catalog.record_image(made, pool_id(pool.id))
    if fed:
        api.master.catalog.ingest(pool, ImageId(made.id))
    return ImageId(made.id)
