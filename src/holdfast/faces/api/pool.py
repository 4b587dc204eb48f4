"""The pool and the catalog: what they hold, and what is done for them as a whole."""

from __future__ import annotations

from typing import Annotated, Self

from fastapi import Query
from pydantic import Field

from holdfast.control.access import Principal, Verb
from holdfast.control.catalog import CatalogState
from holdfast.control.jobs import JobKind
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, TheNote, make_router, may
from holdfast.faces.api.image_models import ID
from holdfast.faces.api.images import seen
from holdfast.faces.api.models import Model
from holdfast.site import places, running, steward, storage_units
from holdfast.vault import Slot, list_slots
from holdfast.wire.messages import SiteWork

router = make_router("Pool")

UNIT = r"^[a-z0-9][a-z0-9._-]{0,62}$"

Watcher = Annotated[Principal, may(Verb.METRICS)]
Keeper = Annotated[Principal, may(Verb.CONFIGURE)]


class PoolStats(Model):
    """What the pool holds and what it costs."""

    pool_id: str = Field(examples=["9c01" * 8])
    place: str = Field(description="Where it lies.", examples=["s3://backups/site"])
    images: int
    packs: int
    pack_bytes: int = Field(description="What is stored.")
    chunks: int
    chunk_bytes: int = Field(description="The same before compression.")
    index_segments: int
    index_bytes: int


UnitText = Annotated[
    str | None,
    Field(
        pattern=UNIT,
        description="Of which storage unit; the site's own pool, if left out.",
        examples=["branch"],
    ),
]


class NewVerification(Model):
    """How a pool is to be verified."""

    unit: UnitText = None
    read_data: bool = Field(
        default=False, description="Also read every chunk and compare its name."
    )
    images: list[Annotated[str, Field(pattern=f"^{ID}$", examples=["3f2a" * 8])]] = Field(
        default=[], max_length=10_000, description="Ids of these only; of all images, if left out."
    )


class NewCheck(Model):
    """How a pool is to be checked."""

    unit: UnitText = None
    read_data: bool = Field(
        default=False, description="Also read every pack and compare every name."
    )


class NewIndex(Model):
    """Which index is to be made anew."""

    unit: UnitText = None


class NewCollection(Model):
    """How garbage is to be collected."""

    unit: UnitText = None
    dry_run: bool = Field(
        default=False, description="Only tell what would be given back; change nothing."
    )


class Queued(Model):
    """What was queued. A master that is served begins it."""

    job: int = Field(description="Id of the job.", examples=[7])


class KeySlot(Model):
    """One secret that opens the pool. What it is, nobody can tell from here."""

    id: str = Field(examples=["5d1e" * 8])
    kind: str = Field(description="`passphrase` or `key-file`.", examples=["passphrase"])
    memory_kib: int | None = Field(
        description="What it takes to try a passphrase (Argon2id): memory.", examples=[32768]
    )
    passes: int | None = Field(examples=[3])
    lanes: int | None = Field(examples=[4])

    @classmethod
    def of(cls, slot: Slot) -> Self:
        """As the pool has it, without what is wrapped."""
        costs = slot.kind == "passphrase"
        return cls(
            id=slot.id,
            kind=slot.kind,
            memory_kib=slot.cost.memory_kib if costs else None,
            passes=slot.cost.passes if costs else None,
            lanes=slot.cost.lanes if costs else None,
        )


class KeySlots(Model):
    """What opens the pool, beside its recovery kit."""

    items: list[KeySlot]


class CatalogStats(Model):
    """How much of what the pool has the catalog knows."""

    images: int = Field(description="How many images it has.")
    states: dict[CatalogState, int] = Field(
        description="Whether their files can be looked at: how many images are in which state.",
        examples=[{"indexed": 412, "pending": 2, "failed": 0}],
    )


@router.get("/pool", responses={404: document.response(404)})
def read_pool(
    _: Watcher,
    master: TheMaster,
    unit: Annotated[
        str | None,
        Query(pattern=UNIT, description="Of which storage unit; else the site's own pool."),
    ] = None,
) -> PoolStats:
    """What a pool holds."""
    pools = master.site.pools
    pool = pools.of_unit(unit)
    found = pools.of(pool).stats()
    place = storage_units.named(master, unit).place
    return PoolStats(
        pool_id=pool,
        place=places.without_secrets(place),
        images=found.images,
        packs=found.packs,
        pack_bytes=found.pack_bytes,
        chunks=found.chunks,
        chunk_bytes=found.chunk_bytes,
        index_segments=found.index_segments,
        index_bytes=found.index_bytes,
    )


