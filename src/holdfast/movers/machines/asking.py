"""Tell a master which virtual machines a hypervisor has, and what is in the way of a backup.

Must not back anything up. Invariant: nothing that was asked stays on the hypervisor.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.sources.machines.providers import Credentials, open_provider
from holdfast.wire.hypervisors import (
    LIST,
    MAX_REPORT_BYTES,
    MOST_AT_ONCE,
    TRY,
    ListOrder,
    ListReport,
    TryOrder,
    TryReport,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import Provider
    from holdfast.wire.machine_work import Reached


def open_reached(reached: Reached) -> Provider:
    """Open a hypervisor that a master says how to reach.

    Raises:
        Invalid: Its kind or address is none.
        LibraryMissing: What it takes is not installed here.
        Unsupported: This Holdfast can't do that kind.
    """
    given = reached.credentials
    credentials = Credentials(
        given.get("user", ""), given.get("password", ""), given.get("certificate", "")
    )
    return open_provider(reached.provider, reached.url, credentials)


def list_machines(order: ListOrder) -> ListReport:
    """Tell the machines of a hypervisor, as many as a report may have.

    Raises:
        HoldfastError: Nobody answers there, or the credentials are wrong; the true cause.
    """
    found = sorted(open_reached(order.reached).machines(), key=lambda one: one.uuid)
    left = [one for one in found if one.uuid > order.after]
    told: list[Machine] = []
    size = 0
    for one in left[:MOST_AT_ONCE]:
        size += len(json.dumps(one.to_json()))
        if told and size > MAX_REPORT_BYTES:
            break
        told.append(one)
    return ListReport(tuple(told), len(told) == len(left))


def try_machine(order: TryOrder, scratch: Path) -> TryReport:
    """Look whether a backup of a machine would come to pass.

    Args:
        order: Which machine, and how it is reached.
        scratch: What a backup is given that names no directory for what guests overwrite: whether
            the hypervisor gets to it is looked at, too.

    Raises:
        HoldfastError: Nobody answers there, there is no such machine, or no scratch files can be
            made; the true cause.
    """
    from holdfast.movers.machines.work import scratch_directory

    provider = open_reached(order.reached)
    wanted = scratch if order.scratch is None else Path(order.scratch)
    missing = [one for one in (wanted, *wanted.parents) if not os.path.exists(one)]
    try:
        with scratch_directory(wanted) as directory:
            found = provider.try_out(
                order.machine, directory, trim=order.trim, leave_out=order.leave_out
            )
            return TryReport(tuple(found))
    finally:
        with contextlib.suppress(OSError):  # a backup has begun to use it
            for one in missing:
                one.rmdir()


def hypervisor_answers(
    scratch: Path,
) -> Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]:
    """What an agent can be asked of hypervisors.

    Args:
        scratch: See `try_machine`.
    """
    return {
        LIST: lambda order: list_machines(ListOrder.from_json(order)).to_json(),
        TRY: lambda order: try_machine(TryOrder.from_json(order), scratch).to_json(),
    }
