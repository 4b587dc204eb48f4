"""File rows of sources, in tables of a control database on PostgreSQL.

The front door is `SourceTables`; the rest of the catalog sees `file_rows` alone.
"""

from holdfast.control.catalog.on_postgresql.source_tables import SourceTables

__all__ = ["SourceTables"]
