"""Instant recoveries in the control database.

Must not decide what becomes of one: see `site.instant`. Invariants: an image is held from before
its machine begins until that has ended; what has ended stays as it is.
"""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.clock import from_ns
from holdfast.base.errors import AlreadyExists, NotFound
from holdfast.base.ids import ImageId, JobId
from holdfast.control.catalog import protection, registry
from holdfast.control.database.exclusion import PROTECTION, exclusively
from holdfast.control.instant.schema import instant_recoveries as table

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast.base.clock import Clock
    from holdfast.control.database import Database


class Ending(enum.StrEnum):
    """What became of one."""

    OWN = "own"
    """It was moved, and is a machine like others."""
    DISCARDED = "discarded"
    FAILED = "failed"
    """It could not be begun, and nothing of it is left."""


@dataclass(frozen=True, slots=True)
class NewInstant:
    """A machine that is to run from its image.

    Attributes:
        image: Which image.
        hypervisor: Where, by its name in the site.
        machine: The uuid that it is to have.
        name: What it is to be called.
        label: Names it among those of all sites; part of a path.
        begun_by: Who wants it.
        keep_identity: With the uuid and MAC addresses that it had.
        networks: What its cards are connected to; None: as they were; empty: to nothing.
        storage: Where the hypervisor puts its disks; None: its usual place.
        format: Of its disks, in the end.
    """

    image: ImageId
    hypervisor: str
    machine: str
    name: str
    label: str
    begun_by: str
    keep_identity: bool = True
    networks: tuple[str, ...] | None = None
    storage: str | None = None
    format: str = "qcow2"


@dataclass(frozen=True, slots=True)
class InstantRecovery:
    """One that is known.

    Attributes:
        id: Its number.
        new: What was wanted.
        begun_at: When.
        was_up: Whether the machine was up once.
        serve_job: The job that serves its image; None for the moment before there is one.
        migrate_job: The newest that is to move it.
        discard_job: The newest that is to throw it away.
        ended_at: When it ended; None if it has not.
        ending: How.
    """

    id: int
    new: NewInstant
    begun_at: datetime
    was_up: bool = False
    serve_job: JobId | None = None
    migrate_job: JobId | None = None
    discard_job: JobId | None = None
    ended_at: datetime | None = None
    ending: Ending | None = field(default=None)

    @property
    def hold(self) -> str:
        """The reason for which its image is held."""
        return f"instant recovery {self.id} runs from it"


_WANTED = ("keep_identity", "networks", "storage", "format")


class InstantBook:
    """The instant recoveries of one site. Thread-safe; several processes may have it open."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add(self, new: NewInstant) -> InstantRecovery:
        """Note one, and hold its image.

        Raises:
            ImageMissing: The catalog does not have the image.
            AlreadyExists: One that has not ended has the name or uuid, on the same hypervisor.
        """
        now_ns = self._clock.now_ns()
        plain = asdict(new)
        row = {
            **{key: value for key, value in plain.items() if key not in _WANTED},
            "wanted": json.dumps({key: plain[key] for key in _WANTED}),
            "begun_ns": now_ns,
            "was_up": False,
        }
        same = sa.select(table.c.id).where(
            table.c.ended_ns.is_(None),
            table.c.hypervisor == new.hypervisor,
            sa.or_(table.c.name == new.name, table.c.machine == new.machine),
        )
        with exclusively(self._database, PROTECTION), self._database.write() as connection:
            registry.source_of(connection, new.image)
            known = connection.scalar(same)
            if known is not None:
                raise AlreadyExists(
                    f"instant recovery {known} has a machine of the name '{new.name}', or of its "
                    f"uuid, on hypervisor '{new.hypervisor}'",
                    "begin with --new-identity and another --name, or end that one first",
                )
            made = connection.execute(sa.insert(table).values(row))
            (number,) = made.inserted_primary_key or (0,)
            found = InstantRecovery(int(number), new, from_ns(now_ns))
            protection.hold(connection, new.image, found.hold, now_ns)
        return found

    def get(self, number: int) -> InstantRecovery:
        """One of them.

        Raises:
            NotFound: There is none of that number.
        """
        with self._database.read() as connection:
            row = connection.execute(sa.select(table).where(table.c.id == number)).one_or_none()
        if row is None:
            raise NotFound(
                f"there is no instant recovery {number}", "'holdfast instant list' shows them"
            )
        return _of(row)

    def all(self, *, ended: bool = True) -> list[InstantRecovery]:
        """All of them, the newest first; without those that have ended, if that is said."""
        query = sa.select(table).order_by(table.c.id.desc())
        if not ended:
            query = query.where(table.c.ended_ns.is_(None))
        with self._database.read() as connection:
            return [_of(row) for row in connection.execute(query)]

    def note(self, number: int, **jobs: int | bool) -> None:
        """Note a job, or that the machine was up, of one that has not ended."""
        change = sa.update(table).where(table.c.id == number, table.c.ended_ns.is_(None))
        with self._database.write() as connection:
            connection.execute(change.values(**jobs))

    def end(self, one: InstantRecovery, ending: Ending) -> None:
        """Note that one has ended, and let go of its image."""
        change = sa.update(table).where(table.c.id == one.id, table.c.ended_ns.is_(None))
        values: dict[str, Any] = {"ended_ns": self._clock.now_ns(), "ending": str(ending)}
        with self._database.write() as connection:
            connection.execute(change.values(**values))
            protection.unhold(connection, one.new.image, one.hold)


def _of(row: Any) -> InstantRecovery:
    wanted = json.loads(row.wanted)
    networks = wanted["networks"]
    new = NewInstant(
        image=ImageId(row.image),
        hypervisor=row.hypervisor,
        machine=row.machine,
        name=row.name,
        label=row.label,
        begun_by=row.begun_by,
        keep_identity=wanted["keep_identity"],
        networks=None if networks is None else tuple(networks),
        storage=wanted["storage"],
        format=wanted["format"],
    )
    return InstantRecovery(
        id=row.id,
        new=new,
        begun_at=from_ns(row.begun_ns),
        was_up=row.was_up,
        serve_job=_job(row.serve_job),
        migrate_job=_job(row.migrate_job),
        discard_job=_job(row.discard_job),
        ended_at=None if row.ended_ns is None else from_ns(row.ended_ns),
        ending=None if row.ending is None else Ending(row.ending),
    )


def _job(number: int | None) -> JobId | None:
    return None if number is None else JobId(number)
