"""Take images out of a source's rows: expiration between live neighbours.

Runs inside the caller's transaction. Invariant: afterwards the rows are those that feeding the
remaining images in order would have made; see `file_rows.RowsWriter.expire`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.control.catalog.joining import Pair, chained

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from holdfast.control.catalog.on_postgresql.file_set import FileSet

    Connection = psycopg.Connection[tuple[Any, ...]]

_TEMPORARY = """
CREATE TEMP TABLE gone (sequence integer PRIMARY KEY, heir integer NOT NULL) ON COMMIT DROP;
CREATE TEMP TABLE touched (
    directory integer, name integer, first integer, last integer,
    new_first integer, new_last integer, PRIMARY KEY (directory, name, first)
) ON COMMIT DROP;
CREATE TEMP TABLE suspects (id integer PRIMARY KEY) ON COMMIT DROP;
CREATE TEMP TABLE loose_names (id integer PRIMARY KEY) ON COMMIT DROP
"""

# The one scan of the rows; what follows is looked up by key.
_TOUCH = """
INSERT INTO pg_temp.touched
SELECT v.directory, v.name, v.first, v.last,
       coalesce((SELECT heir FROM pg_temp.gone WHERE sequence = v.first), v.first),
       coalesce((SELECT heir FROM pg_temp.gone WHERE sequence = v.last), v.last)
FROM file_rows.versions v
WHERE v.file_set = %(set)s AND (v.first = ANY(%(gone)s) OR v.last = ANY(%(gone)s))
"""

_DELETE = """
DELETE FROM file_rows.versions v USING pg_temp.touched t
WHERE t.new_first >= t.new_last
  AND v.file_set = %(set)s AND v.directory = t.directory AND v.name = t.name AND v.first = t.first
"""

_MOVE = """
UPDATE file_rows.versions v SET first = t.new_first, last = t.new_last FROM pg_temp.touched t
WHERE t.new_first < t.new_last
  AND v.file_set = %(set)s AND v.directory = t.directory AND v.name = t.name AND v.first = t.first
"""

# What stood between two equal states is gone: they are one version. Where they followed each
# other before, a difference that the columns do not show parted them, and still does.
_EQUAL_NEIGHBOURS = """
SELECT a.directory, a.name, a.first, b.first, b.last
FROM pg_temp.touched t
JOIN file_rows.versions a ON a.file_set = %(set)s
  AND a.directory = t.directory AND a.name = t.name AND a.first = t.new_first
JOIN file_rows.versions b ON b.file_set = %(set)s
  AND b.directory = t.directory AND b.name = t.name AND b.first = a.last
WHERE t.new_first < t.new_last AND t.last <> t.new_last
  AND b.kind = a.kind AND b.size = a.size AND b.mtime_ns = a.mtime_ns AND b.mode = a.mode
  AND b.uid = a.uid AND b.gid = a.gid AND b.inode = a.inode
  AND NOT EXISTS (
      SELECT 1 FROM pg_temp.touched n
      WHERE n.directory = t.directory AND n.name = t.name AND n.first = t.last
        AND n.new_first < n.new_last
  )
"""

_LOOSE_DIRECTORIES = """
DELETE FROM file_rows.directories d USING pg_temp.suspects s
WHERE d.file_set = %(set)s AND d.id = s.id
  AND NOT EXISTS (
      SELECT 1 FROM file_rows.versions v WHERE v.file_set = %(set)s AND v.directory = d.id
  )
  AND NOT EXISTS (
      SELECT 1 FROM file_rows.directories c WHERE c.file_set = %(set)s AND c.parent = d.id
  )
RETURNING d.parent, d.name
"""

_LOOSE_NAMES = """
DELETE FROM file_rows.names n USING pg_temp.loose_names l
WHERE n.file_set = %(set)s AND n.id = l.id
  AND NOT EXISTS (
      SELECT 1 FROM file_rows.versions v WHERE v.file_set = %(set)s AND v.name = n.id
  )
  AND NOT EXISTS (
      SELECT 1 FROM file_rows.directories d WHERE d.file_set = %(set)s AND d.name = n.id
  )
"""


_DELETE_ONE = """
DELETE FROM file_rows.versions
WHERE file_set = %s AND directory = %s AND name = %s AND first = %s
"""

_MOVE_ONE = """
UPDATE file_rows.versions SET last = %s
WHERE file_set = %s AND directory = %s AND name = %s AND first = %s
"""

_FORGET = """
DELETE FROM file_rows.points WHERE file_set = %(set)s AND sequence = ANY(%(gone)s)
"""


def shrink(connection: Connection, file_set: FileSet, heirs: Mapping[int, int]) -> int:
    """Take images out of a set of rows.

    Args:
        connection: In a transaction of the set's writer.
        file_set: The set.
        heirs: For each image that goes, by sequence number, the next live one, or `OPEN_END`.

    Returns:
        How many versions went.
    """
    execute, sql = connection.execute, file_set.sql
    of: dict[str, object] = {"set": file_set.id, "gone": list(heirs)}
    execute(_TEMPORARY)
    execute(
        "INSERT INTO pg_temp.gone SELECT * FROM unnest(%s::int[], %s::int[])",
        (list(heirs), list(heirs.values())),
    )
    execute(sql(_TOUCH), of)
    execute("ANALYZE pg_temp.touched")
    deleted = execute(sql(_DELETE), of).rowcount
    execute(sql(_MOVE), of)
    deleted += _join_equal(connection, file_set)
    execute(
        "DELETE FROM file_rows.points WHERE file_set = %(set)s AND sequence = ANY(%(gone)s)", of
    )
    if deleted:
        _clean_up(connection, file_set, of)
    execute("DROP TABLE pg_temp.gone, pg_temp.touched, pg_temp.suspects, pg_temp.loose_names")
    return deleted


def _join_equal(connection: Connection, file_set: FileSet) -> int:
    rows = connection.execute(file_set.sql(_EQUAL_NEIGHBOURS), {"set": file_set.id})
    pairs = [Pair(*row) for row in rows]
    with connection.cursor() as cursor:
        cursor.executemany(
            file_set.sql(_DELETE_ONE),
            [(file_set.id, one.directory, one.name, one.second) for one in pairs],
        )
        cursor.executemany(
            file_set.sql(_MOVE_ONE),
            [(end, file_set.id, one.directory, one.name, one.first) for one, end in chained(pairs)],
        )
    return len(pairs)


def _clean_up(connection: Connection, file_set: FileSet, of: dict[str, object]) -> None:
    execute = connection.execute
    loose_directories = file_set.sql(_LOOSE_DIRECTORIES)
    execute(
        "INSERT INTO pg_temp.loose_names "
        "SELECT DISTINCT name FROM pg_temp.touched WHERE new_first >= new_last"
    )
    execute(
        "INSERT INTO pg_temp.suspects "
        "SELECT DISTINCT directory FROM pg_temp.touched WHERE new_first >= new_last"
    )
    # A directory goes when nothing is in it, and then its parent may.
    while gone := execute(loose_directories, of).fetchall():
        execute("TRUNCATE pg_temp.suspects")
        parents, names = (list(set(column)) for column in zip(*gone, strict=True))
        execute("INSERT INTO pg_temp.suspects SELECT * FROM unnest(%s::int[])", (parents,))
        execute(
            "INSERT INTO pg_temp.loose_names SELECT * FROM unnest(%s::int[]) "
            "ON CONFLICT DO NOTHING",
            (names,),
        )
    execute(file_set.sql(_LOOSE_NAMES), of)
