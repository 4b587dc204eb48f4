"""The catalog: which images there are, where they lie, and every file in them.

The front door; nothing outside imports the modules behind it. Must not move data.
"""

from holdfast.control.catalog.catalog import Catalog
from holdfast.control.catalog.damage import DATABASE, set_aside
from holdfast.control.catalog.feeder import Feeder, FeederState
from holdfast.control.catalog.inside import Indexing, IndexingState
from holdfast.control.catalog.listing import ImageLists, ListedImage, ListedSource, WantedImages
from holdfast.control.catalog.protection import Protection
from holdfast.control.catalog.rows import (
    CatalogState,
    ChangeRow,
    ChangeRows,
    CleanUpResult,
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
    WaitingImage,
)

__all__ = [
    "DATABASE",
    "Catalog",
    "CatalogState",
    "ChangeRow",
    "ChangeRows",
    "CleanUpResult",
    "CopyRow",
    "Feeder",
    "FeederState",
    "FileRow",
    "FileVersion",
    "FoundRow",
    "ImageLists",
    "ImageRow",
    "Indexing",
    "IndexingState",
    "ListedImage",
    "ListedSource",
    "Manifest",
    "PoolReader",
    "Protection",
    "RebuildResult",
    "TreeBatch",
    "TreeRow",
    "WaitingImage",
    "WantedImages",
    "set_aside",
]
