"""The audit log in the control database: it only ever grows.

Must not decide what is told: whoever acts does. Invariants: rows are numbered from 1 without a gap,
each hashed with the one before; who appends holds the writer's lock of the database, so no two rows
follow the same one.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast.base.clock import to_ns
from holdfast.control.access import chain
from holdfast.control.access.schema import audit, audit_head
from holdfast.control.database.upsert import insert

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from datetime import datetime

    from holdfast.base.clock import Clock
    from holdfast.control.access.chain import Entry, Head, Row, Verification
    from holdfast.control.database import Database

_THE_HEAD = 1
_AT_ONCE = 5000
_LAST_NS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows are wanted: those that fit everything that is given.

    Attributes:
        who: The name of a principal.
        what: An operation.
        about: A thing, or a kind of things if it ends with ``/``.
        outcome: How it ended.
        since: Not before.
        until: Before.
    """

    who: str | None = None
    what: str | None = None
    about: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def condition(self, connection: sa.Connection) -> sa.ColumnElement[bool]:
        """The same for a database.

        Args:
            connection: It knows whose words to use.
        """
        wanted: list[sa.ColumnElement[bool]] = [sa.true()]
        equal = (
            (audit.c.who, self.who),
            (audit.c.what, self.what),
            (audit.c.outcome, self.outcome),
        )
        wanted += [column == value for column, value in equal if value is not None]
        if self.about is not None and self.about.endswith("/"):
            # What begins so, as a range: "0" is next to "/", if bytes are compared.
            server = connection.dialect.name == "postgresql"
            column = audit.c.object.collate("C") if server else audit.c.object
            wanted += [column > self.about, column < self.about[:-1] + "0"]
        elif self.about is not None:
            wanted.append(audit.c.object == self.about)
        if self.since is not None or self.until is not None:
            wanted.append(self._when(connection))
        return sa.and_(*wanted)

    def _when(self, connection: sa.Connection) -> sa.ColumnElement[bool]:
        times: list[sa.ColumnElement[bool]] = [sa.true()]
        if self.since is not None:
            times.append(audit.c.at_ns >= _storable(self.since))
        if self.until is not None:
            times.append(audit.c.at_ns < _storable(self.until))
        # Rows are listed by their numbers. Which of these may fit, the index of times tells; else
        # a database would look through all rows for the few of a day.
        ends = sa.select(sa.func.min(audit.c.seq), sa.func.max(audit.c.seq)).where(*times)
        first, last = connection.execute(ends).one()
        return sa.false() if first is None else sa.and_(audit.c.seq.between(first, last), *times)


EVERYTHING = Filter()


class AuditLog:
    """The audit log of one site. Thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def append(self, entry: Entry) -> Row:
        """Add a row; durable on return."""
        with self._database.write() as connection:
            return self.append_on(connection, entry)

    def append_on(self, connection: sa.Connection, entry: Entry) -> Row:
        """Add a row in a transaction of the caller, which has to be a writing one."""
        row = chain.next_row(_head(connection), self._clock.now_ns(), entry)
        connection.execute(
            sa.insert(audit).values(
                seq=row.seq,
                at_ns=row.at_ns,
                who=entry.who,
                what=entry.what,
                object=entry.about,
                outcome=entry.outcome,
                details=entry.details,
                previous=row.previous,
                hash=row.hash,
            )
        )
        there = {"seq": row.seq, "hash": row.hash}
        connection.execute(
            insert(connection, audit_head)
            .values(id=_THE_HEAD, **there)
            .on_conflict_do_update(index_elements=[audit_head.c.id], set_=there)
        )
        return row

    def head(self) -> Head:
        """The end of the chain, to be kept elsewhere."""
        with self._database.read() as connection:
            return _head(connection)

    def rows(
        self,
        wanted: Filter = EVERYTHING,
        *,
        limit: int,
        after: int | None = None,
        newest_first: bool = True,
    ) -> list[Row]:
        """Some rows.

        Args:
            wanted: Which.
            limit: How many at most.
            after: The number of the row before the first of these, in the order asked for.
            newest_first: Whether that order goes back in time.
        """
        statement = sa.select(audit).limit(limit)
        if after is not None:
            statement = statement.where(
                audit.c.seq < after if newest_first else audit.c.seq > after
            )
        order = audit.c.seq.desc() if newest_first else audit.c.seq
        with self._database.read() as connection:
            chosen = statement.where(wanted.condition(connection)).order_by(order)
            return [_row(one) for one in connection.execute(chosen)]

    def verify(self, expected: Iterable[Head] = ()) -> Verification:
        """Follow the whole chain, and hold it against heads that were kept elsewhere.

        Memory does not grow with the log. What is appended meanwhile is not looked at.
        """
        with self._database.read() as connection:
            kept = _head(connection)
            # A broken chain is not read to its end, and leaves no cursor open.
            with contextlib.closing(_all(connection)) as rows:
                found = chain.verify(rows, [*expected])
        if found.broken is not None or found.head == kept:
            return found
        # The rows agree with each other: then it is the note of their end that was changed.
        why = f"the log's own note says that row {kept.seq} is the last"
        at = min(kept.seq, found.head.seq) + 1
        return chain.Verification(found.rows, found.head, chain.Break(at, why))


def _head(connection: sa.Connection) -> Head:
    row = connection.execute(sa.select(audit_head).where(audit_head.c.id == _THE_HEAD)).first()
    return chain.Head() if row is None else chain.Head(row.seq, row.hash)


def _all(connection: sa.Connection) -> Generator[Row, None, None]:
    statement = sa.select(audit).order_by(audit.c.seq).execution_options(yield_per=_AT_ONCE)
    with connection.execute(statement) as found:
        for one in found:
            yield _row(one)


def _storable(moment: datetime) -> int:
    """In ns; a moment that no row can have is brought to the end of what one can."""
    return max(min(to_ns(moment), _LAST_NS), -_LAST_NS)


def _row(one: sa.Row[tuple[object, ...]]) -> Row:
    entry = chain.Entry(one.who, one.what, one.object, one.outcome, one.details)
    return chain.Row(one.seq, one.at_ns, entry, one.previous, one.hash)
