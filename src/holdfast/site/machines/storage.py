"""The storage units of a served site, for its machines: where data goes, and who may bring it.

Must not speak HTTP: see `movers.transfer`. Invariants: a token lets one machine move the data of
one job that the master gave it, and no more; an image that a machine's data became is known to the
catalog before the machine is told, and it is what the pool says, not what the machine says.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from holdfast.base import labels
from holdfast.base.errors import (
    Fenced,
    Forbidden,
    HoldfastError,
    Invalid,
    JobMissing,
    NotAPool,
    Unreachable,
)
from holdfast.base.ids import ImageId, JobId, PoolId, SourceName
from holdfast.control.jobs import JobState
from holdfast.movers.agent import note_of
from holdfast.movers.transfer.ports import TransferHost
from holdfast.movers.transfer.server import add_routes
from holdfast.site.machines.bandwidth import Bandwidth
from holdfast.site.machines.media import MediaServers
from holdfast.site.machines.refusals import RefusedTransfers
from holdfast.site.replication import is_brought
from holdfast.wire.fields import Reader
from holdfast.wire.machine_work import InstantWork, MachineRestoreWork, MachineWork
from holdfast.wire.messages import BackupWork, RestoreWork, SiteWork, work_from_json
from holdfast.wire.peer import peer_of
from holdfast.wire.transfer_tokens import (
    BACKUP,
    MASTER_ITSELF,
    REPLICATE,
    RESTORE,
    TransferGrant,
    sign,
    signing_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from holdfast.base.ids import ClientName
    from holdfast.engine import Image, Pool
    from holdfast.site.machines.machines import Machines
    from holdfast.site.machines.sessions import Session
    from holdfast.wire.messages import ImageNote, Work, WorkOffer

TOKEN_S: Final = 900
"""How long a token is good; a job that takes longer is given others."""

_REMEMBERED: Final = 10_000
_AT_WORK = frozenset({JobState.ACTIVE, JobState.ENDING})

_LOG = logging.getLogger("holdfast.machines")


class Storage:
    """The pools of a served site, as its machines may use them. Thread-safe."""

    def __init__(
        self, machines: Machines, now_s: Callable[[], float], committed: Callable[[], None]
    ) -> None:
        """Prepare.

        Args:
            machines: Whose data it takes.
            now_s: A clock that only goes forward, in seconds.
            committed: Called when an image came.
        """
        self._machines = machines
        self._master = machines.master
        self._now_s = now_s
        self._told = committed
        self._key = signing_key(self._master.site.pool_key())
        self._refusals = RefusedTransfers(machines)
        self._lock = threading.Lock()
        self._notes: OrderedDict[tuple[int, int], ImageNote] = OrderedDict()
        self.media = MediaServers(
            machines,
            may_commit=self.may_commit,
            committed=self._heard_of,
            now_s=now_s,
            token_key=self._key.public_key().public_bytes_raw(),
        )
        machines.transfer_for = self.transfer_for
        machines.committed = self.committed
        machines.served_pools = lambda: self.media.pools
        machines.pool_problems = lambda: self.media.problems
        machines.pool_made = self.media.made
        self._master.site.pools.is_away = lambda unit: unit.pool not in self.media.pools
        machines.replication_for = self.replication_for
        machines.answers["replication"] = self._fresh_replication
        machines.chores.append(self.media.look_after)
        machines.chores.append(self._renew)
        Bandwidth(machines)

    # -- for the door -----------------------------------------------------------------------

    def add_routes(self, app: web.Application) -> None:
        """Serve the data path in the door's application."""
        add_routes(
            app,
            TransferHost(
                key=self._key.public_key(),
                peer=peer_of,
                pool=self._near,
                may_commit=self.may_commit,
                committed=self._committed,
                refused=self._refusals.note,
                clock=self._master.clock,
                now_s=self._now_s,
            ),
        )

    def transfer_for(self, client: ClientName, offer: WorkOffer) -> dict[str, Any] | None:
        """The transfer part of an offer; None for work that moves no data of a client."""
        work = offer.work
        expires_s = self._master.clock.now_ns() // 10**9 + TOKEN_S
        if isinstance(work, BackupWork | MachineWork):
            pool = self._pool_of(offer.job_id)
            if self._master.units.units():
                self._master.site.pools.prepare(pool, SourceName(work.source))
            grant = TransferGrant(
                job=offer.job_id,
                fence=offer.fence,
                client=client,
                source=work.source,
                pool=pool,
                verbs=frozenset({BACKUP}),
                expires_s=expires_s,
                labels=work.labels,
                parent=self._parent(work, pool),
                host=work.client if isinstance(work, MachineWork) else None,
            )
        elif isinstance(work, RestoreWork | MachineRestoreWork) or _serves(work):
            pool = self._master.pool_with(ImageId(work.image))
            grant = TransferGrant(
                job=offer.job_id,
                fence=offer.fence,
                client=client,
                source=str(self._master.catalog.image(ImageId(work.image)).source),
                pool=pool,
                verbs=frozenset({RESTORE}),
                expires_s=expires_s,
                images=frozenset({work.image, *_also(work)}),
            )
        else:
            return None
        return self._placed((offer.job_id, offer.fence), grant)

    def replication_for(
        self, sender: str, job_id: int, fence: int, image: str, pool: str, base: str | None
    ) -> dict[str, Any]:
        """The transfer part of a job that brings an image into another pool."""
        grant = TransferGrant(
            job=job_id,
            fence=fence,
            client=sender,
            source=str(self._master.catalog.image(ImageId(image)).source),
            pool=pool,
            verbs=frozenset({REPLICATE}),
            expires_s=self._master.clock.now_ns() // 10**9 + TOKEN_S,
            images=frozenset({image}),
            parent=base,
        )
        return self._placed((job_id, fence), grant)

    def _placed(self, job: tuple[int, int], grant: TransferGrant) -> dict[str, Any]:
        """Where the data that a grant is for goes, and the grant signed."""
        server = self.media.choose(job, grant.pool)
        if server is None and not self._master.site.pools.is_near(grant.pool):
            unit = self._master.units.of_pool(grant.pool)
            raise Unreachable(
                f"media server '{unit.server}', which owns storage unit '{unit.name}', is not "
                "connected, or does not have it open"
            )
        urls = [MASTER_ITSELF] if server is None else list(server.urls)
        return {"urls": urls, "pool": grant.pool, "token": sign(grant, self._key)}

    def _fresh_replication(self, session: Session, order: dict[str, Any]) -> dict[str, Any]:
        """Another token for a media server that sends an image."""
        given = Reader(order, "what a media server asks")
        job_id, fence, image = given.count("job"), given.count("fence"), given.text("image")
        if not self.may_commit(job_id, fence):
            raise Fenced(f"job {job_id} is not at work any more under fence {fence}")
        theirs = {one.pool for one in self._master.units.units() if one.server == session.peer.name}
        copies = self._master.site.pools.with_copy(ImageId(image))
        if not self._brings(job_id, image) or theirs.isdisjoint(copies):
            raise Forbidden(f"job {job_id} does not have '{session.peer.name}' send that image")
        pool = self._pool_of(job_id)
        base = given.maybe_text("base")
        return self.replication_for(session.peer.name, job_id, fence, image, pool, base)

    def _brings(self, job_id: int, image: str) -> bool:
        work = work_from_json(self._master.jobs.work(JobId(job_id)))
        of = self._master.catalog.index_of(ImageId(image))
        return isinstance(work, SiteWork) and is_brought(work, image, of)

    def committed(self, job_id: int, fence: int) -> ImageNote | None:
        """What was committed under a job's fence; also by who kept the storage before."""
        self.media.ended((job_id, fence))
        with self._lock:
            known = self._notes.get((job_id, fence))
        if known is not None:
            return known
        label = self._label(job_id, fence)
        found = self._master.catalog.of_jobs({label})
        if label not in found:
            return None
        image = found[label]
        return note_of(self._master.site.pools.holding(image).image(image))

    def _renew(self) -> None:
        try:
            self._master.site.owned_pools.renew()
        except HoldfastError as error:
            _LOG.error("the certificate for media servers is not renewed: %s", error.message)

    # -- for the data path ------------------------------------------------------------------

    def may_commit(self, job_id: int, fence: int) -> bool:
        """Whether a job is at work under a fence."""
        try:
            job = self._master.jobs.job(JobId(job_id))
        except (JobMissing, OverflowError):
            return False
        return job.fence == fence and job.state in _AT_WORK

    def _near(self, pool_id: str) -> Pool:
        """A pool that this process reaches by itself."""
        if not self._master.site.pools.is_near(pool_id):
            raise NotAPool(f"pool {pool_id} is a media server's own")
        return self._master.site.pools.of(pool_id)

    def _pool_of(self, job_id: int) -> PoolId:
        """Where a job backs up to."""
        unit = self._master.jobs.job(JobId(job_id)).storage_unit
        return self._master.site.pools.of_unit(unit)

    def _committed(self, grant: TransferGrant, image: Image) -> None:
        self._note((grant.job, grant.fence), image, PoolId(grant.pool))

    def _heard_of(self, job_id: int, fence: int, image_id: str) -> None:
        """A media server says that an image is there: so the pool has to say, too."""
        pool = self._pool_of(job_id)
        image = self._master.site.pools.of(pool).image(image_id)
        own = image.labels.get(labels.JOB) == self._label(job_id, fence)
        if not own and not self._brings(job_id, image_id):
            raise Invalid(f"image {image_id} is not what job {job_id} made")
        self._note((job_id, fence), image, pool)

    def _note(self, job: tuple[int, int], image: Image, pool: PoolId) -> None:
        self._master.catalog.record_image(image, pool)
        with self._lock:
            self._notes[job] = note_of(image)
            while len(self._notes) > _REMEMBERED:
                self._notes.popitem(last=False)
        self._told()

    def _label(self, job_id: int, fence: int) -> str:
        return labels.of_job(self._machines.authority.site_id, job_id, fence)

    def _parent(self, work: BackupWork | MachineWork, pool: PoolId) -> str | None:
        """The image to compare with, of those that are where this one goes."""
        if work.read_all:
            return None
        catalog = self._master.catalog
        if work.parent is not None:
            there = {one.pool for one in catalog.copies(ImageId(work.parent))}
            if pool in there:
                return work.parent
        source = SourceName(work.source)
        return catalog.newest_of([source], pool).get(source)


def _also(work: Work) -> tuple[str, ...]:
    return work.also if isinstance(work, RestoreWork) else ()


def _serves(work: Work) -> TypeGuard[InstantWork]:
    return isinstance(work, InstantWork) and work.step == "serve"
