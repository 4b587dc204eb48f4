"""Machines of a site with certificates as the product makes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from holdfast.base.ids import ClientName
from holdfast.wire.identity import (
    Authority,
    Identity,
    MachineKey,
    MachineRole,
    client_context,
    server_context,
)

if TYPE_CHECKING:
    import ssl

SITE = "5e" * 16


class RealMachines:
    """Machines with certificates of a real authority."""

    def __init__(self) -> None:
        now = datetime.now(UTC)
        self._now = now
        self.authority = Authority.create(SITE, now)
        self.role = MachineRole.MEDIA
        self.made: list[Identity] = []

    def identity(self, role: MachineRole, name: str) -> Identity:
        key = MachineKey.generate()
        issued = self.authority.issue(
            key.csr_pem(), role, ClientName(name), self._now, timedelta(days=1)
        )
        made = Identity(
            role=role,
            name=ClientName(name),
            site_id=SITE,
            certificate_pem=issued.pem,
            key=key,
            authority_pem=self.authority.certificate_pem,
        )
        self.made.append(made)
        return made

    def server(self) -> ssl.SSLContext:
        return server_context(self.identity(self.role, "server"), require_client=True)

    def client(self, name: str, role: str = "agent") -> ssl.SSLContext:
        return client_context(self.identity(MachineRole(role), name))
