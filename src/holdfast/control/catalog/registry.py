"""Clients, sources, images and copies: the rows of ``catalog.db``.

Must not open transactions or file rows. Every function runs on the caller's connection. An image
that is expiring is gone for every question; only the finishing of its expiration still sees it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base import image_names, labels
from holdfast.base.clock import from_ns
from holdfast.base.errors import ImageMissing, NotFound
from holdfast.base.ids import LATEST, ImageId, PoolId, SourceName, files_source
from holdfast.control.catalog import inside, protection
from holdfast.control.catalog.file_rows import RestorePoint, Source
from holdfast.control.catalog.rows import CatalogState, CopyRow, ImageRow, WaitingImage
from holdfast.control.catalog.schema import clients, copies, images, sources
from holdfast.control.database.upsert import insert

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from holdfast.control.catalog.rows import Manifest, Visible


_OLDEST_FIRST = (images.c.number, images.c.started_ns, images.c.id)
_NEWEST_FIRST = tuple(column.desc() for column in _OLDEST_FIRST)
_THERE = images.c.catalog_state != CatalogState.EXPIRING.value

# to build it would take longer than the answer
SOURCE_OF = (
    sa.select(sources.c.id, sources.c.name, sources.c.generation)
    .join(images)
    .where(images.c.id == sa.bindparam("image"), _THERE)
)

SOURCES = sa.select(sources.c.id, sources.c.name, sources.c.generation).order_by(sources.c.name)

_AT_ONCE = 500
"""Images looked for by one statement: a statement has a limited number of parameters."""


def record(connection: sa.Connection, manifest: Manifest, pool: PoolId, now_ns: int) -> None:
    """Note an image and its copy in a pool; a second time only the manifest's facts change."""
    client = _id_of(connection, clients, {"name": manifest.host})
    source = _id_of(connection, sources, {"name": manifest.source}, client_id=client)
    stats = manifest.stats
    facts: dict[str, Any] = {
        "source_id": source,
        "number": manifest.number,
        "started_ns": manifest.started_ns,
        "finished_ns": manifest.finished_ns,
        "files": stats.get("files", 0),
        "size_bytes": stats.get("bytes_found", 0),
        "online_bytes": stats.get("bytes_online", 0),
        "new_bytes": stats.get("bytes_new", 0),
        "transmitted_bytes": stats.get("bytes_transmitted", 0),
        "findings": manifest.findings_total,
        "status": manifest.status,
        "parent": manifest.parent,
        "software": manifest.software,
        "policy": manifest.labels.get(labels.POLICY),
        "schedule": manifest.labels.get(labels.SCHEDULE),
        "backup_kind": manifest.labels.get(labels.KIND),
        "job": manifest.labels.get(labels.JOB),
        "client_key": manifest.client_key,
        "sealed_names": manifest.has_sealed_names,
        "index_of": manifest.labels.get(labels.INDEX_OF),
    }
    connection.execute(
        insert(connection, images)
        .values(id=manifest.id, catalog_state=CatalogState.PENDING.value, **facts)
        .on_conflict_do_update(index_elements=[images.c.id], set_=facts)
    )
    connection.execute(
        insert(connection, copies)
        .values(image_id=manifest.id, pool_id=pool, recorded_ns=now_ns)
        .on_conflict_do_nothing()
    )
    inside.note(connection, manifest)


def _id_of(connection: sa.Connection, table: sa.Table, key: dict[str, str], **others: int) -> int:
    statement = insert(connection, table).values(**key, **others).on_conflict_do_nothing()
    connection.execute(statement)
    condition = sa.and_(*(table.c[name] == value for name, value in key.items()))
    return int(connection.execute(sa.select(table.c.id).where(condition)).scalar_one())


