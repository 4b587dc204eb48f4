"""Every row that a catalog keeps of files, in a form that does not depend on ids, and checked."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from holdfast.control.catalog.file_rows import OPEN_END, ROOT
from holdfast.control.catalog.folding import fold_name
from holdfast.control.catalog.on_sqlite import SourceFiles
from holdfast.control.catalog.on_sqlite.source_file import SEARCH_TEXT
from holdfast.control.catalog.timeline import to_signed

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.control.catalog import Catalog
    from holdfast.control.database import Database

Rows = list[tuple[Any, ...]]


def stored_rows(catalog: Catalog) -> list[Rows]:
    """What a catalog has of each source that has rows, by the sources' ids."""
    files = catalog._files
    if isinstance(files, SourceFiles):
        return stored_in_files(files._directory.parent)
    return stored_in_tables(catalog._database)


def stored_in_files(directory: Path) -> list[Rows]:
    """The same of every file of a catalog's directory."""
    stored = []
    for file in sorted((directory / "files").glob("*.db")):
        connection = sqlite3.connect(file)
        try:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            connection.execute("INSERT INTO names_search (names_search) VALUES ('integrity-check')")
            placed = connection.execute("SELECT directory, name FROM places").fetchall()
            versions = connection.execute("SELECT directory, name FROM files").fetchall()
            assert sorted(placed) == sorted(set(versions))
            (unknown,) = connection.execute(
                "SELECT count(*) FROM files WHERE attributes NOT IN (SELECT id FROM attributes)"
            ).fetchone()
            assert unknown == 0
            stored.append(
                _canonical(
                    connection.execute,
                    points="SELECT sequence FROM restore_points ORDER BY sequence",
                    names=f"SELECT id, name, {SEARCH_TEXT} FROM names",
                    directories="SELECT id, parent, name FROM directories",
                    versions=(
                        "SELECT directory, name, first, last, kind, size, mtime_ns, mode, uid, "
                        "gid, inode FROM files JOIN attributes ON id = attributes"
                    ),
                )
            )
        finally:
            connection.close()
    return stored


def stored_in_tables(database: Database) -> list[Rows]:
    """The same of every set of rows on PostgreSQL; a source has one."""
    connection = database.driver_connection()
    try:
        sets = connection.execute(
            "SELECT id, source FROM file_rows.sets ORDER BY source"
        ).fetchall()
        assert len({source for _, source in sets}) == len(sets)
        for table in ("points", "names", "directories", "versions"):
            found = connection.execute(f"SELECT DISTINCT file_set FROM file_rows.{table}")
            assert {row[0] for row in found} <= {one for one, _ in sets}
        return [
            _canonical(
                connection.execute,
                points=f"SELECT sequence FROM file_rows.points WHERE file_set = {one} ORDER BY 1",
                names=f"SELECT id, name, folded FROM file_rows.names WHERE file_set = {one}",
                directories=(
                    f"SELECT id, parent, name FROM file_rows.directories WHERE file_set = {one}"
                ),
                versions=(
                    "SELECT directory, name, first, last, kind, size, mtime_ns, "
                    "mode & 4294967295, uid & 4294967295, gid & 4294967295, inode "
                    f"FROM file_rows.versions WHERE file_set = {one}"
                ),
            )
            for one, _ in sets
        ]
    finally:
        connection.close()


def _canonical(
    ask: Callable[..., Iterable[tuple[Any, ...]]],
    *,
    points: str,
    names: str,
    directories: str,
    versions: str,
) -> Rows:
    images = {row[0]: place for place, row in enumerate(ask(points))}
    spelled = {row[0]: row[1] for row in ask(names)}
    for _, name, folded in ask(names):
        assert folded == fold_name(name)
    above = {row[0]: row[1:] for row in ask(directories)}

    def path(directory: int) -> bytes:
        parts: list[bytes] = []
        while directory != ROOT:
            directory, name = above[directory]
            parts.append(spelled[name])
        return b"".join(b"/" + part for part in reversed(parts))

    rows = list(ask(versions))
    used = {row[1] for row in rows} | {name for _, name in above.values()}
    assert used == spelled.keys()
    inhabited = {row[0] for row in rows} | {parent for parent, _ in above.values()}
    assert above.keys() <= inhabited
    for row in rows:
        assert row[2] < row[3]
        assert row[3] == OPEN_END or row[3] in images
    paths = {directory: path(directory) for directory in {row[0] for row in rows}}
    return sorted(
        (paths[row[0]], spelled[row[1]], images[row[2]], images.get(row[3], "open"),
         *row[4:-1], to_signed(row[-1]))
        for row in rows
    )  # fmt: skip
