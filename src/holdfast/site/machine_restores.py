"""Virtual machines made of images: what is refused before anybody begins, and the job that does it.

Must not restore. Invariants: a machine is never made where one of its uuid or name is already;
one that would be a second of an identity that runs is made only by who says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.base.errors import AlreadyExists, Invalid, NotFound, WrongState
from holdfast.base.ids import ADHOC, ClientName, machine_of
from holdfast.control.hypervisors import client_of_name
from holdfast.control.jobs import JobKind, NewJob
from holdfast.site.machine_work import worker_of
from holdfast.site.probing import this_client
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.providers import KINDS
from holdfast.wire.machine_work import MachineRestoreWork

if TYPE_CHECKING:
    from holdfast.control.access import Principal
    from holdfast.control.catalog import ImageRow
    from holdfast.control.hypervisors import VirtualMachine
    from holdfast.site.master import Master
    from holdfast.wire.machine_work import Unfinished

_AT_WORK: Final = (State.RUNNING, State.PAUSED, State.SUSPENDED)


@dataclass(frozen=True, slots=True)
class MachineRestore:
    """What somebody wants to have of an image of a virtual machine.

    Attributes:
        hypervisor: Where it is to be made; None where files are wanted.
        to_dir: The directory that is to have its files; None where it is to be made.
        client: Whose machine has that directory; None for the one that serves the site.
        beside_original: Make it though the original runs, with the identity that it has.

    The others are those of `MachineRestoreWork`.
    """

    hypervisor: str | None = None
    to_dir: str | None = None
    client: ClientName | None = None
    name: str | None = None
    keep_identity: bool = True
    networks: tuple[str, ...] | None = None
    storage: str | None = None
    format: str | None = None
    start: bool = False
    disks: tuple[str, ...] = ()
    verify: bool = False
    beside_original: bool = False
    unfinished: Unfinished = "continue"


def restore_job(master: Master, who: Principal, image: ImageRow, wanted: MachineRestore) -> NewJob:
    """Make the job that makes a virtual machine of an image, or files.

    Raises:
        Invalid: It is no image of one, what is wanted contradicts itself, or disks can't be of
            that format there.
        Forbidden: Somebody may not restore there.
        NotFound: There is no such hypervisor, or no such machine has joined.
        AlreadyExists: There is a machine of that name or uuid.
        WrongState: The original runs.
    """
    uuid = machine_of(image.source)
    if uuid is None:
        raise Invalid(
            f"image {image.id} is of files, and not of a virtual machine",
            "'holdfast restore' brings back files",
        )
    if (wanted.hypervisor is None) == (wanted.to_dir is None):
        raise Invalid("a machine is restored to a hypervisor, or to a directory", "say one of them")
    if wanted.hypervisor is None:
        worker = _to_directory(master, who, wanted)
        disk_format = KINDS["diskfiles"].format_of(wanted.format or "raw")
    else:
        to_hypervisor(master, who, image, uuid, wanted, wanted.hypervisor)
        hypervisor = master.hypervisors.hypervisor(wanted.hypervisor)
        worker, disk_format = hypervisor.proxy, KINDS[hypervisor.kind].format_of(wanted.format)
    work = MachineRestoreWork(
        image=image.id,
        hypervisor=wanted.hypervisor,
        to_dir=wanted.to_dir,
        proxy=worker,
        name=wanted.name,
        keep_identity=wanted.keep_identity,
        networks=wanted.networks,
        storage=wanted.storage,
        format=disk_format,
        start=wanted.start,
        disks=wanted.disks,
        verify=wanted.verify,
        unfinished=wanted.unfinished,
    )
    return NewJob(
        kind=JobKind.RESTORE,
        work=work.to_json(),
        policy=ADHOC,
        client=ClientName(image.host),
        source=image.source,
        storage_unit=master.site.pools.unit_of(master.pool_with(image.id)),
        worker=worker_of(worker),
    )


def _to_directory(master: Master, who: Principal, wanted: MachineRestore) -> ClientName | None:
    for given, option in (
        (wanted.storage is not None, "a storage"),
        (wanted.networks is not None, "networks"),
        (wanted.start, "a start"),
    ):
        if given:
            raise Invalid(f"files in a directory have no use for {option}", "leave it out")
    here = wanted.client is None or wanted.client == this_client()
    who.require_clients({this_client() if here else wanted.client or ""})
    if here:
        return None
    if wanted.client not in master.machines.standing().agents:
        raise NotFound(
            f"no machine '{wanted.client}' has joined this site",
            "'holdfast machine list' shows those that have",
        )
    return wanted.client


def to_hypervisor(
    master: Master,
    who: Principal,
    image: ImageRow,
    uuid: str,
    wanted: MachineRestore,
    name: str,
) -> str:
    """Refuse a machine that must not be made on a hypervisor; what the new one is to be called.

    Args:
        master: Whose.
        who: Who wants it.
        image: Of what.
        uuid: That the machine had.
        wanted: What is wanted.
        name: Of the hypervisor.

    Raises:
        Invalid: What is wanted contradicts itself.
        Forbidden: Somebody may not make a machine of that name.
        NotFound: There is no such hypervisor.
        AlreadyExists: There is a machine of that name or uuid.
        WrongState: The original runs.
    """
    if wanted.client is not None:
        raise Invalid("the hypervisor's own proxy does that", "leave the client out")
    master.hypervisors.hypervisor(name)
    estate = master.hypervisors.estate()
    known = estate.machines.get(uuid)
    new_name = wanted.name or (image.host if known is None else known.machine.name)
    # Whoever sees the new machine's images is who may make it.
    who.require_clients({client_of_name(new_name)})
    if wanted.unfinished == "discard":
        return new_name
    there = estate.select(None, (name,))
    _require_free(name, new_name, there)
    if not wanted.keep_identity:
        return new_name
    same = next((one for one in there if one.machine.uuid == uuid), None)
    if same is not None:
        raise AlreadyExists(
            f"hypervisor '{name}' has the machine of this uuid: '{same.machine.name}', "
            f"{same.machine.state}",
            "restore it with --new-identity and another --name, or remove that one first",
        )
    if known is not None and known.is_there and not wanted.beside_original:
        _require_at_rest(known)
    return new_name


def _require_free(hypervisor: str, name: str, there: list[VirtualMachine]) -> None:
    for one in there:
        if one.machine.name == name:
            raise AlreadyExists(
                f"hypervisor '{hypervisor}' has a machine '{name}' already",
                "give the new one another name: --name; if that one is gone, have it looked at "
                f"again: holdfast hypervisor discover {hypervisor}",
            )


def _require_at_rest(original: VirtualMachine) -> None:
    machine = original.machine
    if machine.state in _AT_WORK:
        raise WrongState(
            f"'{machine.name}' is {machine.state} on '{machine.host}' of hypervisor "
            f"'{original.hypervisor}': two of one identity would be in each other's way",
            "restore it with --new-identity, or say --beside-original",
        )
