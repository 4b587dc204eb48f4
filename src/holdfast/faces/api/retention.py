"""Retention: which images rules keep, letting go of the others, letting go of some by name.

Must not let anything go itself: that is a job's. Invariants: rules count whole sources, and whoever
is bounded to some clients judges, and lets go, images of those alone.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Self

from fastapi import Query
from pydantic import Field

from holdfast.base.clock import to_ns
from holdfast.base.errors import NotFound
from holdfast.base.ids import ClientName, ImageId, SourceName
from holdfast.base.zones import zone_named
from holdfast.control import retention
from holdfast.control.access import Principal, Verb
from holdfast.control.dispatch.roster import family
from holdfast.control.jobs import JobKind, NewJob
from holdfast.control.retention import Rules
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, TheNote, make_router, may
from holdfast.faces.api.image_models import ID, Text
from holdfast.faces.api.images import seen
from holdfast.faces.api.models import Model, Page
from holdfast.faces.api.paging import Pages
from holdfast.faces.api.runs import Run
from holdfast.site import retention as acts
from holdfast.site import running, steward
from holdfast.site.master import Master
from holdfast.site.retention_rules import to_plain
from holdfast.wire.messages import SiteWork

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

    from holdfast.control.catalog import ListedSource

router = make_router("Retention")

Viewer = Annotated[Principal, may(Verb.SEE)]
Releaser = Annotated[Principal, may(Verb.LET_GO)]

MOST = 1_000_000
LONGEST_S = 1e10
_PAGE_OF_SOURCES = 1000

Count = Annotated[int, Query(ge=0, le=MOST, description="Keep so many.", examples=[7])]
_WITHIN = "Keep what is not older, in seconds."


class KeptRules(Model):
    """What is kept of each source. An image is kept if any of them keeps it."""

    last: int = Field(default=0, ge=0, le=MOST, description="The newest so many.")
    within_s: float | None = Field(
        default=None, ge=0, le=LONGEST_S, description=_WITHIN, examples=[2_592_000]
    )
    hourly: int = Field(
        default=0, ge=0, le=MOST, description="The newest of each of the last hours that have any."
    )
    daily: int = Field(default=0, ge=0, le=MOST, description="The same of days.", examples=[7])
    weekly: int = Field(default=0, ge=0, le=MOST, description="The same of weeks.", examples=[4])
    monthly: int = Field(default=0, ge=0, le=MOST, description="The same of months.")
    yearly: int = Field(default=0, ge=0, le=MOST, description="The same of years.")

    def rules(self) -> Rules:
        """As they are judged by."""
        counts = self.model_dump(exclude={"within_s"})
        within = None if self.within_s is None else timedelta(seconds=self.within_s)
        return Rules(within=within, **counts)


class NewApplication(Model):
    """What is to be kept; what is not, goes."""

    rules: KeptRules | None = Field(
        default=None,
        description="For each source; if left out, each image is judged by those of its policy.",
    )
    source: str | None = Field(
        default=None,
        pattern=r"^[^\x00]+$",
        max_length=4096,
        description="Only images of this source; of all that you see, if left out.",
        examples=["web1:/etc,/srv"],
    )
    zone: str | None = Field(
        default=None,
        max_length=100,
        description="Whose calendar counts; the site's, if left out.",
        examples=["Europe/Berlin"],
    )
    trust_clock: bool = Field(
        default=False,
        description="The clock of the master was set, and is right: go on with it. For those who "
        "see all clients.",
    )


class NewExpirations(Model):
    """Images that are to go."""

    images: list[Annotated[str, Field(pattern=f"^{ID}$", examples=["3f2a" * 8])]] = Field(
        min_length=1, max_length=10_000
    )


class Verdict(Model):
    """Whether an image stays, and why."""

    image: str = Field(examples=["3f2a" * 8])
    source: str = Field(examples=["web1:/etc,/srv"])
    policy: str | None = Field(examples=["servers"])
    started_at: datetime
    stays: bool
    reasons: list[str] = Field(
        description="All; without any it goes.", examples=[["daily 1 of 7: 2026-11-21"]]
    )

    @classmethod
    def of(cls, one: retention.Verdict) -> Self:
        """As it was judged."""
        image = one.image
        return cls(
            image=image.id,
            source=image.source,
            policy=image.policy,
            started_at=image.started_at,
            stays=one.stays,
            reasons=list(one.reasons),
        )


class Doubt(Model):
    """A source of which nothing goes, since times of its images can't be true."""

    source: str
    why: str


class Preview(Page[Verdict]):
    """What would become of each image: by source, oldest first."""

    stay: int = Field(description="How many stay, of all.")
    go: int = Field(description="How many go, of all.")
    doubts: list[Doubt]
    clock_doubt: str | None = Field(
        description="Why nothing would go now: the clock was set. Null where it is trusted."
    )


