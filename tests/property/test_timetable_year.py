"""A site's leap year in a few seconds: clocks that change and jump, outages, restarts."""

from __future__ import annotations

import time as stopwatch
from collections import defaultdict
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

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
    occurrences,
)

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
START = datetime(2028, 1, 1, 11, tzinfo=UTC)
END = datetime(2029, 1, 1, 11, tzinfo=UTC)
SITE = ZoneInfo("Europe/Berlin")
NIGHT = (Window(frozenset(range(7)), time(22), time(6)),)
DAILY = Calendar(("FREQ=DAILY",))
LEAP_DAYS = Calendar(("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29",))
HALF_PAST_TWO = Calendar(("FREQ=DAILY;BYHOUR=2;BYMINUTE=30",))

SCHEDULES = {
    "berlin": (
        Schedule("yearly", BackupKind.FULL, None, LEAP_DAYS),
        Schedule("monthly", BackupKind.FULL, None, Calendar(("FREQ=MONTHLY;BYDAY=-1FR",)), NIGHT),
        Schedule("weekly", BackupKind.SYNTHETIC, None, Calendar(("FREQ=WEEKLY;BYDAY=SA",)), NIGHT),
        Schedule("nightly", BackupKind.DIFFERENTIAL, None, DAILY, NIGHT, stagger=2 * HOUR),
    ),
    "strict": (
        Schedule("half-past-two", BackupKind.FULL, None, HALF_PAST_TWO, run_missed=False),
    ),
    "new-york": (Schedule("nightly", BackupKind.FULL, None, DAILY, NIGHT, "America/New_York"),),
    "lord-howe": (Schedule("nightly", BackupKind.FULL, None, DAILY, NIGHT, "Australia/Lord_Howe"),),
    "kathmandu": (Schedule("nightly", BackupKind.FULL, None, DAILY, NIGHT, "Asia/Kathmandu"),),
    "often": (Schedule("often", BackupKind.CONTINUOUS, 4 * HOUR),),
}  # fmt: skip
SOURCES = tuple(SourceName(f"{name}:/") for name in ("a", "b", "c"))
OUTAGES = (
    (datetime(2028, 2, 28, 12, tzinfo=UTC), datetime(2028, 3, 1, 12, tzinfo=UTC)),
    (datetime(2028, 3, 25, 22, tzinfo=UTC), datetime(2028, 3, 26, 0, 30, tzinfo=UTC)),
    (datetime(2028, 7, 1, tzinfo=UTC), datetime(2028, 7, 15, 3, tzinfo=UTC)),
    (datetime(2028, 10, 29, 0, 40, tzinfo=UTC), datetime(2028, 10, 29, 1, 10, tzinfo=UTC)),
)
BACK = {
    datetime(2028, 5, 1, 0, tzinfo=UTC): 2 * HOUR,
    datetime(2028, 8, 2, 3, tzinfo=UTC): 3 * DAY,
    datetime(2028, 10, 29, 2, tzinfo=UTC): HOUR,
}
"""When the clock is put back, and how far; it is not put forward again until it catches up."""

Key = tuple[str, str, str]


class Site:
    """A master that asks when it is told to, and writes down what it is handed."""

    def __init__(self) -> None:
        self.entries = [
            Entry(PolicyName(name), schedules, SOURCES, START)
            for name, schedules in SCHEDULES.items()
        ]
        self.timetable = Timetable(SITE, self.entries)
        self.log: list[tuple[datetime, Due]] = []
        self.settled: dict[Key, list[datetime]] = defaultdict(list)

    def restart(self) -> None:
        self.timetable = Timetable(SITE, self.entries, list(self.timetable.histories()))

    def poll(self, now: datetime) -> None:
        for due in self.timetable.due(now):
            self.log.append((now, due))
            self.settled[due.policy, due.schedule, due.source].append(due.due_at)
            for one in due.satisfies:
                self.settled[due.policy, one.schedule, due.source].append(one.due_at)

    def runs(self, policy: str, schedule: str, source: str = "a:/") -> list[tuple[datetime, Due]]:
        return [
            (at, due)
            for at, due in self.log
            if (due.policy, due.schedule, due.source, due.missed)
            == (policy, schedule, source, False)
        ]


def live_through_the_year() -> Site:
    site = Site()
    now = START
    outages, back = list(OUTAGES), sorted(BACK.items())
    while now < END:
        moment = site.timetable.next_moment()
        following = min(now + HOUR, max(moment or END, now + timedelta(seconds=1)))
        if outages and following >= outages[0][0]:
            following = outages.pop(0)[1]
            site.restart()
        elif back and following >= back[0][0]:
            following = back[0][0] - back.pop(0)[1]
        now = following
        if now < END:
            site.poll(now)
    return site