def list_images(connection: sa.Connection, some: Collection[str] | None) -> list[ImageRow]:
    """Images of some sources, or of all, newest last."""
    query = (
        sa.select(images, sources.c.name.label("source"), clients.c.name.label("host"))
        .join(sources, sources.c.id == images.c.source_id)
        .join(clients, clients.c.id == sources.c.client_id)
        .where(_THERE, inside.SHOWN)
        .order_by(*_OLDEST_FIRST)
    )
    if some is not None:
        query = query.where(sources.c.name.in_(some))
    return [_image_row(row) for row in connection.execute(query).mappings()]


def image_ids(connection: sa.Connection, source: str | None) -> list[ImageId]:
    """Ids of all images, or of those of one source, newest last."""
    query = sa.select(images.c.id).where(_THERE, inside.SHOWN).order_by(*_OLDEST_FIRST)
    if source is not None:
        query = query.join(sources).where(sources.c.name == source)
    return [ImageId(one) for one in connection.scalars(query)]


def some_images(connection: sa.Connection, some: Sequence[str]) -> dict[str, ImageRow]:
    """Images by their ids; those that are not there are left out."""
    found: dict[str, ImageRow] = {}
    for begin in range(0, len(some), _AT_ONCE):
        query = (
            sa.select(images, sources.c.name.label("source"), clients.c.name.label("host"))
            .join(sources, sources.c.id == images.c.source_id)
            .join(clients, clients.c.id == sources.c.client_id)
            .where(images.c.id.in_(some[begin : begin + _AT_ONCE]), _THERE)
        )
        found |= {row["id"]: _image_row(row) for row in connection.execute(query).mappings()}
    return found


def one_image(connection: sa.Connection, image: ImageId) -> ImageRow:
    """One image; raises `ImageMissing`."""
    query = (
        sa.select(images, sources.c.name.label("source"), clients.c.name.label("host"))
        .join(sources, sources.c.id == images.c.source_id)
        .join(clients, clients.c.id == sources.c.client_id)
        .where(images.c.id == image, _THERE)
    )
    row = connection.execute(query).mappings().first()
    if row is None:
        raise missing(image)
    return _image_row(row)


def _image_row(row: sa.RowMapping) -> ImageRow:
    parent = row["parent"]
    return ImageRow(
        id=ImageId(row["id"]),
        number=row["number"],
        source=SourceName(row["source"]),
        host=row["host"],
        started_at=from_ns(row["started_ns"]),
        finished_at=from_ns(row["finished_ns"]),
        files=row["files"],
        size_bytes=row["size_bytes"],
        online_bytes=row["online_bytes"],
        new_bytes=row["new_bytes"],
        transmitted_bytes=row["transmitted_bytes"],
        status=row["status"],
        parent=None if parent is None else ImageId(parent),
        findings=row["findings"],
        catalog_state=CatalogState(row["catalog_state"]),
        catalog_detail=row["catalog_detail"],
        policy=row["policy"],
        schedule=row["schedule"],
        backup_kind=row["backup_kind"],
        job=row["job"],
        client_key=row["client_key"],
        sealed_names=row["sealed_names"],
    )


def list_copies(connection: sa.Connection, image: ImageId) -> list[CopyRow]:
    """Where an image is stored, oldest copy first."""
    query = (
        sa.select(copies)
        .where(copies.c.image_id == image)
        .order_by(copies.c.recorded_ns, copies.c.pool_id)
    )
    return [
        CopyRow(ImageId(row.image_id), PoolId(row.pool_id), from_ns(row.recorded_ns))
        for row in connection.execute(query)
    ]


def resolve(connection: sa.Connection, text: str, source: str | None) -> ImageId:
    """The image that an id, a unique prefix of one, or ``latest`` names."""
    query = sa.select(images.c.id).join(sources).where(_THERE, inside.SHOWN)
    if source is not None:
        query = query.where(sources.c.name == source)
    where = "" if source is None else f" of source '{source}'"
    if text.strip().lower() == LATEST:
        newest = connection.scalar(query.order_by(*_NEWEST_FIRST).limit(1))
        if newest is None:
            raise ImageMissing(
                f"there is no image{where} in the catalog yet",
                "make one with: holdfast backup PATH; "
                "or hear of what the pool has: holdfast catalog rebuild",
            )
        return ImageId(newest)
    wanted = image_names.image_prefix(text)
    found = connection.scalars(
        # the ids are hexadecimal: 'g' is the first character after any of theirs
        query.where(images.c.id >= wanted, images.c.id < wanted + "g")
        .order_by(*_NEWEST_FIRST)
        .limit(image_names.AMBIGUOUS_SHOWN + 1)
    ).all()
    return ImageId(image_names.the_one(text, found, where))


