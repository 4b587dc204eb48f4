"""Write to one source's rows in the tables of the control database.

Must not decide what to compare, nor give out ids: see `ingest` and `feed`. Everything runs on
one connection of its own, which holds the source's lock: if it breaks, nothing more is written.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, LiteralString

from holdfast.base.ids import ImageId
from holdfast.control.catalog.feed import Feed
from holdfast.control.catalog.file_rows import OPEN_END, Mode, RestorePoint
from holdfast.control.catalog.joining import heirs
from holdfast.control.catalog.on_postgresql.feeding import ComparingTarget, Target
from holdfast.control.catalog.on_postgresql.shrink import shrink

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import psycopg

    from holdfast.control.catalog.on_postgresql.file_set import FileSet

    Connection = psycopg.Connection[tuple[Any, ...]]

# A feed knows by which key it wants each row; the planner's picture of a table that is being
# filled is an old one.
_SETTINGS = """
SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;
SET LOCAL work_mem = '128MB'
"""


_NAMES_LEFT_UNSORTED = 1000

# What the search index has gathered it reads name by name, until it is sorted in.
_SORT_NEW_NAMES = """
SELECT gin_clean_pending_list(i.indexrelid)
FROM pg_inherits part JOIN pg_index i ON i.indexrelid = part.inhrelid
WHERE part.inhparent = 'file_rows.names_search'::regclass AND i.indrelid = %s::regclass
"""


_TAKE_BACK: tuple[LiteralString, ...] = (
    "DELETE FROM file_rows.versions WHERE file_set = %(set)s AND first >= %(oldest)s",
    (
        f"UPDATE file_rows.versions SET last = {OPEN_END} "  # noqa: S608
        "WHERE file_set = %(set)s AND last >= %(oldest)s"
    ),
    "DELETE FROM file_rows.points WHERE file_set = %(set)s AND sequence >= %(oldest)s",
)


def restore_points(connection: Connection, file_set: int) -> dict[int, RestorePoint]:
    """The images in a set of rows by sequence number, oldest first."""
    rows = connection.execute(
        "SELECT sequence, number, started_ns, image, pool FROM file_rows.points "
        "WHERE file_set = %s ORDER BY sequence",
        (file_set,),
    )
    return {row[0]: RestorePoint(row[1], row[2], ImageId(row[3]), row[4]) for row in rows}


class TableWriter:
    """One generation of a source's rows; see `file_rows.RowsWriter`."""

    def __init__(self, connection: Connection, file_set: FileSet) -> None:
        self._connection = connection
        self._set = file_set
        self._fed: list[Target] = []

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit a block's changes together and durably, or none of them."""
        self._fed.clear()
        with self._connection.transaction():
            self._connection.execute(_SETTINGS)
            yield
        if sum(one.new_names for one in self._fed) > _NAMES_LEFT_UNSORTED:
            self._connection.execute(_SORT_NEW_NAMES, (f"file_rows.names_{self._set.part}",))

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Undo what a block did if it fails."""
        with self._connection.transaction():
            yield

    def points(self) -> dict[int, RestorePoint]:
        """The images that are held, by sequence number, oldest first."""
        return restore_points(self._connection, self._set.id)

    def add_point(self, sequence: int, point: RestorePoint) -> None:
        """Hold an image."""
        self._connection.execute(
            "INSERT INTO file_rows.points VALUES (%s, %s, %s, %s, %s, %s)",
            (self._set.id, sequence, point.image, point.pool, point.number, point.started_ns),
        )

    def take_back(self, oldest: int) -> None:
        """Undo the feeding of this image and of all newer ones; their names stay."""
        of = {"set": self._set.id, "oldest": oldest}
        for statement in _TAKE_BACK:
            self._connection.execute(self._set.sql(statement), of)

    def feed(self, sequence: int, mode: Mode) -> Feed:
        """Begin to feed an image."""
        kind = ComparingTarget if mode is Mode.COMPARE else Target
        target = kind(self._connection, self._set, sequence, mode)
        self._fed.append(target)
        return Feed(target, mode)

    def expire(self, images: Collection[ImageId]) -> int:
        """Take images out, in one transaction."""
        with self.transaction():
            gone = heirs(self.points(), images)
            return shrink(self._connection, self._set, gone) if gone else 0
