"""Tables of hypervisors, and of the virtual machines that were found on them."""

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

hypervisors = Table(
    "hypervisors",
    metadata,
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("url", Text, nullable=False),
    # the client whose agent reaches it; NULL: the master server itself
    Column("proxy", Text),
    # JSON, sealed; NULL: it needs none
    Column("sealed_credentials", LargeBinary),
    Column("per_host", Integer, nullable=False),
    Column("per_datastore", Integer, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    # rises with each change of it, or of what was found there
    Column("revision", BigInteger, nullable=False),
    # when its machines were told last, and when it was asked last
    Column("looked_ns", BigInteger),
    Column("tried_ns", BigInteger),
    # why the last try failed; NULL: it did not
    Column("problem", Text),
)

virtual_machines = Table(
    "virtual_machines",
    metadata,
    Column(
        "hypervisor",
        Text,
        ForeignKey("hypervisors.name", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("uuid", Text, primary_key=True),
    # what `sources.machines.Machine.to_json` says, as JSON
    Column("document", Text, nullable=False),
    Column("first_seen_ns", BigInteger, nullable=False),
    Column("last_seen_ns", BigInteger, nullable=False),
    # whether it was there when the hypervisor was last looked at
    Column("is_there", Boolean, nullable=False),
)
Index(None, virtual_machines.c.uuid)
