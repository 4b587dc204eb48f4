"""The API of a master server without a pool, and clients of it with any role."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import httpx

from holdfast.base import settings
from holdfast.base.config import SiteConfig
from holdfast.base.ids import PoolId
from holdfast.control.access import AccessBook, Cost, Role, Scope
from holdfast.control.catalog import Catalog
from holdfast.control.database import Database
from holdfast.control.storage import StorageBook
from holdfast.faces.api.app import make_app
from holdfast.faces.cli.api_client import ApiClient
from holdfast.faces.cli.in_process import InProcess
from holdfast.site.master import Master
from holdfast.site.pools import Pools
from holdfast.site.site import Site
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakePool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastapi import FastAPI

QUICK = Cost(memory_kib=32, passes=1, lanes=1)
"""What a password costs in tests."""


@dataclass
class Api:
    """One application, and who asks it."""

    master: Master
    clock: FakeClock
    app: FastAPI
    closing: contextlib.ExitStack

    def http(self, token: str | None = None) -> httpx.Client:
        """Plain HTTP, as somebody who has a token, or as nobody."""
        transport = InProcess(self.app, {})
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        client = httpx.Client(transport=transport, base_url="http://holdfast", headers=headers)
        return self.closing.enter_context(client)

    def client(self, token: str | None = None) -> ApiClient:
        """What the commands use, as the local superuser if there is no token."""
        return self.closing.enter_context(ApiClient.of_application(self.app, token))

    def token(self, role: Role, scope: Scope | None = None, name: str | None = None) -> str:
        """The session of a new user of a role."""
        book = self.master.access
        user = name or role.value
        with contextlib.suppress(Exception):
            book.add_user(user, role=role, scope=scope or Scope())
        return book.open_session(user, "test")[1]

    def audited(self) -> list[Any]:
        """Rows of the audit log, oldest first."""
        return self.master.audit.rows(limit=1000, newest_first=False)


def give_pool(site: Any, pool: Any) -> None:
    """Let a site have another pool of its own; an error in its place is raised."""

    def opened() -> Any:
        if isinstance(pool, Exception):
            raise pool
        return pool

    site.pool = pool
    site.pool_id = site.config.pool_id if isinstance(pool, Exception) else PoolId(pool.id.hex())
    site.pools = Pools(
        own=site.pool_id,
        open_own=opened,
        site_key=lambda: b"k" * 32,
        units=lambda: site.units,
        catalog=lambda: site.catalog,
        cache=site.home / "cache",
    )


@contextlib.contextmanager
def make_api(database: Database, home: Path) -> Iterator[Api]:
    """An application on a database that has the newest schema."""
    clock = FakeClock()
    with (
        Catalog.open(home / "catalog", clock, database) as catalog,
        contextlib.ExitStack() as stack,
    ):
        site = SimpleNamespace(
            home=home,
            config=SiteConfig(str(home / "pool"), PoolId(FakePool().pool_id), "key-file"),
            clock=clock,
            settings=settings.load(home, {}),
            database=database,
            catalog=catalog,
            hear_notes=lambda: None,
            pool_key=lambda: b"k" * 32,
            close=lambda: None,
        )
        site.units = StorageBook(database)
        give_pool(site, FakePool())
        site.expire = lambda image: Site.expire(cast("Site", site), image)
        site.refill_catalog = lambda rows: catalog.rebuild(site.pool, rows)
        master = Master(cast("Site", site))
        master.access = AccessBook(database, clock, QUICK)
        yield Api(master, clock, make_app(master), stack)
