"""Put a catalog that can't be opened out of the way.

Must not delete anything.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.base.clock import Clock

DATABASE = "catalog.db"
FILES = "files"


def set_aside(directory: Path, clock: Clock) -> Path:
    """Move a catalog that can't be opened out of the way, to be rebuilt from the pools.

    Returns:
        Where it is now, beside the place of the new one.
    """
    stamp = clock.now().strftime("%Y%m%dT%H%M%S")
    aside = directory / f"damaged-{stamp}"
    for number in itertools.count(2):
        try:
            aside.mkdir(mode=0o700)
            break
        except FileExistsError:
            aside = directory / f"damaged-{stamp}-{number}"
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", FILES):
        if (directory / name).exists():
            (directory / name).rename(aside / name)
    return aside
