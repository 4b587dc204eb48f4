"""The file of one source: every version of every path, as intervals over its images.

A derived index: the pool's manifests and trees are the truth, and a lost or damaged file is
rebuilt from them. Must not be read by a restore.

Invariants, beside those of `file_rows`: every name is in ``names`` once, and in the search index
if it is in ``names``; ``places`` has each (name, directory) of ``files`` once; ``attributes`` has
what ``files`` mentions, and may have more.
"""

from __future__ import annotations

import functools
import os
import sqlite3
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import CatalogError
from holdfast.control.catalog.folding import fold_name
from holdfast.control.database.failures import translated

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.control.catalog.on_sqlite.remembered import Remembered

BUSY_TIMEOUT_S = 30.0

_IMAGES_AND_FILES = """
CREATE TABLE restore_points (
    sequence INTEGER PRIMARY KEY,
    image TEXT NOT NULL UNIQUE,
    pool TEXT NOT NULL,
    number INTEGER NOT NULL,
    started_ns INTEGER NOT NULL
);
CREATE TABLE names (
    id INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,
    folded TEXT
);
CREATE TABLE directories (
    id INTEGER PRIMARY KEY,
    parent INTEGER NOT NULL,
    name INTEGER NOT NULL,
    UNIQUE (parent, name)
);
CREATE INDEX directories_by_name ON directories (name);
CREATE TABLE files (
    directory INTEGER NOT NULL,
    name INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    PRIMARY KEY (directory, name, first)
) WITHOUT ROWID;
CREATE INDEX files_by_name ON files (name);
"""

# A change of a file then touches one page of the table and none of what serves search; and the
# index over names can be made when all names of a first feed are there, which is quicker.
_PLACES = """
CREATE TABLE places (
    name INTEGER NOT NULL,
    directory INTEGER NOT NULL,
    PRIMARY KEY (name, directory)
) WITHOUT ROWID;
INSERT INTO places SELECT DISTINCT name, directory FROM files ORDER BY name, directory;
DROP INDEX files_by_name;
ALTER TABLE names RENAME TO old_names;
CREATE TABLE names (id INTEGER PRIMARY KEY, name BLOB NOT NULL, folded TEXT);
INSERT INTO names SELECT id, name, folded FROM old_names;
DROP TABLE old_names;
CREATE UNIQUE INDEX names_by_name ON names (name);
"""

# What a thousand files have alike is there once: a row of a file is a tenth smaller.
_ALIKE = """
CREATE TABLE attributes (
    id INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    UNIQUE (kind, mode, uid, gid)
);
INSERT INTO attributes (kind, mode, uid, gid) SELECT DISTINCT kind, mode, uid, gid FROM files;
ALTER TABLE files RENAME TO old_files;
CREATE TABLE files (
    directory INTEGER NOT NULL,
    name INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    attributes INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    PRIMARY KEY (directory, name, first)
) WITHOUT ROWID;
INSERT INTO files
SELECT o.directory, o.name, o.first, o.last, a.id, o.size, o.mtime_ns, o.inode
FROM old_files o CROSS JOIN attributes a
    ON a.kind = o.kind AND a.mode = o.mode AND a.uid = o.uid AND a.gid = o.gid
ORDER BY o.directory, o.name, o.first;
DROP TABLE old_files;
"""

MIGRATIONS: tuple[str, ...] = (_IMAGES_AND_FILES, _PLACES, _ALIKE)
"""Scripts that lead from each schema to the next; ``PRAGMA user_version`` counts them."""

STATE = "a.kind, f.size, f.mtime_ns, a.mode, a.uid, a.gid, f.inode"
"""What is known of a row ``f`` of ``files`` that is joined with ``a``, its ``attributes``."""

# Only names with something else than ASCII have folded text; SQLite's lower() knows ASCII only,
# and so never changes what was indexed.
SEARCH_TEXT = "coalesce(names.folded, lower(CAST(names.name AS TEXT)))"

_SEARCH_INDEX = """
CREATE VIRTUAL TABLE names_search USING fts5(
    folded, content='', detail=none, columnsize=0, tokenize='trigram case_sensitive 1'
);
INSERT INTO names_search (names_search, rank) VALUES ('hashsize', 67108864);
"""


