"""Pools that a media server reaches as the master does: object stores, directories that all mount.

Must not speak to the master, nor decide which pools there are. Invariants: what the master says of
them, keys too, is in memory alone; one that can't be reached costs nobody but those who want it,
and is tried again; a pool that the master names no more is used no more.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast.base.errors import Busy, HoldfastError, NotAPool, Unreachable
from holdfast.base.ids import pool_id
from holdfast.vault import open_pool

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from holdfast.engine import Pool
    from holdfast.vault import PoolKey

_LOG = logging.getLogger("holdfast.media")

LOOK_S: Final = 30.0
"""A store that is silent for so long is as good as gone."""


@dataclass(frozen=True, slots=True)
class SharedPool:
    """One of them, as the master says.

    Attributes:
        place: A directory or URL.
        key: Opens it.
    """

    place: str
    key: PoolKey = field(repr=False)


@dataclass(eq=False)
class _Known:
    said: SharedPool
    opened: Pool | None = None
    problem: str | None = None
    opening: threading.Thread | None = None


class SharedPools:
    """Those of one media server. Thread-safe."""

    def __init__(self, cache: Path) -> None:
        """Nothing was said yet.

        Args:
            cache: A directory for copies of indexes, made where it is missing.
        """
        self._cache = cache
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    def know(self, said: Mapping[str, SharedPool]) -> None:
        """Have these and no others; `look` opens them."""
        with self._lock:
            before = self._known
            self._known = {
                pool: before[pool] if pool in before and before[pool].said == one else _Known(one)
                for pool, one in said.items()
            }

    def has(self, pool: str) -> bool:
        """Whether there is one of this id, open or not."""
        with self._lock:
            return pool in self._known

    def get(self, pool: str) -> Pool:
        """A pool that is open.

        Raises:
            NotAPool: There is none of this id.
            Unreachable: It can't be opened.
            Busy: It is being opened.
        """
        with self._lock:
            known = self._known.get(pool)
        if known is None:
            raise NotAPool(f"this media server has no pool {pool[:64]}")
        if known.opened is not None:
            return known.opened
        if known.problem is not None:
            raise Unreachable(f"pool {pool} can't be used here: {known.problem}")
        raise Busy(f"pool {pool} is being opened")

    @property
    def open(self) -> tuple[str, ...]:
        """Ids of those that are open."""
        with self._lock:
            return tuple(sorted(one for one, its in self._known.items() if its.opened is not None))

    @property
    def problems(self) -> dict[str, str]:
        """Why the others are not, in words, by id."""
        with self._lock:
            return {one: its.problem for one, its in self._known.items() if its.problem is not None}

    def look(self, within_s: float = LOOK_S) -> None:
        """Open what is not open and can be; a store that stands still is waited for by nobody."""
        with self._lock:
            closed = {pool: one for pool, one in self._known.items() if one.opened is None}
        for pool, one in closed.items():
            if one.opening is None or not one.opening.is_alive():
                one.opening = threading.Thread(
                    target=self._try, args=(pool, one), name=f"open-{pool[:8]}", daemon=True
                )
                one.opening.start()
        for one in closed.values():
            if one.opening is not None:
                one.opening.join(within_s)
                if one.opening.is_alive():
                    one.problem = "what it lies in does not answer"

    def _try(self, pool: str, one: _Known) -> None:
        try:
            self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            opened = open_pool(one.said.place, secret=one.said.key, cache_dir=self._cache)
            if pool_id(opened.id) != pool:
                one.problem = "another pool is in its place"
                return
        except HoldfastError as error:
            one.problem = error.message
        except OSError as error:
            one.problem = f"its index can't be kept in {self._cache}: {error.strerror}"
        else:
            one.opened, one.problem = opened, None
            _LOG.info("pool %s is open here", pool)
