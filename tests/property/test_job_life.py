"""The life of a job under any sequence of calls, with workers that return from the dead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.base.errors import Fenced, HoldfastError, WrongState
from holdfast.base.ids import JobId
from holdfast.control.jobs import life
from holdfast.control.jobs.job import Asked, Job, JobError, JobKind, JobState, Outcome
from holdfast.control.jobs.life import Result, Retrying

START = datetime(2026, 3, 1, tzinfo=UTC)
LEASE = timedelta(minutes=2)
ERRORS = [JobError("io", "a disk"), JobError("no-permission", "no"), JobError("no-space", "full")]
BY_A_WORKER = [one for one in Outcome if one is not Outcome.MISSED]


class Living(RuleBasedStateMachine):
    """One job; any number of workers that once had it, each of which knows its fence."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.retrying = Retrying(attempts=3)
        self.job = Job(id=JobId(1), kind=JobKind.BACKUP, priority=50, queued_at=START)
        self.fences: list[int] = []
        self.may_write: int | None = None
        self.cancelled_by_a_person = False

    def become(self, step: life.Step) -> None:
        before, self.job = self.job, step.job
        assert self.job.fence >= before.fence
        assert self.job.id == before.id
        if before.state is JobState.ENDED:
            assert self.job == before
        if not self.job.is_at_work:
            self.may_write = None

    @rule(minutes=st.sampled_from([0, 1, 2, 3, 90]))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule()
    def grant(self) -> None:
        may = (
            self.job.state is JobState.QUEUED
            and not self.job.suspended
            and (self.job.not_before is None or self.job.not_before <= self.now)
        )
        if not may:
            with pytest.raises(WrongState):
                life.grant(self.job, self.now, LEASE)
            return
        self.become(life.grant(self.job, self.now, LEASE))
        assert self.job.fence not in self.fences
        assert not self.cancelled_by_a_person
        self.fences.append(self.job.fence)
        self.may_write = self.job.fence

    @precondition(lambda self: self.fences)
    @rule(data=st.data(), ending=st.booleans())
    def progress(self, data: st.DataObject, ending: bool) -> None:
        fence = data.draw(st.sampled_from(self.fences))
        try:
            step = life.progress(self.job, fence, self.now, LEASE, {"files": 1}, ending=ending)
        except Fenced:
            assert fence != self.may_write
            return
        assert fence == self.may_write
        self.become(step)

    @precondition(lambda self: self.fences)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(BY_A_WORKER),
        error=st.none() | st.sampled_from(ERRORS),
    )
    def end(self, data: st.DataObject, outcome: Outcome, error: JobError | None) -> None:
        fence = data.draw(st.sampled_from(self.fences))
        before = self.job
        result = Result(outcome, counters={"files": 2}, error=error)
        try:
            step = life.end(self.job, fence, self.now, result, self.retrying)
        except Fenced:
            assert fence != self.may_write
            return
        if fence != self.may_write:
            # the answer to its end was lost, and it tells once more
            assert step.job == before
            assert before.state is JobState.ENDED
            return
        self.become(step)
        if outcome in {
            Outcome.COMPLETED,
            Outcome.COMPLETED_WITH_ERRORS,
            Outcome.COMPLETED_WITH_WARNINGS,
        }:
            assert self.job.outcome is outcome
        if self.job.state is JobState.ENDED and self.job.outcome is outcome:
            assert life.end(self.job, fence, self.now, result, self.retrying).job == self.job

    @precondition(lambda self: self.job.is_at_work)
    @rule(at_once=st.booleans())
    def lose(self, at_once: bool) -> None:
        self.become(life.lose(self.job, self.now, "silent", self.retrying, at_once=at_once))

    @precondition(lambda self: life.is_lost(self.job, self.now))
    @rule()
    def expire(self) -> None:
        self.become(life.lose(self.job, self.now, "silent", self.retrying))

    @rule()
    def cancel(self) -> None:
        try:
            self.become(life.cancel(self.job, self.now))
        except WrongState:
            assert self.job.state is JobState.ENDED
            return
        self.cancelled_by_a_person = True

    @rule(which=st.sampled_from(["suspend", "resume", "requeue", "miss"]))
    def ask(self, which: str) -> None:
        before = self.job
        try:
            if which == "suspend":
                self.become(life.suspend(self.job))
                assert self.job.suspended or self.job.asked is Asked.SUSPEND
            elif which == "resume":
                self.become(life.resume(self.job))
                assert not self.job.suspended
            elif which == "requeue":
                self.become(life.requeue(self.job))
                assert self.job.asked is not None
            else:
                self.become(life.miss(self.job, self.now, "too late"))
                assert self.job.outcome is Outcome.MISSED
        except WrongState:
            assert self.job == before

    @invariant()
    def it_makes_sense(self) -> None:
        job = self.job
        assert (job.lease_until is not None) == job.is_at_work
        assert (job.outcome is not None) == (job.state is JobState.ENDED)
        assert (job.ended_at is not None) == (job.state is JobState.ENDED)
        assert job.is_at_work or job.asked is None
        assert not job.suspended or job.state is JobState.QUEUED
        assert 0 <= job.attempt <= self.retrying.attempts
        assert (self.may_write is not None) == job.is_at_work
        assert (job.error is None) or job.outcome in {None, Outcome.FAILED}
        if self.cancelled_by_a_person:
            assert job.state is JobState.ENDED or job.asked is Asked.CANCEL

    def teardown(self) -> None:
        """Nothing is stuck: left to itself and to workers that are lost, every job ends."""
        for _ in range(3 * self.retrying.attempts + 3):
            if self.job.state is JobState.ENDED:
                return
            self.now += timedelta(hours=2)
            try:
                if self.job.suspended:
                    self.become(life.resume(self.job))
                elif self.job.is_at_work:
                    assert life.is_lost(self.job, self.now)
                    self.become(life.lose(self.job, self.now, "silent", self.retrying))
                else:
                    self.become(life.grant(self.job, self.now, LEASE))
            except HoldfastError as error:
                raise AssertionError("it is stuck") from error
        assert self.job.state is JobState.ENDED


TestLiving = Living.TestCase
TestLiving.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
