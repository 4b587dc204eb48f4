"""Pools that media servers own, opened by the site's master over the network.

Must not decide which is needed. Invariants: the other end is the one media server that the site
knows as the owner; the certificate that is shown to it never ends while this process uses it.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from holdfast.base.errors import NotAuthenticated, Unreachable
from holdfast.control.access import AuditLog
from holdfast.control.machines import MachineBook
from holdfast.movers.transfer.remote_store import RemoteStore
from holdfast.vault import PoolKey, open_pool_on
from holdfast.wire.identity import (
    Identity,
    MachineKey,
    MachineRole,
    client_context,
    identity_of,
    machine_name,
    use,
)

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from holdfast.base.ids import ClientName
    from holdfast.control.storage import StorageUnit
    from holdfast.engine import Pool
    from holdfast.site.site import Site

LIFE: Final = timedelta(days=7)
RENEW_AFTER: Final = timedelta(days=1)
NAME: Final = "master"


class OwnedPools:
    """Opens them for one site. Thread-safe."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = threading.Lock()
        self._identity: Identity | None = None
        self._context: ssl.SSLContext | None = None
        self._issued_at: datetime | None = None

    def open(self, unit: StorageUnit, key: bytes, cache: Path) -> Pool:
        """Open the pool of a storage unit.

        Args:
            unit: With a media server.
            key: Of the pool.
            cache: Where copies of its index may be kept.

        Raises:
            Unreachable: The media server does not answer, or was never heard of.
            WrongKey: The key is not the pool's.
            NotAPool: It has no such pool.
        """
        urls = self._site.units.urls(unit.name)
        if unit.server is None or not urls:
            raise Unreachable(
                f"media server '{unit.server}', which owns storage unit '{unit.name}', was never "
                "connected since that was made"
            )
        context, identity = self._shown()
        check = partial(_require_owner, identity, unit.server)
        store = RemoteStore(urls, context, check, unit.pool)
        try:
            return open_pool_on(store, key=PoolKey(key), cache_dir=cache)
        except Unreachable as error:
            raise Unreachable(
                f"media server '{unit.server}', which owns storage unit '{unit.name}', does not "
                f"answer: {error.message}",
                "see that it runs and is connected: 'holdfast storage list' says how it is",
            ) from error

    def identity(self) -> Identity:
        """Who this process is, towards media servers."""
        return self._shown()[1]

    def renew(self) -> None:
        """Show another certificate from now on, if that is old."""
        with self._lock:
            if self._context is None or self._issued_at is None:
                return
            if self._site.clock.now() - self._issued_at > RENEW_AFTER:
                self._identity = self._issue()
                use(self._context, self._identity)

    def _shown(self) -> tuple[ssl.SSLContext, Identity]:
        with self._lock:
            if self._context is None or self._identity is None:
                self._identity = self._issue()
                self._context = client_context(self._identity, (MachineRole.MEDIA,))
            return self._context, self._identity

    def _issue(self) -> Identity:
        """A certificate for a key that is nowhere but in this process."""
        site = self._site
        book = MachineBook(site.database, site.clock, AuditLog(site.database, site.clock))
        authority = book.authority(site.pool_key())
        key, now = MachineKey.generate(), site.clock.now()
        issued = authority.issue(key.csr_pem(), MachineRole.MASTER, NAME, now, LIFE)
        self._issued_at = now
        return Identity(
            MachineRole.MASTER,
            machine_name(NAME),
            authority.site_id,
            issued.pem,
            key,
            authority.certificate_pem,
        )


def _require_owner(identity: Identity, server: ClientName, der: bytes) -> None:
    peer = identity_of(der)
    wanted = (identity.site_id, MachineRole.MEDIA, server)
    if (peer.site_id, peer.role, peer.name) != wanted:
        raise NotAuthenticated(
            f"what answers is the {peer.role} '{peer.name}' of site {peer.site_id}, and not media "
            f"server '{server}' of this one",
            "see that the media server's address is its own",
        )
