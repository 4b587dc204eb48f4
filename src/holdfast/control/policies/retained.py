"""What a policy's retention comes to: how many images stay, and whether that can be meant.

Pure. Must not look at images: see `control.retention`, which judges them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from holdfast.base.units import format_duration
from holdfast.control.policies.findings import Finding, error, inside, warning
from holdfast.control.retention import PERIODS, Rules
from holdfast.control.schedule import Schedule, occurrences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.control.policies.policy import Policy

_SAMPLE = 30
_SAMPLE_FROM = datetime(2024, 1, 1, tzinfo=UTC)
_SAMPLE_FOR = timedelta(days=4000)
_HINT = "say what to keep, for example retention = { daily = 7, weekly = 4, monthly = 12 }"


@lru_cache(maxsize=4096)
def usual_distance(schedule: Schedule) -> timedelta | None:
    """How far apart the backups of a schedule usually are; None if they are too rare to tell."""
    if schedule.every is not None:
        return schedule.every
    end = _SAMPLE_FROM + _SAMPLE_FOR
    found = list(islice(occurrences(schedule, UTC, _SAMPLE_FROM, end), _SAMPLE))
    if len(found) < 2:
        return None
    return (found[-1].opens - found[0].opens) / (len(found) - 1)


def images_kept(rules: Rules, distance: timedelta) -> int | None:
    """How many images of a source stay at most; None if all do.

    Args:
        rules: Of the source.
        distance: Between one image and the next.
    """
    if not rules.are_there:
        return None
    young = 0 if rules.within is None else rules.within // distance + 1
    # The newest stays in any case. What several rules keep is counted several times.
    return max(1, max(rules.last, young) + sum(rules.count(period) for period in PERIODS))


def check_retention(policy: Policy) -> Iterator[Finding]:
    """Look for rules that keep nothing, and for none at all."""
    own = [one for one in policy.schedules if one.retention is not None]
    others = [one for one in policy.schedules if one.retention is None]
    if others or not own:
        yield from _check(policy.retention, "retention", others)
    for number, schedule in enumerate(policy.schedules):
        if schedule.retention is not None:
            place = inside(inside("schedules", number), "retention")
            yield from _check(schedule.retention, place, [schedule])


def _check(rules: Rules, place: str, schedules: list[Schedule]) -> Iterator[Finding]:
    if not rules.are_there:
        if rules.within is not None:
            yield error(inside(place, "within"), "it keeps what is younger than nothing", _HINT)
        else:
            yield warning(place, "no rule lets anything go: every image stays for ever", _HINT)
        return
    if rules.within is None or rules != Rules(within=rules.within):
        return
    for schedule in schedules:
        distance = usual_distance(schedule)
        if distance is not None and rules.within < distance:
            yield warning(
                inside(place, "within"),
                f"it keeps images for {_words(rules.within)}, and schedule '{schedule.name}' makes "
                f"one every {_words(distance)}: none but the newest stays",
                "keep them longer than it takes until the next, or add last = 2",
            )


def _words(span: timedelta) -> str:
    return format_duration(span.total_seconds())
