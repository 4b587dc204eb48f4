"""What would start when, and what it would wait for."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.ids import PolicyName, SourceName
from holdfast.control.schedule import (
    BackupKind,
    Calendar,
    Demand,
    Due,
    Entry,
    Expected,
    Schedule,
    Timetable,
    Window,
    forecast,
)

HOUR = timedelta(hours=1)
NIGHT = (Window(frozenset(range(7)), time(22), time(6)),)
DAILY = Calendar(("FREQ=DAILY",))
START = datetime(2026, 11, 16, 12, tzinfo=UTC)
DISK = "storage unit 'disk01'"


def timetable(
    *, clients: int = 1, run_missed: bool = True, every: timedelta | None = None
) -> Timetable:
    schedule = Schedule(
        "s",
        BackupKind.FULL,
        every=every,
        calendar=DAILY if every is None else None,
        windows=NIGHT if every is None else (),
        run_missed=run_missed,
    )
    sources = tuple(SourceName(f"{number}:/") for number in range(clients))
    return Timetable(UTC, [Entry(PolicyName("p"), (schedule,), sources, START)])


def play(table: Timetable, days: int, demand: Demand, slots: int = 1) -> list[Expected]:
    until = START + timedelta(days=days)
    return list(forecast(table, START, until, lambda _: demand, {DISK: slots}))


def shown(found: list[Expected]) -> list[str]:
    return [
        f"{one.due.source} {one.starts_at:%d %H:%M} to {one.ends_at:%H:%M}"
        if one.starts_at and one.ends_at
        else f"{one.due.source} {'missed' if one.missed else 'waits'}"
        for one in found
    ]


def test_backups_start_when_they_are_due_and_the_timetable_stays() -> None:
    table = timetable()
    assert shown(play(table, 2, Demand(HOUR))) == ["0:/ 16 22:00 to 23:00", "0:/ 17 22:00 to 23:00"]
    assert table.next_moment() == datetime(2026, 11, 16, 22, tzinfo=UTC)


def test_what_finds_no_slot_waits_and_says_what_for() -> None:
    found = play(timetable(clients=3), 1, Demand(2 * HOUR, (DISK,)), slots=1)
    assert sorted(line.split(" ", 1)[1] for line in shown(found)) == [
        "16 22:00 to 00:00",
        "17 00:00 to 02:00",
        "17 02:00 to 04:00",
    ]
    assert [one.waits_for for one in found] == [(), (DISK,), (DISK,)]


def test_what_can_not_start_until_its_window_closes_waits_for_the_next_or_is_missed() -> None:
    demand = Demand(10 * HOUR, (DISK,))
    found = shown(play(timetable(clients=2), 2, demand))
    assert [line.split(" ", 1)[1] for line in found] == [
        "16 22:00 to 08:00",
        "17 22:00 to 08:00",
        "waits",
    ]
    found = shown(play(timetable(clients=2, run_missed=False), 1, demand))
    assert [line.split(" ", 1)[1] for line in found] == ["16 22:00 to 08:00", "missed"]


def test_the_highest_priority_goes_first() -> None:
    def demand(due: Due) -> Demand:
        return Demand(HOUR, (DISK,), priority=int(due.source[0]))

    until = START + timedelta(days=1)
    found = forecast(timetable(clients=4), START, until, demand, {DISK: 1})
    assert [one.due.source[0] for one in found] == ["3", "2", "1", "0"]


def test_a_distance_is_kept_and_a_backup_never_overtakes_itself() -> None:
    found = shown(play(timetable(every=3 * HOUR), 1, Demand(HOUR)))
    assert found[:2] == ["0:/ 16 12:00 to 13:00", "0:/ 16 15:00 to 16:00"]
    found = shown(play(timetable(every=HOUR), 1, Demand(5 * HOUR)))
    assert found[:3] == [
        "0:/ 16 12:00 to 17:00",
        "0:/ 16 17:00 to 22:00",
        "0:/ 16 22:00 to 03:00",
    ]


def test_a_slot_goes_to_one_that_lacks_nothing_else() -> None:
    """The first in line for a slot may be short of another need: the next one gets it."""

    def demand(due: Due) -> Demand:
        number = int(due.source[0])
        needs = {9: ("tape",), 8: (DISK,), 7: (DISK, "tape"), 6: (DISK,)}
        hours = {9: 9, 8: 1, 7: 1, 6: 1}
        return Demand(hours.get(number, 0) * HOUR, needs.get(number, ()), priority=number)

    until = START + timedelta(days=1)
    found = list(forecast(timetable(clients=10), START, until, demand, {DISK: 1, "tape": 1}))
    starts = {one.due.source[0]: one.starts_at for one in found}
    begin = datetime(2026, 11, 16, 22, tzinfo=UTC)
    assert (starts["9"], starts["8"], starts["6"]) == (begin, begin, begin + HOUR)
    assert starts["7"] is None


@settings(deadline=None)
@given(
    st.integers(1, 12),
    st.lists(st.sampled_from(["x", "y", "z"]), max_size=4),
    st.integers(1, 3),
    st.sampled_from([30, 90, 400, 2000]),
    st.booleans(),
)
def test_no_slot_is_given_twice_and_each_occurrence_is_told_of(
    clients: int, needs: list[str], slots: int, minutes: int, run_missed: bool
) -> None:
    """Each client needs some of what there is; a need named twice takes two slots."""

    def demand(due: Due) -> Demand:
        number = int(due.source.split(":")[0])
        return Demand(timedelta(minutes=minutes + number), tuple(needs[number % 3 :]), number % 2)

    there = {"x": slots, "y": slots + 1}
    table = timetable(clients=clients, run_missed=run_missed)
    found = list(forecast(table, START, START + timedelta(days=5), demand, there))
    started = [one for one in found if one.starts_at is not None]
    for one in started:
        assert one.starts_at is not None
        assert one.starts_at.hour >= 22 or one.starts_at.hour < 6
        running = [
            other
            for other in started
            if other.starts_at is not None
            and other.ends_at is not None
            and other.starts_at <= one.starts_at < other.ends_at
        ]
        for need, number in there.items():
            assert sum(demand(other.due).needs.count(need) for other in running) <= number
        assert len({other.due.source for other in running}) == len(running)
    keys = [(one.due.source, one.due.due_at, one.missed) for one in found]
    assert len(set(keys)) == len(keys)
    last = START + timedelta(days=4, hours=10)
    for source in {one.due.source for one in found}:
        of_source = [one.due for one in found if one.due.source == source]
        if any(due.due_at == last for due in of_source):
            assert sum(1 + due.collapsed for due in of_source) == 5
