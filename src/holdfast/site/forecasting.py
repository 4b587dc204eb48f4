"""What will start when, as things stand: from policies, what was handled, and how long it took.

Must not change anything: a preview is not a promise kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING

from holdfast.control.broker import Kind, Resource
from holdfast.control.dispatch import HistoryBook, Roster, hosts
from holdfast.control.dispatch.roster import slots_of
from holdfast.control.jobs import JobKind, JobState, Outcome, Sort, Wanted
from holdfast.control.schedule import Demand, Timetable, forecast
from holdfast.site.whose_drives import drives_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from holdfast.base.ids import ClientName, PolicyName, SourceName
    from holdfast.control.schedule import Due, Expected
    from holdfast.site.master import Master

UNKNOWN = timedelta(minutes=10)
"""How long a backup is taken to last of which there was none."""

_LOOKED_BACK = 2000
_GOOD = (Outcome.COMPLETED, Outcome.COMPLETED_WITH_WARNINGS, Outcome.COMPLETED_WITH_ERRORS)
_UNENDED = (JobState.QUEUED, JobState.ACTIVE, JobState.ENDING)


@dataclass(frozen=True, slots=True)
class Upcoming:
    """One backup that is expected, and whose machine it is of."""

    client: ClientName
    expected: Expected


def upcoming(
    master: Master, since: datetime, until: datetime, only: PolicyName | None = None
) -> Iterator[Upcoming]:
    """Play all policies together, from one moment to another.

    Args:
        master: Whose.
        since: From when on, aware; what is overdue comes first.
        until: Until when.
        only: Hand back what concerns this policy; the others are in its way all the same.

    Raises:
        PolicyMissing: There is no such policy.
    """
    if only is not None:
        master.policies.get(only)
    policies = [one.policy for one in master.policies.snapshot().policies.values()]
    drives = drives_of(master.machines.standing)
    estate = master.hypervisors.estate()
    roster = Roster(policies, master.policies.known_clients().names, drives, estate=estate)
    entries = [
        entry for name in roster.policies if (entry := roster.entry(name, since)) is not None
    ]
    timetable = Timetable(master.zone, entries, HistoryBook(master.database).load())
    for job in master.jobs.each(Wanted(states=_UNENDED, kinds=(JobKind.BACKUP,), leaves=True)):
        if job.policy is not None and job.source is not None and job.due_at is not None:
            timetable.occupy(job.policy, job.source)
    lengths = _lengths(master)

    demands: dict[tuple[PolicyName, str, SourceName], Demand] = {}

    def demand(due: Due) -> Demand:
        key = due.policy, due.schedule, due.source
        known = demands.get(key)
        if known is None:
            known = demands[key] = demanded(due)
        return known

    def demanded(due: Due) -> Demand:
        member = roster.member(due.policy, due.source)
        schedule = roster.schedule(due.policy, due.schedule)
        needs = () if member is None else slots_of(member, due.kind)
        own = None if schedule is None else schedule.priority
        return Demand(
            duration=lengths.get((due.policy, due.source), UNKNOWN),
            needs=tuple(str(one) for one in needs),
            priority=roster.policies[due.policy].priority if own is None else own,
        )

    known = roster.limits() | hosts.limits(estate)
    slots = {str(one): limit for one, limit in known.items() if limit is not None}
    for unit, count in master.unit_slots().items():
        slots[str(Resource(Kind.STORAGE_UNIT_SLOTS, unit))] = count
    for one in forecast(timetable, since, until, demand, slots, only=only, keeps=False):
        member = roster.member(one.due.policy, one.due.source)
        if member is not None:
            yield Upcoming(member.of.client, one)


def _lengths(master: Master) -> dict[tuple[PolicyName, SourceName], timedelta]:
    """How long the latest backup of each source took."""
    found: dict[tuple[PolicyName, SourceName], timedelta] = {}
    wanted = Wanted(kinds=(JobKind.BACKUP,), outcomes=_GOOD, leaves=True)
    newest_first = master.jobs.each(wanted, Sort("ended_at", descending=True))
    for job in islice(newest_first, _LOOKED_BACK):
        if job.policy is not None and job.source is not None and job.duration is not None:
            found.setdefault((job.policy, job.source), job.duration)
    return found
