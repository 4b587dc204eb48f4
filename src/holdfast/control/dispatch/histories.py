"""What was handled of each schedule, kept: so that nothing is due twice, and nothing is lost.

Must not decide what is due: see schedule. Invariant: what is noted goes back only where the clock
was put back by more than `TOLERATED`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.clock import from_ns, to_ns
from holdfast.base.ids import PolicyName, SourceName
from holdfast.control.database.upsert import insert
from holdfast.control.dispatch.schema import histories
from holdfast.control.schedule import History

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from holdfast.control.database import Database
    from holdfast.control.schedule import Due

Key = tuple[PolicyName, str, SourceName]
"""Policy, schedule, source."""

TOLERATED = timedelta(hours=1)
"""Of a clock that is put back by less nothing is due again: schedules wait until it caught up."""


class HistoryBook:
    """The histories of a site. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, policies: Iterable[PolicyName] | None = None) -> list[History]:
        """What is known, of some policies or of all."""
        query = sa.select(histories)
        if policies is not None:
            query = query.where(histories.c.policy.in_(list(policies)))
        with self._database.read() as connection:
            return [_history(row) for row in connection.execute(query)]

    def begin(self, keys: Sequence[Key], now: datetime) -> None:
        """Note since when occurrences count, of what is not known yet."""
        if not keys:
            return
        rows = [
            {"policy": policy, "schedule": schedule, "source": source, "since_ns": to_ns(now)}
            for policy, schedule, source in keys
        ]
        with self._database.write() as connection:
            connection.execute(insert(connection, histories).on_conflict_do_nothing(), rows)

    def handled(self, handed_out: Sequence[Due], now: datetime) -> None:
        """Note occurrences that became jobs, were satisfied by one, or were missed."""
        rows: dict[Key, dict[str, Any]] = {}
        for one in handed_out:
            started = None if one.missed else to_ns(now)
            of = [(one.schedule, one.due_at, started)]
            of += [(other.schedule, other.due_at, started) for other in one.satisfies]
            for schedule, due_at, start in of:
                key = (one.policy, schedule, one.source)
                row = rows.setdefault(key, _row(key, now))
                row["handled_ns"] = _later(row["handled_ns"], to_ns(due_at))
                row["last_start_ns"] = _later(row["last_start_ns"], start)
        if not rows:
            return
        key_columns = [histories.c.policy, histories.c.schedule, histories.c.source]
        with self._database.write() as connection:
            statement = insert(connection, histories)
            new = statement.excluded
            later = {
                name: _greatest(histories.c[name], new[name])
                for name in ("handled_ns", "last_start_ns")
            }
            connection.execute(
                statement.on_conflict_do_update(index_elements=key_columns, set_=later),
                list(rows.values()),
            )

    def take_back(self, now: datetime) -> int:
        """Forget what is noted of a time that has not come, as the clock was put back since.

        Of a schedule that was handled until next year nothing would be due until then. What
        became a job already does not become one again: see `control.jobs.enqueue`.

        Returns:
            Of how many schedules, counted for each source, that was.
        """
        now_ns, until_ns = to_ns(now), to_ns(now + TOLERATED)
        columns = (histories.c.handled_ns, histories.c.last_start_ns, histories.c.since_ns)
        ahead = sa.or_(*(one > until_ns for one in columns))
        with self._database.read() as connection:
            count = connection.scalar(
                sa.select(sa.func.count()).select_from(histories).where(ahead)
            )
        if not count:
            return 0
        back = {one.name: sa.case((one > until_ns, now_ns), else_=one) for one in columns}
        with self._database.write() as connection:
            return connection.execute(sa.update(histories).where(ahead).values(back)).rowcount

    def forget(self, policies: Collection[PolicyName]) -> None:
        """Forget policies that start nothing any more: what comes later begins anew."""
        if not policies:
            return
        with self._database.write() as connection:
            connection.execute(sa.delete(histories).where(histories.c.policy.in_(list(policies))))


def _row(key: Key, now: datetime) -> dict[str, Any]:
    policy, schedule, source = key
    return {
        "policy": policy,
        "schedule": schedule,
        "source": source,
        "since_ns": to_ns(now),
        "handled_ns": None,
        "last_start_ns": None,
    }


def _later(known: int | None, other: int | None) -> int | None:
    return max((one for one in (known, other) if one is not None), default=None)


def _greatest(known: sa.ColumnElement[Any], new: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The later of two moments of which each may be missing, on either database."""
    return sa.case((known.is_(None), new), (new.is_(None), known), (new > known, new), else_=known)


def _history(row: sa.Row[Any]) -> History:
    return History(
        policy=PolicyName(row.policy),
        schedule=row.schedule,
        source=SourceName(row.source),
        handled_until=None if row.handled_ns is None else from_ns(row.handled_ns),
        last_start=None if row.last_start_ns is None else from_ns(row.last_start_ns),
        since=from_ns(row.since_ns),
    )
