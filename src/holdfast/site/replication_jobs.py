"""The job that brings images into another storage unit: one, or parts that run side by side.

Must not queue it, nor move data: see `replication`. Invariants: images of one source, with indexes
of them, are in one part, the oldest first, as each is compared with the newest that both pools
have; sources of which the unit has nothing are in one part, since what they share would travel for
each that goes beside another; a job has no more parts than its unit has slots, and none without
images.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from holdfast.base.ids import FILES_OF, ClientName, SourceName
from holdfast.control.dispatch.roster import family
from holdfast.control.jobs import JobKind
from holdfast.site.replication import REPLICATE
from holdfast.site.running import site_job
from holdfast.wire.messages import SiteWork

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from holdfast.base.ids import ImageId
    from holdfast.control.catalog import ImageRow
    from holdfast.control.jobs import NewJob
    from holdfast.site.master import Master

    Rows = list[ImageRow]


def replication_job(master: Master, images: Sequence[ImageId], unit: str) -> NewJob:
    """Make the job that brings images into a storage unit, as divided as the unit has slots now.

    Args:
        master: Whose.
        images: Each once. Those that the catalog does not know are left to fail when it runs.
        unit: Its name.

    Returns:
        Of one source, for a unit with one slot, and where the unit has nothing of any of them, one
        job that brings them as they are named; else one that has parts.

    Raises:
        NotFound: There is no such unit.
    """
    target = master.site.pools.of_unit(unit)
    rows = list(master.catalog.each_image(images))
    sources = _by_source(rows)
    newest = master.catalog.newest_of([_source(some[0]) for some in sources], target)
    there = {one.source: one for one in master.catalog.each_image(list(newest.values()))}
    groups = _grouped(sources, there)
    slots = master.unit_slots()[unit]
    # What is left out above would be in no part, and nobody would hear of it.
    if min(slots, len(groups)) < 2 or len(rows) < len(images):
        return site_job(JobKind.REPLICATE, SiteWork(REPLICATE, tuple(images), unit=unit))
    return family([_part(some, unit) for some in _shared_out(groups, slots)])


def _source(row: ImageRow) -> SourceName:
    """Of an index, that of what it is of."""
    return SourceName(row.source.removeprefix(FILES_OF))


def _by_source(rows: Iterable[ImageRow]) -> list[Rows]:
    """Images of each source, the oldest first."""
    found: dict[SourceName, Rows] = {}
    for row in rows:
        found.setdefault(_source(row), []).append(row)
    return [sorted(some, key=_age) for some in found.values()]


def _age(row: ImageRow) -> tuple[object, ...]:
    """The order in which the catalog calls an image of a source the newest."""
    return row.started_at, row.id


def _grouped(
    sources: Iterable[Rows], there: Mapping[SourceName, ImageRow]
) -> list[tuple[int, list[Rows]]]:
    """What is to stay together, with about how many bytes of it are missing."""
    new: list[Rows] = []
    groups = []
    for some in sources:
        newest = there.get(_source(some[0]))
        if newest is None:
            new.append(some)
        else:
            groups.append((_bytes_to_bring(some, newest), [some]))
    if new:
        groups.append((sum(_bytes_to_bring(some, None) for some in new), new))
    return groups


def _bytes_to_bring(some: Rows, newest: ImageRow | None) -> int:
    """About how much of a source is missing there: enough to tell large ones from small ones.

    Args:
        some: Its images, the oldest first.
        newest: The newest that is there: those before it mostly are, too.
    """
    missing = [one for one in some if newest is None or _age(one) > _age(newest)]
    if newest is not None or not missing:
        return sum(one.new_bytes for one in missing)
    # The first has nothing to be compared with, whatever was new when it was made.
    return missing[0].size_bytes + sum(one.new_bytes for one in missing[1:])


def _shared_out(groups: Iterable[tuple[int, list[Rows]]], slots: int) -> list[list[Rows]]:
    """Groups in as many parts as there may be: the largest first, each to the smallest part."""
    ordered = sorted(groups, key=lambda one: one[0], reverse=True)
    parts: list[list[Rows]] = [[] for _ in range(min(slots, len(ordered)))]
    # So many bytes, so many sources: of parts with as many bytes, that with fewest sources is next.
    smallest = [(0, 0, at) for at in range(len(parts))]
    for size_bytes, sources in ordered:
        total, count, at = smallest[0]
        parts[at] += sources
        heapq.heapreplace(smallest, (total + size_bytes, count + len(sources), at))
    return parts


def _part(some: list[Rows], unit: str) -> NewJob:
    images = tuple(row.id for rows in some for row in rows)
    clients = {row.host for rows in some for row in rows}
    return site_job(
        JobKind.REPLICATE,
        SiteWork(REPLICATE, images, unit=unit),
        ClientName(clients.pop()) if len(clients) == 1 else None,
        _source(some[0][0]) if len(some) == 1 else None,
    )
