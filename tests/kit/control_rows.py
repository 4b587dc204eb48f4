"""Rows in every table of a control database, whatever tables a migration adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.control.database import Database

ROWS = 3
"""Of each table, so many: with values that are hard, with others, and with as little as may be."""

_TEXTS = ('a "case":\n\u2028 ö \\', "web*\n'x'", "{}")
_BYTES = (b"\x00\xff/not UTF-8\xfe", b"", b"{}")
_NUMBERS = (2**63 - 1, -(2**63), 0)
_SMALL = (2**31 - 1, -(2**31), 0)

SCHEMA = "alembic_version"


def contents(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, in no order that a database chooses."""
    tables = sa.MetaData()
    with database.read() as connection:
        tables.reflect(connection)
        return {
            one.name: sorted((tuple(row) for row in connection.execute(sa.select(one))), key=repr)
            for one in tables.sorted_tables
        }


def columns_of(database: Database, table: str) -> list[str]:
    """The names of a table's columns, in the order of `contents`."""
    with database.read() as connection:
        return [one["name"] for one in sa.inspect(connection).get_columns(table)]


def fill_every_table(database: Database) -> int:
    """Put `ROWS` rows into each table; the number of them all.

    A column that refers to another table has the key of the row of the same number there. One
    that may be null is null in the last row.
    """
    tables = sa.MetaData()
    with database.write() as connection:
        tables.reflect(connection)
        there = [one for one in tables.sorted_tables if one.name != SCHEMA]
        for table in there:
            for number in range(ROWS):
                row = dict(_row(table, number))
                connection.execute(sa.insert(table), row)
    return ROWS * len(there)


def _row(table: sa.Table, number: int) -> Iterable[tuple[str, Any]]:
    last = number == ROWS - 1
    unique = _unique(table)
    for column in table.columns:
        if column.nullable and last:
            yield column.name, None
            continue
        referred = next((one.column for one in column.foreign_keys), None)
        only = column.primary_key or column.name in unique or referred is not None
        yield column.name, _value(column if referred is None else referred, number, only=only)


def _unique(table: sa.Table) -> set[str]:
    """Columns that no two rows may have alike, be it together with others."""
    found = {one.name for index in table.indexes if index.unique for one in index.columns}
    for constraint in table.constraints:
        if isinstance(constraint, sa.UniqueConstraint):
            found |= {one.name for one in constraint.columns}
    return found


def _value(column: sa.Column[Any], number: int, *, only: bool) -> Any:
    kind = column.type
    if isinstance(kind, sa.Boolean):
        return number % 2 == 0
    if isinstance(kind, sa.LargeBinary):
        return _BYTES[number] + (bytes([number]) if only else b"")
    if isinstance(kind, sa.BigInteger | sa.Integer):
        if only:
            return number + 1
        return (_NUMBERS if isinstance(kind, sa.BigInteger) else _SMALL)[number]
    assert isinstance(kind, sa.Text | sa.String), f"{column.table.name}.{column.name}: {kind}"
    return f"{number} {_TEXTS[number]}" if only else _TEXTS[number]
