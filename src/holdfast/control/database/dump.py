"""Write the whole control database into one file, and make a database of such a file.

Must not know what the rows mean. One text file of JSON lines, the same from SQLite and from
PostgreSQL, so that a site can be brought back on either. Invariants: a dump shows one moment; one
that is cut off, or of a newer Holdfast, is refused; loading is one transaction, into a database
that is empty.

Lines: first ``{"holdfast-catalog": 1, "schema": "0004"}``; then for each table
``{"table": …, "columns": […]}`` and its rows, each an array; at last ``{"rows": N}``. Bytes are
``{"base64": …}``, documents ``{"json": …}``. Rows of files, which are made anew, are not among
them: they lie in files, or in a schema of their own.
"""

from __future__ import annotations

import base64
import json
from typing import IO, TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.errors import CatalogDamaged, CatalogError, TargetNotEmpty
from holdfast.base.files import writing_whole
from holdfast.control.database.revision import HEAD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.control.database.database import Database

VERSION = 1

_BATCH_ROWS = 2000
_SCHEMA_TABLE = "alembic_version"


def write(database: Database, file: Path) -> int:
    """Dump a database whose schema is the newest.

    Args:
        database: What is dumped.
        file: Written whole or not at all; durable on return.

    Returns:
        How many rows there are.

    Raises:
        OSError: The file can't be written.
        CatalogError: The database can't be read.
    """
    with database.read() as connection, writing_whole(file) as opened:
        return _write(connection, opened)


def load(database: Database, file: Path) -> int:
    """Fill an empty database with a dump, and bring its schema up to date.

    Returns:
        How many rows there were.

    Raises:
        TargetNotEmpty: The database has a schema already.
        CatalogDamaged: The dump is not whole.
        CatalogError: It is of a newer Holdfast.
    """
    with file.open(encoding="utf-8") as opened:
        documents = _documents(opened, file)
        head = next(documents, None)
        if not isinstance(head, dict) or "holdfast-catalog" not in head:
            raise CatalogDamaged(f"'{file}' is not a dump of a catalog")
        schema = str(head["schema"])
        if head["holdfast-catalog"] > VERSION or schema > HEAD:
            raise CatalogError(
                f"the dump of the catalog is of schema {schema}, this Holdfast knows up to {HEAD}",
                "use the newer Holdfast that wrote it",
            )
        with database.write() as connection:
            if sa.inspect(connection).has_table(_SCHEMA_TABLE):
                raise TargetNotEmpty(f"the database '{database.name}' is not empty")
            database.upgrade_on(connection, schema)
            rows = _fill(connection, documents, file)
    database.migrate()
    return rows


def _write(connection: sa.Connection, file: IO[bytes]) -> int:
    def line(value: object) -> None:
        file.write(json.dumps(value).encode() + b"\n")

    # What is there, not what this program calls its tables: nothing may be forgotten.
    tables = sa.MetaData()
    tables.reflect(connection)
    line({"holdfast-catalog": VERSION, "schema": HEAD})
    rows = 0
    for table in tables.sorted_tables:
        if table.name == _SCHEMA_TABLE:
            continue
        line({"table": table.name, "columns": [one.name for one in table.columns]})
        order = list(table.primary_key.columns)
        for row in connection.execute(sa.select(table).order_by(*order)):
            rows += 1
            line([_plain(value) for value in row])
    line({"rows": rows})
    return rows


def _fill(connection: sa.Connection, documents: Iterator[Any], file: Path) -> int:
    tables = sa.MetaData()
    tables.reflect(connection)
    table: sa.Table | None = None
    columns: list[str] = []
    waiting: list[dict[str, Any]] = []
    rows = 0
    for one in documents:
        if isinstance(one, list) and table is not None:
            rows += 1
            waiting.append(dict(zip(columns, map(_meant, one), strict=True)))
            if len(waiting) == _BATCH_ROWS:
                connection.execute(sa.insert(table), waiting)
                waiting = []
            continue
        if waiting and table is not None:
            connection.execute(sa.insert(table), waiting)
            waiting = []
        if isinstance(one, dict) and one.get("table") in tables.tables:
            table, columns = tables.tables[one["table"]], one["columns"]
        elif isinstance(one, dict) and one.get("rows") == rows:
            _count_on(connection, tables)
            return rows
        else:
            break
    raise CatalogDamaged(f"the dump '{file}' of the catalog is not whole, after {rows} rows")


def _count_on(connection: sa.Connection, tables: sa.MetaData) -> None:
    """Have numbers that PostgreSQL gives go on after those that were loaded."""
    if connection.dialect.name != "postgresql":
        return
    for table in tables.sorted_tables:
        for column in table.primary_key.columns:
            if column.server_default is not None and isinstance(column.type, sa.Integer):
                place = sa.func.pg_get_serial_sequence(table.name, column.name)
                highest = sa.select(sa.func.coalesce(sa.func.max(column), 0) + 1).scalar_subquery()
                connection.execute(sa.select(sa.func.setval(place, highest, sa.false())))


def _documents(lines: Iterator[str], file: Path) -> Iterator[Any]:
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise CatalogDamaged(f"the dump '{file}' is damaged in line {number}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return {"base64": base64.b64encode(bytes(value)).decode("ascii")}
    return {"json": value} if isinstance(value, dict | list) else value


def _meant(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["base64"]) if "base64" in value else value["json"]
    return value
