"""Decide what an image is compared with, and feed it into its source's file.

Must not touch ``catalog.db``. Invariant: after `ingest` the file holds the image, and its rows
are those that feeding the live images in order would have made, whatever it was compared with.

The base is the newest image that the file holds and the pool still has. If that is not the
newest one in the file, or there is none, the rows are compared with what the file has. An image
that comes late (older than one that the file holds) takes back the newer ones and feeds them again.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import CatalogError, HoldfastError, IntegrityError, NotFound
from holdfast.base.ids import ImageId
from holdfast.control.catalog.feed import Feed, Mode
from holdfast.control.catalog.source_file import OPEN_END

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

    from holdfast.control.catalog.rows import PoolReader


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """An image as a source's file knows it; they sort by age."""

    number: int
    started_ns: int
    image: ImageId
    pool: str

    @property
    def age(self) -> tuple[int, int, str]:
        """What orders the images of a source, oldest first."""
        return (self.number, self.started_ns, self.image)


def restore_points(connection: sqlite3.Connection) -> dict[int, RestorePoint]:
    """The images in a file by sequence number, oldest first."""
    rows = connection.execute(
        "SELECT sequence, number, started_ns, image, pool FROM restore_points ORDER BY sequence"
    )
    return {row[0]: RestorePoint(row[1], row[2], ImageId(row[3]), row[4]) for row in rows}


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit a block's changes to a file together, or none of them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def ingest(
    connection: sqlite3.Connection,
    pool: PoolReader,
    point: RestorePoint,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Feed one image, in one transaction.

    Args:
        connection: The source's file, opened for writing.
        pool: Where the image is.
        point: The image.
        progress: Called with the rows fed so far, after each batch; may raise to stop.

    Returns:
        Rows fed; 0 if the file had the image already.

    Raises:
        HoldfastError: The pool can't read the image; the file is as before.
    """
    with transaction(connection):
        held = restore_points(connection)
        points = list(held.values())
        if any(one.image == point.image for one in points):
            return 0
        newer = list(itertools.dropwhile(lambda one: not _is_newer(pool, one, point), points))
        if newer:
            _take_back(connection, pool, held, newer)
        rows = 0
        for each in (point, *newer):
            rows += _feed_one(connection, pool, each, shifted(progress, rows))
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
    connection: sqlite3.Connection,
    pool: PoolReader,
    held: dict[int, RestorePoint],
    newer: list[RestorePoint],
) -> None:
    for one in newer:
        if not _pool_has(pool, one):
            raise CatalogError(
                f"image {one.image} is newer, indexed, and not in the pool to be fed again",
                "its files stay known; the older image can be restored, not browsed",
            )
    oldest = next(sequence for sequence, one in held.items() if one is newer[0])
    connection.execute("DELETE FROM files WHERE first >= ?", (oldest,))
    connection.execute("UPDATE files SET last = ? WHERE last >= ?", (OPEN_END, oldest))
    connection.execute("DELETE FROM restore_points WHERE sequence >= ?", (oldest,))


def _is_newer(pool: PoolReader, held: RestorePoint, point: RestorePoint) -> bool:
    if held.age <= point.age:
        return False
    # A pool numbers its images by those it has: when its newest is expired, the number comes
    # again. Then only the time tells.
    return held.started_ns > point.started_ns or _pool_has(pool, held)


def _feed_one(
    connection: sqlite3.Connection,
    pool: PoolReader,
    point: RestorePoint,
    progress: Callable[[int], None],
) -> int:
    held = restore_points(connection)
    newest = max(held, default=0)
    sequence = newest + 1
    rows = None
    base = _base(pool, held, point)
    if base is not None:
        mode = Mode.DELTA if base == newest else Mode.COMPARE
        connection.execute("SAVEPOINT attempt")
        try:
            rows = _run(connection, pool, point, sequence, mode, base, held[base].image, progress)
        except HoldfastError as error:
            # The base may be damaged, or have been expired just now: the whole tree will do,
            # and if the image itself is the damaged one, that fails too.
            if not is_of_image(error):
                raise
            connection.execute("ROLLBACK TO attempt")
        connection.execute("RELEASE attempt")
    if rows is None:
        mode = Mode.COMPARE if held else Mode.FRESH
        rows = _run(connection, pool, point, sequence, mode, None, None, progress)
    connection.execute(
        "INSERT INTO restore_points (sequence, image, pool, number, started_ns) "
        "VALUES (?, ?, ?, ?, ?)",
        (sequence, point.image, point.pool, point.number, point.started_ns),
    )
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
    connection: sqlite3.Connection,
    pool: PoolReader,
    point: RestorePoint,
    sequence: int,
    mode: Mode,
    base: int | None,
    base_image: ImageId | None,
    progress: Callable[[int], None],
) -> int:
    feed = Feed(connection, sequence, mode)
    try:
        # The engine compares in threads of its own, a batch or two ahead of us.
        for batch in pool.changes(base_image, point.image):
            feed.add(batch)
            progress(feed.rows)
        feed.finish(base)
    finally:
        feed.close()
    return feed.rows
