"""What changed on a disk, as VMware tells it: areas, and the ids of moments that they are since.

Must not ask anybody. Invariants: a range is `SAME` only where areas were told since the very image
that the backup follows, of the very disk; in doubt all of it is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import HypervisorError
from holdfast.sources.machines.provider import Kind, Range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ALL = "*"
"""The moment before anything was written."""

Areas = list[tuple[int, int]]
"""Offset and length, ascending and apart."""

_MOST_ANSWERS = 1_000_000
_MOST_CHECKPOINT = 1 << 20


@dataclass(frozen=True, slots=True)
class Moment:
    """What a disk was at a moment.

    Attributes:
        identity: Which disk.
        change_id: The moment, as its host counts: ``52 1b … 3f/17``.
    """

    identity: str
    change_id: str

    @property
    def sequence(self) -> tuple[str, int] | None:
        """The unbroken sequence of moments that it is of, and its place there; None for neither."""
        name, _, number = self.change_id.rpartition("/")
        if not name or not number.isascii() or not number.isdecimal():
            return None
        return name, int(number)


def to_checkpoint(moments: Mapping[str, Moment]) -> str | None:
    """What the next backup names; None where it can be told nothing."""
    if not moments:
        return None
    said = {name: [one.identity, one.change_id] for name, one in moments.items()}
    return json.dumps(said, separators=(",", ":"), sort_keys=True)


def from_checkpoint(text: str | None) -> dict[str, Moment]:
    """The moments that an image recorded; those that can't be read are not there."""
    try:
        said = json.loads(text or "") if len(text or "") <= _MOST_CHECKPOINT else None
    except (ValueError, RecursionError):
        return {}
    found = {}
    if isinstance(said, dict):
        for name, one in said.items():
            if isinstance(one, list) and len(one) == 2 and all(isinstance(x, str) for x in one):
                found[name] = Moment(*one)
    return found


def why_not(since: Moment | None, now: Moment) -> str | None:
    """Why changes since a moment can't be believed, in words; None where they can."""
    if since is None:
        return "the image before tells no moment of it"
    if not now.change_id:
        return "its host marks no changes any more"
    if since.identity != now.identity:
        return "it is another disk than in the image before"
    before, after = since.sequence, now.sequence
    if before is None or after is None:
        return "its host counts moments in an unknown way"
    if before[0] != after[0]:
        return "its host began to mark changes anew: the machine was restored, or moved with errors"
    if before[1] > after[1]:
        return "it was set back to a moment before the last image"
    return None


def all_areas(ask: Callable[[int], Any], size: int) -> Areas:
    """All areas of a disk that one question after another tells of.

    Args:
        ask: Tells of changed areas from an offset on, as `QueryChangedDiskAreas` answers.
        size: Of the disk.

    Raises:
        HypervisorError: The answers lead nowhere, or beyond the disk.
    """
    found: Areas = []
    offset = 0
    for _ in range(_MOST_ANSWERS):
        if offset >= size:
            return joined(found)
        told = ask(offset)
        found += [(int(one.start), int(one.length)) for one in told.changedArea or ()]
        end = int(told.startOffset) + int(told.length)
        if end <= offset:
            raise HypervisorError(f"nothing is told of what changed after byte {offset}")
        if any(start < 0 or length <= 0 or start + length > size for start, length in found):
            raise HypervisorError("areas are said to have changed that are not on the disk")
        offset = end
    raise HypervisorError("what changed is told in more answers than can be asked for")


def joined(areas: Iterable[tuple[int, int]]) -> Areas:
    """The same bytes, ascending and apart."""
    found: Areas = []
    for start, length in sorted(areas):
        if found and start <= found[-1][0] + found[-1][1]:
            begin, before = found[-1]
            found[-1] = (begin, max(before, start + length - begin))
        else:
            found.append((start, length))
    return found


def ranges(areas: Sequence[tuple[int, int]], size: int, others: Kind) -> list[Range]:
    """Ranges of a whole disk: areas are to be read, and what lies between is of another kind."""
    found: list[Range] = []
    at = 0
    for start, length in areas:
        if start > at:
            found.append(Range(at, start - at, others))
        found.append(Range(start, length, Kind.DATA))
        at = start + length
    if at < size:
        found.append(Range(at, size - at, others))
    return found
