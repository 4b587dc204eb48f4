"""Long lists a page at a time, in any order, each page as quick as the first.

A page begins after a row, named by what the list is sorted by and the row's key, so that rows
which come or go between two pages neither shift nor repeat the others. Must not know what is
listed. Invariant: rows of equal value are in the order of their keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

After = tuple[int | str, int]
"""Where a page begins: value and key of the row before it. Bytes are written as hexadecimal."""


@dataclass(frozen=True, slots=True)
class Sort:
    """What a list is sorted by."""

    by: str
    descending: bool = False


class Order:
    """One way to sort the rows of a table."""

    def __init__(
        self, columns: Mapping[str, sa.Column[Any]], key: sa.Column[int], sort: Sort
    ) -> None:
        """Look a column up.

        Args:
            columns: What can be sorted by.
            key: Unique; decides between rows of equal value, in the same direction.
            sort: What is asked for.

        Raises:
            Invalid: Nothing can be sorted by that.
        """
        if sort.by not in columns:
            known = ", ".join(columns)
            raise Invalid(f"nothing can be sorted by '{sort.by}'", f"sort by one of: {known}")
        self._column = columns[sort.by]
        self._key = key
        self._descending = sort.descending

    @property
    def kinds(self) -> tuple[type[int | str], type[int | str]]:
        """Of what types the two parts of a place are."""
        return (str if self._column.type.python_type in {str, bytes} else int), int

    def place(self, values: Mapping[str, Any]) -> After:
        """Where the page after a row begins.

        Args:
            values: The row's columns by their names.
        """
        value = values[self._column.key]
        plain = value.hex() if isinstance(value, bytes) else value
        return plain if isinstance(plain, str) else int(plain), values[self._key.key]

    def rows(
        self, connection: sa.Connection, query: sa.Select[Any], limit: int, after: After | None
    ) -> Sequence[sa.Row[Any]]:
        """Run a query for one page.

        Args:
            connection: In a transaction.
            query: All rows, in no order.
            limit: So many at most.
            after: See `place`; None for the first page.

        Raises:
            Invalid: There can be no such place.
        """
        ordered = [self._column] if self._column is self._key else [self._column, self._key]
        if after is not None:
            values = [self._value(after[0]), after[1]][-len(ordered) :]
            here = sa.tuple_(*ordered)
            there = sa.tuple_(
                *(sa.literal(one, on.type) for one, on in zip(values, ordered, strict=True))
            )
            query = query.where(here < there if self._descending else here > there)
        directed = (one.desc() if self._descending else one.asc() for one in ordered)
        return connection.execute(query.order_by(*directed).limit(limit)).all()

    def _value(self, plain: int | str) -> int | str | bytes:
        kind = self._column.type.python_type
        if kind is bytes:
            try:
                return bytes.fromhex(str(plain))
            except ValueError as error:
                raise Invalid("no row of this list has such a place") from error
        made: int | str = kind(plain)
        return made
