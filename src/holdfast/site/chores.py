"""What a site has to do for itself: keep house by day, keep its catalog in the pool, feed it.

Must not do what a worker does: chores that take long become jobs, and are seen as such. Invariant:
a chore is queued once for each time that it is due.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from holdfast.base.clock import to_ns
from holdfast.base.errors import HoldfastError
from holdfast.base.units import parse_clock_time
from holdfast.control.catalog import Feeder
from holdfast.control.database import facts
from holdfast.control.jobs import JobKind, JobState, NewJob, Outcome, Sort, Wanted
from holdfast.site import retention
from holdfast.site.machine_indexes import MachineIndexer, bring_beside
from holdfast.site.master import STORAGE_UNIT
from holdfast.site.steward import EXPIRE, PROTECT
from holdfast.wire.messages import SiteWork

if TYPE_CHECKING:
    from holdfast.base.ids import ImageId
    from holdfast.site.master import Master

HOUSEKEEPING = "housekeeping"
"""What stands in the place of a schedule's name."""

_LOOK = timedelta(seconds=30)
"""How often it is looked whether a chore is due."""

_LOOK_AT_CLOCK_S = 3600.0
"""How often it is remembered what the clock shows."""

NEWEST_END = Sort("ended_at", descending=True)

_LOG = logging.getLogger("holdfast.chores")
_UNENDED = (JobState.QUEUED, JobState.ACTIVE, JobState.ENDING)


class Chores:
    """The chores of one master. Not thread-safe."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._looked_at: datetime | None = None
        self._clock_looked_at_s: float | None = None
        self._doubt: str | None = None
        self._feeder = Feeder(master.catalog, master.site.pools.of)
        self._indexer = MachineIndexer(master.catalog, master.site.pools.holding, self._indexed)

    def _indexed(self, image: ImageId) -> None:
        bring_beside(self._master.catalog, self._master.site.pools, self._master.clock, image)
        self._feeder.wake()

    def queue_what_is_due(self) -> None:
        """Queue chores whose time has come; cheap when it was called just before."""
        now = self._master.clock.now()
        if self._looked_at is not None and timedelta() <= now - self._looked_at < _LOOK:
            return
        self._looked_at = now
        self._look_at_clock()
        self._keep_house(now)
        self._protect(now)
        self._feeder.start()
        self._indexer.start()
        self.image_came()

    def image_came(self) -> None:
        """A job may have ended with an image: the catalog hears of it, and is fed its files."""
        self._hear_notes()
        self._feeder.wake()
        self._indexer.wake()

    def close(self) -> None:
        """Wait for what is under way; then the catalog has heard of every image."""
        self._indexer.stop()
        self._feeder.stop()
        self._hear_notes()
        self._looked_at = None

    def _look_at_clock(self) -> None:
        """Seldom enough to cost nothing, often enough to know when this site was last at work."""
        now_s, last_s = time.monotonic(), self._clock_looked_at_s
        if last_s is not None and now_s - last_s < _LOOK_AT_CLOCK_S:
            return
        self._clock_looked_at_s = now_s
        doubt = retention.look_at_clock(self._master.site)
        if doubt is not None and self._doubt is None:
            _LOG.warning("nothing is let go: %s; hint: %s", doubt, retention.TRUST)
        self._doubt = doubt

    def _keep_house(self, now: datetime) -> None:
        """Once a day, at the time that is set."""
        master = self._master
        at = parse_clock_time(master.settings.text("housekeeping.at"))
        today = now.astimezone(master.zone).date()
        days = (today, today - timedelta(days=1))
        moments = (datetime.combine(day, at, master.zone).astimezone(UTC) for day in days)
        due_at = next(one for one in moments if one <= now)
        with master.database.read() as connection:
            done = facts.get(connection, HOUSEKEEPING)
        if done is None or int(done) > to_ns(now):
            # A site that was never served before begins with the next time; so does one whose clock
            # was ahead, and must not wait until it is there again.
            self._note_kept_house(now)
        elif int(done) < to_ns(due_at):
            self._queue_expiry(due_at)
            self._note_kept_house(due_at)

    def _note_kept_house(self, moment: datetime) -> None:
        with self._master.database.write() as connection:
            facts.put(connection, HOUSEKEEPING, str(to_ns(moment)))

    def _queue_expiry(self, due_at: datetime) -> None:
        new = NewJob(
            kind=JobKind.EXPIRE,
            work=SiteWork(EXPIRE).to_json(),
            schedule=HOUSEKEEPING,
            storage_unit=STORAGE_UNIT,
            due_at=due_at,
        )
        self._master.jobs.enqueue([new])

    def _protect(self, now: datetime) -> None:
        """When something changed, nothing is at work, and the last time is long enough ago."""
        master = self._master
        after = timedelta(seconds=master.settings.seconds("catalog.protect-after"))
        with master.database.read() as connection:
            noted = facts.get(connection, facts.PROTECTED)
        last_ns, last_state = json.loads(noted) if noted else (0, None)
        if 0 <= to_ns(now) - last_ns < to_ns(now) - to_ns(now - after):
            return
        # A machine that runs from its image may do so for days.
        short = tuple(one for one in JobKind if one is not JobKind.INSTANT)
        at_work = master.jobs.page(Wanted(states=_UNENDED, kinds=short), limit=1)
        if next(iter(at_work), None) is not None:
            return
        state = self._state()
        if state == last_state and not self._failed_last():
            return
        master.jobs.enqueue(
            [
                NewJob(
                    kind=JobKind.CATALOG_BACKUP,
                    work=SiteWork(PROTECT).to_json(),
                    storage_unit=STORAGE_UNIT,
                )
            ]
        )
        with master.database.write() as connection:
            facts.put(connection, facts.PROTECTED, json.dumps([to_ns(now), state]))

    def _state(self) -> list[int]:
        """What changes when something worth keeping does."""
        master = self._master
        # That the catalog was kept is no reason to keep it again.
        others = tuple(one for one in JobKind if one is not JobKind.CATALOG_BACKUP)
        wanted = Wanted(states=(JobState.ENDED,), kinds=others)
        ended = master.jobs.page(wanted, NEWEST_END, limit=1)
        return [
            next((one.id for one in ended), 0),
            master.policies.snapshot().generation,
            master.audit.head().seq,
            *master.catalog.protection_state(),
        ]

    def _failed_last(self) -> bool:
        """Whether the catalog could not be kept when that was last tried."""
        wanted = Wanted(states=(JobState.ENDED,), kinds=(JobKind.CATALOG_BACKUP,))
        last = self._master.jobs.page(wanted, NEWEST_END, limit=1)
        return any(one.outcome is not Outcome.COMPLETED for one in last)

    def _hear_notes(self) -> None:
        """Those of commands that were given while the site is served, and our own."""
        try:
            self._master.site.hear_notes()
        except HoldfastError as error:
            _LOG.warning("%s", error.message)
