"""Turn the differences between two trees into intervals, by set-based SQL.

Python hands each batch of tuples to ``executemany`` and does no work per row; it keeps one
dictionary from directory paths to ids, bounded. Must not open or commit a transaction, and must
not decide what to compare: see `ingest`.

Three ways to feed an image with sequence number N, all of which leave the same rows:

* `Mode.FRESH`: the file is empty. Rows are inserted, indexes are made at the end.
* `Mode.DELTA`: the rows are the differences to the newest image in the file. Open intervals of
  the names they mention are closed at N, new states are inserted.
* `Mode.COMPARE`: the rows are differences to something else, or to nothing. States that are
  equal to the open ones are dropped first, so an unchanged file keeps its version; `finish`
  then settles the names that no row mentioned.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from holdfast.control.catalog.source_file import OPEN_END, ROOT, SEARCH_TEXT, has_search_index

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from holdfast.control.catalog.rows import ChangeRow, ChangeRows

_DIRECTORY_CACHE = 200_000

_TEMPORARY = """
CREATE TEMP TABLE feed (
    slot INTEGER, name BLOB, change INTEGER, kind INTEGER, size INTEGER, mtime_ns INTEGER,
    mode INTEGER, uid INTEGER, gid INTEGER, inode INTEGER
);
CREATE TEMP TABLE slots (slot INTEGER PRIMARY KEY, directory INTEGER NOT NULL);
CREATE TEMP TABLE new_directories (id INTEGER, parent INTEGER, name BLOB);
CREATE TEMP TABLE target (
    directory INTEGER, name INTEGER, present INTEGER, kind INTEGER, size INTEGER,
    mtime_ns INTEGER, mode INTEGER, uid INTEGER, gid INTEGER, inode INTEGER
);
CREATE TEMP TABLE seen (
    directory INTEGER, name INTEGER, PRIMARY KEY (directory, name)
) WITHOUT ROWID
"""

_ATTRIBUTES = "kind, size, mtime_ns, mode, uid, gid, inode"

_INSERT_FRESH = f"""
INSERT INTO files (directory, name, first, last, {_ATTRIBUTES})
SELECT s.directory, n.id, :sequence, {OPEN_END},
       f.kind, f.size, f.mtime_ns, f.mode, f.uid, f.gid, f.inode
FROM temp.feed f
CROSS JOIN temp.slots s ON s.slot = f.slot
CROSS JOIN names n ON n.name = f.name
WHERE f.change <> 2
"""  # noqa: S608

_RESOLVE = """
INSERT INTO temp.target
SELECT s.directory, n.id, f.change <> 2,
       f.kind, f.size, f.mtime_ns, f.mode, f.uid, f.gid, f.inode
FROM temp.feed f
CROSS JOIN temp.slots s ON s.slot = f.slot
CROSS JOIN names n ON n.name = f.name
"""

_DROP_EQUAL = f"""
DELETE FROM temp.target
WHERE present AND EXISTS (
    SELECT 1 FROM files f
    WHERE f.directory = target.directory AND f.name = target.name AND f.last = {OPEN_END}
      AND f.kind = target.kind AND f.size = target.size AND f.mtime_ns = target.mtime_ns
      AND f.mode = target.mode AND f.uid = target.uid AND f.gid = target.gid
      AND f.inode = target.inode
)
"""  # noqa: S608

_CLOSE = f"""
UPDATE files SET last = :sequence FROM temp.target t
WHERE files.directory = t.directory AND files.name = t.name
  AND files.last = {OPEN_END} AND files.first < :sequence
