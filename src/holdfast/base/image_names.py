"""What is said of an image's name that names none, or several.

Must not look anything up: see the catalog and the site, which do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.errors import ImageAmbiguous, ImageMissing, Invalid
from holdfast.base.ids import is_image_prefix

if TYPE_CHECKING:
    from collections.abc import Sequence

AMBIGUOUS_SHOWN = 3
"""So many of the images that a prefix names are shown; looking for one more tells of the rest."""

_HINT = "list them with: holdfast images"


def image_prefix(text: str) -> str:
    """Normalise an id or the beginning of one.

    Raises:
        Invalid: It can't be one.
    """
    wanted = text.strip().lower()
    if not is_image_prefix(wanted):
        raise Invalid(
            f"'{text}' is not an image id",
            "write an id, the beginning of one, or latest; list them with: holdfast images",
        )
    return wanted


def the_one(text: str, found: Sequence[str], where: str = "") -> str:
    """Take the image that a prefix names from those that begin with it.

    Args:
        text: What a person wrote.
        found: Ids that begin with it; of many, `AMBIGUOUS_SHOWN` + 1 are enough, a whole id first.
        where: Where they were looked for, in words that begin with a space.

    Raises:
        ImageMissing: There is none.
        ImageAmbiguous: There are several.
    """
    if not found:
        raise ImageMissing(f"no image{where} begins with '{text}'", _HINT)
    wanted = image_prefix(text)
    if len(found) > 1 and found[0] != wanted:
        shown = ", ".join(one[: len(wanted) + 4] for one in found[:AMBIGUOUS_SHOWN])
        more = ", …" if len(found) > AMBIGUOUS_SHOWN else ""
        raise ImageAmbiguous(
            f"several images{where} begin with '{text}': {shown}{more}", "write more of the id"
        )
    return found[0]
