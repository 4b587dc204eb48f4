"""Retention of the embedded site: what the rules say of its images, and doing it.

Must not print. Invariant: nothing goes while the clock is in doubt.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    ClockDoubtful,
    ImageMissing,
    ImageProtected,
    NotFound,
    Unreachable,
)
from holdfast.control.catalog import Protection
from holdfast.control.policies import PolicyBook, terms_by
from holdfast.control.retention import Candidate, judge, judge_each
from holdfast.control.retention.clock_watch import jump

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from datetime import tzinfo

    from holdfast.base.ids import ImageId, PolicyName
    from holdfast.control.catalog import ImageRow
    from holdfast.control.catalog.rows import Visible
    from holdfast.control.policies import Policy
    from holdfast.control.retention import Judgement, Rules
    from holdfast.site.site import Site

_SOURCES_AT_ONCE = 50
TRUST = (
    "set it right; if it is right now, see what would go with 'holdfast retention preview', then "
    "say so: 'holdfast retention apply --trust-clock', or 'trust_clock' over the API"
)
"""What is to be done about a clock that is in doubt."""

_UNPROTECTED = Protection()


def judgements(
    site: Site,
    rules: Rules | None,
    zone: tzinfo | None = None,
    *,
    sources: Collection[str] | None = None,
    visible: Visible | None = None,
) -> Iterator[Judgement]:
    """Say what rules, holds and locks mean for each image now, some sources at a time.

    Of a million images few are in memory at once. Nothing is changed.

    Args:
        site: The site.
        rules: What is kept of each source; None for what each image's policy says.
        zone: Whose calendar counts; None for that of the site.
        sources: Only these.
        visible: Of which clients they may be seen; None: of all.

    Raises:
        NotFound: There is no such source.
    """
    known = site.catalog.sources(visible)
    unknown = sorted(set(sources or ()) - set(known))
    if unknown:
        raise NotFound(f"there is no source '{unknown[0]}'", "list them with: holdfast images")
    protections = site.catalog.protections()
    terms = None if rules is not None else terms_by(_policies(site))
    zone = zone or site.settings.zone("site.zone")
    now = site.clock.now()
    wanted = sorted(known if sources is None else set(sources))
    for at in range(0, len(wanted), _SOURCES_AT_ONCE):
        candidates = [
            _candidate(image, protections.get(image.id, _UNPROTECTED))
            for image in site.catalog.images_of(wanted[at : at + _SOURCES_AT_ONCE])
        ]
        if rules is not None:
            yield judge(candidates, rules, now, zone)
        elif terms is not None:
            yield judge_each(candidates, terms, now, zone)


def _candidate(image: ImageRow, kept: Protection) -> Candidate:
    return Candidate(
        id=image.id,
        source=image.source,
        number=image.number,
        started_at=image.started_at,
        finished_at=image.finished_at,
        holds=kept.holds,
        locked_until=kept.locked_until,
        policy=image.policy,
        schedule=image.schedule,
    )


def has_policies(site: Site) -> bool:
    """Whether any policy ever said how long its images are kept."""
    return bool(_policies(site))


def _policies(site: Site) -> dict[PolicyName, Policy]:
    return PolicyBook(site.database, site.clock).last_known()


def clock_doubt(site: Site) -> str | None:
    """Why the clock can't be trusted with letting images go, in words, if it can't."""
    longest = timedelta(seconds=site.settings.seconds("clock.longest-absence"))
    return jump(site.catalog.clock_mark(), site.clock.mark(), longest)


def look_at_clock(site: Site) -> str | None:
    """Remember what the clock shows, unless it is in doubt; why it is, if so.

    Over a restart of the machine a clock can be judged only by when it was last looked at.
    """
    doubt = clock_doubt(site)
    if doubt is None:
        trust_clock(site)
    return doubt


def require_clock(site: Site) -> None:
    """Refuse to let anything go while the clock is in doubt.

    Raises:
        ClockDoubtful: It was set since this site last looked at it, or may have been.
    """
    doubt = clock_doubt(site)
    if doubt is not None:
        raise ClockDoubtful(f"nothing is let go: {doubt}", TRUST)


def require_lock_is_over(site: Site, image: ImageId) -> None:
    """Refuse to believe a clock that is in doubt that a lock is past.

    Raises:
        ClockDoubtful: The image was locked, and the clock is in doubt.
    """
    if site.catalog.protection(image).locked_until is None:
        return
    doubt = clock_doubt(site)
    if doubt is not None:
        raise ClockDoubtful(f"image {image} was locked, and nobody knows for sure: {doubt}", TRUST)


def trust_clock(site: Site) -> None:
    """Take the clock as right from now on."""
    site.catalog.set_clock_mark(site.clock.mark())


def apply(
    site: Site, leaving: Sequence[Candidate], gone: Callable[[ImageId], None]
) -> dict[ImageId, str]:
    """Let go of what judgements let go.

    Args:
        site: The site.
        leaving: See `Judgement.leaving`.
        gone: Called with each image that went.

    Returns:
        Images that stay, and why: held or locked since, or in storage that is out of reach.

    Raises:
        ClockDoubtful: The clock is in doubt; none went.
    """
    require_clock(site)
    if not leaving:
        return {}
    trust_clock(site)
    kept = {}
    for image in leaving:
        try:
            site.expire(image.id)
        except ImageProtected:
            kept[image.id] = "it was held or locked meanwhile"
        except Unreachable as error:
            kept[image.id] = error.message
        except ImageMissing:
            # Somebody else let it go meanwhile.
            continue
        else:
            gone(image.id)
    return kept
