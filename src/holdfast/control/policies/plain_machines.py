"""Which virtual machines a policy is for, as plain data; see `plain`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from holdfast.base.units import parse_size
from holdfast.control.policies.machine_selection import (
    DEFAULT_TRIM_TIMEOUT_S,
    NO_QUIESCE,
    TRIM_TIMEOUT_S,
    TRY_QUIESCE,
    MachineSelection,
)
from holdfast.control.policies.texts import read_span, write_span

if TYPE_CHECKING:
    from holdfast.control.policies.reading import Table

_LARGEST = 1 << 60


def write_machines(machines: MachineSelection | None, *, whole: bool) -> dict[str, Any] | None:
    """Write it; None for a policy that is for none."""
    if machines is None:
        return None
    found: dict[str, Any] = {"query": machines.query}
    if whole or machines.hypervisors:
        found["hypervisors"] = list(machines.hypervisors)
    if whole or machines.leave_out:
        found["leave_out"] = list(machines.leave_out)
    if whole or machines.quiesce != TRY_QUIESCE:
        found["quiesce"] = machines.quiesce
    if whole or machines.trim:
        found["trim"] = machines.trim
    if whole or machines.trim_timeout_s != DEFAULT_TRIM_TIMEOUT_S:
        found["trim_timeout"] = write_span(timedelta(seconds=machines.trim_timeout_s))
    if machines.scratch is not None:
        found["scratch"] = machines.scratch
    if machines.scratch_bytes:
        found["scratch_limit"] = _size(machines.scratch_bytes)
    return found


def read_machines(read: Table | None) -> MachineSelection | None:
    """Read it."""
    if read is None:
        return None
    if "query" not in read:
        read.lacks("query", 'write for example query = "tag=prod", or "*" for all')
    found = MachineSelection(
        query=read.text("query", "*"),
        hypervisors=read.texts("hypervisors", '["kvm1"]'),
        leave_out=read.texts("leave_out", '["vdb"]'),
        quiesce=_read_quiesce(read),
        trim=read.flag("trim", default=False),
        trim_timeout_s=_read_trim_timeout(read),
        scratch=read.text("scratch"),
        scratch_bytes=_read_size(read, "scratch_limit"),
    )
    read.end()
    return found


def _read_quiesce(read: Table) -> str:
    # 'no' without quotes is false in some YAML, and so is what people mean.
    if read.peek("quiesce") is False:
        read.flag("quiesce", default=False)
        return NO_QUIESCE
    return read.text("quiesce", TRY_QUIESCE)


def _read_trim_timeout(read: Table) -> int:
    span = read.parsed("trim_timeout", read_span)
    if span is None:
        return DEFAULT_TRIM_TIMEOUT_S
    timeout_s = int(span.total_seconds())
    if timeout_s not in TRIM_TIMEOUT_S:
        read.fault("trim_timeout", f"{write_span(span)} is not from 1s to 1d")
        return DEFAULT_TRIM_TIMEOUT_S
    return timeout_s


def _read_size(read: Table, key: str) -> int:
    size = read.parsed(key, parse_size)
    if size is None:
        return 0
    if not 0 < size <= _LARGEST:
        read.fault(key, "it is no size of anything", 'write for example "20GiB", or leave it out')
        return 0
    return size


def _size(size_bytes: int) -> str:
    """As it is read back, to the byte."""
    for letter, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes % factor == 0:
            return f"{size_bytes // factor}{letter}"
    return str(size_bytes)