def as_of(connection: sa.Connection, source: str, moment_ns: int, moment: datetime) -> ImageId:
    """The newest image of a source that had begun at a moment."""
    newest = connection.scalar(
        sa.select(images.c.id)
        .join(sources)
        .where(_THERE, sources.c.name == source, images.c.started_ns <= moment_ns)
        .order_by(*_NEWEST_FIRST)
        .limit(1)
    )
    if newest is None:
        raise ImageMissing(
            f"source '{source}' has no image as old as {moment.isoformat()}",
            "list them with: holdfast images",
        )
    return ImageId(newest)


def newest_of_kind(
    connection: sa.Connection, source: str, kinds: Collection[str]
) -> ImageId | None:
    """The newest image of a source that was ordered as one of some kinds, if there is one."""
    query = sa.select(images.c.id).join(sources)
    query = query.where(_THERE, sources.c.name == source, images.c.backup_kind.in_(kinds))
    newest = connection.scalar(query.order_by(*_NEWEST_FIRST).limit(1))
    return None if newest is None else ImageId(newest)


def newest_of(
    connection: sa.Connection, some: Sequence[SourceName], pool: PoolId | None = None
) -> dict[SourceName, ImageId]:
    """The newest image of each of some sources that has one; in one pool, if it is named."""
    wanted = sa.select(images.c.id).where(images.c.source_id == sources.c.id, _THERE)
    if pool is not None:
        wanted = wanted.join(copies).where(copies.c.pool_id == pool)
    newest = (
        wanted.order_by(images.c.started_ns.desc(), images.c.id.desc()).limit(1).scalar_subquery()
    )
    found: dict[SourceName, ImageId] = {}
    for begin in range(0, len(some), _AT_ONCE):
        query = sa.select(sources.c.name, newest.label("newest"))
        query = query.where(sources.c.name.in_(some[begin : begin + _AT_ONCE]))
        for row in connection.execute(query):
            if row.newest is not None:
                found[SourceName(row.name)] = ImageId(row.newest)
    return found


def of_jobs(connection: sa.Connection, jobs: Collection[str]) -> dict[str, ImageId]:
    """The images that some jobs made, by job."""
    query = sa.select(images.c.job, images.c.id).where(_THERE, images.c.job.in_(jobs))
    return {row.job: ImageId(row.id) for row in connection.execute(query)}


def list_sources(
    connection: sa.Connection, name: str | None = None, visible: Visible | None = None
) -> list[Source]:
    """Sources by name; one only, if it is named.

    Args:
        connection: In a transaction.
        name: Of the one.
        visible: Of which clients they may be seen; None: of all.

    Raises:
        NotFound: There is no source of this name.
    """
    query = SOURCES
    if name is not None:
        # with what is inside of its machine, if it is one
        query = query.where(sources.c.name.in_([name, files_source(SourceName(name))]))
    if visible is not None:
        query = query.join(clients).where(visible(connection, clients.c.name))
    found = [Source(row[0], SourceName(row[1]), row[2]) for row in connection.execute(query)]
    if name is not None and not found:
        raise NotFound(f"there is no source '{name}'", "list them with: holdfast images")
    return found


def source_by_id(connection: sa.Connection, number: int) -> Source | None:
    """A source, if there is one of this id."""
    row = connection.execute(
        sa.select(sources.c.id, sources.c.name, sources.c.generation).where(sources.c.id == number)
    ).first()
    return None if row is None else Source(row.id, SourceName(row.name), row.generation)


