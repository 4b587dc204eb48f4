"""The master server of a home: its site, its control database, and what is kept in that.

Must not move data, nor decide: it joins those who do. Everything is opened when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from holdfast.base.errors import ImageMissing
from holdfast.base.zones import machine_zone
from holdfast.control.access import AccessBook, ActBook, AuditLog, ProviderLogins, Registration
from holdfast.control.bandwidth import BandwidthBook
from holdfast.control.catalog import ImageLists
from holdfast.control.dispatch import SplitBook
from holdfast.control.hypervisors import HypervisorBook
from holdfast.control.instant import InstantBook
from holdfast.control.jobs import JobBook, Retrying
from holdfast.control.machines import MachineBook
from holdfast.control.policies import DEFAULT_STORAGE_UNIT, PolicyBook
from holdfast.control.storage import StorageBook
from holdfast.site.probing import this_client
from holdfast.site.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import tzinfo
    from pathlib import Path
    from types import TracebackType

    import httpx

    from holdfast.base.clock import Clock
    from holdfast.base.ids import ImageId, PoolId
    from holdfast.base.settings import Settings
    from holdfast.control.catalog import Catalog
    from holdfast.control.database import Database
    from holdfast.control.policies import Split, SplitKey
    from holdfast.site.machines import Machines
    from holdfast.site.secrets import SecretSource


STORAGE_UNIT = DEFAULT_STORAGE_UNIT
"""The one that every site has: its own pool."""


class Master:
    """One master server. Thread-safe once it is open; close it, or use it in a ``with``.

    Attributes:
        site: The embedded site that it works on.
        clock: The clock by which it works.
        settings: What is set, and by whom.
        database: The control database, at the newest schema.
        catalog: Images, copies, and every file in them.
        images: Images, sources and clients, in pages.
        access: Users and their tokens.
        audit: Every act, and what was refused.
        acts: Acts under way.
        logins: Logins by way of an identity provider.
        machines: Hosts that have joined the site.
        bandwidth: How much they may move.
        units: Storage units beside the site's own pool.
        hypervisors: What runs virtual machines, and those that were found there.
        instants: Virtual machines that run from their images.
        policies: What is protected, and everything they ever said.
        jobs: What is to be done, and what came of it.
        zone: Of schedules that name none, and of the calendar of retention.
        spoken_to: Machines, while this process speaks to them.
        how_divided: Tells how a path is divided into streams, for what a person asks for.
        news: To be called when something was asked for; whoever serves this master has it look.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.clock: Clock = site.clock
        self.settings: Settings = site.settings
        self.database: Database = site.database
        self.catalog: Catalog = site.catalog
        self.images = ImageLists(self.database)
        self.access = AccessBook(self.database, self.clock)
        self.audit = AuditLog(self.database, self.clock)
        self.acts = ActBook(self.database, self.clock, self.audit)
        self.machines = MachineBook(self.database, self.clock, self.audit, [this_client()])
        self.bandwidth = BandwidthBook(self.database)
        self.units = StorageBook(self.database)
        self.hypervisors = HypervisorBook(self.database, self.clock)
        self.instants = InstantBook(self.database, self.clock)
        self.policies = PolicyBook(self.database, self.clock, [this_client()])
        retrying = Retrying(attempts=self.settings.count("jobs.attempts"))
        self.jobs = JobBook(self.database, self.clock, retrying)
        self.zone: tzinfo = self.settings.zone("site.zone") or machine_zone()
        self.news: Callable[[], None] = _nobody
        self.how_divided: Callable[[SplitKey], Split | None] = SplitBook(self.database).get
        self.spoken_to: Machines | None = None
        self.logins = ProviderLogins(
            self.database, self.clock, self.access, _registration(self.settings), _http
        )

    def pool_with(self, image: ImageId) -> PoolId:
        """The pool from which an image is had best: now, if it can be had from any.

        Raises:
            ImageMissing: No pool of the site has it.
        """
        found = self.site.pools.with_copy(image)
        if not found:
            raise ImageMissing(f"no pool of this site has image {image}")
        served = frozenset() if self.spoken_to is None else self.spoken_to.served_pools()
        now = (one for one in found if one in served or self.site.pools.is_near(one))
        return next(now, found[0])

    def unit_slots(self) -> dict[str, int]:
        """How many jobs each storage unit takes at once, by its name."""
        own = {STORAGE_UNIT: self.settings.count("jobs.slots")}
        return own | {one.name: one.slots for one in self.units.units()}

    @classmethod
    def open(
        cls, home: Path, source: SecretSource, clock: Clock, environ: Mapping[str, str]
    ) -> Self:
        """Open the master server of a home directory.

        Raises:
            SiteMissing: There is no site.
            ConfigInvalid: Its configuration can't be understood.
            CatalogDamaged: Its database is no database.
            DatabaseLost: The server of its database can't be reached.
        """
        site = Site.open(home, source, clock, environ)
        try:
            return cls(site)
        except BaseException:
            site.close()
            raise

    def close(self) -> None:
        """Close what is open. More than once is fine."""
        self.site.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _nobody() -> None:
    """It is not served: what was asked for is found by whoever serves it next."""


def _registration(settings: Settings) -> Registration | None:
    issuer = settings.text("login.issuer")
    if not issuer:
        return None
    return Registration(
        issuer,
        settings.text("login.client-id"),
        settings.text("login.client-secret"),
        settings.text("login.claim"),
    )


def _http() -> httpx.Client:
    import httpx

    return httpx.Client()
