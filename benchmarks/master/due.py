"""How long the master takes to find out what is due: 10,000 policies over 5,000 clients.

It asks once a minute through some days, as a master does; then after outages of two days, when
every source has something due or missed at once; then when all are due at one moment; and plays
the next week, with two hundred slots of storage.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from datetime import time as clock
from zoneinfo import ZoneInfo

from benchmarks.master.figures import Figure, p95
from holdfast.base import long_lived
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
DAYS = 3
GOAL_MS = 100.0
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


def each_minute(timetable: Timetable) -> list[float]:
    """Days of asking; ms each."""
    times, now = [], START
    for _ in range(DAYS * 24 * 60):
        times.append(_asked_ms(timetable, now))
        now += MINUTE
    return times


def after_outages(timetable: Timetable, hour: int) -> list[float]:
    """Two days after the last look, again and again; ms each."""
    times, now = [], START + DAYS * 24 * HOUR
    for number in range(ROUNDS):
        now = (now + timedelta(days=2)).replace(hour=hour, minute=number)
        times.append(_asked_ms(timetable, now))
    return times


def all_at_once(made: list[Entry]) -> list[float]:
    """Each source due at the same moment; ms each."""
    alike = (schedules(0)[1],)
    timetable = _at_work(Timetable(SITE, [replace(one, schedules=alike) for one in made]))
    return [_asked_ms(timetable, timetable.next_moment() or START) for _ in range(ROUNDS)]


def _at_work(timetable: Timetable) -> Timetable:
    """A timetable as a master has it: what stays for so long is passed over by collections."""
    long_lived.set_aside()
    return timetable


def _asked_ms(timetable: Timetable, now: datetime) -> float:
    begun_s = time.perf_counter()
    timetable.due(now)
    return (time.perf_counter() - begun_s) * 1000


def figures(policies: int, clients: int) -> list[Figure]:
    """Find out what is due."""
    made = entries(policies, clients)
    begun_s = time.perf_counter()
    timetable = Timetable(SITE, made)
    built_ms = (time.perf_counter() - begun_s) * 1000
    _at_work(timetable)
    part = f"what is due of {policies:,} policies over {clients:,} clients"
    found = [Figure(part, "everything from the beginning", built_ms, "ms")]
    asked = {
        "each minute": each_minute(timetable),
        "after an outage of two days, by day": after_outages(_at_work(timetable.copy()), 12),
        "after an outage of two days, by night": after_outages(_at_work(timetable.copy()), 3),
        "all due at one moment": all_at_once(made),
    }
    for name, times in asked.items():
        found.append(Figure(part, name, statistics.median(times), "ms", at_most=GOAL_MS))
        found.append(Figure(part, f"{name}: 95 %", p95(times), "ms"))
    begun_s = time.perf_counter()
    demand = Demand(20 * MINUTE, ("disk01",))
    now = START + DAYS * 24 * HOUR
    upcoming = list(
        forecast(timetable, now, now + timedelta(days=7), lambda _: demand, {"disk01": 200})
    )
    took_s = time.perf_counter() - begun_s
    return [*found, Figure(part, f"forecast of a week, {len(upcoming):,} backups", took_s, "s")]
