"""Hold and lock images: what a person says, made exact.

Must not print. Invariant: a hold has a reason in words, and a lock ends in the future.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.base.ids import ImageId

LAST = datetime(2262, 1, 1, tzinfo=UTC)
"""What moments in ns since 1970 can't be much later than."""


def reason(text: str) -> str:
    """A reason for a hold, on one line.

    Raises:
        Invalid: It is empty.
    """
    stated = " ".join(text.split())
    if not stated:
        raise Invalid("a hold needs a reason", "say why, for example 'audit of 2026'")
    return stated


def require_held(image: ImageId, holds: Sequence[str], stated: str | None) -> None:
    """Make sure that there is a hold to lift.

    Args:
        image: The image.
        holds: Reasons of the holds that it has.
        stated: The reason of the hold; None for any.

    Raises:
        NotFound: There is none.
    """
    if not holds or (stated is not None and stated not in holds):
        wanted = "" if stated is None else f" for '{stated}'"
        raise NotFound(f"image {image} is not held{wanted}", "'holdfast images' shows what is held")


def require_future(end: datetime, now: datetime) -> None:
    """Make sure that a lock would lock, and that its end can be written down.

    Raises:
        Invalid: It ends now, or did; or it ends later than clocks of this kind count.
    """
    if end <= now:
        raise Invalid(f"{end:%Y-%m-%d %H:%M} UTC is past", "a lock ends in the future")
    if end >= LAST:
        raise Invalid(f"{end:%Y-%m-%d} is too far away", f"a lock ends before {LAST:%Y-%m-%d}")
