"""Ask a source's file for the ids of many names, or of many directories, at once.

Must not write.
"""

from __future__ import annotations

import functools
import itertools
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

# Asked one by one, most of the time would go into asking. Not by any number of them either: the
# same words are understood once.
_ASKED_AT_ONCE = (16, 64, 250)

_name_of_place = itemgetter(1)

_T = TypeVar("_T")


def find_names(connection: sqlite3.Connection, names: Sequence[bytes]) -> dict[bytes, int]:
    """Ids of those names that are stored."""
    found: dict[bytes, int] = {}
    # neighbours in the index one after the other
    for some, room in _portions(sorted(names)):
        nobody = itertools.repeat(None, room - len(some))
        found.update(connection.execute(_names_in_words(room), (*some, *nobody)))
    return found


def find_directories(
    connection: sqlite3.Connection, places: Sequence[tuple[int, bytes]]
) -> dict[tuple[int, bytes], int]:
    """Ids of those directories, by (parent, name), that are stored."""
    found: dict[tuple[int, bytes], int] = {}
    # each is looked for by its name first
    for some, room in _portions(sorted(places, key=_name_of_place)):
        nowhere = itertools.repeat(None, 2 * (room - len(some)))
        values = (*itertools.chain.from_iterable(some), *nowhere)
        for at, directory in connection.execute(_directories_in_words(room), values):
            found[some[at]] = directory
    return found


def _portions(things: Sequence[_T]) -> Iterator[tuple[Sequence[_T], int]]:
    """Some after the other, and for how many the words are by which to ask for them."""
    most = _ASKED_AT_ONCE[-1]
    for at in range(0, len(things), most):
        some = things[at : at + most]
        yield some, next(size for size in _ASKED_AT_ONCE if size >= len(some))


@functools.cache
def _names_in_words(count: int) -> str:
    wanted = ", ".join(["(?)"] * count)
    return (
        f"WITH wanted (name) AS (VALUES {wanted}) SELECT n.name, n.id "  # noqa: S608
        "FROM wanted CROSS JOIN names n ON n.name = wanted.name"
    )


@functools.cache
def _directories_in_words(count: int) -> str:
    wanted = ", ".join(f"({at}, ?, ?)" for at in range(count))
    return (
        f"WITH wanted (at, parent, name) AS (VALUES {wanted}) SELECT wanted.at, d.id "  # noqa: S608
        "FROM wanted CROSS JOIN names n ON n.name = wanted.name "
        "CROSS JOIN directories d ON d.parent = wanted.parent AND d.name = n.id"
    )
