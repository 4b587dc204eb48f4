"""What backups of virtual machines share: hosts that run them, datastores that their disks are on.

Pure. Invariant: what a job needs is of where its machine is now, wherever it was when the job was
made. Fulls of machines that share a host follow each other, as each reads for as long as it takes;
incrementals pass by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.ids import machine_of
from holdfast.control.broker import Kind, Need, Resource
from holdfast.control.jobs import BY_SITE, JobKind
from holdfast.control.schedule import BackupKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.base.ids import ClientName
    from holdfast.control.hypervisors import Estate, VirtualMachine
    from holdfast.control.jobs import Ready

FULLS_PER_HOST = 1


def needs_of_machine(job: Ready, estate: Estate) -> tuple[Need, ...]:
    """What a backup of a virtual machine takes of its host and datastores; nothing of files."""
    uuid = None if job.source is None or job.kind is not JobKind.BACKUP else machine_of(job.source)
    one = None if uuid is None else estate.machines.get(uuid)
    return () if one is None else tuple(map(Need, shared(one, job.backup_kind)))


def worker_of(job: Ready, estate: Estate) -> ClientName | None:
    """Who is to back a virtual machine up, where it is now; None for other jobs."""
    uuid = None if job.source is None or job.kind is not JobKind.BACKUP else machine_of(job.source)
    one = None if uuid is None else estate.machines.get(uuid)
    hypervisor = None if one is None else estate.hypervisors.get(one.hypervisor)
    return None if hypervisor is None else hypervisor.proxy or BY_SITE


def shared(one: VirtualMachine, kind: str | None) -> Iterator[Resource]:
    """What a backup of a kind takes one of each of."""
    if kind == BackupKind.FULL:
        yield _of(Kind.HOST_FULLS, one.machine.host, one.hypervisor)
    yield _of(Kind.HOST_BACKUPS, one.machine.host, one.hypervisor)
    for datastore in dict.fromkeys(one.machine.datastores):
        yield _of(Kind.DATASTORE_BACKUPS, datastore, one.hypervisor)


def limits(estate: Estate) -> dict[Resource, int | None]:
    """How much of all that there is."""
    found: dict[Resource, int | None] = {}
    for one in estate.machines.values():
        hypervisor = estate.hypervisors.get(one.hypervisor)
        if hypervisor is None:
            continue
        found[_of(Kind.HOST_FULLS, one.machine.host, one.hypervisor)] = FULLS_PER_HOST
        found[_of(Kind.HOST_BACKUPS, one.machine.host, one.hypervisor)] = hypervisor.per_host
        for name in one.machine.datastores:
            found[_of(Kind.DATASTORE_BACKUPS, name, one.hypervisor)] = hypervisor.per_datastore
    return found


def _of(kind: Kind, name: str, hypervisor: str) -> Resource:
    # Two hypervisors may call their hosts alike.
    return Resource(kind, name if name == hypervisor else f"{name} of {hypervisor}")
