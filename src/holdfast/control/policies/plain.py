"""A policy as plain data (texts, numbers, lists, tables), as files, the API and the book have it.

Must not know a file format (see `formats`) nor judge what can be read (see `validation`).
Invariant: what is written here is read back as the same policy, without a finding.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from holdfast.base.ids import PolicyName, client_key_wanted, client_name, policy_name
from holdfast.control.policies import policy as policies
from holdfast.control.policies.plain_machines import read_machines, write_machines
from holdfast.control.policies.plain_schedules import (
    read_name,
    read_rules,
    read_schedule,
    write_rules,
    write_schedule,
)
from holdfast.control.policies.plain_verify_boot import read_verify_boot, write_verify_boot
from holdfast.control.policies.policy import ALL_LOCAL_DRIVES, Drives, Limits, Policy, Selection
from holdfast.control.policies.reading import Table, table
from holdfast.control.policies.texts import read_span, write_span
from holdfast.control.retention import Rules

if TYPE_CHECKING:
    from holdfast.control.policies.findings import Finding
    from holdfast.control.schedule import Schedule

_COUNTS = range(1, 1_000_001)
_TIMEOUTS_S = range(1, 365 * 86_400 + 1)
_COMMAND_EXAMPLE = '["/usr/local/bin/dump", "--all"]'


def to_plain(policy: Policy, *, whole: bool = False) -> dict[str, Any]:
    """Write a policy as plain data, its keys in the order in which people want to read them.

    Args:
        policy: Any.
        whole: Write also what is as it is by default, so that a later Holdfast with other
            defaults reads the same policy.
    """
    found = {
        "name": policy.name,
        "type": policy.type,
        "active": policy.active,
        "clients": list(policy.clients),
        "client_query": policy.client_query,
        "storage_unit": policy.storage_unit,
        "priority": policy.priority,
        "compression": policy.compression,
        "streams": policy.streams,
        "encryption": policy.encryption,
        "client_key": policy.client_key,
        "names": policy.names,
        "pre_command": list(policy.pre_command),
        "post_command": list(policy.post_command),
        "command_timeout": _write_timeout(policy.command_timeout_s),
        "retention": write_rules(policy.retention),
        "limits": _write_limits(policy.limits, whole=whole),
        "machines": write_machines(policy.machines, whole=whole),
        "verify_boot": write_verify_boot(policy.verify_boot, whole=whole),
        "selections": [_write_selection(one, whole=whole) for one in policy.selections],
        "schedules": [write_schedule(one, whole=whole) for one in policy.schedules],
    }
    if whole:
        return {key: value for key, value in found.items() if value is not None}
    return {key: value for key, value in found.items() if _DEFAULTS.get(key) != value}


def from_plain(value: object, number: int = 1) -> tuple[Policy | None, list[Finding]]:
    """Read a policy from plain data.

    Args:
        value: A table, it is hoped.
        number: Which policy of a file it is, counted from 1: its name in findings if it has none.

    Returns:
        The policy, with a default for each part that could not be read, and ``#3`` for a name
        that could not; None if it is no table at all. And what could not be read, every finding
        with the policy's name.
    """
    findings: list[Finding] = []
    read = table(value, "", findings)
    nameless = PolicyName(f"#{number}")
    policy = None if read is None else _read_policy(read, nameless)
    name = nameless if policy is None else policy.name
    return policy, [replace(one, policy=name) for one in findings]


def _read_policy(read: Table, nameless: PolicyName) -> Policy:
    name = read.parsed("name", policy_name)
    if "name" not in read:
        read.lacks("name", 'give it one, such as name = "servers"')
    found = Policy(
        name=name or nameless,
        type=read.text("type", policies.DEFAULT_TYPE),
        active=read.flag("active", default=True),
        clients=tuple(one for _, one in read.each("clients", client_name, '["web1", "web2"]')),
        client_query=read.text("client_query"),
        selections=_read_selections(read),
        schedules=_read_schedules(read),
        storage_unit=read.text("storage_unit", policies.DEFAULT_STORAGE_UNIT),
        retention=_read_retention(read),
        limits=_read_limits(read),
        priority=read.number("priority", policies.PRIORITIES, policies.DEFAULT_PRIORITY),
        pre_command=_read_command(read, "pre_command"),
        post_command=_read_command(read, "post_command"),
        command_timeout_s=_read_timeout(read),
        compression=read.number(
            "compression", policies.COMPRESSION_LEVELS, policies.DEFAULT_COMPRESSION
        ),
        streams=read.number("streams", policies.STREAMS, 1),
        encryption=read.text("encryption", policies.DEFAULT_ENCRYPTION),
        client_key=read.parsed("client_key", client_key_wanted),
        names=read.text("names", policies.DEFAULT_NAMES),
        machines=read_machines(read.table("machines")),
        verify_boot=read_verify_boot(read.table("verify_boot")),
    )
    read.end()
    return found


def _read_retention(read: Table) -> Rules:
    table = read.table("retention")
    return Rules() if table is None else read_rules(table)


def _write_limits(limits: Limits, *, whole: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if limits.jobs is not None:
        found["jobs"] = limits.jobs
    if whole or limits.streams_per_client != Limits().streams_per_client:
        found["streams_per_client"] = limits.streams_per_client
    return found


def _read_limits(read: Table) -> Limits:
    table = read.table("limits")
    if table is None:
        return Limits()
    found = Limits(
        jobs=table.number("jobs", _COUNTS),
        streams_per_client=table.number("streams_per_client", _COUNTS, Limits().streams_per_client),
    )
    table.end()
    return found


def _write_selection(selection: Selection, *, whole: bool) -> dict[str, Any]:
    paths = selection.paths
    found: dict[str, Any] = {
        "name": selection.name,
        "paths": paths.value if isinstance(paths, Drives) else list(paths),
    }
    if whole or selection.exclude:
        found["exclude"] = list(selection.exclude)
    if whole or selection.one_file_system:
        found["one_file_system"] = selection.one_file_system
    return found


def _read_selections(read: Table) -> tuple[Selection, ...]:
    found = []
    for one in read.tables("selections", '[{ name = "home", paths = ["/home"] }]'):
        name = read_name(one, "selection")
        if "paths" not in one:
            one.lacks(
                "paths", f'write for example paths = ["/home"], or "{ALL_LOCAL_DRIVES.value}"'
            )
        selection = Selection(
            name=name or "selection",
            paths=_read_paths(one),
            exclude=one.texts("exclude", '["*.tmp"]'),
            one_file_system=one.flag("one_file_system", default=False),
        )
        one.end()
        found.append(selection)
    return tuple(found)


def _read_paths(read: Table) -> tuple[str, ...] | Drives:
    if read.peek("paths") == ALL_LOCAL_DRIVES.value:
        read.text("paths")
        return ALL_LOCAL_DRIVES
    paths = read.texts("paths", f'["/home"], or "{ALL_LOCAL_DRIVES.value}"')
    if ALL_LOCAL_DRIVES.value in paths:
        hint = f'write paths = "{ALL_LOCAL_DRIVES.value}", without brackets'
        read.fault("paths", f"{ALL_LOCAL_DRIVES.value} is no path in a list", hint)
    return paths


def _read_schedules(read: Table) -> tuple[Schedule, ...]:
    example = '[{ name = "nightly", kind = "differential", every = "1d" }]'
    schedules = (read_schedule(one) for one in read.tables("schedules", example))
    return tuple(one for one in schedules if one is not None)


def _read_command(read: Table, key: str) -> tuple[str, ...]:
    words = read.texts(key, f"{_COMMAND_EXAMPLE}; no shell is used")
    if words and not words[0]:
        read.fault(f"{key}[0]", "an empty text names no program")
    return words


def _write_timeout(timeout_s: int) -> str:
    return write_span(timedelta(seconds=timeout_s))


def _read_timeout(read: Table) -> int:
    span = read.parsed("command_timeout", read_span)
    if span is None:
        return policies.DEFAULT_COMMAND_TIMEOUT_S
    timeout_s = int(span.total_seconds())
    if timeout_s not in _TIMEOUTS_S:
        read.fault("command_timeout", f"{write_span(span)} is not from 1s to 365d")
        return policies.DEFAULT_COMMAND_TIMEOUT_S
    return timeout_s


_DEFAULTS = to_plain(Policy(PolicyName("")), whole=True) | {
    "type": None,
    "client_query": None,
    "client_key": None,
    "machines": None,
    "verify_boot": None,
    "limits": {},
}
