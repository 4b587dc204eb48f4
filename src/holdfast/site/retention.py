"""Retention of the embedded site: what the rules say of its images, and doing it.

Must not print. Invariant: nothing goes while the clock is in doubt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.errors import ClockDoubtful, ImageMissing, ImageProtected, NotFound
from holdfast.control.catalog import Protection
from holdfast.control.policies import PolicyBook, terms_by
from holdfast.control.retention import Candidate, judge, judge_each
from holdfast.control.retention.clock_watch import jump

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

    from holdfast.base.ids import ImageId, PolicyName
    from holdfast.control.catalog import ImageRow
    from holdfast.control.policies import Policy
    from holdfast.control.retention import Judgement, Rules
    from holdfast.site.site import Site


def preview(
    site: Site,
    rules: Rules | None,
    source: str | None = None,
    zone: tzinfo | None = None,
    only: Callable[[ImageRow], bool] | None = None,
) -> Judgement:
    """Say what rules, holds and locks mean for each image now; change nothing.

    Args:
        site: The site.
        rules: What is kept of each source; None for what each image's policy says.
        source: Only this one.
        zone: Whose calendar counts; None for that of the site.
        only: Which images; whole sources, as rules count the images of a source.

    Raises:
        NotFound: There is no such source.
    """
    if source is not None and source not in site.catalog.sources():
        raise NotFound(f"there is no source '{source}'", "list them with: holdfast images")
    protections = site.catalog.protections()
    candidates = []
    for image in site.catalog.images(source):
        if only is not None and not only(image):
            continue
        found = protections.get(image.id, Protection())
        candidates.append(
            Candidate(
                id=image.id,
                source=image.source,
                number=image.number,
                started_at=image.started_at,
                finished_at=image.finished_at,
                holds=found.holds,
                locked_until=found.locked_until,
                policy=image.policy,
                schedule=image.schedule,
            )
        )
    zone = zone or site.settings.zone("site.zone")
    if rules is not None:
        return judge(candidates, rules, site.clock.now(), zone)
    return judge_each(candidates, terms_by(_policies(site)), site.clock.now(), zone)


def has_policies(site: Site) -> bool:
    """Whether any policy ever said how long its images are kept."""
    return bool(_policies(site))


def _policies(site: Site) -> dict[PolicyName, Policy]:
    return PolicyBook(site.database, site.clock).last_known()


def clock_doubt(site: Site) -> str | None:
    """Why the clock can't be trusted with letting images go, in words, if it can't."""
    return jump(site.catalog.clock_mark(), site.clock.mark())


def require_clock(site: Site) -> None:
    """Refuse to let anything go while the clock is in doubt.

    Raises:
        ClockDoubtful: It was set since images were last let go.
    """
    doubt = clock_doubt(site)
    if doubt is not None:
        raise ClockDoubtful(
            f"nothing is let go: {doubt} since that was last done",
            "set it right; if it is right now, say so with --trust-clock, or 'trust_clock' over "
            "the API",
        )


def trust_clock(site: Site) -> None:
    """Take the clock as right from now on."""
    site.catalog.set_clock_mark(site.clock.mark())


def apply(site: Site, judgement: Judgement, gone: Callable[[ImageId], None]) -> list[ImageId]:
    """Let go of what a judgement lets go.

    Args:
        site: The site.
        judgement: Of `preview`.
        gone: Called with each image that went.

    Returns:
        Images that were held or locked since, and stay.

    Raises:
        ClockDoubtful: The clock was set since images were last let go; none went.
    """
    require_clock(site)
    trust_clock(site)
    kept = []
    for image in judgement.leaving:
        try:
            site.expire(image.id)
        except ImageProtected:
            kept.append(image.id)
        except ImageMissing:
            # Somebody else let it go meanwhile.
            continue
        else:
            gone(image.id)
    return kept
