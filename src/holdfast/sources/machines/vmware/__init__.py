"""Machines of VMware: a vCenter, or one ESXi host.

Must not touch what others keep at a machine: a snapshot that is made there has a name that begins
with ``holdfast``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.sources.machines.vmware.connection import VCenter, place_of
from holdfast.sources.machines.vmware.provider import VmwareProvider

if TYPE_CHECKING:
    from holdfast.sources.machines.providers import Credentials

__all__ = ["VmwareProvider", "open_url"]


def open_url(url: str, credentials: Credentials) -> VmwareProvider:
    """Open a vCenter or an ESXi host.

    Args:
        url: ``https://vcenter.example.com``; with ``?thumbprint=`` and the SHA-256 of its
            certificate after it, that certificate is believed and no other.
        credentials: A user and password, and the authority that its certificate is of.

    Raises:
        Invalid: That is no such URL.
    """
    return VmwareProvider(VCenter(place_of(url), credentials))
