"""A storage unit: a named place for images, which is a pool of its own. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid
from holdfast.base.ids import DEFAULT_STORAGE_UNIT, PLAIN_NAME_HINT, is_plain_name

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast.base.ids import ClientName, PoolId

DEFAULT_SLOTS = 4
MOST_SLOTS = 10_000


@dataclass(frozen=True, slots=True)
class StorageUnit:
    """One storage unit.

    Attributes:
        name: To speak of it.
        pool: The id of its pool.
        place: A directory or URL; of a pool that a media server owns, the directory there.
        server: The media server that owns it; None for one that master and media servers reach.
        slots: How many jobs it takes at once.
        created_at: When it was made; None where that is not known.
    """

    name: str
    pool: PoolId
    place: str
    server: ClientName | None
    slots: int
    created_at: datetime | None


def unit_name(text: str) -> str:
    """Parse the name of a new storage unit.

    Raises:
        Invalid: It can't be one.
    """
    if not is_plain_name(text):
        raise Invalid(f"'{text[:80]}' can't be the name of a storage unit", PLAIN_NAME_HINT)
    if text == DEFAULT_STORAGE_UNIT:
        raise Invalid(
            f"'{text}' is the name of the site's own pool", "choose another name for this one"
        )
    return text
