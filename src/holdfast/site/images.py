"""The image that a person means, asked of the pool.

Must not ask the catalog: what is restored is what the pool has, and no database is needed for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base import image_names
from holdfast.base.ids import LATEST, ImageId, image_id

if TYPE_CHECKING:
    from holdfast.engine import Pool


def resolve(pool: Pool, text: str) -> ImageId:
    """Find the image that an id, a unique prefix of one, or ``latest`` names.

    Raises:
        Invalid: It can't name an image.
        ImageMissing: There is none.
        ImageAmbiguous: Several begin with it.
        IntegrityError: Which is the latest can't be told, as a manifest is damaged.
    """
    if text.strip().lower() == LATEST:
        every = pool.images()
        if not every:
            raise image_names.no_image_yet()
        return image_id(every[-1].id)
    wanted = image_names.image_prefix(text)
    found = sorted(one for one in pool.image_ids() if one.startswith(wanted))
    return image_id(image_names.the_one(text, found))
