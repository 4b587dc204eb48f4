"""Take images out of a source's file: expiration between live neighbours.

Must not touch the pool or ``catalog.db``. Invariant: afterwards the rows are those that feeding
the remaining images in order would have made. An interval that began with an expired image
begins with the next live one, one that ended there ends at the next live one or stays open if
there is none; a version that no live image shows goes, and with it directories and names that
nothing mentions any more.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from holdfast.control.catalog.ingest import restore_points, transaction
from holdfast.control.catalog.source_file import OPEN_END, ROOT, SEARCH_TEXT, has_search_index

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

    from holdfast.base.ids import ImageId

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
  AND b.kind = a.kind AND b.size = a.size AND b.mtime_ns = a.mtime_ns AND b.mode = a.mode
  AND b.uid = a.uid AND b.gid = a.gid AND b.inode = a.inode
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


def expire(connection: sqlite3.Connection, images: Collection[ImageId]) -> int:
    """Take images out of a file, in one transaction; those it does not hold are ignored.

    Returns:
        How many versions went.
    """
    with transaction(connection):
        held = restore_points(connection)
        gone = [sequence for sequence, one in held.items() if one.image in images]
        if not gone:
            return 0
        live = sorted(held.keys() - set(gone))
        try:
            return _shrink(connection, gone, live)
        finally:
            for table in _TABLES:
                connection.execute(f"DROP TABLE IF EXISTS temp.{table}")


def _shrink(connection: sqlite3.Connection, gone: list[int], live: list[int]) -> int:
    execute = connection.execute
    for statement in _TEMPORARY.split(";"):
        execute(statement)
    heirs = [*live, OPEN_END]
    connection.executemany(
        "INSERT INTO temp.gone VALUES (?, ?)",
        [(sequence, heirs[bisect.bisect(live, sequence)]) for sequence in gone],
    )
    execute(_TOUCH)
    deleted = execute(_DELETE).rowcount
    execute(_MOVE)
    deleted += _join_equal(connection)
    execute("DELETE FROM restore_points WHERE sequence IN (SELECT sequence FROM temp.gone)")
    if deleted:
        _clean_up(connection)
    return int(deleted)


def _join_equal(connection: sqlite3.Connection) -> int:
    execute = connection.execute
    execute(_JOIN)
    # The later of two pairs first: in a chain a, b, c the end of c reaches a by way of b.
    pairs = execute(
        "SELECT last, directory, name, first, second FROM temp.joined "
        "ORDER BY directory, name, second DESC"
    ).fetchall()
    ends: dict[tuple[int, int, int], int] = {}
    for last, directory, name, first, second in pairs:
        end = ends.get((directory, name, second), last)
        ends[directory, name, first] = end
        execute(
            "DELETE FROM files WHERE directory = ? AND name = ? AND first = ?",
            (directory, name, second),
        )
        execute(
            "UPDATE files SET last = ? WHERE directory = ? AND name = ? AND first = ?",
            (end, directory, name, first),
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
        "WHERE EXISTS (SELECT 1 FROM files WHERE files.name = loose_names.id) "
        "OR EXISTS (SELECT 1 FROM directories WHERE directories.name = loose_names.id)"
    )
    if has_search_index(connection):
        execute(
            "INSERT INTO names_search (names_search, rowid, folded) "  # noqa: S608
            f"SELECT 'delete', id, {SEARCH_TEXT} FROM names "
            "WHERE id IN (SELECT id FROM temp.loose_names)"
        )
    execute("DELETE FROM names WHERE id IN (SELECT id FROM temp.loose_names)")
