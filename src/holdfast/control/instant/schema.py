"""The table of virtual machines that run, or ran, from their images."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, Text

from holdfast.control.database.metadata import metadata

instant_recoveries = Table(
    "instant_recoveries",
    metadata,
    Column("id", Integer, primary_key=True),
    # no foreign key: what became of a machine is told for longer than its image is kept
    Column("image", Text, nullable=False),
    Column("hypervisor", Text, nullable=False),
    Column("machine", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("label", Text, nullable=False),
    # JSON: what else was wanted
    Column("wanted", Text, nullable=False),
    Column("begun_ns", BigInteger, nullable=False),
    Column("begun_by", Text, nullable=False),
    # whether the machine was up once: from then on it is never made anew
    Column("was_up", Boolean, nullable=False),
    # the job that serves the image, the newest to move the machine, and to throw it away
    Column("serve_job", BigInteger),
    Column("migrate_job", BigInteger),
    Column("discard_job", BigInteger),
    Column("ended_ns", BigInteger),
    Column("ending", Text),
    sqlite_autoincrement=True,
)
Index(None, instant_recoveries.c.ended_ns)
