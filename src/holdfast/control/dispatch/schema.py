"""The table of what was handled of each schedule of a policy, for each source."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Table, Text

from holdfast.control.database.metadata import metadata

histories = Table(
    "schedule_histories",
    metadata,
    Column("policy", Text, primary_key=True),
    Column("schedule", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    # occurrences from this moment on count, until one was handled
    Column("since_ns", BigInteger, nullable=False),
    Column("handled_ns", BigInteger),
    Column("last_start_ns", BigInteger),
)
