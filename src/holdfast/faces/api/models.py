"""What all models of the API share.

Must not know any noun.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

T = TypeVar("T")

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Model(BaseModel):
    """One thing that goes in or out. What it does not know is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)


def _moment(given: object) -> datetime:
    """Read a moment as RFC 3339 has it; Pydantic would take numbers, and times of nowhere."""
    if not isinstance(given, str) or _RFC_3339.fullmatch(given) is None:
        raise ValueError("a moment is written as 2026-01-31T18:00:00Z")
    moment = datetime.fromisoformat(given)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        # At an end of all time, and beyond it elsewhere.
        return moment.replace(tzinfo=UTC)


Moment = Annotated[datetime, BeforeValidator(_moment)]
"""A moment that comes in, in UTC."""


class Page(Model, Generic[T]):
    """Some of a list, and where it goes on."""

    items: list[T] = Field(description="In the order of the list.")
    next_cursor: str | None = Field(
        description="Give it back as `cursor` for what follows; null at the end."
    )
