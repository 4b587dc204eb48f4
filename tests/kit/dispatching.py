"""A master's hand in its books, with workers that do as a test says."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from holdfast.base import labels
from holdfast.base.clock import to_ns
from holdfast.control.catalog import Catalog
from holdfast.control.database import facts
from holdfast.control.dispatch import Agenda, Dispatcher, HistoryBook, Presence, Queue
from holdfast.control.dispatch.presence import NOBODY
from holdfast.control.hypervisors import Estate
from holdfast.control.jobs import LEASE, JobBook, Retrying, Sort, Wanted
from holdfast.control.policies import PolicyBook, undivided
from holdfast.control.schedule import BackupKind, Schedule, Window
from holdfast.wire.machine_work import MachineWork
from holdfast.wire.messages import BackupWork, ImageNote, WorkEnded, WorkError, WorkProgress
from tests.kit.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from holdfast.base.ids import ImageId
    from holdfast.control.database import Database
    from holdfast.control.jobs import Job
    from holdfast.control.policies import Policy, Split, SplitKey
    from holdfast.wire.messages import Answer, Work, WorkOffer

POOL = "0" * 32
EVENING = datetime(2026, 3, 2, 21, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
ANY_DAY = frozenset(range(7))
NIGHT = Window(ANY_DAY, time(22), time(6))


def daily(kind: BackupKind = BackupKind.DIFFERENTIAL, **more: object) -> Schedule:
    return Schedule("nightly", kind, every=timedelta(days=1), windows=(NIGHT,), **more)  # type: ignore[arg-type]


def backup(offer: WorkOffer) -> BackupWork:
    assert isinstance(offer.work, BackupWork)
    return offer.work


@dataclass
class Stage:
    """Everything but the movers, on one database."""

    database: Database
    directory: Path
    clock: FakeClock = field(default_factory=FakeClock)
    slots: int = 2
    images: int = 0
    presence: Presence = NOBODY
    splits: Callable[[SplitKey], Split | None] = undivided
    splits_version: Callable[[], object] = lambda: None
    estate: Estate = field(default_factory=Estate)
    complete: Callable[[Job, Work], Work] = lambda _job, work: work
    follow: Callable[[Job, ImageId], None] = lambda _job, _image: None

    def __post_init__(self) -> None:
        self.policies = PolicyBook(self.database, self.clock)
        self.jobs = JobBook(self.database, self.clock, Retrying(spread=0))
        self.catalog = Catalog.open(self.directory / "catalog", self.clock, self.database)
        self.committed: list[ImageNote] = []
        self.restart()

    def restart(self) -> list[Job]:
        """A master that begins with nothing but its books."""
        agenda = Agenda(
            self.policies,
            self.jobs,
            HistoryBook(self.database),
            self.catalog,
            UTC,
            lambda _client: ["/", "/srv"],
            self.splits_version,
            self.splits,
            lambda: self.estate,
        )
        self.dispatcher = Dispatcher(
            site_id=facts.site_id(self.database),
            pool_of=lambda _: POOL,
            clock=self.clock,
            jobs=self.jobs,
            catalog=self.catalog,
            agenda=agenda,
            queue=Queue(
                self.jobs,
                UTC,
                lambda: {"default": self.slots},
                lambda: self.presence,
                lambda: self.estate,
            ),
            lease_s=LEASE.total_seconds(),
            complete=self._complete,
            committed=self._follow,
        )
        return self.dispatcher.start(self.find)

    def _complete(self, job: Job, work: Work) -> Work:
        return self.complete(job, work)

    def _follow(self, job: Job, image: ImageId) -> None:
        self.follow(job, image)

    def put(self, *policies: Policy) -> None:
        """Have these policies and no others."""
        self.policies.apply(self.policies.plan(policies, prune=True), "a test")

    def step(self) -> list[WorkOffer]:
        return self.dispatcher.step()

    def pass_time(self, by: timedelta) -> list[WorkOffer]:
        self.clock.move(by)
        return self.step()

    def image(self, offer: WorkOffer, status: str = "completed") -> ImageNote:
        """What a pool has when a backup of an offer was committed."""
        assert isinstance(offer.work, BackupWork | MachineWork)
        self.images += 1
        now_ns = to_ns(self.clock.now())
        note = ImageNote(
            id=f"{self.images:032x}",
            number=self.images,
            source=offer.work.source,
            host=offer.work.client,
            started_ns=now_ns,
            finished_ns=now_ns,
            parent=offer.work.parent,
            status=status,
            stats={"files": 3, "bytes_found": 10},
            findings_total=0,
            software="test",
            labels=offer.work.labels,
        )
        self.committed.append(note)
        return note

    def find(self, wanted: set[str]) -> dict[str, ImageId]:
        """Have the catalog hear of what is in the pool."""
        for note in self.committed:
            if note.labels.get(labels.JOB) in wanted:
                self.catalog.record_image(note, POOL)
        return self.catalog.of_jobs(wanted)

    def finish(self, offer: WorkOffer, error: WorkError | None = None) -> Answer:
        made = error is None and isinstance(offer.work, BackupWork | MachineWork)
        note = self.image(offer) if made else None
        counters = {"files": 3, "bytes_found": 10, "bytes_online": 4}
        ended = WorkEnded(offer.job_id, offer.fence, note, (), 0, counters, error)
        return self.dispatcher.hear(ended)

    def alive(self, offer: WorkOffer) -> Answer:
        return self.dispatcher.hear(WorkProgress(offer.job_id, offer.fence, {"files": 1}))

    def all_jobs(self) -> Sequence[Job]:
        return list(self.jobs.each(Wanted(leaves=True), Sort("id")))

    def close(self) -> None:
        self.catalog.close()
