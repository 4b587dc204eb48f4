"""What is due, of all policies, into the book of jobs.

Must not give jobs out: see queue. Invariants: an occurrence is a job before it counts as handled,
so that a process killed between the two hands it out again, and the book knows it; histories are
kept of what is active, and begin anew with what becomes so.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from holdfast.base import long_lived
from holdfast.base.ids import machine_of
from holdfast.control.dispatch.roster import WHOLE, Roster, backup_of, family
from holdfast.control.hypervisors import Estate
from holdfast.control.jobs import JobKind, JobState, Wanted
from holdfast.control.policies import undivided
from holdfast.control.schedule import Timetable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
    from datetime import datetime, tzinfo

    from holdfast.base.ids import ClientName, ImageId, PolicyName, SourceName
    from holdfast.control.catalog import Catalog
    from holdfast.control.dispatch.histories import HistoryBook
    from holdfast.control.jobs import Job, JobBook, NewJob
    from holdfast.control.policies import PolicyBook, Split, SplitKey
    from holdfast.control.schedule import Due, Entry

MANY = 1000
"""With so many policies, what is known of them is worth being passed over by collections."""

IDLE_EVERY = timedelta(seconds=5)
"""How often it is looked for sources that wait for a job which is no more."""

AT_ONCE = 2000
"""So many occurrences become jobs in one step."""

_LOG = logging.getLogger("holdfast.dispatch")
_UNENDED = (JobState.QUEUED, JobState.ACTIVE, JobState.ENDING)
_BACKUPS = (JobKind.BACKUP,)


def _always_the_same() -> object:
    """For a site whose machines are this one alone."""
    return None


class Agenda:
    """Policies, and what was handled of them. Not thread-safe.

    Attributes:
        roster: The policies as they were at the last `refresh`.
    """

    def __init__(
        self,
        policies: PolicyBook,
        jobs: JobBook,
        histories: HistoryBook,
        catalog: Catalog,
        site_zone: tzinfo,
        drives: Callable[[ClientName], Sequence[str]],
        drives_version: Callable[[], object] = _always_the_same,
        splits: Callable[[SplitKey], Split | None] = undivided,
        estate: Callable[[], Estate] = Estate,
    ) -> None:
        """Know nothing yet.

        Args:
            policies: What is to be protected.
            jobs: Where what is due goes.
            histories: What was handled of each schedule.
            catalog: Knows the images that a cumulative incremental is compared with.
            site_zone: The zone of schedules that name none.
            drives: Where a client's local file systems are mounted.
            drives_version: Something else whenever that, or a split, may have changed.
            splits: How a path is divided into streams; None if that is not known yet.
            estate: The virtual machines that are known.
        """
        self._estate = estate
        self._splits = splits
        self._drives_version = drives_version
        self._policies = policies
        self._jobs = jobs
        self._histories = histories
        self._catalog = catalog
        self._site_zone = site_zone
        self._drives = drives
        self._timetable = Timetable(site_zone)
        self._entries: dict[PolicyName, Entry] = {}
        self._version: object = None
        self._idle_at: datetime | None = None
        self.roster = Roster((), (), drives)

    @property
    def is_known(self) -> bool:
        """Whether there is nothing that a `refresh` has to begin anew."""
        return self._version is not None

    def refresh(self, now: datetime) -> None:
        """Take over what changed in policies and clients; little is done where nothing did."""
        snapshot = self._policies.snapshot()
        clients = self._policies.known_clients()
        estate = self._estate()
        version = snapshot.generation, clients.names, self._drives_version(), estate.version
        if version == self._version:
            return
        policies = (one.policy for one in snapshot.policies.values())
        self.roster = Roster(policies, clients.names, self._drives, self._splits, estate)
        entries = {name: self.roster.entry(name, now) for name in self.roster.policies}
        found = {name: entry for name, entry in entries.items() if entry is not None}
        if self._version is None:
            self._begin(found, now)
        else:
            self._change(found, now)
        self._entries = found
        self._version = version

    def hand_out(self, now: datetime) -> list[Due]:
        """Make jobs of what has become due, and remember that."""
        due = self._timetable.due(now, AT_ONCE)
        if not due:
            return []
        try:
            begun = self._enqueue(due)
            self._histories.handled(due, now)
        except BaseException:
            # The timetable takes them for handled, and the books may not: begin anew from those.
            self._version = None
            raise
        for one in begun:
            self._timetable.occupy(one.policy, one.source)
        return due

    def clock_was_put_back(self) -> None:
        """Take up schedules anew where they were handled until a time that has not come."""
        self._version = None

    def _enqueue(self, due: Sequence[Due]) -> list[Due]:
        """Make jobs; those of them that are to begin."""
        families: dict[tuple[PolicyName, Hashable], list[NewJob]] = {}
        begun = []
        newest = self._catalog.newest_of({one.source for one in due if not one.missed})
        for one in due:
            job = self._job(one, newest.get(one.source))
            if job is None:
                continue
            # What begins together on one client is one job in parts; so are virtual machines.
            together = None if machine_of(one.source) else job.client
            key = one.policy, (one.schedule, one.due_at, one.missed, together)
            families.setdefault(key, []).append(job)
            if not one.missed:
                begun.append(one)
        answers = self._jobs.enqueue([family(parts) for parts in families.values()])
        # Of what was there already, some may have ended: that occupies nothing.
        known = {
            one[0] for one, answer in zip(families, answers, strict=True) if not answer.is_whole
        }
        self._occupy(known)
        return [one for one in begun if one.policy not in known]

    def ended(self, job: Job) -> None:
        """Let a source be backed up again: the job that its schedule made has ended."""
        # What a person asked for occupied nothing.
        if job.kind is not JobKind.BACKUP or job.due_at is None:
            return
        if job.policy is not None and job.source is not None:
            self._timetable.release(job.policy, job.source)

    def let_go_of_idle(
        self, now: datetime, at_work: Collection[tuple[PolicyName | None, SourceName | None]]
    ) -> None:
        """Let sources be backed up again whose jobs ended without a worker: cancelled, or missed.

        Args:
            now: The moment; little is done where the last time was just before.
            at_work: Sources whose jobs have begun: their end is told by `ended`.
        """
        if self._idle_at is not None and timedelta() <= now - self._idle_at < IDLE_EVERY:
            return
        self._idle_at = now
        occupied = self._timetable.occupied() - set(at_work)
        for policy, source in occupied - self._jobs.scheduled_sources() if occupied else ():
            self._timetable.release(policy, source)

    def next_moment(self) -> datetime | None:
        """When something is due if nothing else happens; None if nothing ever will be."""
        return self._timetable.next_moment()

    def newest_whole(self, source: SourceName) -> ImageId | None:
        """What a cumulative incremental of a source is compared with."""
        return self._catalog.newest_of_kind(source, WHOLE)

    def _begin(self, entries: dict[PolicyName, Entry], now: datetime) -> None:
        if ahead := self._histories.take_back(now):
            _LOG.warning(
                "%d schedules were handled until a time that has not come, as the clock was "
                "put back: they go on from now",
                ahead,
            )
        known = {one.policy for one in self._histories.load()}
        self._histories.forget(known - entries.keys())
        self._histories.begin(_keys(entries.values()), now)
        self._timetable = Timetable(self._site_zone, entries.values(), self._histories.load())
        self._occupy(entries.keys())
        if len(entries) > MANY:
            long_lived.set_aside()

    def _change(self, entries: dict[PolicyName, Entry], now: datetime) -> None:
        gone = self._entries.keys() - entries.keys()
        for name in gone:
            self._timetable.drop(name)
        self._histories.forget(gone)
        changed = {
            name: entry
            for name, entry in entries.items()
            if name not in self._entries or replace(self._entries[name], since=entry.since) != entry
        }
        self._histories.begin(_keys(changed.values()), now)
        histories = self._histories.load(changed)
        for name, entry in changed.items():
            self._timetable.put(entry, [one for one in histories if one.policy == name])
        self._occupy(changed.keys())

    def _occupy(self, names: Collection[PolicyName]) -> None:
        if not names:
            return
        for job in self._jobs.each(Wanted(states=_UNENDED, kinds=_BACKUPS, leaves=True)):
            if job.policy is None or job.source is None or job.due_at is None:
                continue
            if job.policy in names:
                self._timetable.occupy(job.policy, job.source)

    def _job(self, due: Due, newest: ImageId | None) -> NewJob | None:
        member = self.roster.member(due.policy, due.source)
        schedule = self.roster.schedule(due.policy, due.schedule)
        if member is None or schedule is None:
            return None
        made = backup_of(member, due.kind, schedule, self.newest_whole, due.due_at, newest)
        if not due.missed:
            return made
        more = f", nor {due.collapsed} before it" if due.collapsed else ""
        return replace(made, missed=f"it could not begin in time{more}")


def _keys(entries: Iterable[Entry]) -> list[tuple[PolicyName, str, SourceName]]:
    return [
        (entry.policy, schedule.name, source)
        for entry in entries
        for schedule in entry.schedules
        for source in entry.sources
    ]
