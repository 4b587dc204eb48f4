"""Images in lists: filtered, newest first, a page at a time, each page as quick as the first.

Must not change anything. Invariant: a page begins after a row, named by when its image began and
its id, so that images which come or go between two pages neither shift nor repeat the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.clock import from_ns, to_ns
from holdfast.base.ids import FILES_OF, ClientName, ImageId, SourceName
from holdfast.control.catalog import protection, registry
from holdfast.control.catalog.inside import SHOWN
from holdfast.control.catalog.rows import CatalogState
from holdfast.control.catalog.schema import clients, images, sources

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast.control.catalog.protection import Protection
    from holdfast.control.catalog.rows import ImageRow, Visible
    from holdfast.control.database import Database

Place = tuple[int, str]
"""Where a page begins: when the image before it began, in ns since 1970, and its id."""

_SINGLY = 16
"""Of so many sources each is asked for its newest by an index of its own; of more, the images of
all are looked through, of which enough are theirs."""

_LAST_NS = 2**63 - 1
_ORDER = (images.c.started_ns, images.c.id)
_NEWEST_FIRST = tuple(column.desc() for column in _ORDER)
_THERE = images.c.catalog_state != CatalogState.EXPIRING.value


@dataclass(frozen=True, slots=True)
class WantedImages:
    """Which images a list has: those for which every condition holds that is set.

    Attributes:
        since: Begun at or after this.
        until: Begun before this.
        visible: What of the column of clients may be seen by whoever asks; None: all.
    """

    source: str | None = None
    client: str | None = None
    policy: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    visible: Visible | None = None


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image in a list.

    Attributes:
        image: The image.
        protection: Its holds and its lock.
        place: Where the page after it begins.
    """

    image: ImageRow
    protection: Protection
    place: Place


@dataclass(frozen=True, slots=True)
class ListedSource:
    """A source in a list.

    Attributes:
        client: Whose it is.
        newest: Its newest image; None if all are gone.
        newest_at: When that began.
    """

    name: SourceName
    client: ClientName
    newest: ImageId | None
    newest_at: datetime | None


