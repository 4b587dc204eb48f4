"""QEMU machines without libvirt, by QMP: the monitor that each has of its own.

Must not touch what other programs keep in a QEMU: whatever is made there has a name that begins
with ``holdfast``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.sources.machines.qmp.provider import QmpProvider

if TYPE_CHECKING:
    from holdfast.sources.machines.providers import Credentials

__all__ = ["QmpProvider", "open_url"]


def open_url(url: str, credentials: Credentials) -> QmpProvider:
    """Open the machines whose monitors lie in a directory, or one by its monitor.

    Args:
        url: ``/run/machines``, ``qmp:///run/machines`` or a socket in such a directory.
        credentials: Not used: who may write the socket may do everything.
    """
    del credentials
    return QmpProvider(url.removeprefix("qmp://"))
