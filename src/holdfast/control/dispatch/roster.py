"""What the policies of a site come to: what is due of whom, and what a job of it is told to do.

Must not ask a clock or a database. Made anew when a policy or a client comes, goes or changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holdfast.base import labels
from holdfast.control.broker import Kind, Need, Resource
from holdfast.control.dispatch import hosts
from holdfast.control.hypervisors import Estate
from holdfast.control.jobs import BY_SITE, Held, JobKind, NewJob
from holdfast.control.policies import (
    NO_QUIESCE,
    REQUIRE_QUIESCE,
    KnownClients,
    MachineSource,
    Policy,
    PolicySource,
    machine_sources,
    sources,
    undivided,
)
from holdfast.control.schedule import BackupKind, Entry
from holdfast.wire.machine_work import MachineWork
from holdfast.wire.messages import BackupWork, CommandWork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from holdfast.base.ids import ClientName, ImageId, PolicyName, SourceName
    from holdfast.control.jobs import Ready
    from holdfast.control.policies import Split, SplitKey
    from holdfast.control.schedule import Schedule

WHOLE = frozenset({BackupKind.FULL, BackupKind.SYNTHETIC})
"""Kinds that a cumulative incremental is compared with."""


@dataclass(frozen=True, slots=True)
class Member:
    """One source of one policy."""

    policy: Policy
    of: PolicySource | MachineSource


class Roster:
    """The policies of a site, taken apart. Immutable."""

    def __init__(
        self,
        policies: Iterable[Policy],
        clients: Iterable[ClientName],
        drives: Callable[[ClientName], Sequence[str]],
        splits: Callable[[SplitKey], Split | None] = undivided,
        estate: Estate | None = None,
    ) -> None:
        """Take policies apart.

        Args:
            policies: All, active or not.
            clients: All that are known; queries range over them.
            drives: Where a client's local file systems are mounted.
            splits: How a path is divided into streams; None if that is not known yet.
            estate: The virtual machines that are known; None for none.
        """
        self.estate = Estate() if estate is None else estate
        self.policies: Mapping[PolicyName, Policy] = {one.name: one for one in policies}
        known = KnownClients(clients)
        self._members: dict[PolicyName, dict[SourceName, Member]] = {}
        for one in self.policies.values():
            of: dict[SourceName, Member] = {}
            for each in sources(one, known.of(one), drives, splits):
                of[each.source] = Member(one, each)
            for machine in machine_sources(one, self.estate):
                of[machine.source] = Member(one, machine)
            self._members[one.name] = of

    def entry(self, policy: PolicyName, since: datetime) -> Entry | None:
        """What is due of a policy; None if it starts nothing by itself.

        What is yet to be divided is not due: a moment later it would be, once more, in streams.
        """
        found = self.policies.get(policy)
        if found is None or not found.active or not found.schedules:
            return None
        return Entry(
            policy=policy,
            schedules=found.schedules,
            sources=tuple(
                source for source, one in self._members[policy].items() if one.of.is_known
            ),
            since=since,
            priority=found.priority,
        )

    def schedule(self, policy: PolicyName, name: str) -> Schedule | None:
        """A schedule of a policy, if there are both."""
        found = self.policies.get(policy)
        if found is None:
            return None
        return next((one for one in found.schedules if one.name == name), None)

    def members(self, policy: PolicyName) -> list[Member]:
        """The sources of a policy."""
        return list(self._members.get(policy, {}).values())

    def member(self, policy: PolicyName, source: SourceName) -> Member | None:
        """One source of a policy, if it is still one."""
        return self._members.get(policy, {}).get(source)

    def limits(self) -> dict[Resource, int | None]:
        """How much of what the policies say there is."""
        found: dict[Resource, int | None] = {}
        for policy in self.policies.values():
            found[Resource(Kind.POLICY_JOBS, policy.name)] = policy.limits.jobs
            for client in {one.of.client for one in self._members[policy.name].values()}:
                found[_streams(client, policy.name)] = policy.limits.streams_per_client
        return found


BOOT_CHECKS = Resource(Kind.BOOT_CHECKS, "master")
"""Images are booted where the site is served."""


def needs_of(job: Ready) -> tuple[Need, ...]:
    """What a job has to have before it may begin.

    A machine that boots waits far more than it reads, and would keep backups from a slot.
    """
    if job.kind is JobKind.BOOT_CHECK:
        return (Need(BOOT_CHECKS),)
    return tuple(Need(one) for one in _resources(job.policy, job.client, job.storage_unit))


def slots_of(member: Member, kind: BackupKind) -> tuple[Resource, ...]:
    """What a backup of a source, of a kind, takes one of each of."""
    policy, of = member.policy, member.of
    own = _resources(policy.name, of.client, policy.storage_unit)
    machine = hosts.shared(of.found, kind) if isinstance(of, MachineSource) else ()
    return (*own, *machine)


def _resources(
    policy: PolicyName | None, client: ClientName | None, storage_unit: str | None
) -> Iterator[Resource]:
    if policy is not None:
        yield Resource(Kind.POLICY_JOBS, policy)
        if client is not None:
            yield _streams(client, policy)
    if storage_unit is not None:
        yield Resource(Kind.STORAGE_UNIT_SLOTS, storage_unit)


def _streams(client: str, policy: str) -> Resource:
    # A policy's own limit: another policy may read the same client meanwhile.
    return Resource(Kind.CLIENT_STREAMS, f"{client} in policy {policy}")


def backup_of(
    member: Member,
    kind: BackupKind,
    schedule: Schedule | None,
    newest_whole: Callable[[SourceName], ImageId | None],
    due_at: datetime | None = None,
    newest: ImageId | None = None,
) -> NewJob:
    """The job that backs one source up.

    Args:
        member: The source.
        kind: How.
        schedule: Under which schedule of the policy; None if a person asked for it.
        newest_whole: The newest image of a source that a cumulative incremental is compared with.
        due_at: Which occurrence of the schedule it is, if it is one.
        newest: The newest image of the source, if it is known: named, it is found at once, however
            many images the pool has.
    """
    policy, of = member.policy, member.of
    own = None if schedule is None else schedule.priority
    if isinstance(of, MachineSource):
        work: BackupWork | MachineWork = _machine_work(policy, of, kind, schedule)
        worker: ClientName | None = of.proxy or BY_SITE
    else:
        work = _files_work(policy, of, kind, schedule, newest_whole, newest)
        worker = None
    return NewJob(
        kind=JobKind.BACKUP,
        work=work.to_json(),
        policy=policy.name,
        schedule=None if schedule is None else schedule.name,
        client=of.client,
        source=of.source,
        backup_kind=kind,
        storage_unit=policy.storage_unit,
        priority=policy.priority if own is None else own,
        due_at=due_at,
        worker=worker,
        divided=isinstance(of, PolicySource) and bool(of.stream),
    )


def _machine_work(
    policy: Policy, of: MachineSource, kind: BackupKind, schedule: Schedule | None
) -> MachineWork:
    """What is to be done; how the hypervisor is reached is said when it is given out.

    Every image is complete by itself, and a hypervisor tells changes since its last backup alone:
    so all that is not a full reads what changed since the newest image.
    """
    machine, wanted = of.found.machine, policy.machines
    assert wanted is not None  # noqa: S101 - a policy without is for no machine
    return MachineWork(
        client=of.client,
        source=of.source,
        machine=machine.uuid,
        name=machine.name,
        hypervisor=of.found.hypervisor,
        proxy=of.proxy,
        quiesce=wanted.quiesce != NO_QUIESCE,
        require_quiesce=wanted.quiesce == REQUIRE_QUIESCE,
        trim_s=wanted.trim_timeout_s if wanted.trim else 0,
        leave_out=wanted.left_out(machine),
        read_all=kind is BackupKind.FULL,
        compression=policy.compression,
        labels={
            **_labels(policy, kind, schedule),
            labels.MACHINE: machine.uuid,
            labels.HYPERVISOR: of.found.hypervisor,
        },
        scratch=wanted.scratch,
        scratch_bytes=wanted.scratch_bytes,
        pre_command=policy.pre_command,
        post_command=policy.post_command,
        command_timeout_s=policy.command_timeout_s,
    )


def _labels(policy: Policy, kind: BackupKind, schedule: Schedule | None) -> dict[str, str]:
    named = {} if schedule is None else {labels.SCHEDULE: schedule.name}
    return {labels.POLICY: policy.name, labels.KIND: kind, **named}


def _files_work(
    policy: Policy,
    of: PolicySource,
    kind: BackupKind,
    schedule: Schedule | None,
    newest_whole: Callable[[SourceName], ImageId | None],
    newest: ImageId | None,
) -> BackupWork:
    parent = newest_whole(of.source) if kind is BackupKind.CUMULATIVE else newest
    read_all = kind is BackupKind.FULL or (kind is BackupKind.CUMULATIVE and parent is None)
    return BackupWork(
        client=of.client,
        source=of.source,
        paths=of.paths,
        exclude=of.exclude,
        one_file_system=of.one_file_system,
        compression=policy.compression,
        # Without a full to compare with, everything since the last full is everything.
        read_all=read_all,
        parent=None if read_all else parent,
        labels=_labels(policy, kind, schedule),
        pre_command=policy.pre_command,
        post_command=policy.post_command,
        command_timeout_s=policy.command_timeout_s,
        client_key=policy.sealing_key,
        sealed_names=policy.has_sealed_names,
    )


def family(parts: Sequence[NewJob]) -> NewJob:
    """One job over parts that begin together, or the only part itself.

    What the policy wants run before and after is run once around all of one client's.
    """
    parts = _around(parts)
    first = parts[0]
    if len(parts) == 1:
        return first
    return NewJob(
        kind=first.kind,
        policy=first.policy,
        schedule=first.schedule,
        client=first.client if len({one.client for one in parts}) == 1 else None,
        backup_kind=first.backup_kind,
        storage_unit=first.storage_unit,
        priority=first.priority,
        parts=tuple(parts),
    )


def _around(parts: Sequence[NewJob]) -> Sequence[NewJob]:
    """Parts, with commands as parts of their own where a client has several backups."""
    of: dict[ClientName | None, list[NewJob]] = {}
    for one in parts:
        of.setdefault(one.client, []).append(one)
    return [each for some in of.values() for each in _around_client(some)]


def _around_client(some: list[NewJob]) -> Iterator[NewJob]:
    first = some[0]
    pre, post = first.work.get("pre_command"), first.work.get("post_command")
    is_one = len(some) == 1 and not first.divided
    if (
        is_one
        or first.missed is not None
        or first.work.get("work") != "backup"
        or not (pre or post)
    ):
        yield from some
        return
    work = CommandWork(
        client=first.work["client"],
        post_command=tuple(post or ()),
        command_timeout_s=first.work["command_timeout_s"],
        labels=first.work["labels"],
    )
    command = replace(first, source=None, storage_unit=None, divided=False)
    if pre:
        told = replace(work, pre_command=tuple(pre))
        yield replace(command, kind=JobKind.COMMAND_BEFORE, work=told.to_json())
    for one in some:
        plain = {**one.work, "pre_command": (), "post_command": ()}
        yield replace(one, work=plain, held=Held.BY_COMMAND if pre else None)
    if post:
        yield replace(
            command,
            kind=JobKind.COMMAND_AFTER,
            work=work.to_json(),
            due_at=None,
            held=Held.BY_BACKUPS,
        )
