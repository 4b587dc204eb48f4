"""What is done for the site as a whole: letting images go, collecting garbage, keeping the catalog.

Must not decide when: that is the service's, or whoever asks. Invariant: whatever of it is killed
half-way is completed, or done anew, the next time.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    Busy,
    Cancelled,
    Fenced,
    HoldfastError,
    ImageMissing,
    Invalid,
    StorageError,
)
from holdfast.base.ids import ImageId
from holdfast.base.units import format_count
from holdfast.base.zones import zone_named
from holdfast.site import pool_care, protection, retention
from holdfast.site.far_care import far_care
from holdfast.site.master import STORAGE_UNIT
from holdfast.site.replication import REPLICATE, Replication
from holdfast.site.retention_rules import from_plain
from holdfast.wire.messages import WorkEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from holdfast.control.catalog import CleanUpResult
    from holdfast.control.retention import Judgement
    from holdfast.engine import Pool
    from holdfast.movers.drive import Reporter
    from holdfast.site.master import Master
    from holdfast.wire.messages import SiteWork

    Alive = Callable[[], None]

EXPIRE = "expire"
"""Housekeeping: what no policy keeps goes, what was left behind is cleaned up."""
APPLY_RULES = "apply-rules"
"""What rules, or policies, do not keep goes."""
EXPIRE_IMAGES = "expire-images"
"""These images go, all of them or none."""
COLLECT = "collect"
COLLECT_PREVIEW = "collect-preview"
"""What a collection would free; nothing is changed."""
PROTECT = "catalog-backup"
VERIFY = "verify"
VERIFY_DATA = "verify-data"
CHECK = "check"
CHECK_DATA = "check-data"
REBUILD_INDEX = "rebuild-index"
UPDATE_CATALOG = "update-catalog"
REBUILD_CATALOG = "rebuild-catalog"


class Steward:
    """Does what `wire.messages.SiteWork` asks for, on this machine."""

    def __init__(self, master: Master, job: tuple[int, int] = (0, 0)) -> None:
        """Prepare.

        Args:
            master: Whose site.
            job: For which job it is done, and under which fence.
        """
        self._master = master
        self._job = job
        self._verbs: dict[str, Callable[[SiteWork, Reporter, Alive], list[WorkEvent]]] = {
            EXPIRE: self._keep_house,
            APPLY_RULES: self._apply_rules,
            EXPIRE_IMAGES: self._expire_images,
            COLLECT: lambda work, report, _: self._collect(work.unit, report),
            COLLECT_PREVIEW: lambda work, report, _: self._collect(work.unit, report, dry_run=True),
            PROTECT: lambda _, report, __: self._protect(report),
            VERIFY: lambda work, report, _: self._verify(work, report, read_data=False),
            VERIFY_DATA: lambda work, report, _: self._verify(work, report, read_data=True),
            CHECK: lambda work, report, _: self._check(work.unit, report, read_data=False),
            CHECK_DATA: lambda work, report, _: self._check(work.unit, report, read_data=True),
            REBUILD_INDEX: lambda work, report, _: self._rebuild_index(work.unit, report),
            REPLICATE: self._replicate,
            UPDATE_CATALOG: lambda _, __, alive: self._update_catalog(alive),
            REBUILD_CATALOG: lambda _, __, alive: self._rebuild_catalog(alive),
        }

    def __call__(self, work: SiteWork, report: Reporter, alive: Alive) -> list[WorkEvent]:
        """Do it; see `movers.ways.ForSite`.

        Raises:
            Invalid: Nobody here knows how.
            HoldfastError: It failed.
        """
        act = self._verbs.get(work.verb)
        if act is None:
            raise Invalid(
                f"'{work.verb}' is nothing that is done for a site", "update this Holdfast"
            )
        return act(work, report, alive)

    # -- letting images go ----------------------------------------------------------------

    def _keep_house(self, _: SiteWork, report: Reporter, alive: Alive) -> list[WorkEvent]:
        judgements = retention.judgements(self._master.site, None)
        gone, of, events = self._let_go(judgements, alive)
        if gone:
            said = f"{format_count(gone)} of {format_count(of)} images are gone"
            events.insert(0, WorkEvent("info", "applied", said))
        events += self._forget_old_jobs(alive)
        events += self._clean_up()
        return events + (self._collect_everywhere(report) if gone else [])

    def _apply_rules(self, work: SiteWork, _: Reporter, alive: Alive) -> list[WorkEvent]:
        judgements = retention.judgements(
            self._master.site,
            None if work.rules is None else from_plain(work.rules),
            zone=None if work.zone is None else zone_named(work.zone),
            sources=work.sources,
        )
        gone, of, events = self._let_go(judgements, alive)
        said = f"{format_count(gone)} of {format_count(of)} images are gone"
        # First: of many events the last are not kept.
        return [WorkEvent("info", "applied", said), *events]

    def _let_go(
        self, judgements: Iterable[Judgement], alive: Alive
    ) -> tuple[int, int, list[WorkEvent]]:
        """How many images went, of how many, and what there is to say."""
        doubtful: list[WorkEvent] = []
        gone: list[WorkEvent] = []
        held: list[WorkEvent] = []
        judged = 0

        def went(image: ImageId) -> None:
            gone.append(_expired(image))
            alive()

        for one in judgements:
            judged += len(one.verdicts)
            doubtful += [
                WorkEvent("warning", "in doubt", f"nothing of {source} goes: {doubt}")
                for source, doubt in one.doubts.items()
            ]
            held += [
                WorkEvent("info", "held", f"image {image} stays: {why}")
                for image, why in retention.apply(self._master.site, one.leaving, went).items()
            ]
            alive()
        return len(gone), judged, doubtful + gone + held

    def _expire_images(self, work: SiteWork, _: Reporter, alive: Alive) -> list[WorkEvent]:
        site = self._master.site
        images = [ImageId(one) for one in work.images]
        for image in images:
            site.catalog.require_unprotected(image)
        events = []
        for image in images:
            try:
                site.expire(image)
            except ImageMissing:
                # An earlier try, or somebody else, let it go.
                events.append(WorkEvent("info", "missing", f"image {image} was gone already"))
            else:
                events.append(_expired(image))
            alive()
        return events

    def _clean_up(self) -> list[WorkEvent]:
        site = self._master.site
        for index in site.catalog.stray_indexes():
            site.expire(index)
        found = site.catalog.clean_up()
        if found.lost:
            lost = f"the files of {found.lost} image(s) were lost to the catalog; it is fed again"
            return [WorkEvent("warning", "lost", lost), *_unreadable(found)]
        return _unreadable(found)

    def _forget_old_jobs(self, alive: Alive) -> list[WorkEvent]:
        master = self._master
        age = timedelta(seconds=master.settings.seconds("jobs.history"))
        before = master.clock.now() - age
        total = 0
        while count := master.jobs.forget(before):
            total += count
            alive()
        if not total:
            return []
        said = f"{format_count(total)} jobs that ended before {before:%Y-%m-%d} are forgotten"
        return [WorkEvent("info", "forgotten", said)]

    # -- the pool -------------------------------------------------------------------------

    def _pool(self, unit: str | None) -> Pool:
        pools = self._master.site.pools
        return pools.of(pools.of_unit(unit))

    def _there(
        self, unit: str | None, verb: str, report: Reporter, **options: object
    ) -> list[WorkEvent] | None:
        """Have it done where the unit's disk is; None for what is to be done from here.

        Raises:
            Unreachable: Its media server is not there.
            HoldfastError: What it failed of there.
        """
        machines = self._master.spoken_to
        if unit is None or unit == STORAGE_UNIT or machines is None:
            return None
        known = self._master.units.unit(unit)
        if known.server is None:
            return None
        owner = known.server
        ask = partial(machines.sessions.ask, owner)
        return far_care(
            ask,
            verb,
            known.pool,
            report,
            options,
            there=lambda: machines.sessions.get(owner) is not None,
        )

    def _collect_everywhere(self, report: Reporter) -> list[WorkEvent]:
        """In every storage unit; one that can't be reached is collected another day."""
        events = []
        for unit in self._master.unit_slots():
            try:
                found = self._collect(unit, report)
            except (Cancelled, Fenced):
                raise
            except (StorageError, Busy) as error:
                said = f"storage unit '{unit}' was not collected: {error.message}"
                found = [WorkEvent("warning", error.code, said)]
            events += found
        return events

    def _collect(
        self, unit: str | None, report: Reporter, *, dry_run: bool = False
    ) -> list[WorkEvent]:
        found = self._there(unit, "collect-garbage", report, dry_run=dry_run)
        if found is not None:
            return found
        clock = self._master.clock
        return pool_care.collect(self._pool(unit), clock, report, dry_run=dry_run)

    def _verify(self, work: SiteWork, report: Reporter, *, read_data: bool) -> list[WorkEvent]:
        options = {"images": list(work.images), "read_data": read_data}
        found = self._there(work.unit, "verify", report, **options)
        if found is not None:
            return found
        images = [ImageId(one) for one in work.images] or None
        return pool_care.verify(self._pool(work.unit), images, report, read_data=read_data)

    def _check(self, unit: str | None, report: Reporter, *, read_data: bool) -> list[WorkEvent]:
        found = self._there(unit, "check", report, read_data=read_data)
        if found is not None:
            return found
        return pool_care.check(self._pool(unit), report, read_data=read_data)

    def _rebuild_index(self, unit: str | None, report: Reporter) -> list[WorkEvent]:
        found = self._there(unit, "rebuild-index", report)
        if found is not None:
            return found
        return pool_care.rebuild_index(self._pool(unit), self._master.clock, report)

    def _replicate(self, work: SiteWork, report: Reporter, alive: Alive) -> list[WorkEvent]:
        bringing = Replication(self._master, *self._job)
        events = []
        for image in work.images:
            alive()
            events.append(bringing.bring(ImageId(image), work.unit, report, alive))
        return events

    # -- the catalog ----------------------------------------------------------------------

    def _protect(self, report: Reporter) -> list[WorkEvent]:
        made = protection.protect(self._master.site, report)
        return [WorkEvent("info", "protected", f"the catalog is in the pool, image {made.image}")]

    def _update_catalog(self, alive: Alive) -> list[WorkEvent]:
        catalog, pools = self._master.catalog, self._master.site.pools
        self._master.site.hear_notes()
        events = self._clean_up()
        fed = 0
        for image in catalog.pending():
            try:
                catalog.ingest(pools.holding(image), image, lambda _: alive())
            except (Cancelled, Fenced):
                raise
            except ImageMissing:
                # It was let go meanwhile.
                continue
            except HoldfastError as error:
                said = f"image {image} can't be fed: {error.message}"
                events.append(WorkEvent("error", error.code, said))
            else:
                fed += 1
            alive()
        return [WorkEvent("info", "fed", f"images fed: {format_count(fed)}"), *events]

    def _rebuild_catalog(self, alive: Alive) -> list[WorkEvent]:
        made = self._master.site.refill_catalog(lambda _: alive())
        events = [
            WorkEvent("error", "unreadable", f"image {image} could not be read: {reason}")
            for image, reason in made.failed.items()
        ]
        events += [
            WorkEvent("warning", "unreachable", f"storage unit '{unit}' was not looked at: {why}")
            for unit, why in made.unreached.items()
        ]
        said = (
            f"{format_count(made.images)} images of {format_count(made.sources)} sources, "
            f"{format_count(made.rows)} rows; gone from the pool: {format_count(made.dropped)}"
        )
        return [WorkEvent("info", "rebuilt", said), *events]


def _expired(image: ImageId) -> WorkEvent:
    return WorkEvent("info", "expired", f"image {image} is gone")


def _unreadable(found: CleanUpResult) -> list[WorkEvent]:
    return [
        WorkEvent("warning", "unreadable", f"the catalog's files of {source}: {reason}")
        for source, reason in found.unreadable.items()
    ]
