"""Schedules and rules of retention as plain data.

Must not read text (see `texts`) nor know files. Invariant: a schedule whose parts can't be
together is told at the parts; each part is tried alone, so that every fault is found.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import combinations
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import Invalid
from holdfast.base.ids import PLAIN_NAME_HINT, is_plain_name
from holdfast.control.policies.findings import error
from holdfast.control.policies.policy import PRIORITIES
from holdfast.control.policies.reading import shown
from holdfast.control.policies.texts import read_span, read_window, write_span, write_window
from holdfast.control.retention import PERIODS, Rules
from holdfast.control.schedule import BackupKind, Calendar, Schedule

if TYPE_CHECKING:
    from holdfast.control.policies.reading import Table
    from holdfast.control.schedule import Window

MOST_IMAGES = range(1_000_001)
"""So many can a rule keep."""

MOST_WINDOWS = 100

_DAY = timedelta(days=1)
_RULE_EXAMPLE = '["FREQ=WEEKLY;BYDAY=SA"]'


def write_schedule(schedule: Schedule, *, whole: bool = False) -> dict[str, Any]:
    """Write a schedule; what is as it is by default only if the whole of it is asked for."""
    found: dict[str, Any] = {"name": schedule.name, "kind": schedule.kind.value}
    if schedule.every is not None:
        found["every"] = write_span(schedule.every)
    if schedule.calendar is not None:
        found["calendar"] = _write_calendar(schedule.calendar)
    if whole or schedule.windows:
        found["windows"] = [write_window(one) for one in schedule.windows]
    if schedule.zone is not None:
        found["zone"] = schedule.zone
    if whole or not schedule.run_missed:
        found["run_missed"] = schedule.run_missed
    if whole or schedule.stagger:
        found["stagger"] = write_span(schedule.stagger)
    if schedule.priority is not None:
        found["priority"] = schedule.priority
    if schedule.retention is not None:
        found["retention"] = write_rules(schedule.retention)
    return found


def read_schedule(table: Table) -> Schedule | None:
    """Read a schedule; None if it can't be one, which the table's findings tell."""
    before = len(table.findings)
    name = read_name(table, "schedule") or "schedule"
    kind = table.choice("kind", BackupKind)
    if "kind" not in table:
        table.lacks("kind", f"it may be {', '.join(BackupKind)}")
    parts: dict[str, Any] = {
        "name": name,
        "every": table.parsed("every", read_span),
        "calendar": _read_calendar(table),
        "windows": _read_windows(table, name),
        "zone": table.text("zone"),
        "run_missed": table.flag("run_missed", default=True),
        "stagger": table.parsed("stagger", read_span) or timedelta(),
        "priority": table.number("priority", PRIORITIES),
    }
    rules = table.table("retention")
    parts["retention"] = None if rules is None else read_rules(rules)
    table.end()
    if parts["zone"] is not None:
        _try(table, "zone", name=name, zone=parts["zone"])
    # What was refused alone would be refused again, and hide what comes of all together.
    if len(table.findings) > before or kind is None:
        if kind is not None and parts["every"] is not None:
            _try(table, "every", name=name, kind=kind, every=parts["every"])
        return None
    return _try(table, "", **parts, kind=kind)


def read_name(table: Table, what: str) -> str | None:
    """Read the name of a schedule or a selection; None if it has none that it could have."""
    name = table.text("name")
    if "name" not in table:
        table.lacks("name", f'give the {what} one, such as name = "nightly"')
    elif name is not None and not is_plain_name(name):
        table.fault("name", f"'{shown(name)}' can't be the name of a {what}", PLAIN_NAME_HINT)
        return None
    return name


def write_rules(rules: Rules) -> dict[str, Any]:
    """Write rules of retention; those that keep nothing are left out."""
    found: dict[str, Any] = {}
    if rules.last:
        found["last"] = rules.last
    if rules.within is not None:
        found["within"] = write_span(rules.within)
    found.update({period.value: count for period in PERIODS if (count := rules.count(period))})
    return found


def read_rules(table: Table) -> Rules:
    """Read rules of retention."""
    last = table.number("last", MOST_IMAGES, 0)
    within = table.parsed("within", read_span)
    counts = {period.value: table.number(period, MOST_IMAGES, 0) for period in PERIODS}
    table.end()
    return Rules(last=last, within=within, **counts)


def _write_calendar(calendar: Calendar) -> dict[str, Any]:
    found = {
        "rules": list(calendar.rules),
        "dates": [day.isoformat() for day in calendar.dates],
        "except_rules": list(calendar.except_rules),
        "except_dates": [day.isoformat() for day in calendar.except_dates],
    }
    return {key: value for key, value in found.items() if value}


def _read_calendar(schedule: Table) -> Calendar | None:
    table = schedule.table("calendar")
    if table is None:
        return None
    before = len(table.findings)
    rules = table.each("rules", _rule, _RULE_EXAMPLE)
    dates = table.dates("dates")
    except_rules = table.each("except_rules", _rule, _RULE_EXAMPLE)
    except_dates = table.dates("except_dates")
    table.end()
    try:
        return Calendar(_values(rules), dates, _values(except_rules), except_dates)
    except Invalid as refused:
        # That nothing is left may come of what could not be read.
        if len(table.findings) == before:
            table.findings.append(error(table.place, refused.message, refused.hint))
        return None


def _rule(text: str) -> str:
    Calendar((text,))
    return text


def _values(read: list[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(value for _, value in read)


def _read_windows(table: Table, name: str) -> tuple[Window, ...]:
    given = table.peek("windows")
    if isinstance(given, list) and len(given) > MOST_WINDOWS:
        table.fault("windows", f"it has {len(given):,} windows; {MOST_WINDOWS} is the most")
        table.texts("windows", "")
        return ()
    windows = table.each("windows", read_window, '["Mon-Fri 22:00-06:00"]')
    for (_, one), (place, other) in combinations(windows, 2):
        try:
            Schedule(name, BackupKind.FULL, every=_DAY, windows=(one, other))
        except Invalid as refused:
            table.findings.append(error(place, refused.message, refused.hint))
    return tuple(window for _, window in windows)


def _try(table: Table, key: str, **parts: Any) -> Schedule | None:
    """Make a schedule of some parts; what refuses them is told at the key."""
    given = {"kind": BackupKind.FULL, **parts}
    if given.get("every") is None and given.get("calendar") is None and key:
        given["every"] = _DAY
    try:
        return Schedule(**given)
    except Invalid as refused:
        place = table.at(key) if key else table.place
        table.findings.append(error(place, refused.message, refused.hint))
        return None
