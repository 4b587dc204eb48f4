"""What may be asked of the jobs of a site.

Must not change anything. A list is a page of rows; whoever wants all of them asks page by page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.control.jobs import events, lists, numbers, queue, store
from holdfast.control.jobs.events import WantedEvents
from holdfast.control.jobs.lists import Wanted
from holdfast.control.jobs.paging import Sort
from holdfast.control.jobs.queue import AT_WORK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from holdfast.base.clock import Clock
    from holdfast.base.ids import JobId, PolicyName, SourceName
    from holdfast.control.database import Database
    from holdfast.control.jobs.job import Event, Job
    from holdfast.control.jobs.lists import Visible
    from holdfast.control.jobs.numbers import Numbers
    from holdfast.control.jobs.paging import After
    from holdfast.control.jobs.queue import Ready

NEWEST_FIRST = Sort("id", descending=True)
IN_ORDER = Sort("seq")


class JobQuestions:
    """All jobs of a site, to be looked at. Thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Use a database of the newest schema.

        Args:
            database: Where jobs are kept.
            clock: Says which queued jobs may begin.
        """
        self._database = database
        self._clock = clock

    # -- the queue ------------------------------------------------------------------------

    def ready_ids(self) -> set[JobId]:
        """The queued jobs that may begin as soon as they have what they need."""
        now = self._clock.now()
        with self._database.read() as connection:
            return queue.ready_ids(connection, now)

    def ready(self, some: Iterable[JobId] | None = None) -> list[Ready]:
        """What the broker has to know of queued jobs that may begin, oldest first.

        Args:
            some: Of these only; None for all.
        """
        now = self._clock.now()
        with self._database.read() as connection:
            return queue.ready(connection, now, some)

    def at_work(self) -> list[Job]:
        """Jobs that workers have, oldest first; a restarted broker adopts them."""
        with self._database.read() as connection:
            return store.load_some(connection, *AT_WORK)

    def scheduled_sources(self) -> set[tuple[PolicyName, SourceName]]:
        """Policies and sources of which a job that a schedule made has not ended."""
        with self._database.read() as connection:
            return queue.scheduled_sources(connection)

    # -- lists ----------------------------------------------------------------------------

    def job(self, job: JobId) -> Job:
        """One job.

        Raises:
            JobMissing: There is no such job.
        """
        with self._database.read() as connection:
            return store.load(connection, job)

    def work(self, job: JobId) -> dict[str, Any]:
        """What a job is told to do, as it was enqueued; nothing for one that has parts.

        Raises:
            JobMissing: There is no such job.
        """
        with self._database.read() as connection:
            store.load(connection, job)
            return queue.work_of(connection, [job]).get(job, {})

    def page(
        self,
        wanted: Wanted | None = None,
        sort: Sort = NEWEST_FIRST,
        limit: int = 100,
        after: After | None = None,
    ) -> list[Job]:
        """Some of the jobs that are wanted, in order; see `lists.SORTS` and `lists.place`.

        Raises:
            Invalid: Nothing can be sorted by that, or there is no such place.
        """
        with self._database.read() as connection:
            return lists.page(connection, wanted or Wanted(), sort, limit, after)

    def each(self, wanted: Wanted | None = None, sort: Sort = NEWEST_FIRST) -> Iterator[Job]:
        """All jobs that are wanted, in order, however many there are.

        No transaction is open between two of them: what changes meanwhile may be seen.
        """
        after: After | None = None
        while True:
            page = self.page(wanted, sort, queue.AT_ONCE, after)
            yield from page
            if len(page) < queue.AT_ONCE:
                return
            after = lists.place(page[-1], sort)

    def count(self, wanted: Wanted | None = None) -> int:
        """How many jobs are wanted."""
        with self._database.read() as connection:
            return lists.count(connection, wanted or Wanted())

    def events(
        self,
        job: JobId,
        wanted: WantedEvents | None = None,
        sort: Sort = IN_ORDER,
        limit: int = 100,
        after: After | None = None,
    ) -> list[Event]:
        """Some events of a job, in order; see `events.SORTS` and `events.place`.

        How many were left out is told by the job.

        Raises:
            JobMissing: There is no such job.
            Invalid: Nothing can be sorted by that, or there is no such place.
        """
        with self._database.read() as connection:
            store.load(connection, job)
            return events.page(connection, job, wanted or WantedEvents(), sort, limit, after)

    def each_event(
        self, job: JobId, wanted: WantedEvents | None = None, sort: Sort = IN_ORDER
    ) -> Iterator[Event]:
        """All events of a job that are wanted, in order, however many there are.

        Raises:
            JobMissing: There is no such job.
        """
        after: After | None = None
        while True:
            page = self.events(job, wanted, sort, queue.AT_ONCE, after)
            yield from page
            if len(page) < queue.AT_ONCE:
                return
            after = events.place(page[-1], sort)

    def numbers(self, since: datetime, until: datetime, visible: Visible | None = None) -> Numbers:
        """What a dashboard shows: jobs by state now, outcomes over a time, what is waited for."""
        with self._database.read() as connection:
            return numbers.numbers(connection, since, until, visible)
