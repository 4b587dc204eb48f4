"""What is to stay free where a snapshot keeps what a guest overwrites meanwhile."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from holdfast.sources.machines.provider import Remark

if TYPE_CHECKING:
    from pathlib import Path

RESERVE_BYTES = 64 << 20


def short_of_room(scratch: Path, place: Path | None = None) -> list[Remark]:
    """Whether there is less than that, to be told before the window.

    Args:
        scratch: The directory as a person calls it.
        place: Where in it; itself, if not said.

    Raises:
        OSError: It can't be looked at.
    """
    told = os.statvfs(place or scratch)
    if told.f_bavail * told.f_frsize >= RESERVE_BYTES:
        return []
    text = f"'{scratch}' has less than {RESERVE_BYTES} bytes free "
    text += "(give it more room, or name another scratch directory)"
    return [Remark("error", "no-scratch", text)]
