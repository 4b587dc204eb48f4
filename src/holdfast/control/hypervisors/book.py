"""Hypervisors in the control database, their credentials sealed, and what was found on them.

Must not speak to a hypervisor. Invariants: of one name there is one; credentials open for the name,
kind and address alone that they were given for; what was found stays known until it is found
otherwise, also while nobody answers.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.clock import from_ns
from holdfast.base.errors import AlreadyExists, NotFound
from holdfast.base.ids import ClientName
from holdfast.control import sealed
from holdfast.control.hypervisors.estate import Estate
from holdfast.control.hypervisors.hypervisor import (
    Hypervisor,
    VirtualMachine,
    hypervisor_name,
    require_at_once,
)
from holdfast.control.hypervisors.schema import hypervisors, virtual_machines
from holdfast.sources.machines.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from holdfast.base.clock import Clock
    from holdfast.control.database import Database

AT_ONCE = 500
"""So many machines are named by one statement."""

USE = b"holdfast hypervisor credentials v1"


class HypervisorBook:
    """The hypervisors of one site. Thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._estate = Estate()

    # -- what there is ----------------------------------------------------------------------

    def estate(self) -> Estate:
        """All of them, with their machines. Cheap while nothing is changed."""
        with self._lock:
            with self._database.read() as connection:
                version = _version(connection)
                if version == self._estate.version:
                    return self._estate
                rows = connection.execute(sa.select(hypervisors).order_by(hypervisors.c.name))
                known = [_hypervisor(row) for row in rows]
                found = [_machine(row) for row in connection.execute(sa.select(virtual_machines))]
            self._estate = Estate(known, found, version)
            return self._estate

    def hypervisor(self, name: str) -> Hypervisor:
        """One of them.

        Raises:
            NotFound: There is none of this name.
        """
        found = self.estate().hypervisors.get(name)
        if found is None:
            raise _unknown(name)
        return found

    def credentials(self, name: str, site_key: bytes) -> dict[str, str]:
        """What one lets in with; nothing where it needs none.

        Raises:
            NotFound: There is none of this name.
            WrongKey: The site's key does not open them.
        """
        with self._database.read() as connection:
            row = connection.execute(_one(name)).first()
        if row is None:
            raise _unknown(name)
        return _unsealed(row, site_key)

    # -- what changes -----------------------------------------------------------------------

    def add(self, new: Hypervisor, credentials: Mapping[str, str], site_key: bytes) -> Hypervisor:
        """Take one in.

        Args:
            new: It; when it was made is not looked at.
            credentials: What it lets in with; empty for nothing.
            site_key: Opens the site's own pool, and will open these.

        Raises:
            Invalid: It can't have this name, or these limits.
            AlreadyExists: There is one of this name.
        """
        hypervisor_name(new.name)
        _require_limits(new)
        row = {
            **_columns(new),
            "sealed_credentials": _sealed(new, credentials, site_key),
            "created_ns": self._clock.now_ns(),
            "revision": 1,
        }
        with self._database.write() as connection:
            if connection.execute(_one(new.name)).first() is not None:
                raise AlreadyExists(
                    f"there is a hypervisor '{new.name}' already",
                    "'holdfast hypervisor list' shows them",
                )
            connection.execute(sa.insert(hypervisors).values(row))
        return self.hypervisor(new.name)

    def change(
        self,
        new: Hypervisor,
        site_key: bytes,
        credentials: Mapping[str, str] | None = None,
    ) -> Hypervisor:
        """Have one be another: all of it but its name, and what was found.

        Args:
            new: What it is to be.
            site_key: As above.
            credentials: Others; None: as they were.

        Raises:
            NotFound: There is none of this name.
            Invalid: It can't have these limits.
            WrongKey: The site's key does not open its credentials.
        """
        _require_limits(new)
        with self._database.write() as connection:
            row = connection.execute(_one(new.name)).first()
            if row is None:
                raise _unknown(new.name)
            kept = _unsealed(row, site_key) if credentials is None else credentials
            values = _columns(new) | {"sealed_credentials": _sealed(new, kept, site_key)}
            self._set(connection, new.name, values)
        return self.hypervisor(new.name)

    def remove(self, name: str) -> None:
        """Forget one, and what was found on it. Images stay.

        Raises:
            NotFound: There is none of this name.
        """
        gone = sa.delete(hypervisors).where(hypervisors.c.name == name)
        with self._database.write() as connection:
            connection.execute(
                sa.delete(virtual_machines).where(virtual_machines.c.hypervisor == name)
            )
            if not connection.execute(gone).rowcount:
                raise _unknown(name)

    def found(self, name: str, machines: Iterable[Machine]) -> None:
        """Take what a hypervisor has: all its machines. The others are gone from there.

        Raises:
            NotFound: There is none of this name.
        """
        now_ns = self._clock.now_ns()
        there = {one.uuid: one for one in machines}
        mine = virtual_machines.c.hypervisor == name
        with self._database.write() as connection:
            told = {"looked_ns": now_ns, "tried_ns": now_ns, "problem": None}
            self._set(connection, name, told)
            rows = connection.execute(sa.select(virtual_machines).where(mine))
            known = {row.uuid: row for row in rows}
            gone = [row.uuid for row in known.values() if row.is_there and row.uuid not in there]
            stay = [uuid for uuid in there if uuid in known]
            seen = {"last_seen_ns": now_ns, "is_there": True}
            for some, values in (*_batches(gone, {"is_there": False}), *_batches(stay, seen)):
                these = sa.update(virtual_machines).where(mine, virtual_machines.c.uuid.in_(some))
                connection.execute(these.values(values))
            documents = {uuid: _document(one) for uuid, one in there.items()}
            changed = [
                {"of": uuid, "now": documents[uuid]}
                for uuid in stay
                if known[uuid].document != documents[uuid]
            ]
            if changed:
                this = sa.update(virtual_machines).where(
                    mine, virtual_machines.c.uuid == sa.bindparam("of")
                )
                connection.execute(this.values(document=sa.bindparam("now")), changed)
            new = [
                {"hypervisor": name, "uuid": uuid, "document": one, "first_seen_ns": now_ns, **seen}
                for uuid, one in documents.items()
                if uuid not in known
            ]
            if new:
                connection.execute(sa.insert(virtual_machines), new)

    def not_found(self, name: str, why: str) -> None:
        """Note that a hypervisor did not tell its machines: those known last are kept.

        Raises:
            NotFound: There is none of this name.
        """
        with self._database.write() as connection:
            self._set(connection, name, {"tried_ns": self._clock.now_ns(), "problem": why})

    @staticmethod
    def _set(connection: sa.Connection, name: str, values: Mapping[str, Any]) -> None:
        change = (
            sa.update(hypervisors)
            .where(hypervisors.c.name == name)
            .values({**values, "revision": hypervisors.c.revision + 1})
        )
        if not connection.execute(change).rowcount:
            raise _unknown(name)


