"""Jobs that a person asked for: a policy at once, paths by hand, restores, care for the site.

Must not wait for it: the job is queued, and a master that is at work begins it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast.base import labels
from holdfast.base.errors import Invalid
from holdfast.base.ids import ADHOC, ClientName, ImageId, SourceName, source_name
from holdfast.control.dispatch import Roster, by_hand
from holdfast.control.dispatch.roster import WHOLE
from holdfast.control.jobs import JobKind, NewJob
from holdfast.control.schedule import BackupKind
from holdfast.movers.backup_run import DEFAULT_COMPRESSION, absolute_paths
from holdfast.site.master import STORAGE_UNIT
from holdfast.site.probing import this_client
from holdfast.site.whole_backups import whole_backup
from holdfast.site.whose_drives import drives_of
from holdfast.wire.messages import BackupWork, RestoreWork

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from holdfast.base.ids import JobId, PolicyName
    from holdfast.control.catalog import ImageRow
    from holdfast.site.master import Master
    from holdfast.wire.messages import SiteWork


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
    drives = drives_of(master.machines.standing)
    clients_known = master.policies.known_clients().names
    estate = master.hypervisors.estate()
    roster = Roster([stored.policy], clients_known, drives, master.how_divided, estate)
    return by_hand(
        roster,
        policy,
        lambda source: master.catalog.newest_of_kind(source, WHOLE),
        schedule,
        kind,
        clients,
    )


def site_job(
    kind: JobKind,
    work: SiteWork,
    client: ClientName | None = None,
    source: SourceName | None = None,
) -> NewJob:
    """Make the job that does something for the site as a whole; see `site.steward`.

    Args:
        kind: What is said of it.
        work: What to do.
        client: Whose images alone it is about.
        source: The one source that it is about.
    """
    return NewJob(
        kind=kind,
        work=work.to_json(),
        client=client,
        source=source,
        storage_unit=work.unit or STORAGE_UNIT,
    )


def adhoc_job(
    paths: Sequence[bytes],
    *,
    exclude: Sequence[str] = (),
    full: bool = False,
    one_file_system: bool = False,
    compression: int = DEFAULT_COMPRESSION,
) -> NewJob:
    """Make the job that backs up paths of this machine, as ``holdfast backup`` does.

    Args:
        paths: Absolute.
        exclude: Rules in gitignore syntax.
        full: Read every file.
        one_file_system: Stay on the file system that each path is on.
        compression: zstd level.

    Raises:
        Invalid: Nothing is named.
        PathMissing: Something is not there.
        NoPermission: This process may not look at something.
    """
    client = this_client()
    chosen = absolute_paths(list(paths), b"/", nested=one_file_system)
    kind = BackupKind.FULL if full else BackupKind.DIFFERENTIAL
    work = BackupWork(
        client=client,
        source=source_name(client, chosen),
        paths=tuple(os.fsdecode(path) for path in chosen),
        exclude=tuple(exclude),
        one_file_system=one_file_system,
        compression=compression,
        read_all=full,
        labels={labels.POLICY: ADHOC, labels.KIND: kind},
    )
    return NewJob(
        kind=JobKind.BACKUP,
        work=work.to_json(),
        policy=ADHOC,
        client=client,
        source=SourceName(work.source),
        backup_kind=kind,
        storage_unit=STORAGE_UNIT,
    )


def with_other_streams(master: Master, work: RestoreWork) -> RestoreWork:
    """A restore with the images that are one backup with its image.

    Raises:
        Invalid: They lie in different storage units.
    """
    image = master.catalog.image(ImageId(work.image))
    others = whole_backup(master.catalog, image).images[1:]
    if not others:
        return work
    pool = master.pool_with(image.id)
    for one in others:
        if pool not in master.site.pools.with_copy(one.id):
            raise Invalid(
                f"image {one.id} of '{one.source}', which is one backup with image {image.id}, is "
                "in another storage unit",
                "restore each by itself: --only-this, or only_this of the API",
            )
    return replace(work, also=tuple(one.id for one in others))


def restore_job(master: Master, image: ImageRow, work: RestoreWork) -> NewJob:
    """Make the job that restores an image, or parts of it, where the work says.

    It takes a slot of the storage unit that has the image, as far as that is known.
    """
    unit = master.site.pools.unit_of(master.pool_with(image.id))
    return NewJob(
        kind=JobKind.RESTORE,
        work=work.to_json(),
        policy=ADHOC,
        client=this_client() if work.client is None else ClientName(work.client),
        source=image.source,
        storage_unit=unit,
    )


def enqueue(master: Master, job: NewJob) -> JobId:
    """Queue it; of a family, the id is that of the whole."""
    (queued,) = master.jobs.enqueue([job])
    return queued.id


def clients_of(job: NewJob) -> set[str]:
    """Whose data a job takes."""
    return {one.client for one in (job, *job.parts) if one.client is not None}
