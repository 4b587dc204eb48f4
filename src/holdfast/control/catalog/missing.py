"""Errors for what a catalog is asked and does not have, in words.

Must not look anything up that it is not given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.errors import CatalogError, PathMissing

if TYPE_CHECKING:
    from holdfast.base.ids import ImageId
    from holdfast.control.catalog.file_rows import RowsReader
    from holdfast.control.catalog.rows import ImageRow


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def no_directory(rows: RowsReader, sequence: int, image: ImageId, path: bytes) -> PathMissing:
    """An image has no directory at a path."""
    if path != b"/" and rows.entry(sequence, path) is not None:
        return PathMissing(f"'{_shown(path)}' in image {image} is not a directory")
    return path_missing(image, path)


def path_missing(image: ImageId, path: bytes) -> PathMissing:
    """An image has nothing at a path."""
    return PathMissing(
        f"image {image} has nothing at '{_shown(path)}'",
        "look around with: holdfast ls IMAGE:PATH, or: holdfast find NAME",
    )


def not_indexed(row: ImageRow) -> CatalogError:
    """The files of an image are not in the catalog."""
    why = f": {row.catalog_detail}" if row.catalog_detail else ""
    return CatalogError(
        f"the files of image {row.id} are not in the catalog ({row.catalog_state}{why})",
        "it can be restored all the same; to index it: holdfast catalog rebuild",
    )
