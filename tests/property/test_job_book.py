"""The book of jobs under any sequence of calls, some of which are cut off between two statements.

Each part is compared with what `life` makes of it in memory, each whole with its parts; neither a
call that is cut off, nor one for another job, changes anything else.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from holdfast.base.errors import Fenced, HoldfastError, WrongState
from holdfast.base.ids import ClientName, JobId, PolicyName, SourceName
from holdfast.control.jobs import (
    LEASE,
    JobBook,
    JobError,
    JobKind,
    JobState,
    NewJob,
    Outcome,
    Result,
    Retrying,
    Sort,
    Wanted,
    life,
)
from holdfast.control.jobs.schema import job_events, job_work, jobs
from tests.kit.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.control.database import Database
    from holdfast.control.jobs import Job

RETRYING = Retrying(attempts=3)
ERRORS = [None, JobError("io", "a disk"), JobError("no-permission", "no")]
RESULTS = [Outcome.COMPLETED, Outcome.COMPLETED_WITH_ERRORS, Outcome.FAILED, Outcome.CANCELLED]
HOURS = st.integers(0, 30)


class CutOffError(Exception):
    """The process ends here."""


class Cutting:
    """Ends a transaction at its n-th statement."""

    def __init__(self, database: Database) -> None:
        self._left: int | None = None
        self._engine = database._engine
        for name in ("before_cursor_execute", "commit"):
            sa.event.listen(self._engine, name, self._step)

    def _step(self, *_: Any) -> None:
        if self._left is None:
            return
        if self._left == 0:
            raise CutOffError
        self._left -= 1

    @contextlib.contextmanager
    def after(self, statements: int | None) -> Iterator[None]:
        self._left = statements
        try:
            yield
        finally:
            self._left = None

    def close(self) -> None:
        for name in ("before_cursor_execute", "commit"):
            sa.event.remove(self._engine, name, self._step)


class Keeping(RuleBasedStateMachine):
    """Families and single jobs, their workers, and people who ask for things."""

    database: Database
    job = Bundle("job")
    held = Bundle("held")

    @initialize()
    def open(self) -> None:
        self.clock = FakeClock()
        with self.database.write() as connection:
            for table in (job_events, job_work, jobs):
                connection.execute(sa.delete(table))
        self.book = JobBook(self.database, self.clock, RETRYING)
        self.cutting = Cutting(self.database)
        self.leaves: dict[JobId, Job] = {}
        self.families: dict[JobId, list[JobId]] = {}
        self.occurrences: dict[tuple[str, int], JobId] = {}

    # -- what a call may do ---------------------------------------------------------------

    def call(self, cut: int | None, act: Callable[[], Any]) -> Any:
        """Do something, as often as it is cut off once more at the end; its answer."""
        if cut is not None:
            before = self.stored()
            try:
                with self.cutting.after(cut):
                    act()
            except CutOffError:
                assert self.stored() == before
            except HoldfastError:
                pass
            else:
                return None
        return act()

    def stored(self) -> dict[JobId, Job]:
        return {one.id: one for one in self.book.each(sort=Sort("id"))}

    def take_over(self) -> dict[JobId, Job]:
        """Have the model be what is stored, where a rule has said what may have changed."""
        found = self.stored()
        self.leaves = {job: found[job] for job in self.leaves}
        return found

    def steps(self, some: list[JobId], step: Callable[[Job], life.Step]) -> None:
        """Compare what the book made of some parts with what life makes of them."""
        found = self.stored()
        for job in self.leaves:
            before = self.leaves[job]
            expected = before
            if job in some:
                with contextlib.suppress(WrongState):
                    expected = step(before).job
            assert plain(found[job]) == plain(expected)
        self.take_over()

    def members(self, job: JobId) -> list[JobId]:
        return self.families.get(job, [job])

    # -- into the queue -------------------------------------------------------------------

    @rule(target=job, sources=st.lists(st.sampled_from("abc"), max_size=3), due=HOURS)
    def enqueue(self, sources: list[str], due: int) -> JobId:
        due_at = self.clock.now() + timedelta(hours=due)
        parts = tuple(new_job(one, due_at) for one in sources)
        new = parts[0] if len(parts) == 1 else replace(new_job(None, None), parts=parts)
        if not parts:
            new = NewJob(kind=JobKind.EXPIRE, work={"act": "expire"})
        (answer,) = self.book.enqueue([new])
        wanted = {(one, int(due_at.timestamp())) for one in sources}
        assert answer.is_whole == wanted.isdisjoint(self.occurrences)
        assert answer.is_new == (not wanted or bool(wanted - self.occurrences.keys()))
        found = self.stored()
        added = [one for job, one in found.items() if job not in self.known()]
        assert bool(added) == answer.is_new
        for one in added:
            if one.children:
                self.families[one.id] = []
        for one in added:
            if one.children:
                continue
            self.leaves[one.id] = one
            assert (one.state, one.attempt, one.fence) == (JobState.QUEUED, 0, 0)
            if one.parent_id is not None:
                self.families[one.parent_id].append(one.id)
            if one.source is not None:
                assert one.due_at == due_at
                key = (one.source, int(due_at.timestamp()))
                assert key not in self.occurrences
                self.occurrences[key] = one.id
        return answer.id

    def known(self) -> set[JobId]:
        return self.leaves.keys() | self.families.keys()

    # -- workers --------------------------------------------------------------------------

    @rule(target=held, jobs=st.sets(job, max_size=3), cut=st.none() | st.integers(0, 6))
    def grant(self, jobs: set[JobId], cut: int | None) -> MultipleResults[tuple[JobId, int]]:
        some = sorted({one for job in jobs for one in self.members(job)})
        now = self.clock.now()
        before = self.leaves
        granted = self.call(cut, lambda: self.book.grant(some))
        self.steps(some, lambda one: life.grant(one, now, LEASE))
        if granted is not None:
            may = [job for job in some if before[job] != self.leaves[job]]
            assert [one.job.id for one in granted] == may
        at_work = [job for job in some if self.leaves[job].is_at_work]
        return multiple(*((job, self.leaves[job].fence) for job in at_work))

    @rule(held=held, ending=st.booleans(), cut=st.none() | st.integers(0, 6))
    def progress(self, held: tuple[JobId, int], ending: bool, cut: int | None) -> None:
        now, (job, fence) = self.clock.now(), held
        is_his = self.leaves[job].is_at_work and self.leaves[job].fence == fence
        try:
            self.call(cut, lambda: self.book.progress(job, fence, {"files": 2}, ending=ending))
        except Fenced:
            assert not is_his
            self.steps([], life.Step)
            return
        assert is_his
        self.steps(
            [job], lambda one: life.progress(one, fence, now, LEASE, {"files": 2}, ending=ending)
        )

    @rule(
        held=held,
        outcome=st.sampled_from(RESULTS),
        error=st.sampled_from(ERRORS),
        cut=st.none() | st.integers(0, 6),
    )
    def end(
        self,
        held: tuple[JobId, int],
        outcome: Outcome,
        error: JobError | None,
        cut: int | None,
    ) -> None:
        now, (job, fence) = self.clock.now(), held
        result = Result(outcome, counters={"files": 3}, error=error)
        is_his = self.leaves[job].is_at_work and self.leaves[job].fence == fence
        try:
            self.call(cut, lambda: self.book.end(job, fence, result))
        except Fenced:
            assert not is_his
            self.steps([], life.Step)
            return
        self.steps([job], lambda one: life.end(one, fence, now, result, RETRYING))

    @rule(cut=st.none() | st.integers(0, 6))
    def expire(self, cut: int | None) -> None:
        now = self.clock.now()
        late = [job for job, one in self.leaves.items() if life.is_lost(one, now)]
        self.call(cut, self.book.expire)
        self.steps(late, lambda one: life.lose(one, now, "silent", RETRYING))

    @rule(cut=st.none() | st.integers(0, 6))
    def recover(self, cut: int | None) -> None:
        now = self.clock.now()
        held = [job for job, one in self.leaves.items() if one.is_at_work]
        self.call(cut, self.book.recover)
        self.steps(held, lambda one: life.lose(one, now, "killed", RETRYING, at_once=True))
        assert self.book.at_work() == []

    # -- people ---------------------------------------------------------------------------

    @rule(job=job, what=st.sampled_from(["cancel", "suspend", "resume"]), cut=st.integers(0, 9))
    def ask(self, job: JobId, what: str, cut: int) -> None:
        now = self.clock.now()
        some = self.members(job)
        act: Callable[[Job], life.Step] = {
            "cancel": lambda one: life.cancel(one, now),
            "suspend": life.suspend,
            "resume": life.resume,
        }[what]
        may = [one for one in some if allows(act, self.leaves[one])]
        try:
            self.call(cut if cut < 7 else None, lambda: getattr(self.book, what)(job))
        except WrongState:
            # By a call that was not cut off after all it was done already.
            assert not may or cut < 7
        else:
            assert may
        self.steps(some, act)

    # -- time -----------------------------------------------------------------------------

    @rule(minutes=st.sampled_from([0, 1, 3, 90]))
    def wait(self, minutes: int) -> None:
        self.clock.move(timedelta(minutes=minutes))

    @rule(days=st.sampled_from([-400, -1, 1, 400]))
    def set_the_clock(self, days: int) -> None:
        self.clock.set_by(timedelta(days=days))
        self.book.clock_was_set()
        now = self.clock.now()
        found = self.take_over()
        for one in found.values():
            if not one.children and one.is_at_work:
                assert one.lease_until == now + LEASE
            if one.not_before is not None:
                assert one.not_before <= now + RETRYING.longest

    # -- what always holds ----------------------------------------------------------------

    @invariant()
    def the_lists_tell_the_same(self) -> None:
        found = self.stored()
        assert found.keys() == self.known()
        now = self.clock.now()
        ready = {
            job
            for job, one in self.leaves.items()
            if one.state is JobState.QUEUED
            and not one.suspended
            and (one.not_before is None or one.not_before <= now)
        }
        assert self.book.ready_ids() == ready
        assert {one.id for one in self.book.ready()} == ready
        held = {job for job, one in self.leaves.items() if one.is_at_work}
        assert {one.id for one in self.book.at_work()} == held
        for state in JobState:
            of_state = {one.id for one in found.values() if one.state is state}
            assert {one.id for one in self.book.page(Wanted(states=(state,)))} == of_state

    @invariant()
    def a_whole_is_where_its_parts_are(self) -> None:
        for parent, members in self.families.items():
            whole, parts = self.book.job(parent), [self.leaves[one] for one in members]
            assert whole.children == len(parts)
            assert (whole.state is JobState.ENDED) == all(
                one.state is JobState.ENDED for one in parts
            )
            if whole.state is JobState.ENDED:
                worst = max((one.outcome for one in parts if one.outcome), key=badness)
                assert whole.outcome is worst
            if any(one.is_at_work for one in parts):
                assert whole.state is JobState.ACTIVE
            counted = sum(one.counters.get("files", 0) for one in parts)
            assert whole.counters.get("files", 0) == counted

    def teardown(self) -> None:
        """Nothing is stuck: whatever was done to it, every job comes to its end."""
        if not hasattr(self, "cutting"):
            return
        self.cutting.close()
        for job in self.leaves:
            with contextlib.suppress(WrongState):
                self.book.resume(job)
        self.book.recover()
        for job, one in self.take_over().items():
            if one.children or one.state is JobState.ENDED:
                continue
            self.clock.move(timedelta(hours=2))
            (granted,) = self.book.grant([job])
            self.book.end(job, granted.job.fence, Result(Outcome.COMPLETED))
        assert all(one.state is JobState.ENDED for one in self.stored().values())


def new_job(source: str | None, due_at: Any) -> NewJob:
    return NewJob(
        kind=JobKind.BACKUP,
        work={"of": source},
        policy=PolicyName("nightly"),
        schedule="daily",
        client=ClientName("web1"),
        source=None if source is None else SourceName(source),
        storage_unit="default",
        due_at=due_at,
    )


def plain(job: Job) -> Job:
    """A job but for what the book itself adds: its words, and how much its log has."""
    error = job.error and replace(job.error, message="", hint=None)
    return replace(job, events=0, events_left_out=0, waits_for=None, error=error)


def allows(act: Callable[[Job], life.Step], job: Job) -> bool:
    try:
        act(job)
    except WrongState:
        return False
    return True


def badness(outcome: Outcome) -> int:
    return outcome.badness


def test_the_book_keeps_every_life_apart_and_every_family_together(database: Database) -> None:
    kept = type("KeepingHere", (Keeping,), {"database": database})
    run_state_machine_as_test(
        kept, settings=settings(max_examples=40, stateful_step_count=25, deadline=None)
    )
