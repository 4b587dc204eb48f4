"""How the data of a joined machine's jobs travels: with its certificate, to its site's servers.

Must not hold a session: tokens come from whoever does. Invariants: data goes only to a machine that
the site's authority knows as a media server, or as the master; what is remembered of one source is
never used for another.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.base.clock import SystemClock
from holdfast.base.errors import Invalid, NotAuthenticated
from holdfast.base.files import mark_as_cache
from holdfast.engine import RemotePool
from holdfast.movers.transfer.machine_runs import (
    remote_instant,
    remote_machine_backup,
    remote_machine_restore,
    remote_restore_inside,
)
from holdfast.movers.transfer.rate import SLOWEST_BYTES_PER_S, RateLimit
from holdfast.movers.transfer.remote_runs import (
    TransferTarget,
    no_client_key,
    remote_backup,
    remote_restore,
)
from holdfast.movers.transfer.replicate_run import remote_replicate
from holdfast.movers.ways import Ways
from holdfast.wire.identity import MachineRole, client_context, identity_of
from holdfast.wire.transfer_tokens import MASTER_ITSELF

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.base.clock import Clock
    from holdfast.base.ids import ImageId
    from holdfast.engine import ClientKey, Image, Pool, RestoreResult
    from holdfast.movers.backup_run import BackupOrder
    from holdfast.movers.client_keys import ClientKeys
    from holdfast.movers.drive import Reporter
    from holdfast.movers.machines.file_restore import FileRestore
    from holdfast.movers.remote_agent import Transfer
    from holdfast.movers.restore_run import RestoreOrder
    from holdfast.movers.transfer.paths import Address
    from holdfast.wire.identity import Identity
    from holdfast.wire.machine_work import InstantWork, MachineRestoreWork, MachineWork
    from holdfast.wire.messages import WorkEvent

    Note = Callable[[WorkEvent], None]

MEDIA_ROLES = frozenset({MachineRole.MEDIA, MachineRole.MASTER})

TOKEN_REUSED_S = 60.0
"""A token serves for so long; masters make them for longer. No clock needs to be right for that."""


class FarMovers:
    """Makes what takes and brings back the data of one job: a `remote_agent.Movers`."""

    def __init__(
        self,
        remembered: Path | None = None,
        clock: Clock | None = None,
        master: Callable[[], str] | None = None,
        keys: ClientKeys | None = None,
        scratch: Path | None = None,
        sources: tuple[Address, ...] = (),
    ) -> None:
        """Prepare.

        Args:
            remembered: A directory for what backups remember of each source, made where it is
                missing; None to remember nothing.
            clock: By which backups are dated.
            master: The URL at which this machine reaches its master; None where it has none.
            keys: Its client keys; None where it has none.
            scratch: A directory for what virtual machines overwrite while their disks are read;
                None for that of temporary files.
            sources: Of this machine's addresses, those that data uses; none: all that it has.
        """
        self._sources = sources
        self._scratch = Path(tempfile.gettempdir()) if scratch is None else scratch
        self._remembered = remembered
        self._clock = clock or SystemClock()
        self._master = master
        self._keys = keys
        self._rate = RateLimit()

    def __call__(self, transfer: Transfer, /) -> Ways:
        """Make it; nothing is sent yet."""
        token = TokenKeeper(transfer.token)

        def back_up(order: BackupOrder, report: Reporter, /) -> Image:
            trees = self._trees(transfer.pool, order.source)
            made = self._target(transfer, token, partial(RemotePool, trees=trees))
            return remote_backup(made, order, self._clock, report)

        def restore(order: RestoreOrder, report: Reporter, /) -> RestoreResult | FileRestore:
            made = self._target(transfer, token, RemotePool)
            inside = remote_restore_inside(made, order, report)
            return remote_restore(made, order, report) if inside is None else inside

        def back_up_machine(
            work: MachineWork, report: Reporter, _alive: Callable[[], None], note: Note, /
        ) -> Image:
            made = self._target(transfer, token, RemotePool)
            return remote_machine_backup(made, work, self._scratch, self._clock, report, note)

        def restore_machine(
            work: MachineRestoreWork, report: Reporter, _alive: Callable[[], None], note: Note, /
        ) -> None:
            made = self._target(transfer, token, RemotePool)
            remote_machine_restore(made, work, report, note)

        def instant(
            work: InstantWork,
            tell: Callable[[Mapping[str, int]], None],
            alive: Callable[[], None],
            note: Note,
            /,
        ) -> None:
            made = self._target(transfer, token, RemotePool)
            remote_instant(made, work, tell, alive, note)

        return Ways(back_up, restore, back_up_machine, restore_machine, instant=instant)

    def replicate(
        self, transfer: Transfer, pool: Pool, image: ImageId, report: Reporter | None = None
    ) -> Image:
        """Send an image of a pool that this machine has open: see `remote_replicate`.

        `transfer` is that of a job to replicate: its pool is the one that the image goes to.
        """
        target = self._target(transfer, TokenKeeper(transfer.token), RemotePool)
        return remote_replicate(target, pool, image, report)

    def _trees(self, pool: str, source: str) -> str | None:
        if self._remembered is None:
            return None
        try:
            mark_as_cache(self._remembered)
        except OSError:
            # All works without, and takes longer.
            return None
        named = hashlib.sha256(f"{pool}\n{source}".encode("utf-8", "surrogateescape")).hexdigest()
        return str(self._remembered / f"{named[:32]}.trees")

    def _target(
        self,
        transfer: Transfer,
        token: Callable[[], str],
        remote_pool: Callable[..., RemotePool],
    ) -> TransferTarget:
        return TransferTarget(
            urls=tuple(self._at(url) for url in transfer.urls),
            context=client_context(transfer.identity, MEDIA_ROLES),
            token=token,
            remote_pool=remote_pool,
            check_peer=partial(require_media, transfer.identity),
            client_key=self._client_key,
            sources=self._sources,
            rate=self._rate,
        )

    def _client_key(self, wanted: str) -> ClientKey:
        if self._keys is None:
            return no_client_key(wanted)
        return self._keys.find(wanted).key

    def limit(self, order: dict[str, Any]) -> dict[str, Any]:
        """Keep to so many bytes a second, over all jobs together: what a master says.

        Raises:
            Invalid: It is no number, or too low.
        """
        given = order.get("bytes_per_s")
        if given is not None and (isinstance(given, bool) or not isinstance(given, int | float)):
            raise Invalid("the limit is no number")
        self._rate.set(None if given is None else max(float(given), SLOWEST_BYTES_PER_S))
        return {"answer": "rate"}

    def _at(self, url: str) -> str:
        if url != MASTER_ITSELF or self._master is None:
            return url
        return self._master()


class TokenKeeper:
    """Asks for a token no more often than needed. Thread-safe."""

    def __init__(
        self, fresh: Callable[[], str], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._fresh = fresh
        self._now_s = now_s
        self._lock = threading.Lock()
        self._token = ""
        self._until_s = float("-inf")

    def __call__(self) -> str:
        """A token that is good for a while. Raises what asking for it raises."""
        with self._lock:
            if self._now_s() >= self._until_s:
                asked_s = self._now_s()
                self._token = self._fresh()
                self._until_s = asked_s + TOKEN_REUSED_S
            return self._token


def require_media(identity: Identity, der: bytes) -> None:
    """Make sure that the other end is one that may be given data.

    Raises:
        NotAuthenticated: It is of another site, or known as something else.
    """
    peer = identity_of(der)
    if peer.site_id != identity.site_id or peer.role not in MEDIA_ROLES:
        raise NotAuthenticated(
            f"what answers is the {peer.role} '{peer.name}' of site {peer.site_id}, "
            "and no media server of this one",
            "see that the media server's address is its own",
        )