class FileConnection(sqlite3.Connection):
    """A connection to a source's file, and what it remembers from one question to the next.

    Attributes:
        remembered: Of one who reads.
        directories_known: Of one who writes: ids of directories by path.
        written_by_others: As of when they are known; another value tells that somebody else
            has written to the file.
    """

    remembered: Remembered | None = None
    written_by_others: tuple[int] | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.directories_known: dict[bytes, int] = {}


@functools.cache
def search_index_supported() -> bool:
    """Whether this Python's SQLite has contentless FTS5 with trigrams (3.34 and newer).

    Without it, files are made without a search index and search reads all names.
    """
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(_SEARCH_INDEX)
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return True


def create(file: Path) -> FileConnection:
    """Make a new file that nobody else sees yet, quick to write and not crash-safe.

    Finish with `seal`, then rename it to where it belongs. What an earlier attempt left under
    this name is removed.
    """
    file.unlink(missing_ok=True)
    with translated(file):
        connection = _connect(file)
        # in memory, not off: a feed that fails half-way is rolled back before the next attempt
        connection.execute("PRAGMA journal_mode=MEMORY")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        _migrate(connection, file)
        return connection


def seal(connection: sqlite3.Connection, file: Path, destination: Path) -> None:
    """Close a file made by `create` and publish it durably under its name."""
    connection.close()
    # The journal mode of a file is in its header: readers find it in WAL from the start.
    with translated(file):
        connection = _connect(file)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
    with file.open("rb") as done:
        os.fsync(done.fileno())
    for suffix in ("-wal", "-shm"):
        # of a file that somebody deleted by hand: SQLite would play it into the new one
        destination.with_name(destination.name + suffix).unlink(missing_ok=True)
    file.rename(destination)
    directory = os.open(destination.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def open_for_writing(file: Path) -> FileConnection:
    """Open an existing file and bring its schema up to date.

    Raises:
        CatalogError: The file is missing, or its schema is of a newer Holdfast.
        CatalogDamaged: It is no database, or a broken one.
    """
    with translated(file):
        connection = _connect(_present(file))
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            # a feed is not to wait for the log of the one before it to be played in
            connection.execute("PRAGMA wal_autocheckpoint=8192")
            connection.execute("PRAGMA journal_size_limit=67108864")
            _migrate(connection, file)
        except BaseException:
            connection.close()
            raise
        return connection


def open_for_reading(file: Path) -> FileConnection:
    """Open an existing file for queries; usable from any one thread at a time.

    Raises:
        CatalogError: The file is missing, or its schema is of a newer Holdfast.
        CatalogDamaged: It is no database, or a broken one.
    """
    with translated(file):
        connection = _connect(_present(file))
        try:
            if _version(connection) != len(MIGRATIONS):
                _migrate(connection, file)
            connection.execute("PRAGMA query_only=ON")
            # many of them are kept open
            connection.execute("PRAGMA cache_size=-16384")
        except BaseException:
            connection.close()
            raise
        return connection


def has_search_index(connection: sqlite3.Connection) -> bool:
    """Whether names are indexed by trigrams in this file."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'names_search'").fetchone()
    return found is not None


def _present(file: Path) -> Path:
    if not file.exists():
        raise CatalogError(
            f"the catalog's file '{file}' is missing",
            "bring it back from the pool with: holdfast catalog rebuild",
        )
    return file


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _connect(file: Path) -> FileConnection:
    connection = sqlite3.connect(
        file,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        factory=FileConnection,
    )
    connection.create_function("fold", 1, fold_name, deterministic=True)
    # A limit, not an allocation: a large feed wants its b-trees in memory.
    connection.execute("PRAGMA cache_size=-262144")
    connection.execute("PRAGMA secure_delete=FAST")
    connection.execute("PRAGMA temp.cache_size=-65536")
    return connection


def _migrate(connection: sqlite3.Connection, file: Path) -> None:
    if _version(connection) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if version > len(MIGRATIONS):
            raise CatalogError(
                f"the catalog's file '{file}' has schema {version}, "
                f"this Holdfast knows up to {len(MIGRATIONS)}",
                "use the newer Holdfast that wrote it, or: holdfast catalog rebuild",
            )
        scripts = list(MIGRATIONS[version:])
        if version == 0 and search_index_supported():
            scripts.append(_SEARCH_INDEX)
        # executescript would commit first, and so tear the schema from its version
        for script in scripts:
            for statement in filter(str.strip, script.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
