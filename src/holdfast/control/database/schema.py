"""The table of what a site knows of itself.

Must not hold anything that a person sets: that is in ``config.toml``.
"""

from __future__ import annotations

from sqlalchemy import Column, Table, Text

from holdfast.control.database.metadata import metadata

facts = Table(
    "facts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
