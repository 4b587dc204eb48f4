"""The agent of a guest under libvirt, asked what libvirt has no call of its own for.

Must not bring a guest to rest: see `running`. libvirt's own call to have a guest trim does not tell
what came of it for each file system, and takes no time for itself.
"""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any, Final

import libvirt
import libvirt_qemu

from holdfast.base.errors import HypervisorError, TooSlow
from holdfast.sources.machines import domain_xml, trimming
from holdfast.sources.machines.libvirt.connection import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.sources.machines.domain_xml import DomainDisk
    from holdfast.sources.machines.provider import SnapshotOrder
    from holdfast.sources.machines.trimming import Trimmed

MUTE: Final = "no guest agent answers in it"
HOW: Final = "write discard='unmap' into its <driver> (virsh edit), and start the machine anew"
_PING_S = 5.0
_SOONER_S = 0.5


class LibvirtGuest:
    """See `Guest`."""

    def __init__(self, domain: Any) -> None:
        """Name it; nobody is asked."""
        self._domain = domain

    def ask(self, command: str, within_s: float) -> Any:
        """See `Guest.ask`."""
        began = time.monotonic()
        asked = json.dumps({"execute": command})
        try:
            said = libvirt_qemu.qemuAgentCommand(self._domain, asked, math.ceil(within_s), 0)
            return json.loads(said)["return"]
        except libvirt.libvirtError as error:
            what = f"its guest agent does not do '{command}'"
            # One that does not even listen is told of sooner.
            late = time.monotonic() - began >= within_s - _SOONER_S
            if late and error.get_error_code() == libvirt.VIR_ERR_AGENT_UNRESPONSIVE:
                raise TooSlow(f"{what}: {error.get_error_message()}", trimming.SILENT) from error
            raise translated(error, what) from error
        except (ValueError, KeyError, TypeError) as error:
            raise HypervisorError(f"its guest agent does not answer '{command}' as one") from error

    def require_free(self) -> None:
        """See `Guest.require_free`."""
        self.ask("guest-ping", _PING_S)

    def close(self) -> None:
        """See `Guest.close`: libvirt lets others ask when the time is over that was given."""


def trim(
    domain: Any,
    order: SnapshotOrder,
    wanted: Sequence[DomainDisk],
    known: Any,
    alive: Callable[[], None],
) -> Trimmed:
    """Have the guest trim; see `trim_before`.

    Args:
        domain: Its machine, which runs.
        order: Of the backup.
        wanted: The disks that it is to hold.
        known: The definition of the machine as it runs.
        alive: Called again and again; what it raises ends the waiting.
    """
    answers = domain_xml.agent_connected(known)
    return trimming.trim_before(
        order,
        alive,
        guest=LibvirtGuest(domain) if answers else MUTE,
        disks=[one.name for one in wanted if not one.readonly],
        kept=keeping(wanted),
        how=HOW,
    )


def keeping(wanted: Sequence[DomainDisk]) -> list[str]:
    """The disks of which QEMU gives nothing back that the guest trims."""
    return [one.name for one in wanted if not one.discards and not one.readonly]
