"""Decide what an image is compared with, and feed it into its source's rows.

Must not touch the control database. Invariant: after `ingest` the rows hold the image, and they
are those that feeding the live images in order would have made, whatever it was compared with.

The base is the newest image that the rows hold and the pool still has. If that is not the
newest one they hold, or there is none, the differences are compared with the rows. An image
that comes late (older than one that is held) takes back the newer ones and feeds them again,
each from its own pool.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from holdfast.base.errors import CatalogError, HoldfastError, IntegrityError, NotFound
from holdfast.control.catalog.file_rows import Mode

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from holdfast.base.ids import ImageId
    from holdfast.control.catalog.file_rows import RestorePoint, RowsWriter
    from holdfast.control.catalog.rows import PoolReader

    Elsewhere: TypeAlias = Callable[[str], PoolReader | None]
    Holding: TypeAlias = Callable[[RestorePoint], PoolReader | None]


def ingest(
    writer: RowsWriter,
    pool: PoolReader,
    point: RestorePoint,
    progress: Callable[[int], None] | None = None,
    elsewhere: Elsewhere = lambda _: None,
) -> int:
    """Feed one image, in one transaction.

    Args:
        writer: The source's rows.
        pool: Where the image is.
        point: The image.
        progress: Called with the rows fed so far, after each batch; may raise to stop.
        elsewhere: Other pools, by their ids; None for those that there are not.

    Returns:
        Rows fed; 0 if they held the image already.

    Raises:
        HoldfastError: The pool can't read the image; the rows are as before.
    """

    def holding(one: RestorePoint) -> PoolReader | None:
        found = pool if pool.id.hex() == one.pool else elsewhere(one.pool)
        return found if found is not None and _pool_has(found, one) else None

    with writer.transaction():
        held = writer.points()
        points = list(held.values())
        if any(one.image == point.image for one in points):
            return 0
        newer = list(itertools.dropwhile(lambda one: not _is_newer(holding, one, point), points))
        again: list[tuple[RestorePoint, PoolReader]] = []
        if newer:
            again = _take_back(writer, holding, held, newer)
        # what is taken back leaves its names
        whole = Mode.COMPARE if held else Mode.FRESH
        rows = 0
        for each, its_pool in ((point, pool), *again):
            rows += _feed_one(writer, its_pool, each, whole, shifted(progress, rows))
            whole = Mode.COMPARE
        return rows


def shifted(progress: Callable[[int], None] | None, by: int) -> Callable[[int], None]:
    """A progress that counts on from a number of rows."""

    def report(rows: int) -> None:
        if progress is not None:
            progress(by + rows)

    return report


def is_of_image(error: HoldfastError) -> bool:
    """Whether feeding failed for the image's own sake, so that others can still be fed."""
    return isinstance(error, IntegrityError | NotFound)


def _take_back(
    writer: RowsWriter,
    holding: Holding,
    held: dict[int, RestorePoint],
    newer: list[RestorePoint],
) -> list[tuple[RestorePoint, PoolReader]]:
    """Take newer images back; them, and where each can be had to be fed again."""
    found = []
    for one in newer:
        pool = holding(one)
        if pool is None:
            raise CatalogError(
                f"image {one.image} is newer, indexed, and not in the pool to be fed again",
                "its files stay known; the older image can be restored, not browsed",
            )
        found.append((one, pool))
    writer.take_back(next(sequence for sequence, one in held.items() if one is newer[0]))
    return found


def _is_newer(holding: Holding, held: RestorePoint, point: RestorePoint) -> bool:
    if held.age <= point.age:
        return False
    # A pool numbers its images by those it has: when its newest is expired, the number comes
    # again. Then only the time tells.
    return held.started_ns > point.started_ns or holding(held) is not None


def _feed_one(
    writer: RowsWriter,
    pool: PoolReader,
    point: RestorePoint,
    whole: Mode,
    progress: Callable[[int], None],
) -> int:
    held = writer.points()
    newest = max(held, default=0)
    sequence = newest + 1
    rows = None
    base = _base(pool, held, point)
    if base is not None:
        mode = Mode.DELTA if base == newest else Mode.COMPARE
        try:
            with writer.attempt():
                rows = _run(writer, pool, point, sequence, mode, base, held[base].image, progress)
        except HoldfastError as error:
            # The base may be damaged, or have been expired just now: the whole tree will do,
            # and if the image itself is the damaged one, that fails too.
            if not is_of_image(error):
                raise
    if rows is None:
        rows = _run(writer, pool, point, sequence, whole, None, None, progress)
    writer.add_point(sequence, point)
    return rows


def _base(pool: PoolReader, held: dict[int, RestorePoint], point: RestorePoint) -> int | None:
    for sequence in sorted(held, reverse=True):
        if held[sequence].pool == point.pool and _pool_has(pool, held[sequence]):
            return sequence
    return None


def _pool_has(pool: PoolReader, point: RestorePoint) -> bool:
    if pool.id.hex() != point.pool:
        return False
    try:
        pool.image(point.image)
    except (NotFound, IntegrityError):
        return False
    return True


def _run(
    writer: RowsWriter,
    pool: PoolReader,
    point: RestorePoint,
    sequence: int,
    mode: Mode,
    base: int | None,
    base_image: ImageId | None,
    progress: Callable[[int], None],
) -> int:
    feed = writer.feed(sequence, mode)
    try:
        # The engine compares in threads of its own, a batch or two ahead of us.
        for batch in pool.changes(base_image, point.image):
            feed.add(batch)
            progress(feed.rows)
        feed.finish(base)
    finally:
        feed.close()
    return feed.rows
