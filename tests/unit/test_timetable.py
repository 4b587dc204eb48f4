"""What is due: examples that a person can check, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest

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
from holdfast.control.schedule.timetable import share_of

POLICY = PolicyName("p")
SOURCE = SourceName("a:/")
HOUR = timedelta(hours=1)
DAY = 24 * HOUR
NIGHT = (Window(frozenset(range(7)), time(22), time(6)),)
DAILY = Calendar(("FREQ=DAILY",))
SATURDAYS = Calendar(("FREQ=WEEKLY;BYDAY=SA",))
MONDAY = datetime(2026, 11, 16, 12, tzinfo=UTC)


def at(day: int, hour: int = 0, minute: int = 0) -> datetime:
    """A moment of November 2026, whose 16th is a Monday."""
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


def nightly(**more: object) -> Schedule:
    values: dict[str, object] = {
        "name": "nightly",
        "kind": BackupKind.DIFFERENTIAL,
        "calendar": DAILY,
        "windows": NIGHT,
    }
    return Schedule(**(values | more))  # type: ignore[arg-type]


def weekly(**more: object) -> Schedule:
    return nightly(**({"name": "weekly", "kind": BackupKind.FULL, "calendar": SATURDAYS} | more))


def often(**more: object) -> Schedule:
    values = {"name": "often", "calendar": None, "every": 4 * HOUR, "windows": ()}
    return nightly(**(values | more))


def entry(
    *schedules: Schedule, sources: tuple[str, ...] = ("a:/",), since: datetime = MONDAY
) -> Entry:
    return Entry(POLICY, schedules, tuple(map(SourceName, sources)), since)


def table(
    *schedules: Schedule, histories: tuple[History, ...] = (), since: datetime = MONDAY
) -> Timetable:
    return Timetable(UTC, [entry(*schedules, since=since)], histories)


def shown(found: list[Due]) -> list[str]:
    """As ``nightly 16 22:00``, with what it does besides."""
    lines = []
    for due in found:
        line = f"{'missed ' if due.missed else ''}{due.schedule} {due.due_at:%d %H:%M}"
        line += f" and {due.collapsed} more" if due.collapsed else ""
        line += "".join(f", for {one.schedule} {one.due_at:%d %H:%M}" for one in due.satisfies)
        lines.append(line)
    return lines


def test_nothing_is_due_before_its_time_and_nothing_twice() -> None:
    timetable = table(nightly())
    assert timetable.next_moment() == at(16, 22)
    assert timetable.due(at(16, 21, 59)) == []
    assert timetable.due(at(16, 22)) == [
        Due(POLICY, "nightly", SOURCE, BackupKind.DIFFERENTIAL, at(16, 22), at(17, 6))
    ]
    assert timetable.due(at(16, 22)) == []
    assert timetable.due(at(16, 20)) == []
    assert timetable.next_moment() == at(17, 22)


def test_the_greatest_kind_runs_and_does_for_the_others() -> None:
    kinds = [
        weekly(),
        nightly(name="synthetic", kind=BackupKind.SYNTHETIC, calendar=SATURDAYS),
        nightly(name="cumulative", kind=BackupKind.CUMULATIVE, calendar=SATURDAYS),
        nightly(),
    ]
    for number in range(4):
        timetable = table(*reversed(kinds[number:]))
        timetable.due(at(20, 23))
        others = "".join(f", for {one.name} 21 22:00" for one in kinds[number + 1 :])
        assert shown(timetable.due(at(21, 22))) == [f"{kinds[number].name} 21 22:00{others}"]
        assert timetable.due(at(22, 5)) == []
        assert shown(timetable.due(at(22, 22))) == ["nightly 22 22:00"]


def test_of_one_kind_the_rarer_schedule_runs() -> None:
    monthly = weekly(name="monthly", calendar=Calendar(("FREQ=MONTHLY;BYMONTHDAY=21",)))
    for schedules in ((monthly, weekly()), (weekly(), monthly)):
        timetable = table(*schedules)
        assert shown(timetable.due(at(21, 22))) == ["monthly 21 22:00, for weekly 21 22:00"]
    twice = table(weekly(name="low", priority=10), weekly(name="high"))
    assert shown(twice.due(at(21, 22))) == ["high 21 22:00, for low 21 22:00"]


def test_an_outage_makes_one_backup_of_several_in_the_next_open_moment() -> None:
    timetable = table(nightly())
    assert timetable.due(at(19, 12)) == []
    assert timetable.next_moment() == at(19, 22)
    assert shown(timetable.due(at(19, 22))) == ["nightly 19 22:00 and 3 more"]
    timetable = table(nightly())
    assert shown(timetable.due(at(19, 3))) == ["nightly 18 22:00 and 2 more"]
    timetable = table(weekly())
    assert timetable.due(at(22, 12)) == []
    (late,) = timetable.due(at(22, 22))
    assert (late.due_at, late.closes_at) == (at(21, 22), at(23, 6))


def test_an_outage_is_made_up_for_at_once_where_there_are_no_windows() -> None:
    timetable = table(nightly(windows=()))
    assert shown(timetable.due(at(19, 12))) == ["nightly 19 00:00 and 2 more"]
    timetable = table(nightly(windows=()))
    assert shown(timetable.due(at(19, 0))) == ["nightly 19 00:00 and 2 more"]


def test_what_is_not_to_run_later_is_reported_as_missed_once() -> None:
    timetable = table(nightly(run_missed=False))
    found = timetable.due(at(19, 12))
    assert shown(found) == ["missed nightly 18 22:00 and 2 more"]
    assert timetable.due(at(19, 12)) == []
    assert shown(timetable.due(at(19, 22))) == ["nightly 19 22:00"]
    timetable = table(nightly(run_missed=False))
    assert shown(timetable.due(at(19, 3))) == [
        "missed nightly 17 22:00 and 1 more",
        "nightly 18 22:00",
    ]


def test_without_a_window_a_short_absence_is_no_miss() -> None:
    timetable = table(nightly(run_missed=False, windows=()))
    assert shown(timetable.due(at(17, 0, 14))) == ["nightly 17 00:00"]
    assert shown(timetable.due(at(18, 0, 15))) == ["missed nightly 18 00:00"]


def test_a_distance_counts_from_the_last_start() -> None:
    timetable = table(often())
    assert shown(timetable.due(MONDAY)) == ["often 16 12:00"]
    assert timetable.next_moment() == at(16, 16)
    timetable.started(POLICY, "often", SOURCE, at(16, 13))
    assert timetable.due(at(16, 16)) == []
    assert timetable.next_moment() == at(16, 17)
    assert shown(timetable.due(at(16, 17))) == ["often 16 17:00"]


def test_a_distance_waits_for_a_window() -> None:
    timetable = table(often(windows=NIGHT))
    assert shown(timetable.due(at(16, 22))) == ["often 16 22:00"]
    assert shown(timetable.due(at(17, 2))) == ["often 17 02:00"]
    assert timetable.next_moment() == at(17, 22)


def test_a_distance_that_was_missed_is_counted() -> None:
    timetable = table(often(run_missed=False))
    assert shown(timetable.due(at(17, 13))) == ["missed often 17 12:00 and 6 more"]
    assert shown(timetable.due(at(17, 16))) == ["often 17 16:00"]
    timetable = table(often(run_missed=False, windows=NIGHT))
    assert shown(timetable.due(at(18, 12))) == ["missed often 18 02:00 and 3 more"]


def test_sources_are_spread_over_the_stagger_and_always_in_the_same_way() -> None:
    sources = tuple(f"client-{number}:/" for number in range(500))
    timetable = Timetable(UTC, [entry(nightly(stagger=2 * HOUR), sources=sources)])
    starts = {}
    now = at(16, 22)
    while now <= at(17, 0):
        for due in timetable.due(now):
            starts[due.source] = now
            assert due.due_at == at(16, 22)
        now += timedelta(minutes=1)
    assert len(starts) == len(sources)
    for part in range(4):
        begin = at(16, 22) + part * HOUR / 2
        count = sum(begin <= moment < begin + HOUR / 2 for moment in starts.values())
        assert 90 < count < 160
    assert share_of(SOURCE) == 0.5546875
    assert share_of(SourceName("b:/\udcff")) < 1


def test_no_source_is_spread_beyond_its_window() -> None:
    five = Calendar(("FREQ=DAILY;BYHOUR=5;BYMINUTE=30",))
    timetable = table(nightly(calendar=five, stagger=8 * HOUR))
    assert timetable.next_moment() == at(17, 5, 30) + timedelta(
        seconds=int(1800 * share_of(SOURCE))
    )


def test_a_lesser_kind_that_is_due_again_as_the_greater_one_starts_waits_for_it() -> None:
    minute = timedelta(minutes=1)
    full = weekly(stagger=256 * minute)
    timetable = table(full, often(every=71 * minute), since=at(21, 22))
    assert shown(timetable.due(at(21, 22))) == ["often 21 22:00"]
    assert timetable.due(at(21, 23, 11)) == []
    assert timetable.next_moment() == at(22, 0, 22)
    assert shown(timetable.due(at(22, 0, 22))) == ["weekly 21 22:00, for often 21 23:11"]


def test_of_several_greater_ones_the_first_to_start_is_waited_for() -> None:
    full = weekly(stagger=2 * HOUR)
    spread = often(every=HOUR / 3, windows=NIGHT, stagger=8 * HOUR)
    always = often(name="always", kind=BackupKind.CONTINUOUS, every=HOUR)
    timetable = table(full, spread, always, since=at(21, 21, 30))
    assert shown(timetable.due(at(21, 21, 30))) == ["always 21 21:30"]
    assert timetable.due(at(21, 23, 6)) == []
    assert shown(timetable.due(at(21, 23, 7))) == [
        "weekly 21 22:00, for often 21 22:00, for always 21 22:30"
    ]


def test_a_lesser_kind_waits_for_a_greater_one_that_starts_before_it_would_be_due_again() -> None:
    full = weekly(stagger=8 * HOUR)
    ready = at(21, 22) + timedelta(seconds=int(8 * 3600 * share_of(SOURCE)))
    assert at(22, 2, 26) < ready < at(22, 2, 27)
    timetable = table(full, nightly(), often(kind=BackupKind.CONTINUOUS, every=HOUR))
    timetable.due(at(21, 21))
    found = []
    now = at(21, 21)
    while now <= ready:
        now += timedelta(seconds=1)
        found += shown(timetable.due(now))
    assert found == [
        "often 21 22:00",
        "often 21 23:00",
        "often 22 00:00",
        "often 22 01:00",
        "weekly 21 22:00, for nightly 21 22:00, for often 22 02:00",
    ]


def test_a_lesser_kind_that_was_over_before_the_greater_one_came_is_missed() -> None:
    noon = (Window(frozenset(range(7)), time(12), time(13)),)
    lunch = nightly(name="lunch", windows=noon, run_missed=False)
    timetable = table(weekly(), lunch)
    timetable.due(at(20, 23))
    assert shown(timetable.due(at(21, 23))) == ["missed lunch 21 12:00", "weekly 21 22:00"]


def test_a_greater_kind_that_waits_for_its_window_is_not_satisfied_by_a_lesser_one() -> None:
    weekend = (Window(frozenset({5}), time(1), time(2)),)
    timetable = table(weekly(windows=weekend), nightly())
    timetable.due(at(20, 23))
    assert shown(timetable.due(at(21, 22))) == ["nightly 21 22:00"]
    assert timetable.next_moment() == at(22, 22)
    for day in range(22, 28):
        assert shown(timetable.due(at(day, 22))) == [f"nightly {day} 22:00"]
    assert shown(timetable.due(at(28, 1))) == ["weekly 28 01:00 and 1 more"]


def test_what_a_history_says_was_handled_is_not_due() -> None:
    history = History(POLICY, "nightly", SOURCE, handled_until=at(18, 22))
    timetable = table(nightly(), histories=(history,))
    assert timetable.next_moment() == at(19, 22)
    started = History(POLICY, "often", SOURCE, at(18, 12), at(18, 15))
    assert table(often(), histories=(started,)).next_moment() == at(18, 19)
    newer = History(POLICY, "nightly", SOURCE, since=at(20))
    assert table(nightly(), histories=(newer,)).next_moment() == at(20, 22)


def test_what_was_due_while_a_policy_was_not_active_does_not_count() -> None:
    resumed = [
        History(POLICY, "nightly", SOURCE, at(1, 22), at(1, 22), since=at(20, 23)),
        History(POLICY, "often", SOURCE, at(1, 22), at(1, 22), since=at(20, 23)),
    ]
    schedules = nightly(run_missed=False), often(run_missed=False)
    timetable = table(*schedules, histories=tuple(resumed))
    assert shown(timetable.due(at(20, 23))) == ["often 20 23:00"]
    assert shown(timetable.due(at(21, 22))) == [
        "missed often 21 19:00 and 4 more",
        "nightly 21 22:00",
    ]
    timetable.put(entry(*schedules, since=at(30)), [])
    assert timetable.next_moment() == at(21, 23)


def test_what_it_was_told_and_handed_out_comes_out_as_history() -> None:
    timetable = table(nightly(), often())
    timetable.due(at(16, 23))
    assert list(timetable.histories()) == [
        History(POLICY, "nightly", SOURCE, at(16, 22), at(16, 23), MONDAY),
        History(POLICY, "often", SOURCE, at(16, 12), at(16, 23), MONDAY),
    ]
    again = Timetable(UTC, [entry(nightly(), often())], timetable.histories())
    assert again.next_moment() == timetable.next_moment() == at(17, 3)


def test_a_policy_that_changes_keeps_what_was_handled() -> None:
    timetable = table(nightly())
    timetable.due(at(16, 22))
    timetable.put(entry(nightly(), weekly(), sources=("a:/", "b:/")))
    assert [due.source for due in timetable.due(at(16, 23))] == ["b:/"]
    timetable.drop(POLICY)
    assert timetable.due(at(30)) == []
    timetable.put(entry(nightly()))
    assert shown(timetable.due(at(16, 23))) == ["nightly 16 22:00"]


def test_a_source_that_is_occupied_has_nothing_due_until_it_is_released() -> None:
    timetable = table(nightly())
    timetable.due(at(16, 22))
    timetable.occupy(POLICY, SOURCE)
    assert timetable.due(at(17, 23)) == []
    timetable.put(entry(nightly()))
    assert timetable.due(at(18, 3)) == []
    timetable.release(POLICY, SOURCE)
    timetable.release(POLICY, SOURCE)
    assert shown(timetable.due(at(18, 3))) == ["nightly 17 22:00"]
    nowhere = SourceName("z:/")
    timetable.occupy(POLICY, nowhere)
    timetable.release(PolicyName("q"), nowhere)
    timetable.started(PolicyName("q"), "x", nowhere, at(18))


def test_no_more_than_asked_come_at_once_and_the_others_later() -> None:
    sources = tuple(f"{number}:/" for number in range(10))
    timetable = Timetable(UTC, [entry(nightly(), sources=sources)])
    found = [len(timetable.due(at(16, 22), most=4)) for _ in range(4)]
    assert found == [4, 4, 2, 0]


def test_a_clock_that_is_put_back_makes_nothing_due_twice() -> None:
    timetable = table(nightly(), often())
    timetable.due(at(16, 22))
    found = []
    for hour in range(10, 23):
        found += timetable.due(at(16, hour))
    assert found == []


def test_a_copy_goes_its_own_way() -> None:
    timetable = table(nightly())
    twin = timetable.copy()
    assert shown(twin.due(at(16, 22))) == shown(timetable.due(at(16, 22)))
    twin.due(at(17, 22))
    assert timetable.next_moment() == at(17, 22)


def test_where_a_backup_goes_whose_window_closed() -> None:
    timetable = table(nightly(), weekly(run_missed=False))
    (due,) = timetable.due(at(16, 22))
    chance = timetable.next_chance(due, at(17, 6))
    assert chance == (at(17, 22), at(18, 6))
    (full,) = timetable.due(at(21, 22))
    assert timetable.next_chance(full, at(22, 6)) is None
    timetable.drop(POLICY)
    assert timetable.next_chance(due, at(17, 6)) is None


@pytest.mark.parametrize("schedule", [nightly(calendar=Calendar(dates=(at(1).date(),)))])
def test_a_calendar_that_is_over_is_never_due(schedule: Schedule) -> None:
    timetable = table(schedule)
    assert timetable.next_moment() is None
    assert timetable.due(at(30)) == []
