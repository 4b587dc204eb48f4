"""Put right what nobody names any more, and what is named and not there.

Kills and restored control databases leave such things behind: generations that no source names,
rows of images that nobody knows, images that are called indexed and whose rows are lost. Must not
touch what is as it should be, nor pools. Each source is looked at under its writer's lock, so that
nothing half made by another is taken for a left-over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.errors import CatalogError, DatabaseLost
from holdfast.control.catalog import registry
from holdfast.control.catalog.rows import CatalogState, CleanUpResult

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.base.ids import ImageId, SourceName
    from holdfast.control.catalog.file_rows import FileRows, Source, SourceRows
    from holdfast.control.database import Database


class CleanUp:
    """One clean-up; use it once."""

    def __init__(self, database: Database, files: FileRows) -> None:
        self._database = database
        self._files = files
        self._generations = 0
        self._images = 0
        self._lost = 0
        self._unreadable: dict[SourceName, str] = {}

    def run(self) -> CleanUpResult:
        """Look at every source, one after the other."""
        with self._database.read() as connection:
            known = {one.id for one in registry.list_sources(connection)}
        for source in sorted(known | self._files.stored()):
            self._look_at(source)
        return CleanUpResult(self._generations, self._images, self._lost, self._unreadable)

    def _look_at(self, number: int) -> None:
        with self._files.exclusive(number) as stored:
            with self._database.read() as connection:
                source = registry.source_by_id(connection, number)
                states = registry.states_of(connection, number)
            # no generation is 0: then all of them go
            self._generations += stored.remove_others(source.generation if source else 0)
            if source is None or not source.generation:
                return
            if not stored.has(source.generation):
                replace_by_nothing(self._database, stored, source)
            try:
                self._compare(stored, source, states)
            except DatabaseLost:
                raise
            except CatalogError as error:
                # damaged, or of a newer Holdfast: left as they are
                self._unreadable[source.name] = error.message

    def _compare(
        self, stored: SourceRows, source: Source, states: dict[ImageId, CatalogState]
    ) -> None:
        # again, as it may just have been replaced
        with self._database.read() as connection:
            generation = registry.generation_of(connection, source.id)
        with stored.writing(generation) as writer:
            held = {one.image for one in writer.points().values()}
            gone = held - states.keys()
            if gone:
                writer.expire(gone)
                self._images += len(gone)
        self._wait_again(_indexed(states) - held)

    def _wait_again(self, images: Iterable[ImageId]) -> None:
        with self._database.write() as connection:
            for image in images:
                registry.set_state(connection, image, CatalogState.PENDING, "its rows were lost")
                self._lost += 1


def replace_by_nothing(database: Database, stored: SourceRows, source: Source) -> None:
    """Give a source, whose lock is held, rows without any image; those it had go."""
    generation = source.generation + 1
    with stored.building(generation):
        pass
    with database.write() as connection:
        registry.set_generation(connection, source.id, generation)
    stored.remove_others(generation)


def _indexed(states: dict[ImageId, CatalogState]) -> set[ImageId]:
    return {image for image, state in states.items() if state is CatalogState.INDEXED}
