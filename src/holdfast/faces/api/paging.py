"""Lists in pages: a cursor says after which row the next page begins.

Must not run queries. Invariants: a cursor is of one list and its filters, and is refused with any
other; a page is found by the key of the row before it, never by counting, so rows that come or go
meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Depends, Query, Request

from holdfast.base.errors import NotFound
from holdfast.faces.api.models import Model, Page

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Row = TypeVar("Row")
Shown = TypeVar("Shown", bound=Model)
Key = tuple[int | str | None, ...]

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

_CHECK_BYTES = 9


class Paging:
    """Which page of a list is asked for.

    Attributes:
        limit: How many rows at most.
    """

    def __init__(self, limit: int, cursor: str | None, what: str) -> None:
        self.limit = limit
        self._cursor = cursor
        self._what = what

    @property
    def fetch(self) -> int:
        """How many rows to ask the book for: one more tells whether more follow."""
        return self.limit + 1

    def after(self, *kinds: type[int | str]) -> Key | None:
        """The key of the row before this page; None for the first.

        Args:
            kinds: The types of the key's parts; None is allowed for each.

        Raises:
            NotFound: The cursor is not one that this list gave.
        """
        if self._cursor is None:
            return None
        key = self._read(self._cursor)
        if len(key) != len(kinds) or not all(map(_fits, key, kinds)):
            raise self._unknown()
        return tuple(key)

    def page(
        self, rows: Sequence[Row], key: Callable[[Row], Key], show: Callable[[Row], Shown]
    ) -> Page[Shown]:
        """Make the page.

        Args:
            rows: Up to `fetch` of them, in order.
            key: What `after` is to find the next page by.
            show: A row as the API has it.
        """
        shown = rows[: self.limit]
        more = len(rows) > self.limit
        return Page(
            items=[show(row) for row in shown],
            next_cursor=self._write(key(shown[-1])) if more else None,
        )

    def _write(self, key: Key) -> str:
        body = json.dumps(key, separators=(",", ":")).encode()
        return urlsafe_b64encode(self._check(body) + body).decode().rstrip("=")

    def _read(self, cursor: str) -> list[Any]:
        try:
            whole = urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
            check, body = whole[:_CHECK_BYTES], whole[_CHECK_BYTES:]
            if check != self._check(body):
                raise self._unknown()
            key = json.loads(body)
        except ValueError as error:
            raise self._unknown() from error
        if not isinstance(key, list):
            raise self._unknown()
        return key

    def _check(self, body: bytes) -> bytes:
        person = b"holdfast cursor"
        return blake2b(
            self._what.encode() + b"\0" + body, digest_size=_CHECK_BYTES, person=person
        ).digest()

    def _unknown(self) -> NotFound:
        return NotFound(
            "the cursor is not one that this list gave, with these filters",
            "begin at the first page, without a cursor",
        )


def _fits(part: object, kind: type[int | str]) -> bool:
    """Whether a part of a key is what a database can be asked for."""
    if isinstance(part, int):
        return type(part) is kind and -(2**63) <= part < 2**63
    if isinstance(part, str):
        return kind is str and "\0" not in part
    return part is None


def _paging(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many at most.")] = (
        DEFAULT_LIMIT
    ),
    cursor: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=2000,
            pattern="^[A-Za-z0-9_-]+$",
            description="Where to go on: `next_cursor` of the page before.",
        ),
    ] = None,
) -> Paging:
    filters = sorted(
        (name, value)
        for name, value in request.query_params.multi_items()
        if name not in {"limit", "cursor"}
    )
    return Paging(limit, cursor, json.dumps([request.url.path, filters]))


Pages = Annotated[Paging, Depends(_paging)]
"""The parameters of a list."""
