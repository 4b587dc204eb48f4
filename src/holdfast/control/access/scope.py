"""Which clients somebody is concerned with: globs over their names.

Must not look clients up. Invariant: Python and the database agree on what a glob covers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Self

from holdfast.base.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

    import sqlalchemy as sa

MAX_GLOBS = 100

GLOB = r"[^\s:,\[\]\x00-\x1f\x7f]+"
MAX_GLOB = 255

_GLOB = re.compile(GLOB)


@dataclass(frozen=True, slots=True)
class Scope:
    """Some clients, or all.

    Attributes:
        globs: Names of clients, in which ``*`` stands for anything and ``?`` for one character; a
            client is covered if any fits. Sorted, each once.
    """

    globs: tuple[str, ...] = ("*",)

    @classmethod
    def of(cls, globs: Iterable[str]) -> Self:
        """Make a scope of what a person wrote.

        Raises:
            Invalid: There is no glob, there are too many, or one can't fit any client.
        """
        chosen = tuple(sorted(set(globs)))
        if not 0 < len(chosen) <= MAX_GLOBS:
            raise Invalid(f"a scope has 1 to {MAX_GLOBS} globs, not {len(chosen)}")
        for glob in chosen:
            if len(glob) > MAX_GLOB or _GLOB.fullmatch(glob) is None:
                raise Invalid(
                    f"'{glob}' is not a glob over names of clients",
                    "write names with * and ?, for example web*",
                )
        return cls(("*",) if "*" in chosen else chosen)

    @property
    def is_all(self) -> bool:
        """Whether every client is covered, now and later."""
        return self.globs == ("*",)

    def covers(self, client: str) -> bool:
        """Whether a client is covered. Case counts."""
        return any(fnmatchcase(client, glob) for glob in self.globs)

    def condition(
        self, connection: sa.Connection, column: sa.ColumnElement[str]
    ) -> sa.ColumnElement[bool]:
        """The same as `covers`, for a database to judge.

        Args:
            connection: It knows whose words to use.
            column: Where the client's name is.
        """
        import sqlalchemy as sa

        if self.is_all:
            return sa.true()
        if connection.dialect.name == "postgresql":
            return sa.or_(*(column.like(_like(glob), escape="\\") for glob in self.globs))
        # LIKE of SQLite takes no notice of case.
        return sa.or_(*(column.op("GLOB", is_comparison=True)(glob) for glob in self.globs))


ALL_CLIENTS = Scope()


def _like(glob: str) -> str:
    parts = {"*": "%", "?": "_", "%": "\\%", "_": "\\_", "\\": "\\\\"}
    return "".join(parts.get(one, one) for one in glob)
