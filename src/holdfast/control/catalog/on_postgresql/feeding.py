"""Where a feed puts what it has resolved: tables of the control database.

Must not open or commit a transaction. What goes in, goes in by ``COPY``; what is closed is found
by its key. See `file_rows.FeedTarget`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import pq

from holdfast.control.catalog.file_rows import OPEN_END, Mode
from holdfast.control.catalog.on_postgresql import copying
from holdfast.control.catalog.rows import ADDED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

    from holdfast.control.catalog.file_rows import NewDirectory, NewName
    from holdfast.control.catalog.on_postgresql.file_set import FileSet
    from holdfast.control.catalog.rows import ChangeRow

    Connection = psycopg.Connection[tuple[Any, ...]]
    Cursor = psycopg.Cursor[tuple[Any, ...]]

_TEMPORARY = """
CREATE TEMP TABLE target (
    size bigint, mtime_ns bigint, inode bigint, file_set integer, directory integer, name integer,
    first integer, last integer, mode integer, uid integer, gid integer, kind smallint
) ON COMMIT DROP;
CREATE TEMP TABLE closing (directory integer, name integer) ON COMMIT DROP;
CREATE TEMP TABLE seen (directory integer, name integer, PRIMARY KEY (directory, name))
    ON COMMIT DROP
"""

_EQUAL = (
    "v.kind = t.kind AND v.size = t.size AND v.mtime_ns = t.mtime_ns AND v.mode = t.mode "
    "AND v.uid = t.uid AND v.gid = t.gid AND v.inode = t.inode"
)

_CLOSE_ALL = f"""
UPDATE file_rows.versions v SET last = %(sequence)s
FROM unnest(%(directories)s::int[], %(names)s::int[]) t (directory, name)
WHERE v.file_set = %(set)s AND v.directory = t.directory AND v.name = t.name
  AND v.last = {OPEN_END} AND v.first < %(sequence)s
"""  # noqa: S608

# Of the states that are equal to the open ones, the open ones go on.
_DROP_EQUAL = f"""
WITH equal AS (
    DELETE FROM pg_temp.target t USING file_rows.versions v
    WHERE v.file_set = %(set)s AND v.directory = t.directory AND v.name = t.name
      AND v.last = {OPEN_END} AND {_EQUAL}
    RETURNING t.directory, t.name
)
DELETE FROM pg_temp.closing c USING equal e
WHERE c.directory = e.directory AND c.name = e.name
"""  # noqa: S608

_CLOSE = f"""
UPDATE file_rows.versions v SET last = %(sequence)s FROM pg_temp.closing t
WHERE v.file_set = %(set)s AND v.directory = t.directory AND v.name = t.name
  AND v.last = {OPEN_END} AND v.first < %(sequence)s
"""  # noqa: S608

_INSERT = f"""
INSERT INTO file_rows.versions ({copying.VERSION_COLUMNS})
SELECT {copying.VERSION_COLUMNS} FROM pg_temp.target
"""  # noqa: S608

_CLOSE_UNSEEN = f"""
UPDATE file_rows.versions v SET last = %(sequence)s
WHERE v.file_set = %(set)s AND v.last = {OPEN_END} AND v.first < %(sequence)s
  AND NOT EXISTS (
      SELECT 1 FROM pg_temp.seen s WHERE s.directory = v.directory AND s.name = v.name
  )
"""  # noqa: S608

# Names that changed after the base and are not among its differences to the new image: the
# new image has them as the base had.
_MOVED = f"""
INSERT INTO pg_temp.closing
SELECT DISTINCT v.directory, v.name FROM file_rows.versions v
WHERE v.file_set = %(set)s AND v.first < %(sequence)s
  AND (v.first > %(base)s OR v.last BETWEEN %(base)s + 1 AND {OPEN_END} - 1)
  AND NOT EXISTS (
      SELECT 1 FROM pg_temp.seen s WHERE s.directory = v.directory AND s.name = v.name
  )
"""  # noqa: S608

_TARGET_AS_IN_BASE = f"""
INSERT INTO pg_temp.target
SELECT b.size, b.mtime_ns, b.inode, b.file_set, b.directory, b.name, %(sequence)s, {OPEN_END},
       b.mode, b.uid, b.gid, b.kind
FROM pg_temp.closing c JOIN file_rows.versions b
    ON b.file_set = %(set)s AND b.directory = c.directory AND b.name = c.name
