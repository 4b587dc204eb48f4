"""The pools of a site: its own, and those of its other storage units.

Must not decide which one data goes to. Invariants: each is opened once in a process, when it is
first needed, and is the one that the site knows by this id; nobody waits for a pool that another
one is being opened.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from holdfast.base.errors import HoldfastError, ImageMissing, NotAPool, Unreachable, WrongKey
from holdfast.base.ids import DEFAULT_STORAGE_UNIT, pool_id
from holdfast.vault import PoolKey, open_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from holdfast.base.ids import ImageId, PoolId, SourceName
    from holdfast.control.catalog import Catalog
    from holdfast.control.storage import StorageBook, StorageUnit
    from holdfast.engine import Pool


class Pools:
    """The pools of one site. Thread-safe.

    Attributes:
        open_owned: Opens the pool of a unit that a media server owns: unit, key, directory for the
            index.
        is_away: Whether it is known that the media server of a unit can't be reached now.
    """

    def __init__(
        self,
        own: PoolId,
        open_own: Callable[[], Pool],
        site_key: Callable[[], bytes],
        units: Callable[[], StorageBook],
        catalog: Callable[[], Catalog],
        cache: Path,
    ) -> None:
        """Nothing is opened yet.

        Args:
            own: The id of the site's own pool.
            open_own: Opens that.
            site_key: Its key.
            units: The other storage units.
            catalog: Knows which pools have an image.
            cache: A directory for copies of indexes.
        """
        self._own = own
        self._open_own = open_own
        self._site_key = site_key
        self._units = units
        self._catalog = catalog
        self._cache = cache
        self._lock = threading.Lock()
        self._opened: dict[str, Pool] = {}
        self._opening: dict[str, threading.Lock] = {}
        self.is_away: Callable[[StorageUnit], bool] = lambda _: False
        self.open_owned: Callable[[StorageUnit, bytes, Path], Pool] = _nobody

    def of(self, pool: str) -> Pool:
        """The pool of an id.

        Raises:
            NotAPool: It is gone, or none of this site.
            WrongKey: It does not open, or another pool is in its place.
            StorageError: It can't be reached now.
        """
        if pool != self._own:
            self._require_there(pool)
        with self._lock:
            opening = self._opening.setdefault(pool, threading.Lock())
        with opening:
            found = self._opened.get(pool)
            if found is None:
                found = self._opened[pool] = self._open(pool)
            return found

    def _require_there(self, pool: str) -> None:
        """Say at once what it would take long to find out."""
        unit = self._units().of_pool(pool)
        if unit.server is not None and self.is_away(unit):
            raise Unreachable(
                f"media server '{unit.server}', which owns storage unit '{unit.name}', is not "
                "connected, or can't use its disk",
                "'holdfast storage list' says how it is",
            )

    def known(self, pool: str) -> Pool | None:
        """The pool of an id; None if the site knows none of it."""
        try:
            return self.of(pool)
        except NotAPool:
            return None

    def forget(self, pool: str) -> None:
        """Open a pool anew when it is needed next: it is reached elsewhere now."""
        self._opened.pop(pool, None)

    def of_unit(self, name: str | None) -> PoolId:
        """The id of a storage unit's pool; None is the site's own.

        Raises:
            NotFound: There is no such unit.
        """
        if name is None or name == DEFAULT_STORAGE_UNIT:
            return self._own
        return self._units().unit(name).pool

    def is_near(self, pool: str) -> bool:
        """Whether this process reaches a pool by itself; else a media server owns it.

        Raises:
            NotAPool: It is none of this site.
        """
        return pool == self._own or self._units().of_pool(pool).server is None

    def unit_of(self, pool: str) -> str:
        """The name of the storage unit that a pool is.

        Raises:
            NotAPool: It is none.
        """
        return DEFAULT_STORAGE_UNIT if pool == self._own else self._units().of_pool(pool).name

    def with_copy(self, image: ImageId) -> list[PoolId]:
        """Pools that have an image, as far as the catalog knows: those first that all reach."""
        far = {one.pool for one in self._units().units() if one.server is not None}
        copies = [one.pool for one in self._catalog().copies(image)]
        return sorted(copies, key=lambda one: (one != self._own, one in far))

    def prepare(self, pool: PoolId, source: SourceName) -> Pool:
        """A pool that the next image of a source goes into; it follows those in other pools.

        Images are told apart by their numbers, which each pool gives by itself.
        """
        opened = self.of(pool)
        newest = self._catalog().newest_of([source]).get(source)
        if newest is not None and self.with_copy(newest) != [pool]:
            opened.go_on_above(self._catalog().image(newest).number)
        return opened

    def holding(self, *images: ImageId) -> Pool:
        """A pool that has images and can be read now: the site's own, if that has them.

        That is found without the catalog, so that what it has can be restored without one.

        Raises:
            ImageMissing: None has all of them.
            HoldfastError: Those that do can't be reached.
        """
        own = self.of(self._own)
        try:
            for image in images:
                own.image(image)
        except ImageMissing as missing:
            return self._elsewhere(images, missing)
        return own

    def _elsewhere(self, images: Sequence[ImageId], missing: ImageMissing) -> Pool:
        failure: HoldfastError = missing
        for pool in self._others_with(images):
            try:
                found = self.of(pool)
                for image in images:
                    found.image(image)
            except HoldfastError as error:
                failure = error
            else:
                return found
        raise failure

    def _others_with(self, images: Sequence[ImageId]) -> list[PoolId]:
        if not self._units().units():
            return []
        first, *others = (self.with_copy(image) for image in images)
        common = set(first).intersection(*others) - {self._own}
        return [one for one in first if one in common]

    def _open(self, pool: str) -> Pool:
        if pool == self._own:
            return self._open_own()
        unit = self._units().of_pool(pool)
        key = self._units().key(pool, self._site_key())
        self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if unit.server is not None:
            opened = self.open_owned(unit, key, self._cache)
        else:
            opened = open_pool(unit.place, secret=PoolKey(key), cache_dir=self._cache)
        if pool_id(opened.id) != unit.pool:
            raise WrongKey(
                f"the pool of storage unit '{unit.name}' at {unit.place} is another one",
                "another pool was put in its place, or another disk is mounted there",
            )
        return opened


def _nobody(unit: StorageUnit, _key: bytes, _cache: Path) -> Pool:
    raise Unreachable(
        f"storage unit '{unit.name}' is on media server '{unit.server}', and nobody speaks to it "
        "from here"
    )
