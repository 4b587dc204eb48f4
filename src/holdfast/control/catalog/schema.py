"""Tables of clients, sources, images and copies in the control database.

Must not hold file rows: those are one file a source, see `source_file`. Invariants: an image
belongs to one source, a source to one client; an image without a copy does not exist; a hold or
a lock is of an image that is there.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
)

from holdfast.control.database.metadata import metadata

clients = Table(
    "clients",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)

sources = Table(
    "sources",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("client_id", Integer, ForeignKey("clients.id"), nullable=False),
    Column("name", Text, nullable=False, unique=True),
    # which file holds the rows: files/<id>.<generation>.db; 0 = none yet
    Column("generation", Integer, nullable=False, server_default="0"),
)

images = Table(
    "images",
    metadata,
    Column("id", Text, primary_key=True),
    Column("source_id", Integer, ForeignKey("sources.id"), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("started_ns", BigInteger, nullable=False),
    Column("finished_ns", BigInteger, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("online_bytes", BigInteger, nullable=False),
    Column("new_bytes", BigInteger, nullable=False),
    Column("transmitted_bytes", BigInteger, nullable=False),
    Column("findings", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("parent", Text),
    Column("software", Text, nullable=False),
    # who ordered it; NULL for what no policy did
    Column("policy", Text),
    Column("schedule", Text),
    Column("backup_kind", Text),
    Column("job", Text),
    # the id of the client key that its files are sealed with; NULL: the pool can read them
    Column("client_key", Text),
    # whether names are sealed with it, too
    Column("sealed_names", Boolean, nullable=False, server_default=sa.false()),
    Column("catalog_state", Text, nullable=False),
    Column("catalog_detail", Text),
    # the image of a machine that this one is an index of the files in; no list shows it
    Column("index_of", Text),
)
Index(None, images.c.source_id, images.c.number)
Index(None, images.c.number)
# lists are newest first: of all, of a source, of a policy
Index(None, images.c.started_ns, images.c.id)
Index(None, images.c.source_id, images.c.started_ns, images.c.id)
Index(None, images.c.policy, images.c.started_ns, images.c.id)
Index(None, images.c.catalog_state)
Index(None, images.c.index_of)

copies = Table(
    "copies",
    metadata,
    Column("image_id", Text, ForeignKey("images.id"), primary_key=True),
    Column("pool_id", Text, primary_key=True),
    Column("recorded_ns", BigInteger, nullable=False),
)
Index(None, copies.c.pool_id)

# images of machines, and how far the index of the files inside of each is
indexings = Table(
    "indexings",
    metadata,
    Column("image_id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("detail", Text),
)

holds = Table(
    "holds",
    metadata,
    Column("image_id", Text, ForeignKey("images.id"), primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("placed_ns", BigInteger, nullable=False),
)

locks = Table(
    "locks",
    metadata,
    Column("image_id", Text, ForeignKey("images.id"), primary_key=True),
    Column("until_ns", BigInteger, nullable=False),
)

# one row: when expiry was last judged, by the clock on the wall and by the one since the start
clock_marks = Table(
    "clock_marks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("wall_ns", BigInteger, nullable=False),
    Column("since_boot_ns", BigInteger, nullable=False),
    Column("boot", Text, nullable=False),
)
