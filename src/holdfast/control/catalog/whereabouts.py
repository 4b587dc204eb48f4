"""Which sources hold what is asked for: asked before every question about files, and so quickly.

Must not open file rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.ids import SourceName
from holdfast.control.catalog import registry
from holdfast.control.catalog.file_rows import Source
from holdfast.control.database import Question

if TYPE_CHECKING:
    from holdfast.base.ids import ImageId
    from holdfast.control.catalog.rows import Visible
    from holdfast.control.database import Database

_SOURCE_OF = Question(registry.SOURCE_OF)
_SOURCES = Question(registry.SOURCES)


def source_of(database: Database, image: ImageId) -> Source:
    """The source of an image that is there; raises `ImageMissing`."""
    found = database.look(_SOURCE_OF, image=image)
    if not found:
        raise registry.missing(image)
    return _source(*found[0])


def sources(database: Database, name: str | None, visible: Visible | None) -> list[Source]:
    """Sources by name, as `registry.list_sources`."""
    if name is None and visible is None:
        return [_source(*row) for row in database.look(_SOURCES)]
    with database.read() as connection:
        return registry.list_sources(connection, name, visible)


def _source(number: int, name: str, generation: int) -> Source:
    return Source(number, SourceName(name), generation)