class ImageLists:
    """What a site has images of, in pages. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def images(
        self, wanted: WantedImages, *, limit: int, after: Place | None = None
    ) -> list[ListedImage]:
        """Some of the images that are wanted, newest first.

        Args:
            wanted: Which.
            limit: So many at most.
            after: The place of the last image of the page before; None for the first page.
        """
        with self._database.read() as connection:
            found = _places(connection, wanted, limit, after)
            ids = [place[1] for place in found]
            rows = registry.some_images(connection, ids)
            kept = protection.of_images(connection, ids)
        return [
            ListedImage(rows[place[1]], kept.get(rows[place[1]].id, protection.NONE), place)
            for place in found
        ]

    def protection(self, image: ImageId) -> Protection:
        """The holds and the lock of an image; without any for one that is not there."""
        with self._database.read() as connection:
            return protection.of_images(connection, [image]).get(image, protection.NONE)

    def clients(
        self, visible: Visible | None = None, *, limit: int, after: str | None = None
    ) -> list[ClientName]:
        """Some of the clients that have, or had, images; by name.

        Args:
            visible: Which may be seen; None: all.
            limit: So many at most.
            after: The last of the page before.
        """
        query = sa.select(clients.c.name).order_by(clients.c.name).limit(limit)
        if after is not None:
            query = query.where(clients.c.name > after)
        with self._database.read() as connection:
            if visible is not None:
                query = query.where(visible(connection, clients.c.name))
            return [ClientName(name) for name in connection.scalars(query)]

    def sources(
        self,
        client: str | None = None,
        visible: Visible | None = None,
        *,
        limit: int,
        after: str | None = None,
    ) -> list[ListedSource]:
        """Some of the sources that have, or had, images; by name.

        Args:
            client: Of this one only.
            visible: Of which clients they may be seen; None: of all.
            limit: So many at most.
            after: The last of the page before.
        """
        query: sa.Select[Any] = (
            sa.select(
                sources.c.name,
                clients.c.name.label("client"),
                _newest(images.c.id).label("newest"),
                _newest(images.c.started_ns).label("newest_ns"),
            )
            .join(clients)
            .where(~sources.c.name.startswith(FILES_OF))
            .order_by(sources.c.name)
            .limit(limit)
        )
        if client is not None:
            query = query.where(clients.c.name == client)
        if after is not None:
            query = query.where(sources.c.name > after)
        with self._database.read() as connection:
            if visible is not None:
                query = query.where(visible(connection, clients.c.name))
            return [_listed_source(row) for row in connection.execute(query)]

    def client_of(self, source: str) -> ClientName | None:
        """Whose a source is; None for one that is not known."""
        query = sa.select(clients.c.name).join(sources).where(sources.c.name == source)
        with self._database.read() as connection:
            found = connection.scalar(query)
        return None if found is None else ClientName(found)

    def source_of(self, image: str) -> SourceName | None:
        """What an image is of; None for one that is not known."""
        query = sa.select(sources.c.name).join(images).where(images.c.id == image)
        with self._database.read() as connection:
            found = connection.scalar(query)
        return None if found is None else SourceName(found)


def _places(
    connection: sa.Connection, wanted: WantedImages, limit: int, after: Place | None
) -> list[Place]:
    query = _matching(wanted, limit, after)
    some = _sources(connection, wanted)
    if some is not None:
        few = connection.scalars(some.limit(_SINGLY + 1)).all()
        if len(few) <= _SINGLY:
            found: list[Place] = []
            for source in few:
                rows = connection.execute(query.where(images.c.source_id == source))
                found += [(row.started_ns, row.id) for row in rows]
            return sorted(found, reverse=True)[:limit]
        # Added to, it has no index of its own: the images are to be looked through in order.
        query = query.where((images.c.source_id + 0).in_(some))
    return [(row.started_ns, row.id) for row in connection.execute(query)]


def _matching(wanted: WantedImages, limit: int, after: Place | None) -> sa.Select[tuple[int, str]]:
    query = sa.select(*_ORDER).where(_THERE, SHOWN).order_by(*_NEWEST_FIRST).limit(limit)
    if wanted.policy is not None:
        query = query.where(images.c.policy == wanted.policy)
    if wanted.since is not None:
        query = query.where(images.c.started_ns >= _bounded_ns(wanted.since))
    if wanted.until is not None:
        query = query.where(images.c.started_ns < _bounded_ns(wanted.until))
    if after is not None:
        here = sa.tuple_(*_ORDER)
        query = query.where(
            here < sa.tuple_(sa.literal(after[0], sa.BigInteger), sa.literal(after[1], sa.Text))
        )
    return query


def _bounded_ns(moment: datetime) -> int:
    """In ns since 1970, as far as a database counts."""
    return min(max(to_ns(moment), -_LAST_NS), _LAST_NS)


def _sources(connection: sa.Connection, wanted: WantedImages) -> sa.Select[tuple[int]] | None:
    """Ids of the sources that are wanted; None for all."""
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.source is not None:
        conditions.append(sources.c.name == wanted.source)
    if wanted.client is not None:
        conditions.append(clients.c.name == wanted.client)
    if wanted.visible is not None:
        conditions.append(wanted.visible(connection, clients.c.name))
    if not conditions:
        return None
    return sa.select(sources.c.id).join(clients).where(*conditions)


def _newest(column: sa.Column[Any]) -> sa.ScalarSelect[Any]:
    """A column of the newest image of a row of sources."""
    return (
        sa.select(column)
        .where(images.c.source_id == sources.c.id, _THERE)
        .order_by(*_NEWEST_FIRST)
        .limit(1)
        .scalar_subquery()
    )


def _listed_source(row: sa.Row[Any]) -> ListedSource:
    return ListedSource(
        name=SourceName(row.name),
        client=ClientName(row.client),
        newest=None if row.newest is None else ImageId(row.newest),
        newest_at=None if row.newest is None else from_ns(row.newest_ns),
    )
