"""What all models of the API share.

Must not know any noun.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Model(BaseModel):
    """One thing that goes in or out. What it does not know is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)


def utc(moment: datetime | None) -> datetime | None:
    """A moment that was given, in UTC; one without a time zone is meant so."""
    if moment is None or moment.tzinfo is None:
        return None if moment is None else moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        # At an end of all time, and beyond it elsewhere.
        return moment.replace(tzinfo=UTC)


class Page(Model, Generic[T]):
    """Some of a list, and where it goes on."""

    items: list[T] = Field(description="In the order of the list.")
    next_cursor: str | None = Field(
        description="Give it back as `cursor` for what follows; null at the end."
    )
