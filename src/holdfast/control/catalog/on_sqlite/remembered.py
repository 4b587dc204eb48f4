"""What a connection remembers of its file from one question to the next.

Must not outlast what it is of. Invariant: what is remembered is what the caller's read transaction
would find; when anybody has written to the file, all of it is forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.control.catalog.on_sqlite.source_file import has_search_index
from holdfast.control.catalog.on_sqlite.writer import restore_points

if TYPE_CHECKING:
    import sqlite3

    from holdfast.control.catalog.file_rows import RestorePoint
    from holdfast.control.catalog.on_sqlite.source_file import FileConnection

_PATHS_KEPT = 4096


class Remembered:
    """What many questions to one file have alike.

    Attributes:
        data_version: Changes when somebody has written to the file.
        has_search_index: Whether names are indexed by trigrams in this file.
        points: The images in the file by sequence number, oldest first.
        paths: Paths of directories by id, without the slash at the end.
    """

    def __init__(self, connection: sqlite3.Connection, data_version: int) -> None:
        self.data_version = data_version
        self.has_search_index = has_search_index(connection)
        self.points: dict[int, RestorePoint] = restore_points(connection)
        self.paths: dict[int, bytes] = {}

    def trim(self) -> None:
        """Keep no more than is worth keeping while nobody asks."""
        if len(self.paths) > _PATHS_KEPT:
            self.paths.clear()


def remembered(connection: FileConnection) -> Remembered:
    """What is remembered of the file as the read transaction of the connection sees it."""
    data_version = int(connection.execute("PRAGMA data_version").fetchone()[0])
    known = connection.remembered
    if known is None or known.data_version != data_version:
        known = connection.remembered = Remembered(connection, data_version)
    return known
