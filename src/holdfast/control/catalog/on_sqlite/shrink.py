"""Take images out of a source's file: expiration between live neighbours.

Must not touch the pool or the control database. Runs inside the caller's transaction. Invariant:
afterwards the rows are those that feeding the remaining images in order would have made; see
`file_rows.RowsWriter.expire`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.control.catalog.file_rows import ROOT
from holdfast.control.catalog.joining import Pair, chained
from holdfast.control.catalog.on_sqlite.source_file import SEARCH_TEXT, has_search_index

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

_TEMPORARY = """
CREATE TEMP TABLE gone (sequence INTEGER PRIMARY KEY, heir INTEGER NOT NULL);
CREATE TEMP TABLE touched (
    directory INTEGER, name INTEGER, first INTEGER, last INTEGER,
    new_first INTEGER, new_last INTEGER, PRIMARY KEY (directory, name, first)
) WITHOUT ROWID;
CREATE TEMP TABLE joined (
    directory INTEGER, name INTEGER, first INTEGER, second INTEGER, last INTEGER
);
CREATE TEMP TABLE suspects (id INTEGER PRIMARY KEY);
CREATE TEMP TABLE loose_directories (id INTEGER PRIMARY KEY);
CREATE TEMP TABLE loose_names (id INTEGER PRIMARY KEY)
"""

# The one scan of the file; what follows is looked up by key.
_TOUCH = """
INSERT INTO temp.touched
SELECT f.directory, f.name, f.first, f.last,
       coalesce((SELECT heir FROM temp.gone WHERE sequence = f.first), f.first),
       coalesce((SELECT heir FROM temp.gone WHERE sequence = f.last), f.last)
FROM files f
WHERE f.first IN (SELECT sequence FROM temp.gone) OR f.last IN (SELECT sequence FROM temp.gone)
"""

_DELETE = """
DELETE FROM files WHERE (directory, name, first) IN (
    SELECT directory, name, first FROM temp.touched WHERE new_first >= new_last
)
"""

_MOVE = """
UPDATE files SET first = t.new_first, last = t.new_last FROM temp.touched t
WHERE files.directory = t.directory AND files.name = t.name AND files.first = t.first
  AND t.new_first < t.new_last
"""

# What stood between two equal states is gone: they are one version. Where they followed each
# other before, a difference that the columns do not show parted them, and still does.
_JOIN = """
INSERT INTO temp.joined
SELECT a.directory, a.name, a.first, b.first, b.last
FROM temp.touched t
CROSS JOIN files a ON a.directory = t.directory AND a.name = t.name AND a.first = t.new_first
CROSS JOIN files b ON b.directory = t.directory AND b.name = t.name AND b.first = a.last
WHERE t.new_first < t.new_last AND t.last <> t.new_last
  AND b.attributes = a.attributes AND b.size = a.size AND b.mtime_ns = a.mtime_ns
  AND b.inode = a.inode
  AND NOT EXISTS (
      SELECT 1 FROM temp.touched n
      WHERE n.directory = t.directory AND n.name = t.name AND n.first = t.last
        AND n.new_first < n.new_last
  )
"""


_LOOSE_DIRECTORIES = f"""
INSERT INTO temp.loose_directories
SELECT d.id FROM temp.suspects s JOIN directories d ON d.id = s.id
WHERE d.id <> {ROOT}
  AND NOT EXISTS (SELECT 1 FROM files WHERE files.directory = d.id)
  AND NOT EXISTS (SELECT 1 FROM directories child WHERE child.parent = d.id)
"""  # noqa: S608

_TABLES = ("gone", "touched", "joined", "suspects", "loose_directories", "loose_names")


def shrink(connection: sqlite3.Connection, heirs: Mapping[int, int]) -> int:
    """Take images out of a file.

    Args:
        connection: The file.
        heirs: For each image that goes, by sequence number, the next live one, or `OPEN_END`.

    Returns:
        How many versions went.
    """
    execute = connection.execute
    try:
        for statement in _TEMPORARY.split(";"):
            execute(statement)
        connection.executemany("INSERT INTO temp.gone VALUES (?, ?)", heirs.items())
        execute(_TOUCH)
        deleted = execute(_DELETE).rowcount
        execute(_MOVE)
        deleted += _join_equal(connection)
        execute("DELETE FROM restore_points WHERE sequence IN (SELECT sequence FROM temp.gone)")
        if deleted:
            _clean_up(connection)
        return int(deleted)
    finally:
        for table in _TABLES:
            execute(f"DROP TABLE IF EXISTS temp.{table}")


def _join_equal(connection: sqlite3.Connection) -> int:
    execute = connection.execute
    execute(_JOIN)
    pairs = [
        Pair(*row)
        for row in execute("SELECT directory, name, first, second, last FROM temp.joined")
    ]
    connection.executemany(
        "DELETE FROM files WHERE directory = ? AND name = ? AND first = ?",
        [(one.directory, one.name, one.second) for one in pairs],
    )
    connection.executemany(
        "UPDATE files SET last = ? WHERE directory = ? AND name = ? AND first = ?",
        [(end, one.directory, one.name, one.first) for one, end in chained(pairs)],
    )
    return len(pairs)


def _clean_up(connection: sqlite3.Connection) -> None:
    execute = connection.execute
    execute(
        "INSERT OR IGNORE INTO temp.loose_names "
        "SELECT name FROM temp.touched WHERE new_first >= new_last"
    )
    execute(
        "INSERT OR IGNORE INTO temp.suspects "
        "SELECT directory FROM temp.touched WHERE new_first >= new_last"
    )
    execute(
        "DELETE FROM places WHERE (name, directory) IN ("
        "    SELECT name, directory FROM temp.touched t WHERE new_first >= new_last"
        "    AND NOT EXISTS (SELECT 1 FROM files f"
        "                    WHERE f.directory = t.directory AND f.name = t.name))"
    )
    # A directory goes when nothing is in it, and then its parent may.
    while execute(_LOOSE_DIRECTORIES).rowcount:
        execute("DELETE FROM temp.suspects")
        execute(
            "INSERT OR IGNORE INTO temp.suspects SELECT parent FROM directories "
            "WHERE id IN (SELECT id FROM temp.loose_directories)"
        )
        execute(
            "INSERT OR IGNORE INTO temp.loose_names SELECT name FROM directories "
            "WHERE id IN (SELECT id FROM temp.loose_directories)"
        )
        execute("DELETE FROM directories WHERE id IN (SELECT id FROM temp.loose_directories)")
        execute("DELETE FROM temp.loose_directories")
    execute(
        "DELETE FROM temp.loose_names "
        "WHERE EXISTS (SELECT 1 FROM places WHERE places.name = loose_names.id) "
        "OR EXISTS (SELECT 1 FROM directories WHERE directories.name = loose_names.id)"
    )
    if has_search_index(connection):
        execute(
            "INSERT INTO names_search (names_search, rowid, folded) "  # noqa: S608
            f"SELECT 'delete', id, {SEARCH_TEXT} FROM names "
            "WHERE id IN (SELECT id FROM temp.loose_names)"
        )
    execute("DELETE FROM names WHERE id IN (SELECT id FROM temp.loose_names)")
