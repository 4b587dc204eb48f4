"""Tables of access: users, tokens, failed logins, acts, the audit log.

Must not hold a secret in the clear: of a password there is its Argon2id hash, of a token its
SHA-256. Invariants: a token belongs to a user who is there; rows of `audit` are only ever added;
`audit_head` has one row, the end of the log.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, Table, Text
from sqlalchemy import LargeBinary as Bytes

from holdfast.control.database.metadata import metadata

users = Table(
    "users",
    metadata,
    Column("name", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("role", Text, nullable=False),
    # globs over names of clients, one a line
    Column("scope", Text, nullable=False),
    # PHC string; null: nobody can log in with a password
    Column("password_hash", Text),
    # who that is at an identity provider: issuer and subject, one a line
    Column("subject", Text, unique=True),
    Column("disabled", Boolean, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("secret_hash", Text, nullable=False, unique=True),
    Column("user_name", Text, ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("session", Boolean, nullable=False),
    # null: as the user has it
    Column("role", Text),
    Column("scope", Text),
    Column("created_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger),
    Column("last_used_ns", BigInteger),
    Column("revoked_ns", BigInteger),
)
Index(None, tokens.c.user_name, tokens.c.created_ns)
Index(None, tokens.c.expires_ns)

# logins that go on in a browser, by way of an identity provider
provider_logins = Table(
    "provider_logins",
    metadata,
    Column("secret_hash", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("nonce", Text, nullable=False),
    Column("verifier", Text, nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("begun_ns", BigInteger, nullable=False),
)

login_failures = Table(
    "login_failures",
    metadata,
    # whom the failures count against: a user, an address, or both
    Column("subject", Text, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_ns", BigInteger, nullable=False),
)
Index(None, login_failures.c.last_ns)

# acts that were begun; one that has ended stays only for its idempotency key
acts = Table(
    "acts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("begun_ns", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("details", Text, nullable=False),
    # SHA-256 of who and key
    Column("key_hash", Text, unique=True),
    Column("request_hash", Text),
    # null while it is under way
    Column("status", Integer),
    Column("headers", Text),
    Column("body", Bytes),
)
Index(None, acts.c.begun_ns)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
)
Index(None, audit.c.who, audit.c.seq)
Index(None, audit.c.what, audit.c.seq)
Index(None, audit.c.object, audit.c.seq)
Index(None, audit.c.outcome, audit.c.seq)
Index(None, audit.c.at_ns, audit.c.seq)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)