def _document(one: Machine) -> str:
    return json.dumps(one.to_json(), ensure_ascii=False)


def _batches(
    uuids: Sequence[str], values: dict[str, Any]
) -> Iterator[tuple[Sequence[str], dict[str, Any]]]:
    """Machines, as many at a time as one statement may name, each with what they are set to."""
    for start in range(0, len(uuids), AT_ONCE):
        yield uuids[start : start + AT_ONCE], values


def _version(connection: sa.Connection) -> tuple[tuple[str, int, int], ...]:
    columns = hypervisors.c.name, hypervisors.c.created_ns, hypervisors.c.revision
    rows = connection.execute(sa.select(*columns).order_by(hypervisors.c.name))
    return tuple((row.name, row.created_ns, row.revision) for row in rows)


def _one(name: str) -> sa.Select[Any]:
    return sa.select(hypervisors).where(hypervisors.c.name == name)


def _columns(one: Hypervisor) -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": one.kind,
        "url": one.url,
        "proxy": one.proxy,
        "per_host": one.per_host,
        "per_datastore": one.per_datastore,
    }


def _require_limits(one: Hypervisor) -> None:
    require_at_once(one.per_host, "one host")
    require_at_once(one.per_datastore, "one datastore")


def _sealed(one: Hypervisor, credentials: Mapping[str, str], site_key: bytes) -> bytes | None:
    if not credentials:
        return None
    text = json.dumps(dict(credentials), sort_keys=True).encode()
    return sealed.seal(text, site_key, USE, _bound_to(one.name, one.kind, one.url))


def _unsealed(row: sa.Row[Any], site_key: bytes) -> dict[str, str]:
    if row.sealed_credentials is None:
        return {}
    what = f"the credentials of hypervisor '{row.name}'"
    bound_to = _bound_to(row.name, row.kind, row.url)
    text = sealed.unseal(row.sealed_credentials, site_key, USE, bound_to, what)
    return {str(name): str(value) for name, value in json.loads(text).items()}


def _bound_to(name: str, kind: str, url: str) -> bytes:
    # Whoever can write the database must not have them sent elsewhere.
    return json.dumps([name, kind, url]).encode()


def _hypervisor(row: sa.Row[Any]) -> Hypervisor:
    return Hypervisor(
        name=row.name,
        kind=row.kind,
        url=row.url,
        proxy=None if row.proxy is None else ClientName(row.proxy),
        has_credentials=row.sealed_credentials is not None,
        per_host=row.per_host,
        per_datastore=row.per_datastore,
        created_at=from_ns(row.created_ns),
        looked_at=None if row.looked_ns is None else from_ns(row.looked_ns),
        tried_at=None if row.tried_ns is None else from_ns(row.tried_ns),
        problem=row.problem,
    )


def _machine(row: sa.Row[Any]) -> VirtualMachine:
    return VirtualMachine(
        hypervisor=row.hypervisor,
        machine=Machine.from_json(json.loads(row.document)),
        first_seen_at=from_ns(row.first_seen_ns),
        last_seen_at=from_ns(row.last_seen_ns),
        is_there=row.is_there,
    )


def _unknown(name: str) -> NotFound:
    return NotFound(
        f"there is no hypervisor '{name[:80]}'",
        "'holdfast hypervisor list' shows which there are",
    )
