"""Run a policy at once, because a person asked for it.

Must not wait for it: the job is queued, and a master that is at work begins it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.ids import ADHOC, ClientName
from holdfast.control.dispatch import Roster, by_hand
from holdfast.control.dispatch.roster import WHOLE
from holdfast.control.jobs import JobKind, NewJob
from holdfast.movers.drives import local_paths
from holdfast.site.master import STORAGE_UNIT
from holdfast.wire.messages import RestoreWork, SiteWork

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast.base.ids import JobId, PolicyName
    from holdfast.control.catalog import ImageRow
    from holdfast.control.schedule import BackupKind
    from holdfast.site.master import Master


def job_of(
    master: Master,
    policy: PolicyName,
    schedule: str | None = None,
    kind: BackupKind | None = None,
    clients: Collection[ClientName] = (),
) -> NewJob:
    """Make the job that backs up what a policy says; see `control.dispatch.by_hand`.

    Raises:
        PolicyMissing: There is no such policy.
        NotFound: It has no such schedule.
        Invalid: It is for no such client.
    """
    stored = master.policies.get(policy)
    roster = Roster([stored.policy], master.policies.known_clients().names, local_paths)
    return by_hand(
        roster,
        policy,
        lambda source: master.catalog.newest_of_kind(source, WHOLE),
        schedule,
        kind,
        clients,
    )


def site_job(kind: JobKind, verb: str) -> NewJob:
    """Make the job that does something for the site as a whole; see `site.steward`."""
    return NewJob(kind=kind, work=SiteWork(verb).to_json(), storage_unit=STORAGE_UNIT)


def restore_job(image: ImageRow, work: RestoreWork) -> NewJob:
    """Make the job that restores an image, or parts of it, on this machine."""
    return NewJob(
        kind=JobKind.RESTORE,
        work=work.to_json(),
        policy=ADHOC,
        client=ClientName(image.host),
        source=image.source,
        storage_unit=STORAGE_UNIT,
    )


def enqueue(master: Master, job: NewJob) -> JobId:
    """Queue it; of a family, the id is that of the whole."""
    (queued,) = master.jobs.enqueue([job])
    return queued.id


def clients_of(job: NewJob) -> set[str]:
    """Whose data a job takes."""
    return {one.client for one in (job, *job.parts) if one.client is not None}
