"""What is done for the site as a whole: letting images go, collecting garbage, keeping the catalog.

Must not decide when: that is the service's. Invariant: whatever of it is killed half-way is
completed, or done anew, the next time.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid
from holdfast.base.units import format_count, format_size
from holdfast.movers.pool_runs import run_garbage_collection, run_verify
from holdfast.site import protection, retention
from holdfast.wire.messages import WorkEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.control.catalog import CleanUpResult
    from holdfast.movers.drive import Reporter
    from holdfast.site.master import Master

EXPIRE = "expire"
COLLECT = "collect"
PROTECT = "catalog-backup"
VERIFY = "verify"
VERIFY_DATA = "verify-data"


class Steward:
    """Does what `wire.messages.SiteWork` asks for, on this machine."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._verbs: dict[str, Callable[[Reporter], list[WorkEvent]]] = {
            EXPIRE: self._expire,
            COLLECT: self._collect,
            PROTECT: self._protect,
            VERIFY: lambda report: self._verify(report, read_data=False),
            VERIFY_DATA: lambda report: self._verify(report, read_data=True),
        }

    def __call__(self, verb: str, report: Reporter) -> list[WorkEvent]:
        """Do it; see `movers.agent.ForSite`.

        Raises:
            Invalid: Nobody here knows how.
            HoldfastError: It failed.
        """
        act = self._verbs.get(verb)
        if act is None:
            raise Invalid(f"'{verb}' is nothing that is done for a site", "update this Holdfast")
        return act(report)

    def _expire(self, report: Reporter) -> list[WorkEvent]:
        judgement = retention.preview(self._master.site, None)
        gone: list[str] = []
        kept = retention.apply(self._master.site, judgement, gone.append)
        events = [
            WorkEvent("warning", "in doubt", f"nothing of {source} goes: {doubt}")
            for source, doubt in judgement.doubts.items()
        ]
        events += [WorkEvent("info", "expired", f"image {image} is gone") for image in gone]
        events += [
            WorkEvent("info", "held", f"image {image} was held or locked meanwhile, and stays")
            for image in kept
        ]
        events += self._forget_old_jobs()
        events += self._clean_up()
        return events + (self._collect(report) if gone else [])

    def _clean_up(self) -> list[WorkEvent]:
        found = self._master.catalog.clean_up()
        if found.lost:
            lost = f"the files of {found.lost} image(s) were lost to the catalog; it is fed again"
            return [WorkEvent("warning", "lost", lost), *_unreadable(found)]
        return _unreadable(found)

    def _forget_old_jobs(self) -> list[WorkEvent]:
        master = self._master
        age = timedelta(seconds=master.settings.seconds("jobs.history"))
        before = master.clock.now() - age
        total = 0
        while count := master.jobs.forget(before):
            total += count
        if not total:
            return []
        said = f"{format_count(total)} jobs that ended before {before:%Y-%m-%d} are forgotten"
        return [WorkEvent("info", "forgotten", said)]

    def _collect(self, report: Reporter) -> list[WorkEvent]:
        site = self._master.site
        done = run_garbage_collection(site.pool, site.clock, dry_run=False, report=report)
        events = [
            WorkEvent(
                "info",
                "collected",
                f"{format_size(done.bytes_freed)} freed: {format_count(done.packs_deleted)} of "
                f"{format_count(done.packs_before)} packs deleted, "
                f"{format_count(done.packs_rewritten)} written anew",
            )
        ]
        if done.waiting_for:
            waiting = f"the space returns when {len(done.waiting_for)} running jobs have ended"
            events.append(WorkEvent("info", "waiting", waiting))
        return events

    def _protect(self, report: Reporter) -> list[WorkEvent]:
        made = protection.protect(self._master.site, report)
        return [WorkEvent("info", "protected", f"the catalog is in the pool, image {made.image}")]

    def _verify(self, report: Reporter, *, read_data: bool) -> list[WorkEvent]:
        found = run_verify(self._master.site.pool, None, read_data=read_data, report=report)
        events = [
            WorkEvent("error", one.code, one.message, one.path or None) for one in found.problems
        ]
        total = found.problems_total
        more = f"; the first {len(events)} are listed" if total > len(events) else ""
        said = (
            f"{format_count(found.images)} images, {format_count(found.chunks)} chunks: "
            f"{format_count(total)} problems{more}"
        )
        return [*events, WorkEvent("error" if total else "info", "verified", said)]


def _unreadable(found: CleanUpResult) -> list[WorkEvent]:
    return [
        WorkEvent("warning", "unreadable", f"the catalog's files of {source}: {reason}")
        for source, reason in found.unreadable.items()
    ]
