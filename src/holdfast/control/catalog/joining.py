"""Versions that become one when what parted them expires; who inherits from an expired image.

Pure. Both implementations of `file_rows` shrink by these rules.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, NamedTuple

from holdfast.control.catalog.file_rows import OPEN_END

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from holdfast.base.ids import ImageId
    from holdfast.control.catalog.file_rows import RestorePoint


class Pair(NamedTuple):
    """Two equal versions of one name that follow each other, the second from `second` to `last`."""

    directory: int
    name: int
    first: int
    second: int
    last: int


def heirs(held: dict[int, RestorePoint], images: Collection[ImageId]) -> dict[int, int]:
    """For each of some images that is held, the next one that stays, or `OPEN_END`."""
    gone = [sequence for sequence, one in held.items() if one.image in images]
    live = sorted(held.keys() - set(gone))
    next_live = [*live, OPEN_END]
    return {sequence: next_live[bisect.bisect(live, sequence)] for sequence in gone}


def chained(pairs: Iterable[Pair]) -> Iterator[tuple[Pair, int]]:
    """Each pair with the end of the version that its first one becomes, later ones first.

    In a chain a, b, c the end of c reaches a by way of b; b is deleted, so what is said of it
    does no harm.
    """
    ends: dict[tuple[int, int, int], int] = {}
    for one in sorted(pairs, key=lambda pair: (pair.directory, pair.name, -pair.second)):
        end = ends.get((one.directory, one.name, one.second), one.last)
        ends[one.directory, one.name, one.first] = end
        yield one, end
