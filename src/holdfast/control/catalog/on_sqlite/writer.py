"""Write to one source's file: images, and the feeding of one.

Must not decide what to compare, nor give out ids: see `ingest` and `feed`.
"""

from __future__ import annotations

import contextlib
from operator import itemgetter
from typing import TYPE_CHECKING

from holdfast.base.ids import ImageId
from holdfast.control.catalog.feed import Feed
from holdfast.control.catalog.file_rows import OPEN_END, Mode, RestorePoint
from holdfast.control.catalog.joining import heirs
from holdfast.control.catalog.on_sqlite import resolving
from holdfast.control.catalog.on_sqlite.shrink import shrink
from holdfast.control.catalog.on_sqlite.source_file import SEARCH_TEXT, has_search_index
from holdfast.control.catalog.rows import ADDED, CHANGED, REMOVED
from holdfast.control.catalog.timeline import to_signed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterator, Sequence

    from holdfast.control.catalog.file_rows import FeedTarget, NewDirectory, NewName
    from holdfast.control.catalog.on_sqlite.first_names import FirstNames
    from holdfast.control.catalog.on_sqlite.source_file import FileConnection
    from holdfast.control.catalog.rows import ChangeRow

_TEMPORARY = """
CREATE TEMP TABLE target (
    directory INTEGER, name INTEGER, present INTEGER, attributes INTEGER, size INTEGER,
    mtime_ns INTEGER, inode INTEGER
);
CREATE TEMP TABLE seen (
    directory INTEGER, name INTEGER, PRIMARY KEY (directory, name)
) WITHOUT ROWID
"""

_STATE = "attributes, size, mtime_ns, inode"

_LOAD = "INSERT INTO temp.target VALUES (?, ?, ?, ?, ?, ?, ?)"

_PLACE_ALL = "INSERT INTO places SELECT name, directory FROM files ORDER BY name, directory"

_DROP_EQUAL = f"""
DELETE FROM temp.target
WHERE present AND EXISTS (
    SELECT 1 FROM files f
    WHERE f.directory = target.directory AND f.name = target.name AND f.last = {OPEN_END}
      AND f.attributes = target.attributes AND f.size = target.size
      AND f.mtime_ns = target.mtime_ns AND f.inode = target.inode
)
"""  # noqa: S608

_CLOSE = f"""
UPDATE files SET last = :sequence FROM temp.target t
WHERE files.directory = t.directory AND files.name = t.name
  AND files.last = {OPEN_END} AND files.first < :sequence
"""  # noqa: S608

_INSERT = f"""
INSERT INTO files (directory, name, first, last, {_STATE})
SELECT directory, name, :sequence, {OPEN_END}, {_STATE} FROM temp.target WHERE present
"""  # noqa: S608

_PLACE = """
INSERT OR IGNORE INTO places
SELECT name, directory FROM temp.target WHERE present
"""

_CLOSE_UNSEEN = f"""
UPDATE files SET last = :sequence
WHERE last = {OPEN_END} AND first < :sequence
  AND NOT EXISTS (
      SELECT 1 FROM temp.seen s WHERE s.directory = files.directory AND s.name = files.name
  )
"""  # noqa: S608

# Names that changed after the base and are not among its differences to the new image: the
# new image has them as the base had.
_TARGET_AS_IN_BASE = f"""
INSERT INTO temp.target
SELECT moved.directory, moved.name, base.first IS NOT NULL,
       base.attributes, base.size, base.mtime_ns, base.inode
FROM (
    SELECT DISTINCT directory, name FROM files
    WHERE (first > :base OR last BETWEEN :base + 1 AND {OPEN_END} - 1) AND first < :sequence
) moved
LEFT JOIN files base ON base.directory = moved.directory AND base.name = moved.name
    AND base.first <= :base AND base.last > :base
WHERE NOT EXISTS (
    SELECT 1 FROM temp.seen s WHERE s.directory = moved.directory AND s.name = moved.name
)
"""  # noqa: S608

