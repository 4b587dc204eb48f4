"""QEMU machines under libvirt.

Must not touch what others keep at a machine: whatever is made there has a name that begins with
``holdfast``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.sources.machines.libvirt.provider import LibvirtProvider

if TYPE_CHECKING:
    from holdfast.sources.machines.providers import Credentials

__all__ = ["LibvirtProvider", "open_url"]


def open_url(url: str, credentials: Credentials) -> LibvirtProvider:
    """Open a host by libvirt's own URL: ``qemu:///system``."""
    return LibvirtProvider(url, credentials)
