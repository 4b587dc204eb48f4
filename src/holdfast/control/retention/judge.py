"""What rules, holds and locks say of each image of a site.

Must not change anything, nor ask a clock. Invariants: no rule lets go what another keeps; what
is held or locked stays; the newest image of a source stays; where the times of a source's
images contradict their numbers or the clock, nothing of it goes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from holdfast.base.units import format_duration
from holdfast.control.retention.rules import PERIODS, Period

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence
    from datetime import datetime, tzinfo

    from holdfast.base.ids import ImageId, SourceName
    from holdfast.control.retention.rules import Rules

    TermsOf = Callable[["Candidate"], "Terms"]

AHEAD = timedelta(minutes=5)
"""An image may have begun so much after now: clocks are set while they run."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that is judged.

    Attributes:
        number: Given by the pool; later images have higher ones, whatever clocks say.
        started_at: By the master's clock, aware.
        finished_at: Likewise.
        holds: Why it must not go, until somebody lifts that.
        locked_until: Until when it must not go, whoever asks.
        policy: The policy under which it was made; None for one that was ordered by hand.
        schedule: The schedule of the policy, if one made it due.
    """

    id: ImageId
    source: SourceName
    number: int
    started_at: datetime
    finished_at: datetime
    holds: tuple[str, ...] = ()
    locked_until: datetime | None = None
    policy: str | None = None
    schedule: str | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """The rules of some images of a source.

    Attributes:
        name: Whose rules they are, in words. Images of one name are counted together, and not with
            the others of their source.
        rules: What is kept of them.
    """

    name: str
    rules: Rules


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an image stays, and every reason for it; without a reason it goes."""

    image: Candidate
    reasons: tuple[str, ...]

    @property
    def stays(self) -> bool:
        """Whether anything keeps it."""
        return bool(self.reasons)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What becomes of all images.

    Attributes:
        verdicts: One for each candidate, by source, oldest first.
        doubts: Sources of which nothing goes, and why.
    """

    verdicts: tuple[Verdict, ...]
    doubts: dict[SourceName, str]

    @property
    def leaving(self) -> list[Candidate]:
        """What goes, oldest first of each source."""
        return [one.image for one in self.verdicts if not one.stays]


def judge(
    candidates: Iterable[Candidate], rules: Rules, now: datetime, zone: tzinfo | None = None
) -> Judgement:
    """Say of each image whether it stays, and why, all by the same rules.

    Args:
        candidates: All images of the sources that are judged; rules count them.
        rules: What is kept of each source.
        now: The moment of judgement, aware.
        zone: Whose calendar counts; None for that of this machine.
    """
    same = Terms("", rules)
    return judge_each(candidates, lambda _: same, now, zone)


def judge_each(
    candidates: Iterable[Candidate],
    terms_of: TermsOf,
    now: datetime,
    zone: tzinfo | None = None,
) -> Judgement:
    """Say of each image whether it stays, and why, each by its own rules.

    Args:
        candidates: All images of the sources that are judged.
        terms_of: The rules of an image, and with which others they count it.
        now: The moment of judgement, aware.
        zone: Whose calendar counts; None for that of this machine.
    """
    by_source: dict[SourceName, list[Candidate]] = defaultdict(list)
    for one in candidates:
        by_source[one.source].append(one)
    verdicts: list[Verdict] = []
    doubts: dict[SourceName, str] = {}
    for source in sorted(by_source):
        images = sorted(by_source[source], key=_order)
        doubt = _doubt(images, now)
        if doubt is not None:
            doubts[source] = doubt
        reasons = _reasons(images, terms_of, now, zone)
        for one in images:
            found = _protection(one, now) + reasons[one.id]
            if doubt is not None and not found:
                found.append("its source's times are in doubt")
            verdicts.append(Verdict(one, tuple(found)))
    return Judgement(tuple(verdicts), doubts)


def _order(image: Candidate) -> tuple[int, datetime, str]:
    return image.number, image.started_at, image.id


def _protection(image: Candidate, now: datetime) -> list[str]:
    found = [f"held: {reason}" for reason in image.holds]
    if image.locked_until is not None and image.locked_until > now:
        found.append(f"locked until {image.locked_until:%Y-%m-%d %H:%M} UTC")
    return found


def _reasons(
    images: Sequence[Candidate], terms_of: TermsOf, now: datetime, zone: tzinfo | None
) -> dict[ImageId, list[str]]:
    """Why rules keep each image of one source, which come oldest first."""
    groups: dict[str, tuple[Rules, list[Candidate]]] = {}
    for one in images:
        terms = terms_of(one)
        groups.setdefault(terms.name, (terms.rules, []))[1].append(one)
    found: dict[ImageId, list[str]] = {}
    for name, (rules, group) in groups.items():
        # Whose rules they are is worth saying where there are others.
        whose = f" ({name})" if name and len(groups) > 1 else ""
        for image, reasons in _reasons_of_group(group, rules, now, zone).items():
            found[image] = [f"{reason}{whose}" for reason in reasons]
    newest = found[images[-1].id]
    if not newest:
        newest.append("the newest of its source")
    return found


def _reasons_of_group(
    images: Sequence[Candidate], rules: Rules, now: datetime, zone: tzinfo | None
) -> dict[ImageId, list[str]]:
    """Why the same rules keep each of some images, which come oldest first."""
    found: dict[ImageId, list[str]] = {one.id: [] for one in images}
    if not rules.are_there:
        return {one: ["there is no rule"] for one in found}
    newest_first = images[::-1]
    for place, one in enumerate(newest_first[: rules.last], start=1):
        found[one.id].append(f"last {place} of {rules.last}")
    if rules.within is not None:
        for one in images:
            if now - one.started_at <= rules.within:
                age = format_duration(rules.within.total_seconds())
                found[one.id].append(f"not older than {age}")
    for period in PERIODS:
        _keep_newest_of_each(newest_first, period, rules.count(period), zone, found)
    return found


def _keep_newest_of_each(
    newest_first: Sequence[Candidate],
    period: Period,
    count: int,
    zone: tzinfo | None,
    found: dict[ImageId, list[str]],
) -> None:
    seen: set[Hashable] = set()
    for one in newest_first:
        if len(seen) == count:
            return
        local = one.started_at.astimezone(zone)
        key = period.key(local)
        if key not in seen:
            seen.add(key)
            found[one.id].append(f"{period} {len(seen)} of {count}: {period.name_of(local)}")


def _doubt(images: Sequence[Candidate], now: datetime) -> str | None:
    """What in the times of a source's images, oldest first, can't be true."""
    begun: Candidate | None = None
    for one in images:
        if one.started_at > now + AHEAD:
            return (
                f"image {one.id[:8]} began at {one.started_at:%Y-%m-%d %H:%M} UTC, "
                f"and now is {now:%Y-%m-%d %H:%M} UTC"
            )
        if begun is not None and one.finished_at < begun.started_at:
            return (
                f"image {one.id[:8]} came after image {begun.id[:8]} and yet "
                f"ended at {one.finished_at:%Y-%m-%d %H:%M} UTC, before that one began"
            )
        if begun is None or one.started_at > begun.started_at:
            begun = one
    return None
