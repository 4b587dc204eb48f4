"""What a site knows of itself, by name.

Must not open transactions. Every function runs on the caller's connection.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast.control.database.schema import facts
from holdfast.control.database.upsert import insert

if TYPE_CHECKING:
    from holdfast.control.database.database import Database

SITE_ID = "site-id"
PROTECTED = "catalog-protected"
PROTECTIONS = "catalog-protections"


def get(connection: sa.Connection, name: str) -> str | None:
    """One fact; None if it is not known."""
    found: str | None = connection.scalar(sa.select(facts.c.value).where(facts.c.name == name))
    return found


def put(connection: sa.Connection, name: str, value: str) -> None:
    """Note a fact in place of what was known."""
    connection.execute(
        insert(connection, facts)
        .values(name=name, value=value)
        .on_conflict_do_update(index_elements=[facts.c.name], set_={"value": value})
    )


def forget(connection: sa.Connection, name: str) -> None:
    """Know a fact no more; fine if it is not known."""
    connection.execute(sa.delete(facts).where(facts.c.name == name))


def site_id(database: Database) -> str:
    """The name of this site, 32 hexadecimal digits, the same for as long as it lives."""
    with database.read() as connection:
        known = get(connection, SITE_ID)
    if known is not None:
        return known
    with database.write() as connection:
        connection.execute(
            insert(connection, facts)
            .values(name=SITE_ID, value=uuid.uuid4().hex)
            .on_conflict_do_nothing()
        )
        made = get(connection, SITE_ID)
    return str(made)
