"""Policies for tests: a plain one, and any that can be written down."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, time, timedelta
from typing import Any

from hypothesis import strategies as st

from holdfast.base.errors import Invalid
from holdfast.base.ids import ClientName, PolicyName
from holdfast.control.policies import ALL_LOCAL_DRIVES, Limits, MachineSelection, Policy, Selection
from holdfast.control.retention import Rules
from holdfast.control.schedule import BackupKind, Calendar, Schedule, Window

NIGHTLY = Schedule(
    "nightly",
    BackupKind.DIFFERENTIAL,
    every=timedelta(days=1),
    windows=(Window(frozenset(range(7)), time(22), time(6)),),
)


def policy(name: str = "servers", **others: Any) -> Policy:
    """A policy with which nothing is wrong."""
    plain = Policy(
        name=PolicyName(name),
        clients=(ClientName("web1"),),
        selections=(Selection("system", ("/etc", "/srv")),),
        schedules=(NIGHTLY,),
        retention=Rules(daily=7, weekly=4),
    )
    return replace(plain, **others)


NAMES = st.from_regex("[a-z0-9][a-z0-9._-]{0,9}", fullmatch=True)
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12
) | st.sampled_from(["no", "22:00", "1e3", "0700", "~", "<<", "2026-12-31", '"', "# x", "a: b"])
CLIENTS = st.from_regex("[^\\s:,\0\ud800-\udfff]{1,9}", fullmatch=True).map(ClientName)
SPANS = st.integers(0, 10**9).map(lambda seconds: timedelta(seconds=seconds))
TIMES = st.times().map(lambda one: one.replace(microsecond=0))
WINDOWS = st.builds(Window, st.frozensets(st.integers(0, 6), min_size=1), TIMES, TIMES)
COUNTS = st.integers(0, 1000)
RULES = st.builds(
    Rules,
    last=COUNTS,
    within=st.none() | SPANS,
    hourly=COUNTS,
    daily=COUNTS,
    weekly=COUNTS,
    monthly=COUNTS,
    yearly=COUNTS,
)
DATES = st.lists(st.dates(date(2020, 1, 1), date(2099, 12, 31)), max_size=2).map(tuple)
RRULE = st.sampled_from(
    ["FREQ=WEEKLY;BYDAY=SA,SU", "FREQ=MONTHLY;BYDAY=-1FR", "FREQ=DAILY;BYHOUR=23", "freq=yearly"]
)
RRULES = st.lists(RRULE, max_size=2).map(tuple)
ZONES = st.none() | st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"])


@st.composite
def calendars(draw: st.DrawFn) -> Calendar:
    rules = draw(st.lists(RRULE, min_size=1, max_size=2).map(tuple))
    dates, except_rules, except_dates = draw(DATES), draw(RRULES), draw(DATES)
    try:
        return Calendar(rules, dates, except_rules, except_dates)
    except Invalid:
        return Calendar(rules, dates)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Any schedule that makes sense; windows that overlap are left out."""
    kind = draw(st.sampled_from(BackupKind))
    every: timedelta | None = draw(
        st.timedeltas(timedelta(minutes=1), timedelta(days=36_500)).map(
            lambda span: span - timedelta(microseconds=span.microseconds)
        )
    )
    calendar = None
    if kind is not BackupKind.CONTINUOUS and draw(st.booleans()):
        every, calendar = None, draw(calendars())
    plain = Schedule(
        name=draw(NAMES),
        kind=kind,
        every=every,
        calendar=calendar,
        zone=draw(ZONES),
        run_missed=draw(st.booleans()),
        retention=draw(st.none() | RULES),
        priority=draw(st.none() | st.integers(0, 100)),
    )
    try:
        plain = replace(plain, windows=tuple(draw(st.lists(WINDOWS, max_size=3))))
        return replace(plain, stagger=draw(SPANS))
    except Invalid:
        return plain


SELECTIONS = st.builds(
    Selection,
    name=NAMES,
    paths=st.just(ALL_LOCAL_DRIVES) | st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
    exclude=st.lists(TEXTS, max_size=3).map(tuple),
    one_file_system=st.booleans(),
)
COMMANDS = st.just(()) | st.lists(TEXTS, min_size=1, max_size=3).map(tuple)
MACHINES = st.builds(
    MachineSelection,
    query=TEXTS,
    hypervisors=st.lists(TEXTS, max_size=2).map(tuple),
    leave_out=st.lists(TEXTS, max_size=2).map(tuple),
    quiesce=TEXTS,
    trim=st.booleans(),
    trim_timeout_s=st.integers(1, 86_400),
    scratch=st.none() | TEXTS,
    scratch_bytes=st.integers(0, 1 << 60) | st.integers(0, 1 << 20).map(lambda mib: mib << 20),
)
POLICIES = st.builds(
    Policy,
    name=NAMES.map(PolicyName),
    type=TEXTS,
    active=st.booleans(),
    clients=st.lists(CLIENTS, max_size=3).map(tuple),
    client_query=st.none() | TEXTS,
    selections=st.lists(SELECTIONS, max_size=3).map(tuple),
    schedules=st.lists(schedules(), max_size=3).map(tuple),
    storage_unit=TEXTS,
    retention=RULES,
    limits=st.builds(
        Limits, jobs=st.none() | st.integers(1, 99), streams_per_client=st.integers(1, 99)
    ),
    priority=st.integers(0, 100),
    pre_command=COMMANDS,
    post_command=COMMANDS,
    command_timeout_s=st.integers(1, 31_536_000),
    compression=st.integers(1, 19),
    streams=st.integers(1, 64),
    encryption=TEXTS,
    client_key=st.none() | NAMES,
    names=TEXTS,
    machines=st.none() | MACHINES,
)
"""Any policy that can be written down, whether or not it would be taken."""
