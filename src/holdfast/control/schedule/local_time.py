"""From local time to the one moment that is meant by it.

Must not depend on the zone of this machine. Invariants: a local time that a change of clocks
leaves out is the first moment after the gap; one that comes twice is the first of the two; a
later local time is never an earlier moment.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import tzinfo

_SECOND = timedelta(seconds=1)


def to_utc(local: datetime, zone: tzinfo) -> datetime:
    """Find the moment of a local time.

    Args:
        local: Without a zone.
        zone: Whose clocks show it.
    """
    moment = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if to_local(moment, zone) == local:
        return moment
    # In a gap fold=1 names a moment before the change, and fold=0 one after it.
    before = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    old = before.astimezone(zone).utcoffset()
    while moment - before > _SECOND:
        middle = before + (moment - before) // (2 * _SECOND) * _SECOND
        if middle.astimezone(zone).utcoffset() == old:
            before = middle
        else:
            moment = middle
    return moment


def to_local(moment: datetime, zone: tzinfo) -> datetime:
    """What the clocks of a zone show, without the zone."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)
