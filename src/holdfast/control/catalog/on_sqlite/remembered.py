"""What a connection remembers of its file from one question to the next.

Must not outlast what it is of. Invariant: what is remembered is what the caller's read transaction
would find; when anybody has written to the file, all of it is forgotten.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from holdfast.control.catalog.file_rows import ROOT
from holdfast.control.catalog.on_sqlite.source_file import has_search_index
from holdfast.control.catalog.on_sqlite.writer import restore_points
from holdfast.control.catalog.timeline import Timeline

if TYPE_CHECKING:
    from holdfast.base.ids import ImageId, SourceName
    from holdfast.control.catalog.file_rows import RestorePoint
    from holdfast.control.catalog.on_sqlite.source_file import FileConnection

_KEPT = 4096


class Remembered:
    """What many questions to one file have alike; each is looked up when it is first asked for.

    Attributes:
        data_version: Changes when somebody has written to the file.
        paths: Paths of directories by id, without the slash at the end.
    """

    def __init__(self, connection: FileConnection, data_version: int) -> None:
        self.data_version = data_version
        self.paths: dict[int, bytes] = {}
        self._connection = connection
        self._directories: dict[bytes, int] = {b"": ROOT}
        self._sequences: dict[ImageId, int] = {}
        self._timelines: dict[SourceName, Timeline] = {}

    @cached_property
    def has_search_index(self) -> bool:
        """Whether names are indexed by trigrams in this file."""
        return has_search_index(self._connection)

    @cached_property
    def points(self) -> dict[int, RestorePoint]:
        """The images in the file by sequence number, oldest first."""
        return restore_points(self._connection)

    def timeline(self, source: SourceName) -> Timeline:
        """The images in the file, under the name of its source."""
        found = self._timelines.get(source)
        if found is None:
            found = self._timelines[source] = Timeline(source, self.points)
        return found

    def sequence_of(self, image: ImageId) -> int | None:
        """The sequence number of an image in the file, or None if the file does not hold it."""
        sequence = self._sequences.get(image)
        if sequence is None:
            found = self._connection.execute(
                "SELECT sequence FROM restore_points WHERE image = ?", (image,)
            ).fetchone()
            if found is None:
                return None
            sequence = self._sequences[image] = int(found[0])
        return sequence

    def directory_id(self, path: bytes) -> int | None:
        """Id of a directory that any image has, or had, something in; None otherwise.

        Args:
            path: Its path, without the slash at its end: empty for the root.
        """
        known = self._directories
        missing = []
        above = path
        while above not in known:
            above, _, name = above.rpartition(b"/")
            missing.append(name)
        directory = known[above]
        for name in reversed(missing):
            found = self._connection.execute(
                "SELECT d.id FROM names n JOIN directories d ON d.parent = ? AND d.name = n.id "
                "WHERE n.name = ?",
                (directory, name),
            ).fetchone()
            if found is None:
                return None
            above += b"/" + name
            directory = known[above] = int(found[0])
        return directory

    def trim(self) -> None:
        """Keep no more than is worth keeping while nobody asks."""
        if len(self.paths) > _KEPT:
            self.paths.clear()
        if len(self._directories) > _KEPT:
            self._directories = {b"": ROOT}
        if len(self._sequences) > _KEPT:
            self._sequences.clear()


def remembered(connection: FileConnection) -> Remembered:
    """What is remembered of the file as the read transaction of the connection sees it."""
    data_version = int(connection.execute("PRAGMA data_version").fetchone()[0])
    known = connection.remembered
    if known is None or known.data_version != data_version:
        known = connection.remembered = Remembered(connection, data_version)
    return known
