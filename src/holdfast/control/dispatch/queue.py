"""Queued jobs, and which of them begin now.

Must not know what makes jobs. Invariants: what the broker has granted is what is at work, as the
book of jobs has it; a scheduled job begins while a window of its schedule is open, and one that
is not to run later is missed when the window closes.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from holdfast.base.errors import HoldfastError, WrongState
from holdfast.control.broker import Broker, Kind, Request, Resource
from holdfast.control.dispatch import hosts
from holdfast.control.dispatch.presence import NOBODY, Presence, session_of
from holdfast.control.dispatch.roster import BOOT_CHECKS, needs_of
from holdfast.control.dispatch.windows import Windows
from holdfast.control.hypervisors import Estate
from holdfast.control.jobs import JobKind, Ready

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime, tzinfo

    from holdfast.base.ids import JobId, PolicyName, SourceName
    from holdfast.control.broker import Need
    from holdfast.control.dispatch.roster import Roster
    from holdfast.control.jobs import Granted, Job, JobBook

    Slot = tuple[PolicyName | None, str | None]

_LOG = logging.getLogger("holdfast.dispatch")

EXPLAIN_EVERY = timedelta(seconds=5)
"""How often it is written down anew what jobs wait for."""


class Queue:
    """Who waits, and for what. Not thread-safe."""

    def __init__(
        self,
        jobs: JobBook,
        site_zone: tzinfo,
        slots: Callable[[], Mapping[str, int]],
        presence: Callable[[], Presence] = Presence,
        estate: Callable[[], Estate] = Estate,
        boot_checks: int = 1,
    ) -> None:
        """Begin with nobody.

        Args:
            jobs: The book.
            site_zone: The zone of schedules that name none.
            slots: How many jobs each storage unit takes at once now, by its name.
            presence: Which machines there are now, and which are connected.
            estate: The virtual machines that are known now.
            boot_checks: How many images are booted at once.
        """
        self._look_up_estate = estate
        self._estate = Estate()
        self._shared: dict[Resource, int | None] = {}
        self._look_who_is_there = presence
        self._presence = NOBODY
        self._jobs = jobs
        self._broker = Broker()
        self._broker.set_limit(BOOT_CHECKS, boot_checks)
        self._look_up_slots = slots
        self._slots: dict[str, int] = {}
        self._windows = Windows(site_zone)
        self._ready: dict[JobId, Ready] = {}
        self._at_work: dict[JobId, Ready] = {}
        self._fences: dict[JobId, int] = {}
        self._waiting_for_window: dict[JobId, str] = {}
        self._told: dict[JobId, tuple[str | None, str]] = {}
        self._roster: Roster | None = None
        self._explained_at: datetime | None = None
        self._looked_at: datetime | None = None
        self._good_until: datetime | None = None

    def step(self, now: datetime, roster: Roster) -> list[Granted]:
        """Look at who waits, and let begin what can."""
        self._take_limits(roster)
        self._take_slots()
        self._take_presence()
        self._take_estate()
        self._line_up()
        self._good_until = self._look_at_windows(now, roster)
        self._looked_at = now
        return self._give(now)

    def adopt(self, job: Job) -> None:
        """Count in a job that a machine is at work on, since before there was this queue."""
        self._take_slots()
        self._take_presence()
        self._take_estate()
        known = Ready(
            job.id,
            job.kind,
            job.policy,
            job.schedule,
            job.client,
            job.source,
            job.storage_unit,
            job.priority,
            job.queued_at,
            job.due_at,
            job.worker,
            job.backup_kind,
        )
        self._broker.adopt(job.id, self._needs(known))
        self._at_work[job.id] = known
        self._fences[job.id] = job.fence

    @property
    def presence(self) -> Presence:
        """Which machines there are, as of now."""
        return self._look_who_is_there()

    def give_out_freed(self, now: datetime) -> list[Granted] | None:
        """Let begin, of those that waited at the last step, what can; cheap, however many wait.

        Returns:
            None if a window has opened or closed since then, and a step is needed.
        """
        if self._looked_at is None or now < self._looked_at:
            return None
        if self._good_until is not None and now >= self._good_until:
            return None
        return self._give(now)

    def _give(self, now: datetime) -> list[Granted]:
        chosen = self._broker.round(now)
        try:
            granted = self._jobs.grant(chosen) if chosen else []
        except BaseException:
            # They did not begin, as far as anybody knows: what they would have had is free again.
            for job in chosen:
                self._broker.release(job)
                self._submit(self._ready[job])
            raise
        begun = {one.job.id for one in granted}
        self._fences |= {one.job.id: one.job.fence for one in granted}
        for job in chosen:
            known = self._ready.pop(job, None)
            if job not in begun:
                # Somebody cancelled or suspended it meanwhile.
                self._broker.release(job)
            elif known is not None:
                self._at_work[job] = known
        try:
            self._explain(now)
        except HoldfastError as error:
            # What began has to be told to its workers all the same.
            _LOG.warning("what jobs wait for could not be noted: %s", error.message)
            self._explained_at = None
        return granted

    def let_go(self, job: JobId, fence: int | None = None) -> None:
        """Take back what a job had that works no longer.

        Args:
            job: Which.
            fence: Under which it worked; if it has begun again since, under another one, nothing is
                taken back. None for whichever.
        """
        if fence is not None and self._fences.get(job, fence) != fence:
            return
        self._broker.release(job)
        self._at_work.pop(job, None)
        self._fences.pop(job, None)

    def sources_at_work(self) -> set[tuple[PolicyName | None, SourceName | None]]:
        """Whose backups have begun and were not let go yet."""
        return {
            (one.policy, one.source) for one in self._at_work.values() if one.kind is JobKind.BACKUP
        }

    def _take_limits(self, roster: Roster) -> None:
        if roster is self._roster:
            return
        known = {} if self._roster is None else self._roster.limits()
        limits = roster.limits()
        for resource in known.keys() - limits.keys():
            self._broker.set_limit(resource, None)
        for resource, limit in limits.items():
            self._broker.set_limit(resource, limit)
        self._roster = roster

    def _take_slots(self) -> None:
        slots = dict(self._look_up_slots())
        if slots == self._slots:
            return
        for unit in self._slots.keys() - slots.keys():
            self._broker.set_limit(Resource(Kind.STORAGE_UNIT_SLOTS, unit), None)
        for unit, count in slots.items():
            self._broker.set_limit(Resource(Kind.STORAGE_UNIT_SLOTS, unit), count)
        self._slots = slots

    def _take_presence(self) -> None:
        """Let jobs of machines that are not there wait for them."""
        before, now = self._presence, self._look_who_is_there()
        if before == now:
            return
        self._presence = now
        for machine in before.machines | now.machines:
            away = machine in now.machines and machine not in now.connected
            why = "as its certificate was revoked" if machine in now.revoked else None
            self._broker.set_limit(session_of(machine), 0 if away else None, why)
        if (before.agents, before.owners) == (now.agents, now.owners):
            return
        for one in self._ready.values():
            if now.differs_for(one, before) and one.id not in self._waiting_for_window:
                self._submit(one)

    def _take_estate(self) -> None:
        """Count backups of virtual machines by the hosts where they are now."""
        before, now = self._estate, self._look_up_estate()
        if before is now:
            return
        self._estate = now
        shared = hosts.limits(now)
        for resource in self._shared.keys() - shared.keys():
            self._broker.set_limit(resource, None)
        for resource, limit in shared.items():
            self._broker.set_limit(resource, limit)
        self._shared = shared
        for waiting in list(self._ready.values()):
            one = self._assigned(waiting)
            moved = hosts.needs_of_machine(one, now) != hosts.needs_of_machine(one, before)
            if (moved or one is not waiting) and one.id not in self._waiting_for_window:
                self._submit(one)

    def _assigned(self, job: Ready) -> Ready:
        """A job given to whoever reaches its virtual machine now."""
        worker = hosts.worker_of(job, self._estate)
        if worker is None or worker == job.worker:
            return job
        self._jobs.assign(job.id, worker)
        self._ready[job.id] = found = replace(job, worker=worker)
        return found

    def _needs(self, job: Ready) -> tuple[Need, ...]:
        machine = hosts.needs_of_machine(job, self._estate)
        return (*self._presence.needs(job), *needs_of(job), *machine)

    def _line_up(self) -> None:
        """Have the same jobs in line as the book has."""
        there = self._jobs.ready_ids()
        for job in self._ready.keys() - there:
            self._broker.withdraw(job)
            self._waiting_for_window.pop(job, None)
            del self._ready[job]
        for job in there.intersection(self._broker.granted):
            # The book gave its worker up, and could not tell.
            self.let_go(job)
        new = there - self._ready.keys()
        for one in self._jobs.ready(new) if new else []:
            self._ready[one.id] = one
            self._submit(self._assigned(one))

    def _submit(self, job: Ready) -> None:
        self._waiting_for_window.pop(job.id, None)
        self._broker.submit(Request(job.id, self._needs(job), job.priority, job.queued_at))

    def _look_at_windows(self, now: datetime, roster: Roster) -> datetime | None:
        """Keep jobs from beginning while the windows of their schedules are closed.

        Returns:
            When the first of these windows opens or closes; None for never.
        """
        changes: list[datetime] = []
        groups: dict[Slot, list[Ready]] = {}
        for one in self._ready.values():
            # What a person asked for begins when it can.
            if one.due_at is not None:
                groups.setdefault((one.policy, one.schedule), []).append(one)
        for (policy, name), some in groups.items():
            schedule = roster.schedule(policy, name) if policy and name else None
            standing = None if schedule is None else self._windows.standing(schedule, now)
            if standing is not None and standing.until is not None:
                changes.append(standing.until)
            for one in some:
                if standing is None or standing.is_open:
                    if one.id in self._waiting_for_window:
                        self._submit(one)
                elif schedule is not None and not schedule.run_missed:
                    self._miss(one)
                else:
                    self._broker.withdraw(one.id)
                    self._waiting_for_window[one.id] = standing.words
        return min(changes, default=None)

    def _miss(self, job: Ready) -> None:
        wait = self._broker.waits(job.id)
        waited = "" if wait is None else f"; it waited, as {wait.words}"
        # Somebody may have cancelled it meanwhile.
        with contextlib.suppress(WrongState):
            self._jobs.miss(job.id, f"its window closed before it could begin{waited}")
        self._broker.withdraw(job.id)

    def _explain(self, now: datetime) -> None:
        """Write down what queued jobs wait for, where that changed.

        What many wait for changes with every job that ends: that is not worth writing each time.
        """
        due = self._explained_at is None or not (
            timedelta() <= now - self._explained_at < EXPLAIN_EVERY
        )
        if due:
            self._explained_at = now
            waits = dict(self._broker.waiting())
        else:
            new = self._ready.keys() - self._told.keys()
            waits = {job: wait for job in new if (wait := self._broker.waits(job)) is not None}
        words = {
            job: (None if wait.on is None else str(wait.on), wait.words)
            for job, wait in waits.items()
        }
        words |= {job: ("window", said) for job, said in self._waiting_for_window.items()}
        news = {job: wait for job, wait in words.items() if self._told.get(job) != wait}
        if news:
            self._jobs.waits(news)
        if due:
            self._told = words
        else:
            self._told.update(news)