_CHANGING = (
    f"""
CREATE TEMP VIEW IF NOT EXISTS changing AS SELECT directory, name, first, {_STATE} FROM main.files
""",  # noqa: S608
    f"""
CREATE TEMP TRIGGER IF NOT EXISTS change INSTEAD OF INSERT ON changing BEGIN
    UPDATE files SET last = new.first
    WHERE directory = new.directory AND name = new.name AND last = {OPEN_END} AND first < new.first;
    INSERT INTO files (directory, name, first, last, {_STATE}) VALUES (
        new.directory, new.name, new.first, {OPEN_END},
        new.attributes, new.size, new.mtime_ns, new.inode
    );
END
""",  # noqa: S608
)

_DIRECTORIES_KEPT = 50_000
"""From one feed to the next."""

_ATTRIBUTES_KNOWN = 100_000

_alike = itemgetter(3, 6, 7, 8)
"""Kind, mode, owner and group of a change row."""

_key = itemgetter(0, 1)
_inode = itemgetter(-1)
"""Of a row to be stored."""

_LARGEST = (1 << 63) - 1


def _insertion(sequence: int) -> str:
    return (
        f"INSERT INTO files (directory, name, first, last, {_STATE}) "  # noqa: S608
        f"VALUES (?, ?, {sequence}, {OPEN_END}, ?, ?, ?, ?)"
    )


def restore_points(connection: sqlite3.Connection) -> dict[int, RestorePoint]:
    """The images in a file by sequence number, oldest first."""
    rows = connection.execute(
        "SELECT sequence, number, started_ns, image, pool FROM restore_points ORDER BY sequence"
    )
    return {row[0]: RestorePoint(row[1], row[2], ImageId(row[3]), row[4]) for row in rows}


class FileWriter:
    """One generation of a source's rows; see `file_rows.RowsWriter`."""

    def __init__(self, connection: FileConnection) -> None:
        self._connection = connection
        self._changes_before = 0

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit a block's changes together, or none of them."""
        self._begin()
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.directories_known.clear()
            # A full disk may have rolled back already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        if len(self._connection.directories_known) > _DIRECTORIES_KEPT:
            self._connection.directories_known.clear()

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Undo what a block did if it fails."""
        if self._connection.total_changes == self._changes_before:
            with self._first_attempt():
                yield
            return
        self._connection.execute("SAVEPOINT attempt")
        try:
            yield
        except BaseException:
            self._connection.directories_known.clear()
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO attempt")
                self._connection.execute("RELEASE attempt")
            raise
        self._connection.execute("RELEASE attempt")

    @contextlib.contextmanager
    def _first_attempt(self) -> Iterator[None]:
        """Undo what a block did, before which the transaction had done nothing.

        Beside a savepoint each page that is changed would be written twice more.
        """
        try:
            yield
        except BaseException:
            self._connection.directories_known.clear()
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
                # nobody else writes meanwhile: the source's lock is ours
                self._begin()
            raise

    def _begin(self) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        self._changes_before = connection.total_changes
        data_version = connection.execute("PRAGMA data_version").fetchone()
        if connection.written_by_others != data_version:
            connection.written_by_others = data_version
            connection.directories_known.clear()

    def points(self) -> dict[int, RestorePoint]:
        """The images in the file by sequence number, oldest first."""
        return restore_points(self._connection)

    def add_point(self, sequence: int, point: RestorePoint) -> None:
        """Hold an image."""
        self._connection.execute(
            "INSERT INTO restore_points (sequence, image, pool, number, started_ns) "
            "VALUES (?, ?, ?, ?, ?)",
            (sequence, point.image, point.pool, point.number, point.started_ns),
        )

    def take_back(self, oldest: int) -> None:
        """Undo the feeding of this image and of all newer ones; their names stay."""
        execute = self._connection.execute
        execute("DELETE FROM files WHERE first >= ?", (oldest,))
        execute("UPDATE files SET last = ? WHERE last >= ?", (OPEN_END, oldest))
        execute("DELETE FROM restore_points WHERE sequence >= ?", (oldest,))

    def feed(self, sequence: int, mode: Mode) -> Feed:
        """Begin to feed an image."""
        kinds: dict[Mode, Callable[[sqlite3.Connection, int], FeedTarget]] = {
            Mode.FRESH: _FirstFeed,
            Mode.DELTA: _NextFeed,
            Mode.COMPARE: _ComparingFeed,
        }
        known = self._connection.directories_known
        return Feed(kinds[mode](self._connection, sequence), mode, known)

    def expire(self, images: Collection[ImageId]) -> int:
        """Take images out, in one transaction."""
        with self.transaction():
            self._connection.directories_known.clear()
            gone = heirs(self.points(), images)
            return shrink(self._connection, gone) if gone else 0


class _Attributes:
    """Ids of what many entries have alike, bounded in memory; new ones are stored."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[int, ...], int] = {}

    def ids(self, rows: Sequence[ChangeRow]) -> list[int]:
        known = self._known
        if len(known) > _ATTRIBUTES_KNOWN:
            known.clear()
        try:
            return [known[_alike(row)] for row in rows]
        except KeyError:
            for one in set(map(_alike, rows)).difference(known):
                known[one] = self._id(one)
            return [known[_alike(row)] for row in rows]

    def _id(self, one: tuple[int, ...]) -> int:
        execute = self._connection.execute
        execute("INSERT OR IGNORE INTO attributes (kind, mode, uid, gid) VALUES (?, ?, ?, ?)", one)
        found = execute(
            "SELECT id FROM attributes WHERE kind = ? AND mode = ? AND uid = ? AND gid = ?", one
        )
        return int(found.fetchone()[0])