def was_down(moment: datetime) -> bool:
    return any(begin <= moment < end for begin, end in OUTAGES)


def test_a_leap_year_with_outages_and_jumps() -> None:
    begin = stopwatch.perf_counter()
    site = live_through_the_year()
    assert stopwatch.perf_counter() - begin < 60

    for policy, schedules in SCHEDULES.items():
        for schedule in schedules:
            for source in SOURCES:
                settled = site.settled[policy, schedule.name, source]
                assert settled == sorted(set(settled)), "an occurrence was handed out twice"
                if schedule.calendar is None:
                    continue
                early = [one.opens for one in occurrences(schedule, SITE, START, END - DAY)]
                assert set(settled) >= {one for one in early if not was_down(one)}
                assert set(settled) <= {
                    one.opens for one in occurrences(schedule, SITE, START, END)
                }

    # 366 nights: of two weeks of outage the last night is made up for, and of the leap day's.
    nights = site.settled["berlin", "nightly", "a:/"]
    assert len(nights) == 366 - 13 - 1
    for at, due in site.runs("berlin", "nightly"):
        local = at.astimezone(SITE).time()
        assert local >= time(22) or local < time(6)
        assert due.closes_at is not None
        assert at < due.closes_at

    # It ran once on return from the outage of the leap day, which it fell into.
    ((at, leap),) = site.runs("berlin", "yearly")
    assert leap.due_at.astimezone(SITE).date() == date(2028, 2, 29)
    assert at == OUTAGES[0][1]
    assert len(site.runs("berlin", "monthly")) == 12
    weeks = site.runs("berlin", "weekly")
    assert len(weeks) == 53 - 1
    assert all(one.schedule == "nightly" for _, due in weeks for one in due.satisfies)

    # Nights in which clocks change have their true length.
    lengths = {
        due.due_at.astimezone(SITE).date(): (due.closes_at - due.due_at) / HOUR
        for at, due in weeks
        if due.closes_at is not None and at - due.due_at < DAY
    }
    assert {day: hours for day, hours in lengths.items() if hours != 8} == {
        date(2028, 3, 25): 7,
        date(2028, 10, 28): 9,
    }


def test_each_zone_has_its_own_changes() -> None:
    site = live_through_the_year()
    for policy, zone, odd in (
        ("new-york", "America/New_York", {7.0: date(2028, 3, 11), 9.0: date(2028, 11, 4)}),
        ("lord-howe", "Australia/Lord_Howe", {7.5: date(2028, 9, 30), 8.5: date(2028, 4, 1)}),
        ("kathmandu", "Asia/Kathmandu", {}),
    ):
        found = {}
        for _, due in site.runs(policy, "nightly"):
            assert due.closes_at is not None
            hours = (due.closes_at - due.due_at) / HOUR
            if hours != 8:
                found[hours] = due.due_at.astimezone(ZoneInfo(zone)).date()
        assert found == odd


def test_what_is_not_to_run_later_is_missed_in_outages_and_runs_once_where_clocks_change() -> None:
    site = live_through_the_year()
    missed = [due for _, due in site.log if due.missed and due.source == "a:/"]
    assert [(due.policy, due.due_at.date(), due.collapsed) for due in missed] == [
        ("strict", date(2028, 3, 1), 1),
        ("strict", date(2028, 7, 15), 14),
    ]
    runs = {due.due_at: at for at, due in site.runs("strict", "half-past-two")}
    # 02:30 does not come: 03:00 does. It comes twice: the first of the two counts.
    assert runs[datetime(2028, 3, 26, 1, tzinfo=UTC)] == datetime(2028, 3, 26, 1, tzinfo=UTC)
    october = [due for due in runs if due.date() == date(2028, 10, 29)]
    assert october == [datetime(2028, 10, 29, 0, 30, tzinfo=UTC)]


def test_a_distance_is_kept_over_the_whole_year() -> None:
    site = live_through_the_year()
    starts = [at for at, _ in site.runs("often", "often")]
    gaps = {later - earlier for earlier, later in pairwise(starts)}
    assert min(gaps) == 4 * HOUR
    outages = [end - begin for begin, end in OUTAGES]
    assert max(gaps) <= max(outages) + 4 * HOUR
    assert sum(gap > 4 * HOUR for gap in gaps) <= len(OUTAGES)
    assert History(PolicyName("often"), "often", SOURCES[0], starts[-1], starts[-1], START) in list(
        site.timetable.histories()
    )