@router.get("/pool/keys")
def list_key_slots(_: Keeper, master: TheMaster) -> KeySlots:
    """Which secrets open the pool: how many, of what kind. Never a secret, nor what wraps one."""
    return KeySlots(items=[KeySlot.of(one) for one in list_slots(master.site.config.pool_url)])


@router.post("/pool/collections", status_code=202, responses={404: document.response(404)})
def collect_garbage(
    _: Keeper, master: TheMaster, note: TheNote, body: NewCollection | None = None
) -> Queued:
    """Give back the space of images that went. Backups may run meanwhile."""
    dry_run = body is not None and body.dry_run
    verb = steward.COLLECT_PREVIEW if dry_run else steward.COLLECT
    unit = None if body is None else body.unit
    return _queue(master, note, JobKind.COLLECT, SiteWork(verb, unit=unit))


@router.post("/pool/verifications", status_code=202, responses={404: document.response(404)})
def verify_pool(who: Keeper, master: TheMaster, body: NewVerification, note: TheNote) -> Queued:
    """Follow images down to their last chunk; what is wrong is among the job's events."""
    verb = steward.VERIFY_DATA if body.read_data else steward.VERIFY
    images = tuple(seen(who, master, one) for one in dict.fromkeys(body.images))
    return _queue(master, note, JobKind.VERIFY, SiteWork(verb, images, unit=body.unit))


@router.post("/pool/checks", status_code=202, responses={404: document.response(404)})
def check_pool(_: Keeper, master: TheMaster, body: NewCheck, note: TheNote) -> Queued:
    """Check packs, index and manifests against each other; what is wrong is among the events."""
    verb = steward.CHECK_DATA if body.read_data else steward.CHECK
    return _queue(master, note, JobKind.VERIFY, SiteWork(verb, unit=body.unit))


@router.post("/pool/index", status_code=202, responses={404: document.response(404)})
def rebuild_index(
    _: Keeper, master: TheMaster, note: TheNote, body: NewIndex | None = None
) -> Queued:
    """Make the index of a pool anew from its packs."""
    unit = None if body is None else body.unit
    return _queue(master, note, JobKind.INDEX, SiteWork(steward.REBUILD_INDEX, unit=unit))


@router.get("/catalog")
def read_catalog(_: Watcher, master: TheMaster) -> CatalogStats:
    """How many images the catalog has, and of how many it has the files."""
    found = master.catalog.states()
    return CatalogStats(
        images=sum(found.values()), states={one: found.get(one, 0) for one in CatalogState}
    )


@router.post("/catalog/updates", status_code=202)
def update_catalog(_: Keeper, master: TheMaster, note: TheNote) -> Queued:
    """Put right what a kill left behind in the catalog, and feed it what waits.

    A master that is served feeds it anyway, as images come.
    """
    return _queue(master, note, JobKind.CATALOG, SiteWork(steward.UPDATE_CATALOG))


@router.post("/catalog/rebuilds", status_code=202)
def rebuild_catalog(_: Keeper, master: TheMaster, note: TheNote) -> Queued:
    """Make what the catalog knows of images anew, from the pool alone; searches go on meanwhile."""
    return _queue(master, note, JobKind.CATALOG, SiteWork(steward.REBUILD_CATALOG))


@router.post("/catalog/protection", status_code=202)
def protect_catalog(_: Keeper, master: TheMaster, note: TheNote) -> Queued:
    """Put the control database into the pool: policies, jobs, users, holds and locks."""
    return _queue(master, note, JobKind.CATALOG_BACKUP, SiteWork(steward.PROTECT))


def _queue(master: TheMaster, note: TheNote, kind: JobKind, work: SiteWork) -> Queued:
    if work.unit is not None:
        storage_units.named(master, work.unit)
    job = running.enqueue(master, running.site_job(kind, work))
    note.details["job"] = job
    return Queued(job=job)
