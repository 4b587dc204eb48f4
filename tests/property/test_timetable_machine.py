"""A master's life with a timetable: clocks that jump, outages, changes, lost records."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from holdfast.base.ids import PolicyName, SourceName
from holdfast.control.schedule import (
    BackupKind,
    Calendar,
    Due,
    Entry,
    History,
    Schedule,
    Timetable,
    Window,
)
from tests.kit.schedule_model import DAY, MINUTE, minutes_of
from tests.kit.timetable_model import handed

HOUR = timedelta(hours=1)
DAILY = frozenset(range(7))
NIGHT = (Window(DAILY, time(22), time(6)),)
LUNCH = (Window(frozenset(range(5)), time(12), time(12, 45)),)
SITE = ZoneInfo("Europe/Berlin")
FIRST = date(2026, 3, 24)
DAYS = 90
POLICIES = (PolicyName("p"), PolicyName("q"))
SOURCES = (SourceName("a:/"), SourceName("b:/"), SourceName("c:/"))
EVERY_DAY = Calendar(("FREQ=DAILY",))
POOL = (
    Schedule("full", BackupKind.FULL, None, Calendar(("FREQ=WEEKLY;BYDAY=SA",)), NIGHT),
    Schedule(
        "full-spread",
        BackupKind.FULL,
        None,
        Calendar(("FREQ=WEEKLY;BYDAY=SU",)),
        NIGHT,
        stagger=3 * HOUR,
    ),
    Schedule("weekly", BackupKind.SYNTHETIC, 7 * DAY, None, NIGHT, stagger=HOUR),
    Schedule("nightly", BackupKind.DIFFERENTIAL, None, EVERY_DAY, NIGHT, run_missed=False),
    Schedule("howe", BackupKind.CUMULATIVE, None, EVERY_DAY, NIGHT, "Australia/Lord_Howe"),
    Schedule("lunch", BackupKind.DIFFERENTIAL, None, EVERY_DAY, LUNCH),
    Schedule("hourly", BackupKind.DIFFERENTIAL, None, Calendar(("FREQ=HOURLY",)), NIGHT),
    Schedule("midnight", BackupKind.CUMULATIVE, None, EVERY_DAY, run_missed=False),
    Schedule("often", BackupKind.CONTINUOUS, 25 * MINUTE, run_missed=False),
    Schedule("distant", BackupKind.DIFFERENTIAL, 20 * HOUR, None, LUNCH, run_missed=False),
)
SOME = st.sets(st.sampled_from(range(len(POOL))), min_size=1, max_size=4)
Key = tuple[PolicyName, str, SourceName]


class Master(RuleBasedStateMachine):
    """Records what it is handed as a dispatcher does, and looks for what must not be."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime.combine(FIRST, time(9), UTC)
        self.polled = self.now
        self.latest = self.now
        self.entries: dict[PolicyName, Entry] = {}
        self.recorded: dict[Key, History] = {}
        self.occupied: set[tuple[PolicyName, SourceName]] = set()
        self.timetable = Timetable(SITE)
        self.may_start: dict[tuple[Schedule, ZoneInfo], list[bool]] = {}

    @initialize(names=SOME)
    def begin(self, names: set[int]) -> None:
        self.put(POLICIES[0], names)

    def put(self, policy: PolicyName, numbers: set[int]) -> None:
        schedules = tuple(POOL[number] for number in sorted(numbers))
        entry = Entry(policy, schedules, SOURCES, self.latest)
        self.entries[policy] = entry
        self.timetable.put(entry, self.histories(policy))
        for one in self.timetable.histories():
            # From when on something counts is recorded before anything of it is due.
            self.recorded.setdefault((one.policy, one.schedule, one.source), one)

    def histories(self, policy: PolicyName) -> list[History]:
        return [one for key, one in self.recorded.items() if key[0] == policy]

    @rule(policy=st.sampled_from(POLICIES), names=SOME)
    def change(self, policy: PolicyName, names: set[int]) -> None:
        self.put(policy, names)

    @rule(policy=st.sampled_from(POLICIES))
    def pause(self, policy: PolicyName) -> None:
        self.timetable.drop(policy)
        entry = self.entries.get(policy)
        self.occupied = {one for one in self.occupied if one[0] != policy}
        if entry is not None:
            self.timetable.put(entry, self.histories(policy))

    @rule()
    def start_anew(self) -> None:
        everything = list(self.recorded.values())
        again = Timetable(SITE, self.entries.values(), everything)
        if not self.occupied:
            for ahead in (timedelta(), HOUR, 30 * HOUR):
                mine = self.timetable.copy().due(self.latest + ahead)
                its = again.copy().due(self.latest + ahead)
                assert sorted(map(handed, mine)) == sorted(map(handed, its))
        self.timetable = again
        self.occupied.clear()

    @rule(minutes=st.integers(1, 200) | st.sampled_from([600, 1440, 3000]))
    def pass_time(self, minutes: int) -> None:
        self.now = min(self.now + minutes * MINUTE, self.end)
        self.latest = max(self.latest, self.now)

    @rule(minutes=st.integers(1, 90) | st.sampled_from([600, 3000]))
    def put_the_clock_back(self, minutes: int) -> None:
        self.now = max(self.now - minutes * MINUTE, datetime.combine(FIRST, time(9), UTC))

    @rule(most=st.none() | st.integers(1, 5))
    def poll(self, most: int | None) -> None:
        self.record(self.timetable.due(self.now, most), complete=most is None)

    @rule()
    def wait_for_the_next_moment(self) -> None:
        moment = self.timetable.next_moment()
        if moment is not None and self.now < moment < self.end:
            self.now = moment
            self.latest = max(self.latest, self.now)
        self.record(self.timetable.due(self.now), complete=True)

    @rule()
    def fail_to_record(self) -> None:
        lost = self.timetable.copy().due(self.now)
        assert sorted(map(handed, lost)) == sorted(map(handed, self.timetable.due(self.now)))
        for policy, entry in self.entries.items():
            self.timetable.drop(policy)
            self.timetable.put(entry, self.histories(policy))
        for policy, source in self.occupied:
            self.timetable.occupy(policy, source)

    @rule(policy=st.sampled_from(POLICIES), source=st.sampled_from(SOURCES))
    def occupy(self, policy: PolicyName, source: SourceName) -> None:
        if policy in self.entries:
            self.timetable.occupy(policy, source)
            self.occupied.add((policy, source))

    @precondition(lambda self: self.occupied)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(sorted(self.occupied)))
        self.timetable.release(*one)
        self.occupied.remove(one)

    @rule(minutes=st.integers(0, 300))
    def start_late(self, minutes: int) -> None:
        """What was handed out last starts now: distances count from then."""
        for (policy, schedule, source), one in list(self.recorded.items()):
            started = one.last_start
            if started is not None and started <= self.now <= started + minutes * MINUTE:
                self.timetable.started(policy, schedule, source, self.now)
                self.recorded[policy, schedule, source] = replace(one, last_start=self.now)

    @property
    def end(self) -> datetime:
        return datetime.combine(FIRST + (DAYS - 30) * DAY, time(), UTC)

    def record(self, found: list[Due], *, complete: bool) -> None:
        self.polled = self.now
        assert len({(due.policy, due.source) for due in found if not due.missed}) == sum(
            not due.missed for due in found
        )
        for due in found:
            assert (due.policy, due.source) not in self.occupied
            assert due.due_at <= self.now
            started = None if due.missed else self.now
            if started is not None:
                self.check_window(due, started)
            for one in due.satisfies:
                self.remember((due.policy, one.schedule, due.source), one.due_at, self.now)
            self.remember((due.policy, due.schedule, due.source), due.due_at, started)
        if complete:
            assert self.timetable.due(self.now) == []
            following = self.timetable.next_moment()
            assert following is None or following > self.now

    def remember(self, key: Key, at: datetime, started: datetime | None) -> None:
        before = self.recorded[key]
        assert before.handled_until is None or at > before.handled_until
        starts = [one for one in (started, before.last_start) if one is not None]
        last_start = max(starts, default=None)
        self.recorded[key] = replace(before, handled_until=at, last_start=last_start)

    def check_window(self, due: Due, started: datetime) -> None:
        schedule = next(
            one for one in self.entries[due.policy].schedules if one.name == due.schedule
        )
        assert schedule.kind is due.kind
        zone = SITE if schedule.zone is None else ZoneInfo(schedule.zone)
        minutes = minutes_of(zone, FIRST, DAYS)
        may_start = self.may_start.get((schedule, zone))
        if may_start is None:
            may_start = self.may_start[schedule, zone] = minutes.open_in(schedule.windows)
        assert may_start[(started - minutes.start) // MINUTE]
        assert due.closes_at is None or started < due.closes_at

    def teardown(self) -> None:
        """However it was treated, everything comes to its turn again."""
        for policy, source in self.occupied:
            self.timetable.release(policy, source)
        self.occupied.clear()
        self.now = self.latest
        until = self.now + 16 * DAY
        while self.now < until:
            self.record(self.timetable.due(self.now), complete=True)
            self.now += 10 * MINUTE
        for entry in self.entries.values():
            for schedule in entry.schedules:
                for source in entry.sources:
                    one = self.recorded[entry.policy, schedule.name, source]
                    assert one.handled_until is not None
                    assert one.handled_until > self.now - 9 * DAY
                    assert one.last_start is not None


Master.TestCase.settings = settings(deadline=None, max_examples=40, stateful_step_count=40)
TestMaster = pytest.mark.slow(Master.TestCase)