def source_of(connection: sa.Connection, image: ImageId) -> Source:
    """The source of an image that is there; raises `ImageMissing`."""
    row = connection.execute(SOURCE_OF, {"image": image}).first()
    if row is None:
        raise missing(image)
    return Source(row.id, SourceName(row.name), row.generation)


def restore_point(connection: sa.Connection, image: ImageId, pool: PoolId) -> RestorePoint:
    """An image as its source's file is to know it; raises `ImageMissing`."""
    row = connection.execute(
        sa.select(images.c.number, images.c.started_ns)
        .join(copies)
        .where(images.c.id == image, copies.c.pool_id == pool, _THERE)
    ).first()
    if row is None:
        raise missing(image)
    return RestorePoint(row.number, row.started_ns, image, pool)


def in_state(connection: sa.Connection, state: CatalogState) -> list[ImageId]:
    """Images whose file rows are in a state, oldest first."""
    query = sa.select(images.c.id).where(images.c.catalog_state == state.value)
    return [ImageId(one) for one in connection.scalars(query.order_by(*_OLDEST_FIRST))]


def states_of(connection: sa.Connection, source: int) -> dict[ImageId, CatalogState]:
    """The images of a source, but for those that expire."""
    query = sa.select(images.c.id, images.c.catalog_state).where(
        images.c.source_id == source, _THERE
    )
    return {ImageId(row[0]): CatalogState(row[1]) for row in connection.execute(query)}


def waiting_sources(connection: sa.Connection) -> list[int]:
    """Sources of images that wait to be fed, by id; the one that waits longest first."""
    query = (
        sa.select(images.c.source_id)
        .join(copies)
        .where(images.c.catalog_state == CatalogState.PENDING.value)
        .group_by(images.c.source_id)
        .order_by(sa.func.min(images.c.finished_ns), images.c.source_id)
    )
    return [int(one) for one in connection.scalars(query)]


def waiting(connection: sa.Connection, source: int) -> list[WaitingImage]:
    """Images of a source that wait to be fed, oldest first, each with a pool that has it."""
    query = (
        sa.select(
            images.c.id,
            images.c.files,
            sources.c.generation,
            sa.func.min(copies.c.pool_id).label("pool"),
        )
        .join(copies)
        .join(sources)
        .where(images.c.source_id == source, images.c.catalog_state == CatalogState.PENDING.value)
        .group_by(
            images.c.id,
            images.c.files,
            sources.c.generation,
            images.c.number,
            images.c.started_ns,
        )
        .order_by(*_OLDEST_FIRST)
    )
    return [
        WaitingImage(ImageId(row.id), PoolId(row.pool), 0 if row.generation else row.files)
        for row in connection.execute(query)
    ]


def count_states(connection: sa.Connection) -> dict[CatalogState, int]:
    """How many images are in each state."""
    query = sa.select(images.c.catalog_state, sa.func.count()).group_by(images.c.catalog_state)
    counted = {row[0]: int(row[1]) for row in connection.execute(query)}
    return {state: counted.get(state.value, 0) for state in CatalogState}


def expiring(connection: sa.Connection) -> list[tuple[int, ImageId]]:
    """Images whose expiration was interrupted, with the ids of their sources."""
    query = sa.select(images.c.source_id, images.c.id).where(~_THERE)
    return [(row.source_id, ImageId(row.id)) for row in connection.execute(query)]


def set_state(
    connection: sa.Connection, image: ImageId, state: CatalogState, detail: str | None = None
) -> None:
    """Say how far the file rows of an image are; one that is expiring stays so."""
    connection.execute(
        sa.update(images)
        .where(images.c.id == image, _THERE)
        .values(catalog_state=state.value, catalog_detail=detail)
    )


def set_generation(connection: sa.Connection, source: int, generation: int) -> None:
    """Say which file holds the rows of a source."""
    connection.execute(
        sa.update(sources).where(sources.c.id == source).values(generation=generation)
    )


