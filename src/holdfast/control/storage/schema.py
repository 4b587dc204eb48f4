"""The table of storage units, but for the site's own pool: that is in ``config.toml``."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Table, Text

from holdfast.control.database.metadata import metadata

storage_units = Table(
    "storage_units",
    metadata,
    Column("name", Text, primary_key=True),
    Column("pool_id", Text, nullable=False, unique=True),
    Column("place", Text, nullable=False),
    # the media server that owns it; NULL: all reach it
    Column("server", Text),
    # where that one was last reached: a JSON list of URLs
    Column("urls", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("sealed_key", LargeBinary, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
)
