"""Tables of machines: the site's authority, tokens for joining, machines, their certificates.

Must not hold a secret in the clear: of a token there is a hash, the authority's key is sealed.
Invariants: rows of machines stay for ever, so that no name is ever anybody's again by chance; a
certificate that is not here was never given.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, Text
from sqlalchemy import LargeBinary as Bytes

from holdfast.control.database.metadata import metadata

authority = Table(
    "authority",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    # PEM
    Column("certificate", Text, nullable=False),
    # the private key, see `sealing`
    Column("sealed_key", Bytes, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
)

enrollment_tokens = Table(
    "enrollment_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("secret_hash", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    # null: any name that nobody has had
    Column("name", Text),
    # which enrollment of that name it takes the place of; 0 for its first
    Column("replaces", Integer, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_ns", BigInteger, nullable=False),
    Column("used_ns", BigInteger),
    Column("used_by", Text),
    # SHA-256 of the key of the machine that used it
    Column("used_key", Text),
)
Index(None, enrollment_tokens.c.expires_ns)
Index(None, enrollment_tokens.c.name)

machines = Table(
    "machines",
    metadata,
    Column("name", Text, primary_key=True),
    # without regard to capitals
    Column("folded", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    # how often a machine of this name has joined
    Column("enrollment", Integer, nullable=False),
    Column("enrolled_ns", BigInteger, nullable=False),
    Column("last_seen_ns", BigInteger),
    Column("revoked_ns", BigInteger),
    # what it says of itself: JSON lists of texts
    Column("addresses", Text, nullable=False),
    Column("drives", Text, nullable=False),
    Column("software", Text, nullable=False),
)

machine_certificates = Table(
    "machine_certificates",
    metadata,
    # 40 hexadecimal digits
    Column("serial", Text, primary_key=True),
    Column(
        "machine",
        Text,
        ForeignKey("machines.name", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("fingerprint", Text, nullable=False),
    Column("pem", Text, nullable=False),
    Column("issued_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger, nullable=False),
    Column("revoked_ns", BigInteger),
)
Index(None, machine_certificates.c.machine, machine_certificates.c.issued_ns)
Index(None, machine_certificates.c.expires_ns)
