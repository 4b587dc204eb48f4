"""A way into the catalog for one thread, beside which others have theirs.

Must not choose what is fed: see `feeder`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.base.ids import ImageId
    from holdfast.control.catalog.file_rows import RowsApart
    from holdfast.control.catalog.indexer import Indexer
    from holdfast.control.catalog.rows import PoolReader


class Lane:
    """A way for images into the catalog that can have a processor for itself. For one thread."""

    def __init__(self, here: Indexer, apart: Indexer, files: RowsApart) -> None:
        self._here = here
        self._apart = apart
        self._files = files

    def ingest(
        self,
        pool: PoolReader,
        image_id: ImageId,
        progress: Callable[[int], None] | None = None,
        *,
        apart: bool = True,
    ) -> int:
        """Feed the files of a recorded image; see `Catalog.ingest`.

        Args:
            pool: The pool.
            image_id: The image.
            progress: Called with the rows fed so far.
            apart: On a processor of its own, where that is to be had: worth it for more than a
                little, as a process may have to be started for it.
        """
        indexer = self._apart if apart else self._here
        return indexer.ingest(pool, image_id, progress)

    def put_off(self, image_id: ImageId, reason: str) -> None:
        """Say why an image goes on waiting."""
        self._here.put_off(image_id, reason)

    def abandon(self) -> None:
        """Have what is under way fail, if that is quicker than to ask; from any thread.

        The image stays pending.
        """
        self._files.abandon()
