"""File rows of sources, one SQLite file a source.

The front door is `SourceFiles`; the rest of the catalog sees `file_rows` alone.
"""

from holdfast.control.catalog.on_sqlite.source_files import SourceFiles

__all__ = ["SourceFiles"]
