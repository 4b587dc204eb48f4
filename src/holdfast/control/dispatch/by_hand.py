"""The job of a policy that a person wants to run at once.

Must not enqueue it, nor ask a database. What is run by hand is no occurrence of a schedule: it
waits for no window, and what is due stays due.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid, NotFound
from holdfast.control.dispatch.roster import backup_of, family
from holdfast.control.schedule import BackupKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from holdfast.base.ids import ClientName, ImageId, PolicyName, SourceName
    from holdfast.control.dispatch.roster import Roster
    from holdfast.control.jobs import NewJob
    from holdfast.control.schedule import Schedule


def by_hand(
    roster: Roster,
    policy: PolicyName,
    newest_whole: Callable[[SourceName], ImageId | None],
    schedule: str | None = None,
    kind: BackupKind | None = None,
    clients: Collection[ClientName] = (),
) -> NewJob:
    """Make the job, with a part for each source.

    Args:
        roster: Has the policy.
        policy: Its name.
        newest_whole: What a cumulative incremental of a source is compared with.
        schedule: Run it as this schedule would: its kind, its retention; None for no schedule.
        kind: How; None for the kind of the schedule, or differential.
        clients: Of these only; none: of all that the policy is for.

    Raises:
        NotFound: There is no such schedule.
        Invalid: The policy is for no such client, or for none.
    """
    named = None if schedule is None else _schedule(roster, policy, schedule)
    members = roster.members(policy)
    there = {one.of.client for one in members}
    for client in clients:
        if client not in there:
            raise Invalid(
                f"policy '{policy}' is not for client '{client}'",
                f"it is for {', '.join(sorted(there)) or 'none that is known'}",
            )
    chosen = [one for one in members if not clients or one.of.client in clients]
    if not chosen:
        raise Invalid(
            f"policy '{policy}' is for no client that is known, nor for a virtual machine, so "
            "there is nothing to run",
            "name clients in the policy, or change its query",
        )
    how = kind or (BackupKind.DIFFERENTIAL if named is None else named.kind)
    return family([backup_of(one, how, named, newest_whole) for one in chosen])


def _schedule(roster: Roster, policy: PolicyName, name: str) -> Schedule:
    found = roster.schedule(policy, name)
    if found is None:
        known = roster.policies[policy].schedules
        listed = ", ".join(f"'{one.name}'" for one in known) or "none"
        raise NotFound(f"policy '{policy}' has no schedule '{name}'", f"it has {listed}")
    return found