"""  # noqa: S608

_INSERT = f"""
INSERT INTO files (directory, name, first, last, {_ATTRIBUTES})
SELECT directory, name, :sequence, {OPEN_END}, {_ATTRIBUTES} FROM temp.target WHERE present
"""  # noqa: S608

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
       base.kind, base.size, base.mtime_ns, base.mode, base.uid, base.gid, base.inode
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

_FOLD_NEW = """
UPDATE names SET folded = fold(name)
WHERE id > ? AND CAST(name AS TEXT) GLOB '*[^' || char(1) || '-' || char(127) || ']*'
"""


class Mode(enum.Enum):
    """What the change rows are differences to; see the top of this module."""

    FRESH = "fresh"
    DELTA = "delta"
    COMPARE = "compare"


class Feed:
    """Feeds one image into one file, inside the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection, sequence: int, mode: Mode) -> None:
        self.rows = 0
        self._connection = connection
        self._sequence = sequence
        self._mode = mode
        self._last_name = _highest(connection, "names")
        self._next_directory = max(_highest(connection, "directories"), ROOT) + 1
        self._first_new_directory = self._next_directory
        self._directories: dict[bytes, int] = {b"/": ROOT}
        self._every_new_one_cached = True
        for statement in _TEMPORARY.split(";"):
            connection.execute(statement)
        if mode is Mode.FRESH:
            connection.execute("DROP INDEX files_by_name")

    def add(self, batch: ChangeRows) -> None:
        """Feed one batch of differences."""
        rows = batch.rows
        if not rows:
            return
        self._resolve_directories(batch.dirs)
        self._load(rows)
        execute = self._connection.execute
        execute("INSERT OR IGNORE INTO names (name) SELECT name FROM temp.feed")
        if self._mode is Mode.FRESH:
            execute(_INSERT_FRESH, {"sequence": self._sequence})
        else:
            execute("DELETE FROM temp.target")
            execute(_RESOLVE)
            if self._mode is Mode.COMPARE:
                execute("INSERT OR IGNORE INTO temp.seen SELECT directory, name FROM temp.target")
                execute(_DROP_EQUAL)
            self._apply_target()
        self.rows += len(rows)

    def finish(self, base: int | None = None) -> None:
        """Settle what no row mentioned, and complete the indexes.

        Args:
            base: In `Mode.COMPARE`, the sequence number of the image that the rows were
                differences to, or None if they were the whole tree.
        """
        execute = self._connection.execute
        if self._mode is Mode.COMPARE and base is None:
            execute(_CLOSE_UNSEEN, {"sequence": self._sequence})
        elif self._mode is Mode.COMPARE:
            execute("DELETE FROM temp.target")
            execute(_TARGET_AS_IN_BASE, {"sequence": self._sequence, "base": base})
            execute(_DROP_EQUAL)
            self._apply_target()
        if self._mode is Mode.FRESH:
            execute("CREATE INDEX files_by_name ON files (name)")
        execute(_FOLD_NEW, (self._last_name,))
        if has_search_index(self._connection):
            execute(
                f"INSERT INTO names_search (rowid, folded) SELECT id, {SEARCH_TEXT} "  # noqa: S608
                "FROM names WHERE id > ?",
                (self._last_name,),
            )

    def close(self) -> None:
        """Drop the temporary tables; also after a failure."""
        for table in ("feed", "slots", "new_directories", "target", "seen"):
            self._connection.execute(f"DROP TABLE IF EXISTS temp.{table}")

    def _apply_target(self) -> None:
        self._connection.execute(_CLOSE, {"sequence": self._sequence})
        self._connection.execute(_INSERT, {"sequence": self._sequence})

    def _load(self, rows: Sequence[ChangeRow]) -> None:
        insert = "INSERT INTO temp.feed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self._connection.execute("DELETE FROM temp.feed")
        try:
            self._connection.executemany(insert, rows)
        except OverflowError:
            # Inode numbers use all 64 bits on some file systems, SQLite's integers are signed.
            self._connection.execute("DELETE FROM temp.feed")
            signed = [(*row[:4], *map(to_signed, row[4:])) for row in rows]
            self._connection.executemany(insert, signed)

    def _resolve_directories(self, paths: Sequence[bytes]) -> None:
        if len(self._directories) > _DIRECTORY_CACHE:
            self._directories = {b"/": ROOT}
            self._every_new_one_cached = False
        new: list[tuple[int, int, bytes]] = []
        slots = [(slot, self._directory(path, new)) for slot, path in enumerate(paths)]
        execute = self._connection.execute
        execute("DELETE FROM temp.slots")
        self._connection.executemany("INSERT INTO temp.slots VALUES (?, ?)", slots)
        if new:
            execute("DELETE FROM temp.new_directories")
            self._connection.executemany("INSERT INTO temp.new_directories VALUES (?, ?, ?)", new)
            execute("INSERT OR IGNORE INTO names (name) SELECT name FROM temp.new_directories")
            execute(
                "INSERT INTO directories (id, parent, name) SELECT d.id, d.parent, n.id "
                "FROM temp.new_directories d CROSS JOIN names n ON n.name = d.name"
            )

    def _directory(self, path: bytes, new: list[tuple[int, int, bytes]]) -> int:
        """Id of a directory, made up where the file has none yet; loops, as paths can be deep."""
        missing = []
        while (directory := self._directories.get(path)) is None:
            parent, _, name = path.rpartition(b"/")
            missing.append((path, name))
            path = parent or b"/"
        for full, name in reversed(missing):
            directory = self._child(directory, name, new)
            self._directories[full] = directory
        return directory

    def _child(self, parent: int, name: bytes, new: list[tuple[int, int, bytes]]) -> int:
        # A directory new in this feed can only have new children, and all of those are cached.
        if parent < self._first_new_directory or not self._every_new_one_cached:
            found = self._connection.execute(
                "SELECT d.id FROM names n JOIN directories d ON d.name = n.id AND d.parent = ? "
                "WHERE n.name = ?",
                (parent, name),
            ).fetchone()
            if found is not None:
                return int(found[0])
        directory = self._next_directory
        self._next_directory += 1
        new.append((directory, parent, name))
        return directory


def to_signed(value: int) -> int:
    """Wrap an unsigned 64-bit number into what SQLite can store."""
    return ((value + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


def to_unsigned(value: int) -> int:
    """The inverse of `to_signed`, for numbers that are never negative."""
    return value & ((1 << 64) - 1)


def _highest(connection: sqlite3.Connection, table: str) -> int:
    highest = connection.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()  # noqa: S608
    return int(highest[0])
