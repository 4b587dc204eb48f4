"""The catalog: which images there are, where they lie, and every file in them.

The front door; nothing outside imports the modules behind it. Must not move data, nor load
SQLAlchemy before someone asks for what needs it: a search does without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_BEHIND = {
    "catalog": ("Catalog",),
    "damage": ("DATABASE", "set_aside"),
    "feeder": ("Feeder", "FeederState"),
    "inside": ("Indexing", "IndexingState"),
    "listing": ("ImageLists", "ListedImage", "ListedSource", "WantedImages"),
    "protection": ("Protection",),
    "rows": (
        "CatalogState",
        "ChangeRow",
        "ChangeRows",
        "CleanUpResult",
        "CopyRow",
        "FileRow",
        "FileVersion",
        "FoundRow",
        "ImageRow",
        "Manifest",
        "PoolReader",
        "RebuildResult",
        "TreeBatch",
        "TreeRow",
        "WaitingImage",
    ),
}
"""Which module each name comes from."""


def __getattr__(name: str) -> Any:
    for module, names in _BEHIND.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
