"""The embedded site: a home directory with its configuration, pool and catalog.

Must not print or prompt. Invariants: an image is in the pool before the catalog hears of it,
and leaves the pool before the catalog forgets it; so the catalog can lag, never lie. The pool
and the catalog are opened when first used, so that a command unlocks only what it needs.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

from holdfast.base import config as site_config
from holdfast.base import image_names
from holdfast.base.errors import (
    CatalogDamaged,
    HoldfastError,
    ImageMissing,
    InputOutput,
    Unreachable,
    WrongKey,
)
from holdfast.base.files import mark_as_cache
from holdfast.base.ids import LATEST, ImageId, PoolId, pool_id
from holdfast.base.meanwhile import Meanwhile
from holdfast.control.act_notes import ActNotes
from holdfast.control.inbox import Inbox
from holdfast.movers.backup_run import run_backup
from holdfast.site import notes, places, secrets
from holdfast.site.pools import Pools
from holdfast.vault import PoolKey, open_pool, unwrapping

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from holdfast.base.clock import Clock
    from holdfast.base.config import SiteConfig
    from holdfast.base.settings import Settings
    from holdfast.control.act_notes import ActNote
    from holdfast.control.catalog import Catalog, RebuildResult
    from holdfast.control.database import Database
    from holdfast.control.storage import StorageBook, StorageUnit
    from holdfast.engine import Image, Pool, RestoreResult
    from holdfast.movers.backup_run import BackupOrder
    from holdfast.movers.drive import Reporter
    from holdfast.movers.machines.file_restore import FileRestore
    from holdfast.movers.restore_run import RestoreOrder
    from holdfast.site.machines.owned_pools import OwnedPools
    from holdfast.site.secrets import SecretSource
    from holdfast.vault import Secret

    RowsReporter = Callable[[int], None]


class Site:
    """One embedded site. Not thread-safe; close it, or use it in a ``with``.

    Attributes:
        home: Its directory.
        config: What its configuration says.
        clock: The clock by which it works.
        used_database: Whether its database was opened, and may be closed by now.
    """

    def __init__(
        self,
        home: Path,
        config: SiteConfig,
        source: SecretSource,
        clock: Clock,
        environ: Mapping[str, str] = os.environ,
        pool_key: Meanwhile[bytes] | None = None,
    ) -> None:
        self.home = home
        self.config = config
        self.clock = clock
        self._environ = environ
        self._source = source
        self.inbox = Inbox(home / "catalog" / "inbox")
        self.act_notes = ActNotes(home)
        self._pool_key = pool_key
        self.used_database = False
        self._database: Database | None = None
        self._catalog: Catalog | None = None

    @classmethod
    def open(
        cls,
        home: Path,
        source: SecretSource,
        clock: Clock,
        environ: Mapping[str, str] = os.environ,
    ) -> Site:
        """Open the site of a home directory.

        Raises:
            SiteMissing: There is none.
            ConfigInvalid: Its configuration can't be understood.
        """
        return cls(home, site_config.load(home), source, clock, environ)

    @classmethod
    def create(cls, home: Path, pool_url: str | None, source: SecretSource, clock: Clock) -> Site:
        """Make a site and its pool.

        Args:
            home: Made if it is missing, for its owner alone.
            pool_url: A directory or URL; None for a directory in the home.
            source: Where a passphrase comes from; with none, a key file is made.
            clock: The clock by which the site works.

        Raises:
            SiteExists: There is one.
            PoolExists: There is a pool at the URL.
            Invalid: The URL can't be understood, or names a directory with other files in it.
            NoPermission: This user may not make it.
        """
        from holdfast.site import founding

        config = founding.new(home, pool_url, source, clock)
        return cls._settle(home, config, source, clock)

    @classmethod
    def join(
        cls,
        home: Path,
        pool_url: str | None,
        source: SecretSource,
        clock: Clock,
        kit_text: str | None = None,
    ) -> Site:
        """Make a site for a pool that is there already.

        Args:
            home: Made if it is missing.
            pool_url: A directory or URL; None for a directory in the home.
            source: Where a passphrase comes from.
            clock: The clock by which the site works.
            kit_text: A recovery kit; then the passphrase, or a new key file, becomes another
                way into the pool.

        Raises:
            SiteExists: There is one.
            NotAPool: There is no pool at the URL.
            WrongKey: The secret does not open it.
        """
        from holdfast.site import founding

        config = founding.joined(home, pool_url, source, kit_text)
        return cls._settle(home, config, source, clock)

    @classmethod
    def _settle(cls, home: Path, config: SiteConfig, source: SecretSource, clock: Clock) -> Site:
        try:
            site_config.save(home, config)
        except OSError as error:
            raise InputOutput(f"can't write {home}: {error.strerror}") from error
        return cls(home, config, source, clock)

    @cached_property
    def pool(self) -> Pool:
        """The pool, opened on first use.

        Raises:
            NotAPool: It is gone.
            WrongKey: The secret does not open it, or another pool is in its place.
        """
        cache = self.home / "cache"
        mark_as_cache(cache)
        secret = self._secret if self._pool_key is None else PoolKey(self._pool_key.result())
        pool = open_pool(self.config.pool_url, secret=secret, cache_dir=cache)
        found = pool_id(pool.id)
        if found != self.config.pool_id:
            raise WrongKey(
                f"the pool at {self.config.pool_url} is {found}, not {self.config.pool_id}",
                "another pool was put in its place: make a site of its own for it",
            )
        return pool

    @cached_property
    def pools(self) -> Pools:
        """This pool, and those of the site's other storage units."""
        pools = Pools(
            own=self.pool_id,
            open_own=lambda: self.pool,
            site_key=self.pool_key,
            units=lambda: self.units,
            catalog=lambda: self.catalog,
            cache=self.home / "cache",
        )
        pools.open_owned = self._open_owned
        return pools

    def _open_owned(self, unit: StorageUnit, key: bytes, cache: Path) -> Pool:
        return self.owned_pools.open(unit, key, cache)

    @cached_property
    def owned_pools(self) -> OwnedPools:
        """Pools of the site that media servers have on disks of their own."""
        from holdfast.site.machines.owned_pools import OwnedPools

        return OwnedPools(self)

    @property
    def units(self) -> StorageBook:
        """The site's other storage units."""
        from holdfast.control.storage import StorageBook

        return StorageBook(self.database)

    def pool_key(self) -> bytes:
        """The key of the pool, derived once. Whoever has it can read everything in the pool.

        Raises:
            NotAPool: There is none.
            WrongKey: The secret does not open it.
        """
        if self._pool_key is None:
            self._pool_key = Meanwhile(unwrapping(self.config.pool_url, self._secret))
        return self._pool_key.result()

    @property
    def pool_id(self) -> PoolId:
        """The id of the pool, known without opening it."""
        return PoolId(self.config.pool_id)

    @cached_property
    def settings(self) -> Settings:
        """What is set for this site, read on first use.

        Raises:
            ConfigInvalid: Something is set that is no setting, or to what it can't be.
        """
        from holdfast.base import settings

        return settings.load(self.home, self._environ)

    @property
    def database(self) -> Database:
        """The control database, opened on first use; its schema is the newest then."""
        if self._database is None:
            self._database = self._open_database()
        return self._database

    def unopened_database(self) -> Database:
        """The control database, without looking at its schema; the caller closes it."""
        from holdfast.control.catalog import DATABASE
        from holdfast.control.database import Database

        directory = self.home / "catalog"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Database(self.settings.text("database.url") or directory / DATABASE)

    def _open_database(self) -> Database:
        database = self.unopened_database()
        try:
            database.migrate()
        except BaseException:
            database.close()
            raise
        self.used_database = True
        return database

    @property
    def catalog(self) -> Catalog:
        """The catalog, opened on first use; it has heard of every image of this site then."""
        if self._catalog is None:
            catalog = self._open_catalog()
            try:
                notes.hear(self, catalog)
            except BaseException:
                catalog.close()
                raise
            self._catalog = catalog
        return self._catalog

    def hear_notes(self) -> None:
        """Hear of images that were committed, and of what commands did, since it was opened."""
        notes.hear(self, self.catalog)

    def _open_catalog(self) -> Catalog:
        from holdfast.control.catalog import Catalog

        catalog = Catalog.open(self.home / "catalog", self.clock, self.database)
        catalog.pool_of = self.pools.known
        return catalog

    def resolve(self, text: str) -> ImageId:
        """Find the image that an id, a unique prefix of one, or ``latest`` names.

        An id is looked for in the pool, so that what the pool has can be restored without a
        catalog. Which image is the latest of this site, the catalog alone can tell: other sites
        may write to the pool as well.

        Raises:
            Invalid: It can't name an image.
            ImageMissing: There is none.
            ImageAmbiguous: Several begin with it.
            CatalogError: The catalog can't tell which is the latest.
            NotAPool, WrongKey: As `pool`.
        """
        # Opened first: that the pool is gone, or locked, matters more than what is in it.
        pool = self.pool
        if text.strip().lower() == LATEST:
            return self.catalog.resolve(text)
        wanted = image_names.image_prefix(text)
        found = sorted(one for one in pool.image_ids() if one.startswith(wanted))
        if not found and self.units.units():
            return self.catalog.resolve(text)
        return ImageId(image_names.the_one(text, found))

    def commit(
        self,
        order: BackupOrder,
        report: Reporter | None = None,
        pool: PoolId | None = None,
        act: Callable[[], ActNote | None] = lambda: None,
    ) -> Image:
        """Back up. Pools that lie on this machine are left out of what is backed up.

        The catalog has the image when it is next opened, and its files after `catch_up`: neither
        keeps a backup waiting.

        Args:
            order: What to back up.
            report: Is given the counters about ten times a second.
            pool: Where to; None for the site's own.
            act: Asked, once it is done, what the audit log is to hear of it.

        Raises:
            Cancelled: Interrupted; nothing was committed.
            StorageError: The backup failed; or, as it says then, the image is safe in the pool,
                and the catalog could not be told.
            HoldfastError: The backup failed.
        """
        for place in self._own_directories(pool):
            own = places.rules_against(place, order.paths)
            order = replace(order, exclude=order.exclude + own)
        into = self.pool_id if pool is None else pool
        image = run_backup(self.pools.of(into), order, self.clock, report)
        self.inbox.leave(image, into, image.findings, act())
        return image

    def restore(
        self, order: RestoreOrder, report: Reporter | None = None
    ) -> RestoreResult | FileRestore:
        """Restore an image of the pool, or parts of it; see `movers.machines.image_restore`.

        Raises:
            Invalid: The target is this site's own home or pool, or lies in one of them.
        """
        own = [os.fsencode(self.home), *self._own_directories(self.pool_id)]
        places.require_outside(order.target, own)
        # A backup needs nothing of machines.
        from holdfast.movers.machines.image_restore import restore_paths

        return restore_paths(self.pools.holding(order.image), order, report)

    def _own_directories(self, pool: PoolId | None) -> list[bytes]:
        """Where on this machine pools lie: as noted, where no database is to be opened for it."""
        places_ = [self.config.pool_url]
        if pool is None:
            places_ += places.noted_directories(self.home)
        else:
            places_ += [one.place for one in self.units.units() if one.server is None]
        return [os.fsencode(one) for one in places_ if places.is_directory_place(one)]

    def catch_up(self, rows: RowsReporter | None = None) -> int:
        """Feed the catalog the files of images it only knows by name; count those images.

        Args:
            rows: Is given the number of rows fed so far, of one image.
        """
        pending = self.catalog.pending()
        for image in pending:
            self.catalog.ingest(self.pools.holding(image), image, rows)
        self._index_machines(rows)
        return len(pending)

    def _index_machines(self, rows: RowsReporter | None) -> None:
        """Index the files inside of machines that wait for it; the catalog knows which can't be."""
        from holdfast.site.machine_indexes import bring_beside, index_machine

        for image in self.catalog.unindexed():
            pool = self.pools.holding(image)
            with contextlib.suppress(HoldfastError):
                index_machine(self.catalog, pool, image)
                bring_beside(self.catalog, self.pools, self.clock, image)
            for index in self.catalog.indexes_of(image):
                self.catalog.ingest(pool, index, rows)

    def expire(self, image: ImageId) -> None:
        """Let go of every copy of an image: first in its pool, then in the catalog.

        Raises:
            ImageMissing: There is no such image.
            ImageProtected: A hold or a lock keeps it; ClockDoubtful: perhaps a lock still does.
            StorageError: A pool that has it can't be reached; copies there, and nearer ones, stay.
        """
        from holdfast.site.retention import require_lock_is_over

        with self.catalog.letting_go(image):
            require_lock_is_over(self, image)
            for one in (*self.catalog.indexes_of(image), image):
                # What may be out of reach comes first: then all stays.
                for pool in reversed(self.pools.with_copy(one)):
                    # An earlier try may have ended between the two: the catalog alone still has it.
                    with contextlib.suppress(ImageMissing):
                        self.pools.of(pool).expire(one)
                    self.catalog.expire(one, pool)

    def rebuild_catalog(
        self, rows: RowsReporter | None = None
    ) -> tuple[RebuildResult, Path | None]:
        """Make the catalog anew from the site's pools alone.

        Returns:
            What was brought back; and where a damaged catalog is kept, with the holds and locks
            that it knew, if that was in the way.

        Raises:
            Busy: It is damaged, and another process serves the site: that one would go on writing
                to what is set aside.
        """
        from holdfast.control.catalog import set_aside

        _ = self.pool
        # What a note tells now is in the pool, which is read after this. A damaged note must
        # not stand in the way; nor may any go before the catalog has its image.
        noted = self.inbox.notes()
        aside = None
        self.close()
        try:
            self._catalog = self._open_catalog()
            result = self._rebuild(rows)
        except CatalogDamaged:
            self.close()
            # Commands that are quick need no sockets.
            from holdfast.site import local_socket

            local_socket.require_unserved(self.home)
            aside = set_aside(self.home / "catalog", self.clock)
            self._catalog = self._open_catalog()
            result = self._rebuild(rows)
        notes.forget(self, noted)
        return result, aside

    def _rebuild(self, rows: RowsReporter | None) -> RebuildResult:
        """From the site's own pool, and those of other units that can be reached."""
        own, others, unreached = self.pool, [], {}
        for unit in self.units.units():
            try:
                others.append(self.pools.of(unit.pool))
            except Unreachable as error:
                unreached[unit.name] = error.message
        result = self.catalog.rebuild(own, rows, others)
        for name, why in unreached.items():
            result = result.without(name, why)
        return result

    def refill_catalog(self, rows: RowsReporter | None = None) -> RebuildResult:
        """The same for a catalog that is open and may be in use: it stays where it is.

        Raises:
            CatalogDamaged: It can't be put right so; see `rebuild_catalog`.
        """
        noted = self.inbox.notes()
        result = self._rebuild(rows)
        notes.forget(self, noted)
        return result

    def close(self) -> None:
        """Close what is open. More than once is fine."""
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = None
        if self._database is not None:
            self._database.close()
            self._database = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @cached_property
    def _secret(self) -> Secret:
        # Kept for the life of the command, so that a person is asked once.
        return secrets.unlock(self.config, self._source)
