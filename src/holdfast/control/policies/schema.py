"""Tables of policies.

Must not be read but by `book`: a policy is what its document says, and the columns beside it are
for finding it. Invariants: every policy has a row of its newest revision; revisions are only
ever added, and the numbers of a name go on when it is given to another policy.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
)

from holdfast.control.database.metadata import metadata

policies = Table(
    "policies",
    metadata,
    Column("name", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("storage_unit", Text, nullable=False),
    Column("client_query", Text),
    # plain data as JSON, whole
    Column("document", Text, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
    Column("changed_by", Text, nullable=False),
)
Index(None, policies.c.storage_unit, policies.c.name)
Index(None, policies.c.client_query)

# the clients that a policy names; a query over them is asked where it is needed
policy_clients = Table(
    "policy_clients",
    metadata,
    Column("policy", Text, ForeignKey("policies.name", ondelete="CASCADE"), primary_key=True),
    Column("client", Text, primary_key=True),
)
Index(None, policy_clients.c.client, policy_clients.c.policy)

policy_revisions = Table(
    "policy_revisions",
    metadata,
    # in the order of commits: the highest tells whether anything has changed
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("policy", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    # created, changed or removed; what was removed is there once more
    Column("act", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    UniqueConstraint("policy", "revision"),
)
