"""Whatever happens to a master and its workers, each occurrence is one job that ends once."""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.base.errors import WrongState
from holdfast.base.ids import ClientName, JobId
from holdfast.control.dispatch import HistoryBook
from holdfast.control.jobs import JobState, Outcome, Sort, Wanted
from holdfast.control.policies import Limits
from holdfast.control.schedule import BackupKind, Schedule, Window
from holdfast.wire.messages import Answer, BackupWork, WorkError, WorkOffer
from tests.kit import quick_disk
from tests.kit.clock import FakeClock
from tests.kit.databases import new_file
from tests.kit.dispatching import Stage
from tests.kit.policies import policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.control.jobs import Job

START = datetime(2026, 3, 28, 20, 0, tzinfo=UTC)
ERRORS = st.sampled_from(["io", "no-space", "path-missing", "cancelled", "internal"])
DONE = {Outcome.COMPLETED}
SLOTS = 3


class Masters(RuleBasedStateMachine):
    """One database, masters that come and go, workers that answer late or never."""

    def __init__(self) -> None:
        super().__init__()
        self.path = quick_disk.make()
        self.database = new_file(self.path / "control.db")
        self.stage = Stage(self.database, self.path, FakeClock(START), slots=SLOTS)
        nightly = Schedule(
            "nightly",
            BackupKind.DIFFERENTIAL,
            every=timedelta(hours=20),
            windows=(Window(frozenset(range(7)), time(22), time(6)),),
            zone="Europe/Berlin",
        )
        hourly = Schedule("hourly", BackupKind.DIFFERENTIAL, every=timedelta(hours=1))
        clients = tuple(ClientName(f"web{n}") for n in range(3))
        self.stage.put(
            policy("a", clients=clients, schedules=(nightly,), limits=Limits(jobs=2)),
            policy("b", clients=clients, schedules=(hourly,), priority=90),
        )
        self.offers: list[WorkOffer] = []
        self.old: list[WorkOffer] = []

    def teardown(self) -> None:
        self.back_everything_up()
        self.run_to_the_end()
        self.stage.close()
        self.database.close()
        shutil.rmtree(self.path)

    def back_everything_up(self) -> None:
        """No source is forgotten, whatever became of its jobs, unless somebody suspended one."""
        self.let_time_pass(300)
        self.cancel_what_waits()
        backed_up: set[tuple[str, str]] = set()
        for _ in range(30):
            for offer in self.offers:
                self.stage.finish(offer)
                if isinstance(offer.work, BackupWork):
                    backed_up.add((offer.work.labels["policy"], offer.work.source))
            self.offers = list(self.stage.pass_time(timedelta(hours=2)))
            if self.everything() <= backed_up:
                return
        waiting = {
            (str(one.policy), str(one.source)) for one in self.stage.all_jobs() if one.suspended
        }
        assert self.everything() - waiting <= backed_up

    def everything(self) -> set[tuple[str, str]]:
        """Each source of a policy that was ever due."""
        histories = HistoryBook(self.database).load()
        return {(str(one.policy), str(one.source)) for one in histories}

    def run_to_the_end(self) -> None:
        """Nothing is stuck: with workers that work, all that is queued ends."""
        self.stage.put()
        for _ in range(60):
            for offer in self.offers:
                self.stage.finish(offer)
            self.offers = list(self.stage.pass_time(timedelta(hours=1)))
            if not self.unended():
                return
        assert self.unended() == []

    def unended(self) -> list[Job]:
        """Jobs that have not ended, though nobody suspended them."""
        wanted = Wanted(states=tuple(set(JobState) - {JobState.ENDED}), leaves=True)
        return [one for one in self.stage.jobs.each(wanted, Sort("id")) if not one.suspended]

    @rule(minutes=st.integers(0, 600))
    def let_time_pass(self, minutes: int) -> None:
        self.stage.clock.move(timedelta(minutes=minutes))
        self.step()

    @rule()
    def step(self) -> None:
        self.hear_of_all()
        self.offers += self.stage.step()

    @rule(minutes=st.integers(0, 90))
    def turn(self, minutes: int) -> None:
        """What is only free is given again, without looking at anything else."""
        self.stage.clock.move(timedelta(minutes=minutes))
        self.hear_of_all()
        self.offers += self.stage.dispatcher.turn()

    def hear_of_all(self) -> None:
        for offer in self.offers:
            self.stage.alive(offer)

    @rule(minutes=st.integers(-300, 300))
    def set_the_clock(self, minutes: int) -> None:
        self.stage.clock.set_by(timedelta(minutes=minutes))

    @precondition(lambda self: self.offers)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        offer = self.offers.pop(data.draw(st.integers(0, len(self.offers) - 1)))
        self.stage.finish(offer)

    @precondition(lambda self: self.offers)
    @rule(data=st.data(), code=ERRORS)
    def fail(self, data: st.DataObject, code: str) -> None:
        offer = self.offers.pop(data.draw(st.integers(0, len(self.offers) - 1)))
        self.stage.finish(offer, WorkError(code, "it failed", None))

    @precondition(lambda self: self.offers)
    @rule(committed=st.booleans())
    def kill_the_master(self, committed: bool) -> None:
        """Its workers go with it; one of them may just have committed."""
        if committed:
            self.stage.image(self.offers[0])
        self.stage.restart()
        self.old += self.offers
        self.offers = []

    @precondition(lambda self: self.offers)
    @rule()
    def lose_a_worker(self) -> None:
        self.old.append(self.offers.pop(0))
        for _ in range(3):
            self.stage.clock.move(timedelta(minutes=1))
            self.hear_of_all()
            self.offers += self.stage.step()

    @precondition(lambda self: self.old)
    @rule()
    def hear_of_a_lost_worker(self) -> None:
        offer = self.old.pop(0)
        job = self.stage.jobs.job(JobId(offer.job_id))
        assert self.stage.alive(offer) is Answer.FENCED or job.fence == offer.fence

    @rule(data=st.data())
    def ask_something(self, data: st.DataObject) -> None:
        jobs = self.stage.all_jobs()
        if not jobs:
            return
        job = data.draw(st.sampled_from([one.id for one in jobs]))
        act = data.draw(st.sampled_from(["cancel", "suspend", "resume"]))
        try:
            getattr(self.stage.jobs, act)(job)
        except WrongState:
            return

    @rule()
    def cancel_what_waits(self) -> None:
        for one in self.stage.all_jobs():
            if one.state is JobState.QUEUED:
                self.stage.jobs.cancel(one.id)

    @invariant()
    def what_is_known_of_jobs_is_sound(self) -> None:
        """They are read once for all that is asked of them: there are hundreds."""
        jobs = self.stage.all_jobs()
        self.limits_hold(jobs)
        self.a_source_is_backed_up_once_at_a_time(jobs)
        self.an_occurrence_is_one_job(jobs)
        self.what_is_completed_has_its_image(jobs)

    def limits_hold(self, jobs: Sequence[Job]) -> None:
        at_work = [one for one in jobs if one.is_at_work]
        assert len(at_work) <= SLOTS
        assert sum(one.policy == "a" for one in at_work) <= 2

    def a_source_is_backed_up_once_at_a_time(self, jobs: Sequence[Job]) -> None:
        unended = Counter(
            (one.policy, one.source) for one in jobs if one.state is not JobState.ENDED
        )
        assert not [one for one, count in unended.items() if count > 1]

    def an_occurrence_is_one_job(self, jobs: Sequence[Job]) -> None:
        named = Counter((one.policy, one.schedule, one.source, one.due_at) for one in jobs)
        assert not [one for one, count in named.items() if count > 1]

    def what_is_completed_has_its_image(self, jobs: Sequence[Job]) -> None:
        known = {one.id for one in self.stage.catalog.images()}
        for job in jobs:
            if job.outcome in DONE:
                assert job.image_id in known

    @invariant()
    def one_fence_is_at_work(self) -> None:
        held = [(one.job_id, one.fence) for one in self.offers]
        assert len(held) == len(set(held))
        assert len({job for job, _ in held}) == len(held)


Masters.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestMasters = Masters.TestCase