def generation_of(connection: sa.Connection, source: int) -> int:
    """Which file holds the rows of a source; 0 if there is none yet."""
    query = sa.select(sources.c.generation).where(sources.c.id == source)
    return int(connection.execute(query).scalar_one())


def replace_file(
    connection: sa.Connection,
    source: int,
    generation: int,
    indexed: list[ImageId],
    failed: dict[ImageId, str],
) -> None:
    """Name the new file of a source, and say what is in it; other images wait to be fed."""
    set_generation(connection, source, generation)
    connection.execute(
        sa.update(images)
        .where(images.c.source_id == source, _THERE)
        .values(catalog_state=CatalogState.PENDING.value, catalog_detail=None)
    )
    for image in indexed:
        set_state(connection, image, CatalogState.INDEXED)
    for image, detail in failed.items():
        set_state(connection, image, CatalogState.FAILED, detail)


def drop_copy(connection: sa.Connection, image: ImageId, pool: str | None) -> bool:
    """Forget a copy of an image, or all; with the last one the image begins to expire.

    Returns:
        Whether the image is to go.
    """
    condition = copies.c.image_id == image
    if pool is not None:
        condition = sa.and_(condition, copies.c.pool_id == pool)
    connection.execute(sa.delete(copies).where(condition))
    if connection.scalar(sa.select(copies.c.pool_id).where(copies.c.image_id == image).limit(1)):
        return False
    connection.execute(
        sa.update(images)
        .where(images.c.id == image)
        .values(catalog_state=CatalogState.EXPIRING.value)
    )
    return True


def forget(connection: sa.Connection, image: ImageId) -> None:
    """Remove an expiring image; its source stays known."""
    protection.forget(connection, image)
    inside.forget(connection, image)
    connection.execute(sa.delete(copies).where(copies.c.image_id == image))
    connection.execute(sa.delete(images).where(images.c.id == image, ~_THERE))


def copies_in(connection: sa.Connection, pool: PoolId) -> set[ImageId]:
    """Images that the catalog believes to be in a pool."""
    query = sa.select(copies.c.image_id).where(copies.c.pool_id == pool)
    return {ImageId(one) for one in connection.scalars(query)}


def count_copies(connection: sa.Connection, pool: PoolId) -> int:
    """How many images the catalog believes to be in a pool."""
    query = sa.select(sa.func.count()).where(copies.c.pool_id == pool)
    return int(connection.scalar(query) or 0)


def sources_with_copies(connection: sa.Connection, pool: PoolId) -> list[int]:
    """Sources that have, or had, an image in a pool; by id."""
    query = sa.select(images.c.source_id).join(copies).where(copies.c.pool_id == pool)
    return [int(one) for one in connection.scalars(query.distinct().order_by(images.c.source_id))]


def restore_points_in(
    connection: sa.Connection, source: int, pools: Sequence[PoolId]
) -> list[RestorePoint]:
    """A source's images in some pools, as its file is to know them, oldest first.

    Of an image that several of them have, the pool that is named first counts.
    """
    query = (
        sa.select(images.c.number, images.c.started_ns, images.c.id, copies.c.pool_id)
        .join(copies)
        .where(images.c.source_id == source, copies.c.pool_id.in_(pools), _THERE)
        .order_by(*_OLDEST_FIRST)
    )
    found: dict[str, RestorePoint] = {}
    for row in sorted(connection.execute(query), key=lambda row: pools.index(row.pool_id)):
        point = RestorePoint(row.number, row.started_ns, ImageId(row.id), row.pool_id)
        found.setdefault(row.id, point)
    return sorted(found.values(), key=lambda one: (one.number, one.started_ns, one.image))


def missing(image: str) -> ImageMissing:
    """The error for an image that the catalog does not have."""
    return ImageMissing(
        f"the catalog has no image '{image}'",
        "list them with: holdfast images; if the pool has it: holdfast catalog rebuild",
    )
