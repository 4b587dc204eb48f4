"""Storage units in the control database, each with the key of its pool, sealed.

Must not open a pool. Invariants: of one name there is one unit, and of one pool; the site's own
pool is none of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.clock import from_ns, to_ns
from holdfast.base.errors import AlreadyExists, Invalid, NotAPool, NotFound
from holdfast.base.ids import ClientName, PoolId
from holdfast.control import sealed
from holdfast.control.database import facts
from holdfast.control.storage.schema import storage_units
from holdfast.control.storage.unit import MOST_SLOTS, StorageUnit, unit_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.control.database import Database

USE = b"holdfast storage unit v1"
BEGUN_USE = b"holdfast storage unit begun v1"
_BEGUN = "storage-unit-begun"


class StorageBook:
    """The storage units of one site. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def units(self) -> list[StorageUnit]:
        """All but the site's own pool, by name."""
        query = sa.select(storage_units).order_by(storage_units.c.name)
        with self._database.read() as connection:
            return [_unit(row) for row in connection.execute(query)]

    def unit(self, name: str) -> StorageUnit:
        """One of them.

        Raises:
            NotFound: There is none of this name.
        """
        for one in self.units():
            if one.name == name:
                return one
        raise _unknown(name)

    def of_pool(self, pool: str) -> StorageUnit:
        """The one that a pool is.

        Raises:
            NotAPool: None is.
        """
        for one in self.units():
            if one.pool == pool:
                return one
        raise NotAPool(
            f"pool {pool} is not one of this site", "'holdfast storage list' shows which are"
        )

    def begin(self, server: str, place: str, key: bytes, site_key: bytes) -> bytes:
        """The key for a pool that a media server is about to make; kept until its unit is added.

        Args:
            server: The media server.
            place: Where on it.
            key: A new one, for the first time that this is asked of that place.
            site_key: Opens the site's own pool, and will open this key.

        Returns:
            The key that was given the first time: whatever became of that try, it is the pool's.

        Raises:
            WrongKey: The site's key does not open it.
        """
        name = _begun(server, place)
        with self._database.write() as connection:
            known = facts.get(connection, name)
            if known is None:
                made = sealed.seal(key, site_key, BEGUN_USE, name.encode())
                facts.put(connection, name, made.hex())
                return key
        what = f"the key of the pool that was begun at '{place}' on '{server}'"
        return sealed.unseal(bytes.fromhex(known), site_key, BEGUN_USE, name.encode(), what)

    def add(self, unit: StorageUnit, key: bytes, site_key: bytes) -> None:
        """Take one in.

        Args:
            unit: It.
            key: Opens its pool.
            site_key: Opens the site's own pool, and will open this key.

        Raises:
            Invalid: It can't have this name, or so many slots.
            AlreadyExists: There is one of this name, or of this pool.
        """
        unit_name(unit.name)
        _require_slots(unit.slots)
        row = {
            "name": unit.name,
            "pool_id": unit.pool,
            "place": unit.place,
            "server": unit.server,
            "urls": "[]",
            "slots": unit.slots,
            "sealed_key": sealed.seal(key, site_key, USE, bytes.fromhex(unit.pool)),
            "created_ns": 0 if unit.created_at is None else to_ns(unit.created_at),
        }
        with self._database.write() as connection:
            query = sa.select(storage_units.c.name).where(
                sa.or_(storage_units.c.name == unit.name, storage_units.c.pool_id == unit.pool)
            )
            there = connection.scalar(query)
            if there is not None:
                what = f"pool {unit.pool} is" if there != unit.name else "there is"
                raise AlreadyExists(
                    f"{what} storage unit '{there}' already",
                    "'holdfast storage list' shows them",
                )
            connection.execute(sa.insert(storage_units).values(row))
            if unit.server is not None:
                facts.forget(connection, _begun(unit.server, unit.place))

    def key(self, pool: str, site_key: bytes) -> bytes:
        """The key of a unit's pool.

        Raises:
            NotAPool: It is no unit's.
            WrongKey: The site's key does not open it.
        """
        query = sa.select(storage_units).where(storage_units.c.pool_id == pool)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise NotAPool(f"pool {pool} is not one of this site")
        what = f"the key of storage unit '{row.name}'"
        return sealed.unseal(row.sealed_key, site_key, USE, bytes.fromhex(pool), what)

    def set_slots(self, name: str, slots: int) -> StorageUnit:
        """Have a unit take another number of jobs at once.

        Raises:
            NotFound: There is none of this name.
            Invalid: There can't be so many.
        """
        _require_slots(slots)
        self._update(name, slots=slots)
        return self.unit(name)

    def urls(self, name: str) -> tuple[str, ...]:
        """Where the media server that owns a unit was last reached.

        Raises:
            NotFound: There is none of this name.
        """
        query = sa.select(storage_units.c.urls).where(storage_units.c.name == name)
        with self._database.read() as connection:
            found = connection.scalar(query)
        if found is None:
            raise _unknown(name)
        return tuple(json.loads(found))

    def reached(self, server: str, urls: Sequence[str]) -> None:
        """Note where a media server is reached now; nothing is written where that is known."""
        said = json.dumps(list(urls))
        theirs = storage_units.c.server == server, storage_units.c.urls != said
        with self._database.read() as connection:
            other = connection.scalar(sa.select(storage_units.c.name).where(*theirs).limit(1))
        if other is None:
            return
        with self._database.write() as connection:
            connection.execute(sa.update(storage_units).where(*theirs).values(urls=said))

    def remove(self, name: str) -> None:
        """Forget a unit. What is in its pool stays there.

        Raises:
            NotFound: There is none of this name.
        """
        with self._database.write() as connection:
            gone = sa.delete(storage_units).where(storage_units.c.name == name)
            if not connection.execute(gone).rowcount:
                raise _unknown(name)

    def _update(self, name: str, **values: Any) -> None:
        with self._database.write() as connection:
            change = sa.update(storage_units).where(storage_units.c.name == name).values(**values)
            if not connection.execute(change).rowcount:
                raise _unknown(name)


def _begun(server: str, place: str) -> str:
    return f"{_BEGUN}:{server}:{place}"


def _unit(row: sa.Row[Any]) -> StorageUnit:
    return StorageUnit(
        row.name,
        PoolId(row.pool_id),
        row.place,
        None if row.server is None else ClientName(row.server),
        row.slots,
        from_ns(row.created_ns),
    )


def _unknown(name: str) -> NotFound:
    return NotFound(
        f"there is no storage unit '{name[:80]}'", "'holdfast storage list' shows which there are"
    )


def _require_slots(slots: int) -> None:
    if not 1 <= slots <= MOST_SLOTS:
        raise Invalid(f"a storage unit can't take {slots} jobs at once", f"say 1 to {MOST_SLOTS:,}")
