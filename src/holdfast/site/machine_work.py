"""What work with virtual machines is told only when it is given out.

Must not give it out. Invariants: credentials are added here and written down nowhere; a backup
follows the newest image of its machine in its storage unit; a checkpoint that another storage
unit's next backup will ask for is named to be kept, so that they do not undo each other's.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from holdfast.base.errors import HoldfastError, MachineMissing
from holdfast.base.ids import ClientName, ImageId, SourceName
from holdfast.control.jobs import BY_SITE
from holdfast.movers.machines.record import read_record
from holdfast.site.hypervisors import reached
from holdfast.wire.machine_work import InstantWork, MachineRestoreWork, MachineWork

if TYPE_CHECKING:
    from holdfast.control.jobs import Job
    from holdfast.site.master import Master
    from holdfast.wire.messages import Work

_LOG = logging.getLogger("holdfast.machines")


def complete(master: Master, job: Job, work: Work) -> Work:
    """Work as a worker is to have it; what is not about virtual machines, as it is.

    Raises:
        MachineMissing: The machine is nowhere any more.
        NotFound: The hypervisor is not known any more.
        WrongKey: The site's key does not open its credentials.
    """
    if isinstance(work, MachineWork):
        return _backup(master, job, work)
    if isinstance(work, MachineRestoreWork) and work.hypervisor is not None:
        hypervisor = master.hypervisors.hypervisor(work.hypervisor)
        return replace(work, reached=reached(master, hypervisor), proxy=_proxy(job))
    if isinstance(work, InstantWork):
        hypervisor = master.hypervisors.hypervisor(work.hypervisor)
        begun = any(one.was_up for one in master.instants.all() if one.new.label == work.label)
        how = reached(master, hypervisor)
        return replace(work, reached=how, proxy=_proxy(job), begun=begun)
    return work


def _backup(master: Master, job: Job, work: MachineWork) -> MachineWork:
    one = master.hypervisors.estate().machines.get(work.machine)
    if one is None or not one.is_there:
        raise MachineMissing(
            f"virtual machine '{work.name}' ({work.machine}) is on no hypervisor any more",
            "'holdfast hypervisor discover' looks again; its images are kept as its policy says",
        )
    hypervisor = master.hypervisors.hypervisor(one.hypervisor)
    return replace(
        work,
        name=one.machine.name,
        hypervisor=one.hypervisor,
        reached=reached(master, hypervisor),
        proxy=_proxy(job),
        parent=None if work.read_all else _parent(master, job, SourceName(work.source)),
        keep=_keep(master, job, SourceName(work.source)),
    )


def _proxy(job: Job) -> str | None:
    return None if job.worker is None or job.worker == BY_SITE else job.worker


def _parent(master: Master, job: Job, source: SourceName) -> ImageId | None:
    pool = master.site.pools.of_unit(job.storage_unit)
    return master.catalog.newest_of([source], pool).get(source)


def _keep(master: Master, job: Job, source: SourceName) -> tuple[str, ...]:
    """Checkpoints of the images that backups to other storage units will follow."""
    mine, found = master.site.pools.of_unit(job.storage_unit), set()
    for pool in {master.site.pool_id, *(one.pool for one in master.units.units())} - {mine}:
        image = master.catalog.newest_of([source], pool).get(source)
        # One that is here, too, is a copy: what is followed is the newest that was made there.
        if image is None or mine in {one.pool for one in master.catalog.copies(image)}:
            continue
        try:
            opened = master.site.pools.of(pool)
            record = read_record(partial(opened.open_file, image))
        except HoldfastError as error:
            _LOG.warning("checkpoint of image %s is not known: %s", image, error.message)
            continue
        found |= set() if record.checkpoint is None else {record.checkpoint}
    return tuple(sorted(found))


def worker_of(proxy: ClientName | None) -> ClientName:
    """Who does work on a hypervisor that a proxy reaches."""
    return BY_SITE if proxy is None else proxy
