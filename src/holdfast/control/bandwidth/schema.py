"""The table of bandwidth rules."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Table, Text

from holdfast.control.database.metadata import metadata

bandwidth_rules = Table(
    "bandwidth_rules",
    metadata,
    Column("name", Text, primary_key=True),
    Column("bytes_per_s", BigInteger, nullable=False),
    # JSON lists of texts
    Column("networks", Text, nullable=False),
    Column("windows", Text, nullable=False),
)