WHERE b.first <= %(base)s AND b.last > %(base)s
"""  # noqa: S608


class Target:
    """Where a first feed goes, and one of differences to the newest image."""

    def __init__(
        self, connection: Connection, file_set: FileSet, sequence: int, mode: Mode
    ) -> None:
        self.new_names = 0
        self._mode = mode
        self._connection = connection
        self._set = file_set
        self._sequence = sequence
        self._values = {"set": file_set.id, "sequence": sequence}

    def highest_ids(self) -> tuple[int, int]:
        """The highest id of a name and of a directory; 0 where there is none."""
        found = self._execute(
            "SELECT (SELECT max(id) FROM file_rows.names WHERE file_set = %(set)s), "
            "(SELECT max(id) FROM file_rows.directories WHERE file_set = %(set)s)",
            self._values,
        ).fetchone()
        assert found is not None  # noqa: S101 - a select without a table has one row
        return found[0] or 0, found[1] or 0

    def find_names(self, names: Sequence[bytes]) -> dict[bytes, int]:
        """Ids of those names that are stored."""
        return dict(
            self._ask(
                "SELECT name, id FROM file_rows.names WHERE file_set = %s AND name = ANY(%b)",
                (self._set.id, list(names)),
            )
        )

    def add_names(self, names: Sequence[NewName]) -> None:
        """Store names that are not."""
        self.new_names += len(names)
        self._copy("file_rows.names", copying.NAME_COLUMNS, copying.names(self._set.id, names))

    def find_directories(self, places: Sequence[tuple[int, bytes]]) -> dict[tuple[int, bytes], int]:
        """Ids of those directories, by (parent, name), that are stored."""
        parents, names = map(list, zip(*places, strict=True))
        rows = self._ask(
            "SELECT d.parent, w.name, d.id FROM unnest(%b::int[], %b::bytea[]) w (parent, name) "
            "JOIN file_rows.names n ON n.file_set = %s AND n.name = w.name "
            "JOIN file_rows.directories d "
            "ON d.file_set = %s AND d.parent = w.parent AND d.name = n.id",
            (parents, names, self._set.id, self._set.id),
        )
        return {(parent, name): directory for parent, name, directory in rows}

    def add_directories(self, directories: Sequence[NewDirectory]) -> None:
        """Store directories that are not."""
        rows = copying.directories(self._set.id, directories)
        self._copy("file_rows.directories", copying.DIRECTORY_COLUMNS, rows)

    def outgrew_memory(self) -> None:
        """Nothing to do: the index over names is there from the beginning."""

    def load(
        self, directories: Sequence[int], names: Sequence[int], rows: Sequence[ChangeRow]
    ) -> None:
        """Take one batch of changes; see `file_rows.FeedTarget`."""
        if self._mode is Mode.DELTA:
            # what was added since the newest image has no open row
            places = [
                (directories[row[0]], name)
                for row, name in zip(rows, names, strict=True)
                if row[2] != ADDED
            ]
            self._close_all(places)
        packed = self._packed(directories, names, rows)
        self._copy("file_rows.versions", copying.VERSION_COLUMNS, packed)

    def finish(self, base: int | None) -> None:
        """Nothing to do: every change named what it changed."""

    def close(self) -> None:
        """Nothing to do: nothing here is temporary."""

    def _packed(
        self, directories: Sequence[int], names: Sequence[int], rows: Sequence[ChangeRow]
    ) -> list[bytes]:
        return copying.versions(self._set.id, directories, names, rows, self._sequence, OPEN_END)

    def _close_all(self, places: list[tuple[int, int]]) -> None:
        if places:
            directories, names = map(list, zip(*places, strict=True))
            values = {**self._values, "directories": directories, "names": names}
            self._execute(_CLOSE_ALL, values)

    def _ask(self, query: LiteralString, values: Sequence[object]) -> list[tuple[Any, ...]]:
        return self._connection.execute(self._set.sql(query), values, binary=True).fetchall()

    def _execute(self, statement: LiteralString, values: Mapping[str, object]) -> Cursor:
        return self._connection.execute(self._set.sql(statement), values)

    def _copy(self, table: LiteralString, columns: LiteralString, rows: list[bytes]) -> None:
        statement = self._set.sql(f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)")
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(copying.copied(rows))


class ComparingTarget(Target):
    """Where a feed goes that is not of differences to the newest image."""

    def __init__(
        self, connection: Connection, file_set: FileSet, sequence: int, mode: Mode
    ) -> None:
        super().__init__(connection, file_set, sequence, mode)
        connection.execute(_TEMPORARY)

    def load(
        self, directories: Sequence[int], names: Sequence[int], rows: Sequence[ChangeRow]
    ) -> None:
        """Take one batch of changes; see `file_rows.FeedTarget`."""
        execute = self._connection.execute
        execute("TRUNCATE pg_temp.target, pg_temp.closing")
        above = [directories[row[0]] for row in rows]
        columns = copying.VERSION_COLUMNS
        self._copy("pg_temp.closing", copying.PLACE_COLUMNS, copying.places(above, names))
        self._copy("pg_temp.target", columns, self._packed(directories, names, rows))
        execute("INSERT INTO pg_temp.seen SELECT * FROM pg_temp.closing ON CONFLICT DO NOTHING")
        self._apply()

    def finish(self, base: int | None) -> None:
        """Settle what no row mentioned; see `file_rows.FeedTarget`."""
        execute, values = self._execute, {**self._values, "base": base}
        if base is None:
            execute(_CLOSE_UNSEEN, values)
            return
        execute("TRUNCATE pg_temp.target, pg_temp.closing", values)
        execute(_MOVED, values)
        execute(_TARGET_AS_IN_BASE, values)
        self._apply()

    def close(self) -> None:
        """Leave nothing temporary behind; also after a failure."""
        # after an error of the server everything is undone, and this with it
        if self._connection.info.transaction_status == pq.TransactionStatus.INTRANS:
            self._connection.execute("DROP TABLE pg_temp.target, pg_temp.closing, pg_temp.seen")

    def _apply(self) -> None:
        for statement in (_DROP_EQUAL, _CLOSE, _INSERT):
            self._execute(statement, self._values)
