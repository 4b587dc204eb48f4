"""The table of boot checks, with what each screen showed."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
)

from holdfast.control.database.metadata import metadata

boot_checks = Table(
    "boot_checks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("image", Text, ForeignKey("images.id", ondelete="CASCADE"), nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("took_ms", BigInteger, nullable=False),
    # JSON: checks that were met, each with the seconds that took
    Column("met", Text, nullable=False),
    # JSON: those that were not, in words
    Column("missed", Text, nullable=False),
    # the end of what came over the serial console
    Column("said", Text, nullable=False),
    # what the screen showed, as PNG
    Column("screenshot", LargeBinary),
)
Index(None, boot_checks.c.image)
