"""The catalog: which images there are, where they lie, and every file in them.

The front door; nothing outside imports the modules behind it. Must not move data.
"""

from holdfast.control.catalog.catalog import DATABASE, Catalog, set_aside
from holdfast.control.catalog.listing import ImageLists, ListedImage, ListedSource, WantedImages
from holdfast.control.catalog.protection import Protection
from holdfast.control.catalog.rows import (
    CatalogState,
    ChangeRow,
    ChangeRows,
    CopyRow,
    FileRow,
    FileVersion,
    FoundRow,
    ImageRow,
    Manifest,
    PoolReader,
    RebuildResult,
    TreeBatch,
    TreeRow,
)

__all__ = [
    "DATABASE",
    "Catalog",
    "CatalogState",
    "ChangeRow",
    "ChangeRows",
    "CopyRow",
    "FileRow",
    "FileVersion",
    "FoundRow",
    "ImageLists",
    "ImageRow",
    "ListedImage",
    "ListedSource",
    "Manifest",
    "PoolReader",
    "Protection",
    "RebuildResult",
    "TreeBatch",
    "TreeRow",
    "WantedImages",
    "set_aside",
]