@router.get("/retention/preview", responses={404: document.response(404)})
def preview_retention(
    who: Viewer,
    master: TheMaster,
    pages: Pages,
    last: Count | None = None,
    within_s: Annotated[
        float | None, Query(ge=0, le=LONGEST_S, description=_WITHIN, examples=[2_592_000])
    ] = None,
    hourly: Count | None = None,
    daily: Count | None = None,
    weekly: Count | None = None,
    monthly: Count | None = None,
    yearly: Count | None = None,
    source: Annotated[Text, Query(description="Only this source.")] = None,
    zone: Annotated[
        str | None, Query(max_length=100, description="Whose calendar counts; else the site's.")
    ] = None,
) -> Preview:
    """What rules would keep of each source that you see, and why. Nothing is changed.

    An image is kept if any rule keeps it, if it is held or locked, or if it is the newest of its
    source. Without rules, each image is judged by those of its policy.
    """
    counts = {
        "last": last,
        "hourly": hourly,
        "daily": daily,
        "weekly": weekly,
        "monthly": monthly,
        "yearly": yearly,
    }
    given = {name: count for name, count in counts.items() if count is not None}
    rules = None
    if given or within_s is not None:
        rules = KeptRules(within_s=within_s, **given).rules()
    master.site.hear_notes()
    own = _own(who, master, source)
    judgements = acts.judgements(
        master.site,
        rules,
        _zone(zone),
        sources=None if own is None else [own],
        visible=None if who.sees_all_clients else who.condition,
    )
    after = pages.after(str, int, int, str)
    verdicts: list[retention.Verdict] = []
    doubts: dict[SourceName, str] = {}
    stay = go = 0
    for judgement in judgements:
        doubts |= judgement.doubts
        for one in judgement.verdicts:
            stay, go = (stay + 1, go) if one.stays else (stay, go + 1)
            if len(verdicts) < pages.fetch and (after is None or _place(one) > after):
                verdicts.append(one)
    page = pages.page(verdicts, key=_place, show=Verdict.of)
    return Preview(
        items=page.items,
        next_cursor=page.next_cursor,
        stay=stay,
        go=go,
        doubts=[Doubt(source=one, why=why) for one, why in doubts.items()],
        clock_doubt=acts.clock_doubt(master.site),
    )


@router.post("/retention/applications", status_code=202, responses={404: document.response(404)})
def apply_retention(who: Releaser, master: TheMaster, body: NewApplication, note: TheNote) -> Run:
    """Queue letting go of every image that no rule keeps; a master that is served does it.

    What is kept is judged when the job begins. Their space returns with the next collection of
    garbage. Look at the preview with the same rules first.
    """
    source = _own(who, master, body.source)
    _zone(body.zone)
    rules = None if body.rules is None else body.rules.rules()
    if not (acts.has_policies(master.site) if rules is None else rules.are_there):
        raise NotFound("no rule says what to keep", "say some, such as daily: 7, or make a policy")
    if body.trust_clock:
        who.require_all_clients("the clock")
        acts.trust_clock(master.site)
    acts.require_clock(master.site)
    work = SiteWork(
        steward.APPLY_RULES,
        rules=None if rules is None else to_plain(rules),
        zone=body.zone,
    )
    return _queue(master, note, _applications(who, master, work, source))


@router.post("/expirations", status_code=202, responses={404: document.response(404)})
def expire_images(who: Releaser, master: TheMaster, body: NewExpirations, note: TheNote) -> Run:
    """Queue letting go of images for good; if any of them is held or locked, none goes.

    Their space returns with the next collection of garbage.
    """
    images = [seen(who, master, one) for one in dict.fromkeys(body.images)]
    for image in images:
        master.catalog.require_unprotected(image)
    clients = {image: ClientName(master.catalog.image(image).host) for image in images}
    ordered = sorted(images, key=lambda one: clients[one])
    if who.sees_all_clients:
        only = set(clients.values())
        jobs = [_expiration(ordered, only.pop() if len(only) == 1 else None)]
    else:
        # Whoever is bounded sees jobs of their clients.
        jobs = [
            _expiration(list(some), client)
            for client, some in groupby(ordered, key=lambda one: clients[one])
        ]
    return _queue(master, note, jobs)


def _expiration(images: Sequence[ImageId], client: ClientName | None) -> NewJob:
    work = SiteWork(steward.EXPIRE_IMAGES, tuple(images))
    return running.site_job(JobKind.EXPIRE, work, client)


def _applications(
    who: Principal, master: Master, work: SiteWork, source: SourceName | None
) -> list[NewJob]:
    """One job for all; or one for each client, where somebody may not see all."""
    if source is not None:
        client = master.images.client_of(source)
        return [running.site_job(JobKind.EXPIRE, replace(work, sources=(source,)), client, source)]
    if who.sees_all_clients:
        return [running.site_job(JobKind.EXPIRE, work)]
    seen_sources = sorted(_sources(who, master), key=lambda one: one.client)
    if not seen_sources:
        raise NotFound("there are no images of clients that you see")
    return [
        running.site_job(
            JobKind.EXPIRE, replace(work, sources=tuple(one.name for one in some)), client
        )
        for client, some in groupby(seen_sources, key=lambda one: one.client)
    ]


def _sources(who: Principal, master: Master) -> list[ListedSource]:
    found: list[ListedSource] = []
    while True:
        last = found[-1].name if found else None
        rows = master.images.sources(None, who.condition, limit=_PAGE_OF_SOURCES, after=last)
        found += rows
        if len(rows) < _PAGE_OF_SOURCES:
            return found


def _own(who: Principal, master: Master, source: str | None) -> SourceName | None:
    """A source that is named, if whoever asks may know of it."""
    if source is None:
        return None
    client = master.images.client_of(source)
    if client is None or not who.sees(client):
        raise NotFound(f"there is no source '{source}'", "list them with: holdfast images")
    return SourceName(source)


def _zone(name: str | None) -> ZoneInfo | None:
    return None if name is None else zone_named(name)


def _place(one: retention.Verdict) -> tuple[str, int, int, str]:
    """Where it stands among all: the order in which they are judged."""
    image = one.image
    return image.source, image.number, to_ns(image.started_at), image.id


def _queue(master: Master, note: TheNote, jobs: list[NewJob]) -> Run:
    job = family(jobs)
    queued = running.enqueue(master, job)
    note.details["job"] = queued
    return Run(job=queued, parts=len(job.parts))
