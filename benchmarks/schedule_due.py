"""How long the master takes to find out what is due: 10,000 policies over 5,000 clients.

    python benchmarks/schedule_due.py [--policies N] [--clients N] [--days N]

It asks once a minute through some days, as a master does; then after outages of two days, when
every source has something due or missed at once, and when all are due at one moment; and plays the
next week, with two hundred slots of storage.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from datetime import time as clock
from zoneinfo import ZoneInfo

from holdfast.base.ids import PolicyName, SourceName
from holdfast.control.schedule import (
    BackupKind,
    Calendar,
    Demand,
    Entry,
    Schedule,
    Timetable,
    Window,
    forecast,
)

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAILY = frozenset(range(7))
ROUNDS = 21
SITE = ZoneInfo("Europe/Berlin")
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Tokyo", None)


def schedules(number: int) -> tuple[Schedule, ...]:
    """Those of one policy: by night in several zones, spread or not, some of them often."""
    hour = 18 + number % 6
    night = (Window(DAILY, clock(hour), clock((hour + 9) % 24)),)
    zone = ZONES[number % len(ZONES)]
    stagger = (number % 4) * HOUR
    weekly = Calendar(("FREQ=WEEKLY;BYDAY=" + ("SA", "SU")[number % 2],))
    found = [
        Schedule("full", BackupKind.FULL, None, weekly, night, zone, stagger=stagger),
        Schedule(
            "nightly",
            BackupKind.DIFFERENTIAL,
            None,
            Calendar(("FREQ=DAILY",)),
            night,
            zone,
            stagger=stagger,
        ),
    ]
    if number % 10 == 0:
        found.append(Schedule("often", BackupKind.CONTINUOUS, (1 + number % 4) * HOUR, zone=zone))
    return tuple(found)


def entries(policies: int, clients: int) -> list[Entry]:
    return [
        Entry(
            PolicyName(f"policy-{number}"),
            schedules(number),
            (SourceName(f"client-{number % clients}:/data/{number // clients}"),),
            START - HOUR,
        )
        for number in range(policies)
    ]


class Watch:
    """Takes the time of calls, by the clock and by the processor."""

    def __init__(self) -> None:
        self._wall: list[float] = []
        self._processor: list[float] = []

    def due(self, timetable: Timetable, now: datetime) -> int:
        wall, processor = time.perf_counter(), time.process_time()
        count = len(timetable.due(now))
        self._processor.append(time.process_time() - processor)
        self._wall.append(time.perf_counter() - wall)
        return count

    def __str__(self) -> str:
        return f"{shown_ms(self._wall)} (processor: {shown_ms(self._processor)})"


def shown_ms(seconds: list[float]) -> str:
    ranked = sorted(seconds)
    p95 = ranked[int(len(ranked) * 0.95)]
    return f"median {statistics.median(ranked) * 1e3:.2f} ms, p95 {p95 * 1e3:.2f} ms"


def each_minute(timetable: Timetable, now: datetime, days: int) -> datetime:
    watch, handed = Watch(), 0
    for _ in range(days * 24 * 60):
        handed += watch.due(timetable, now)
        now += MINUTE
    print(f"due, each minute of {days} days, {handed:,} backups: {watch}")
    return now


def after_outages(timetable: Timetable, now: datetime) -> datetime:
    for hour, what in ((12, "most windows closed"), (3, "most windows open")):
        watch, most = Watch(), 0
        for _ in range(ROUNDS):
            now = (now + timedelta(days=2)).replace(hour=hour)
            most = max(most, watch.due(timetable, now))
        print(f"due, after two days of outage, {what}, up to {most:,} backups: {watch}")
    return now


def all_at_once(made: list[Entry]) -> None:
    alike = (schedules(0)[1],)
    timetable = Timetable(SITE, [replace(one, schedules=alike) for one in made])
    watch, handed = Watch(), 0
    for _ in range(ROUNDS):
        handed = watch.due(timetable, timetable.next_moment() or START)
    print(f"due, {handed:,} backups at one moment: {watch}")


def next_week(timetable: Timetable, now: datetime) -> None:
    begin = time.perf_counter()
    demand = Demand(20 * MINUTE, ("disk01",))
    until = now + timedelta(days=7)
    found = list(forecast(timetable, now, until, lambda _: demand, {"disk01": 200}))
    waited = sum(bool(one.waits_for) for one in found)
    took = time.perf_counter() - begin
    print(f"forecast of 7 days: {took:.1f} s; {len(found):,} backups, {waited:,} would wait")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=5_000)
    parser.add_argument("--days", type=int, default=3)
    given = parser.parse_args()
    made = entries(given.policies, given.clients)
    different = len({one.schedules for one in made})
    begin = time.perf_counter()
    timetable = Timetable(SITE, made)
    took = time.perf_counter() - begin
    print(f"built of {len(made):,} policies, {different} combinations of schedules: {took:.2f} s")
    now = each_minute(timetable, START, given.days)
    now = after_outages(timetable, now)
    all_at_once(made)
    next_week(timetable, now)


if __name__ == "__main__":
    main()