class _Target:
    """What all kinds of feed do alike."""

    def __init__(self, connection: sqlite3.Connection, sequence: int) -> None:
        self._connection = connection
        self._sequence = sequence
        self._first_name = self.highest_ids()[0] + 1
        self._attributes = _Attributes(connection)

    def highest_ids(self) -> tuple[int, int]:
        highest = self._connection.execute(
            "SELECT (SELECT coalesce(max(id), 0) FROM names), "
            "(SELECT coalesce(max(id), 0) FROM directories)"
        ).fetchone()
        return highest[0], highest[1]

    def find_names(self, names: Sequence[bytes]) -> dict[bytes, int]:
        return resolving.find_names(self._connection, names)

    def add_names(self, names: Sequence[NewName]) -> None:
        self._connection.executemany("INSERT INTO names VALUES (?, ?, ?)", names)

    def find_directories(self, places: Sequence[tuple[int, bytes]]) -> dict[tuple[int, bytes], int]:
        return resolving.find_directories(self._connection, places)

    def add_directories(self, directories: Sequence[NewDirectory]) -> None:
        self._connection.executemany("INSERT INTO directories VALUES (?, ?, ?)", directories)

    def outgrew_memory(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _executemany(self, statement: str, rows: Sequence[tuple[int, ...]]) -> None:
        """For each row, whose last column is an inode."""
        if max(map(_inode, rows), default=0) > _LARGEST:
            # Inode numbers use all 64 bits on some file systems, SQLite's integers are signed.
            rows = [(*row[:-1], to_signed(row[-1])) for row in rows]
        self._connection.executemany(statement, rows)

    def _index_for_search(self) -> None:
        if has_search_index(self._connection):
            self._connection.execute(
                f"INSERT INTO names_search (rowid, folded) SELECT id, {SEARCH_TEXT} "  # noqa: S608
                "FROM names WHERE id >= ?",
                (self._first_name,),
            )


class _FirstFeed(_Target):
    """Into an empty file: rows go where they belong, what is sorted by name is made at the end."""

    def __init__(self, connection: sqlite3.Connection, sequence: int) -> None:
        super().__init__(connection, sequence)
        connection.execute("DROP INDEX names_by_name")
        self._insert = _insertion(sequence)
        self._names: FirstNames | None = None
        if has_search_index(connection):
            # it brings the engine, which is not for those who only read
            from holdfast.control.catalog.on_sqlite.first_names import FirstNames

            self._names = FirstNames(connection)

    def add_names(self, names: Sequence[NewName]) -> None:
        super().add_names(names)
        if self._names is not None:
            self._names.add(names)

    def outgrew_memory(self) -> None:
        self._index_names()

    def load(
        self, directories: Sequence[int], names: Sequence[int], rows: Sequence[ChangeRow]
    ) -> None:
        self._executemany(
            self._insert,
            [
                (directories[row[0]], name, alike, row[4], row[5], row[9])
                for row, name, alike in zip(rows, names, self._attributes.ids(rows), strict=True)
                if row[2] != REMOVED
            ],
        )

    def finish(self, base: int | None) -> None:  # noqa: ARG002 - there is nothing else
        self._index_names()
        self._connection.execute(_PLACE_ALL)
        if self._names is not None and not self._names.finish():
            self._index_for_search()

    def _index_names(self) -> None:
        self._connection.execute("CREATE UNIQUE INDEX IF NOT EXISTS names_by_name ON names (name)")


class _NextFeed(_Target):
    """After the newest image: open rows of what changed are closed, new states are new rows.

    Each is found by its key in one step. Set-based SQL looks for it twice: once to learn which
    rows there are, and again to change them. The two rows of a changed file are in one page, which
    is met once.
    """

    def __init__(self, connection: sqlite3.Connection, sequence: int) -> None:
        super().__init__(connection, sequence)
        for statement in _CHANGING:
            connection.execute(statement)
        # or what is inside of each would be prepared to be undone alone: all of the
        # transaction will be
        self._change = f"INSERT OR FAIL INTO changing VALUES (?, ?, {sequence}, ?, ?, ?, ?)"  # noqa: S608
        self._close = (
            f"UPDATE OR FAIL files SET last = {sequence} WHERE directory = ? AND name = ? "  # noqa: S608
            f"AND last = {OPEN_END} AND first < {sequence}"
        )
        self._insert = _insertion(sequence)

    def load(
        self, directories: Sequence[int], names: Sequence[int], rows: Sequence[ChangeRow]
    ) -> None:
        changes: dict[int, list[tuple[int, ...]]] = {ADDED: [], REMOVED: [], CHANGED: []}
        for row, name, alike in zip(rows, names, self._attributes.ids(rows), strict=True):
            changes[row[2]].append((directories[row[0]], name, alike, row[4], row[5], row[9]))
        for one in changes.values():
            # neighbours on disk one after the other
            one.sort()
        added = changes[ADDED]
        execute_many = self._connection.executemany
        self._executemany(self._change, changes[CHANGED])
        execute_many(self._close, map(_key, changes[REMOVED]))
        # what was added since the newest image has no open row, and what changed has its place
        self._executemany(self._insert, added)
        execute_many("INSERT OR IGNORE INTO places VALUES (?, ?)", [one[1::-1] for one in added])

    def finish(self, base: int | None) -> None:  # noqa: ARG002 - every change named what changed
        self._index_for_search()


class _ComparingFeed(_Target):
    """Of differences to something else: what is equal to the open rows is dropped first."""

    def __init__(self, connection: sqlite3.Connection, sequence: int) -> None:
        super().__init__(connection, sequence)
        for statement in _TEMPORARY.split(";"):
            connection.execute(statement)

    def load(
        self, directories: Sequence[int], names: Sequence[int], rows: Sequence[ChangeRow]
    ) -> None:
        execute = self._connection.execute
        execute("DELETE FROM temp.target")
        target = [
            (directories[row[0]], name, row[2] != REMOVED, alike, row[4], row[5], row[9])
            for row, name, alike in zip(rows, names, self._attributes.ids(rows), strict=True)
        ]
        # neighbours on disk one after the other
        target.sort()
        self._executemany(_LOAD, target)
        execute("INSERT OR IGNORE INTO temp.seen SELECT directory, name FROM temp.target")
        self._apply_target()

    def finish(self, base: int | None) -> None:
        execute = self._connection.execute
        if base is None:
            execute(_CLOSE_UNSEEN, {"sequence": self._sequence})
        else:
            execute("DELETE FROM temp.target")
            execute(_TARGET_AS_IN_BASE, {"sequence": self._sequence, "base": base})
            self._apply_target()
        self._index_for_search()

    def close(self) -> None:
        for table in ("target", "seen"):
            self._connection.execute(f"DROP TABLE IF EXISTS temp.{table}")

    def _apply_target(self) -> None:
        self._connection.execute(_DROP_EQUAL)
        self._connection.execute(_CLOSE, {"sequence": self._sequence})
        self._connection.execute(_INSERT, {"sequence": self._sequence})
        self._connection.execute(_PLACE)
