"""What all models of the API share.

Must not know any noun.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Model(BaseModel):
    """One thing that goes in or out. What it does not know is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)


class Page(Model, Generic[T]):
    """Some of a list, and where it goes on."""

    items: list[T] = Field(description="In the order of the list.")
    next_cursor: str | None = Field(
        description="Give it back as `cursor` for what follows; null at the end."
    )
