"""A statement that is put into words once, to be asked often: see `Database.look`.

Must not be of anything but plain columns: what SQLAlchemy makes of others is not made here.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import sqlite

if TYPE_CHECKING:
    from collections.abc import Mapping

    import sqlalchemy as sa


class Question:
    """A question with parameters."""

    def __init__(self, select: sa.Select[Any]) -> None:
        self.select = select

    @property
    def words(self) -> str:
        """The statement for SQLite."""
        return str(self._compiled)

    def arguments(self, values: Mapping[str, object]) -> list[object]:
        """The values of its parameters, in the order in which SQLite wants them."""
        known = {**self._compiled.params, **values}
        return [known[name] for name in self._compiled.positiontup or ()]

    @cached_property
    def _compiled(self) -> Any:
        return self.select.compile(dialect=sqlite.dialect())
