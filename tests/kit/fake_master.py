"""A master that only hears, and an agent with work that a test looks into."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from holdfast.movers.agent import COUNTERS, Agent
from holdfast.movers.backup_run import BackupOrder
from holdfast.movers.ways import ForSite, Restore, Ways
from holdfast.wire.messages import (
    Answer,
    BackupWork,
    SiteWork,
    WorkEnded,
    WorkEvent,
    WorkOffer,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from holdfast.engine import Counters, Image, RestoreResult
    from holdfast.movers.drive import Reporter
    from holdfast.movers.restore_run import RestoreOrder
    from holdfast.wire.messages import WorkMessage


LEASE_S = 10.0


def no_restore(order: RestoreOrder, _report: Reporter) -> RestoreResult:
    raise AssertionError(order)


def nothing(work: SiteWork, _report: Reporter, _alive: Callable[[], None]) -> list[WorkEvent]:
    raise AssertionError(work)


@dataclass
class FakeMaster:
    """Hears; answers, or fails, as it is told."""

    heard: list[WorkMessage] = field(default_factory=list)
    answer: Callable[[WorkMessage], Answer] = lambda _message: Answer.GO_ON

    def hear(self, message: WorkMessage) -> Answer:
        self.heard.append(message)
        return self.answer(message)

    @property
    def ended(self) -> list[WorkEnded]:
        return [one for one in self.heard if isinstance(one, WorkEnded)]


def agent(
    backup: Backup,
    master: FakeMaster,
    time: Time,
    restore: Restore = no_restore,
    for_site: ForSite = nothing,
) -> Agent:
    return Agent(Ways(backup, restore), for_site, master, time)


class Time:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def counters(files: int) -> Counters:
    return cast("Counters", SimpleNamespace(**dict.fromkeys(COUNTERS, files)))


def image(order: BackupOrder) -> Image:
    finding = SimpleNamespace(
        path=b"/srv/\xff", severity="error", code="no-permission", message="may not read it"
    )
    made = SimpleNamespace(
        id="ab" * 16, number=3, source=order.source, host=order.client, started_ns=1,
        finished_ns=2, parent=None, status="completed with errors", stats={"files": 9},
        findings=[finding], findings_total=1, software="holdfast", labels=order.labels,
        client_key=None, has_sealed_names=False,
    )  # fmt: skip
    return cast("Image", made)


@dataclass
class Backup:
    """Stands for a pool: reports as often as it is told while time passes."""

    time: Time
    steps: int = 3
    step_s: float = 2.0
    orders: list[BackupOrder] = field(default_factory=list)
    error: Exception | None = None

    def __call__(self, order: BackupOrder, report: Reporter) -> Image:
        self.orders.append(order)
        for step in range(self.steps):
            self.time.now_s += self.step_s
            report(counters(step))
        if self.error is not None:
            raise self.error
        return image(order)


def offer(path: Path, **more: Any) -> WorkOffer:
    work = BackupWork(
        client="web1", source="web1:srv", paths=(str(path),), labels={"policy": "files"}, **more
    )
    return WorkOffer(7, 2, LEASE_S, work)


def say(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)
