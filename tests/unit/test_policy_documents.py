"""Files of policies: what they look like, and what is said of those that can't be read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, time, timedelta

import pytest

from holdfast.base.errors import Invalid, UsageError
from holdfast.control.policies import (
    ALL_LOCAL_DRIVES,
    Document,
    Format,
    Limits,
    Policy,
    from_data,
    from_plain,
    parse,
    render,
    to_plain,
)
from holdfast.control.policies.texts import (
    read_span,
    read_window,
    write_days,
    write_span,
    write_window,
)
from holdfast.control.retention import Rules
from holdfast.control.schedule import BackupKind, Calendar, Schedule, Window
from tests.kit.policies import policy

TOML = """\
[[policy]]
name = "servers"
type = "files"
clients = ["web1"]
retention = {daily = 7, weekly = 4}

[[policy.selections]]
name = "system"
paths = ["/etc", "/srv"]

[[policy.schedules]]
name = "nightly"
kind = "differential"
every = "1d"
windows = ["22:00-06:00"]
"""

YAML = """\
policy:
- name: servers
  type: files
  clients: [web1]
  retention: {daily: 7, weekly: 4}
  selections:
  - name: system
    paths: [/etc, /srv]
  schedules:
  - name: nightly
    kind: differential
    every: 1d
    windows: ['22:00-06:00']
"""

EVERYTHING = """
[[policy]]
name = "all"
active = false
client_query = "web*"
storage_unit = "vault"
priority = 70
compression = 9
pre_command = ["/bin/dump", "--all"]
post_command = ["/bin/clean"]
command_timeout = "2h"
retention = { last = 3, within = "30d" }
limits = { jobs = 4, streams_per_client = 2 }

[[policy.selections]]
name = "drives"
paths = "ALL_LOCAL_DRIVES"
exclude = ["*.tmp"]
one_file_system = true

[[policy.schedules]]
name = "full"
kind = "full"
windows = ["Sat,Sun 00:00-24:00"]
zone = "Europe/Berlin"
run_missed = false
stagger = "1h30m"
priority = 80
retention = { monthly = 12 }
[policy.schedules.calendar]
rules = ["FREQ=MONTHLY;BYDAY=1SA"]
dates = [2026-12-31]
except_rules = ["FREQ=YEARLY"]
except_dates = ["2027-01-01"]
"""


def told(document: Document) -> dict[str, str]:
    """Where something is wrong, and what."""
    return {one.where: one.message for one in document.findings}


@pytest.mark.parametrize(("form", "text"), [(Format.TOML, TOML), (Format.YAML, YAML)])
def test_a_document_is_fit_to_be_read(form: Format, text: str) -> None:
    assert render([policy()], form) == text
    assert parse(text, form) == Document((policy(),), ())


def test_every_key_is_taken() -> None:
    document = parse(EVERYTHING, Format.TOML)
    assert document.findings == ()
    (found,) = document.policies
    assert (found.active, found.client_query, found.storage_unit) == (False, "web*", "vault")
    assert (found.priority, found.compression, found.command_timeout_s) == (70, 9, 7200)
    assert found.pre_command == ("/bin/dump", "--all")
    assert found.post_command == ("/bin/clean",)
    assert found.retention == Rules(last=3, within=timedelta(days=30))
    assert found.limits == Limits(4, 2)
    (selection,) = found.selections
    assert selection.paths is ALL_LOCAL_DRIVES
    assert selection.exclude == ("*.tmp",)
    assert selection.one_file_system
    assert found.schedules == (
        Schedule(
            "full",
            BackupKind.FULL,
            calendar=Calendar(
                ("FREQ=MONTHLY;BYDAY=1SA",),
                (date(2026, 12, 31),),
                ("FREQ=YEARLY",),
                (date(2027, 1, 1),),
            ),
            windows=(Window(frozenset({5, 6}), time(), time()),),
            zone="Europe/Berlin",
            run_missed=False,
            stagger=timedelta(minutes=90),
            retention=Rules(monthly=12),
            priority=80,
        ),
    )


def test_all_that_is_wrong_is_told_at_once_and_where() -> None:
    text = """
[[policy]]
name = "servers"
clients = ["web1", 5, "a b"]
activ = true
compression = 77
pre_command = "dump --all"
[[policy.selections]]
name = "x"
paths = "/etc"
[[policy.schedules]]
name = "n"
kind = "ful"
every = "1x"
windows = ["Mon-Fri 22:00-06:00", "Tue 23:00-24:00", "Xon 1:00-2:00", "Fri 25:00-26:00"]
zone = "Europe/Berln"
[[policy.schedules]]
name = "both"
kind = "full"
every = "1s"
calendar = {}
[[policy]]
[[policy]]
name = "other"
retention = {daily = -1}
[[policy.selections]]
"""
    document = parse(text, Format.TOML)
    assert not document.is_whole
    assert set(told(document)) == {
        "policy 'servers', clients[1]",
        "policy 'servers', clients[2]",
        "policy 'servers', activ",
        "policy 'servers', compression",
        "policy 'servers', pre_command",
        "policy 'servers', selections[0].paths",
        "policy 'servers', schedules[0].kind",
        "policy 'servers', schedules[0].every",
        "policy 'servers', schedules[0].windows[1]",
        "policy 'servers', schedules[0].windows[2]",
        "policy 'servers', schedules[0].windows[3]",
        "policy 'servers', schedules[0].zone",
        "policy 'servers', schedules[1].every",
        "policy 'servers', schedules[1].calendar",
        "policy #2, name",
        "policy 'other', retention.daily",
        "policy 'other', selections[0].name",
        "policy 'other', selections[0].paths",
    }
    hints = {one.where: one.hint for one in document.findings}
    assert hints["policy 'servers', activ"] == "did you mean 'active'?"
    assert hints["policy 'servers', schedules[0].kind"] == "did you mean 'full'?"
    assert '["' in (hints["policy 'servers', pre_command"] or "")


@pytest.mark.parametrize(
    ("text", "place", "word"),
    [
        ("policy:\n  ]", "line 2, column 3", "not YAML"),
        ("policy:\n- name: a\n  name: b\n", "line 3, column 3", "twice"),
        ("policy:\n- &x {name: a}\n- *x\n", "line 3, column 3", "alias"),
        ("policy:\n- <<: {name: a}\n", "line 2, column 3", "merge"),
        ("policy: []\n---\npolicy: []\n", "line 2, column 1", "second document"),
        ("policy: !!python/name:os.system []\n", "line 1, column 9", "tag"),
        ("policy:\n- {1: 2}\n", "line 2, column 4", "not text"),
        ("[" * 99, "line 1, column 33", "deep"),
        ("a: \x07", "", "not YAML"),
    ],
)
def test_what_yaml_has_too_much_of_is_refused_at_its_line(text: str, place: str, word: str) -> None:
    document = parse(text, Format.YAML)
    assert not document.is_whole
    first = document.findings[0]
    assert first.place == place
    assert word in first.message


def test_words_and_times_of_yaml_are_texts() -> None:
    document = parse(
        "policy:\n- {name: no, clients: [on, 0700, 1e3], active: no, client_query: 22:00}",
        Format.YAML,
    )
    assert told(document) == {"policy 'no', active": "it is text, not true or false"}
    assert document.policies[0].clients == ("on", "0700", "1e3")
    assert document.policies[0].client_query == "22:00"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[[policy]]\nname = =", "line 2, column 8"),
        # How deep a list may be is the interpreter's to say, and libraries may have it say more.
        ("a = " + "[" * 9999, "|end of document"),
        ("a = " + "9" * 5000, ""),
    ],
)
def test_what_is_no_toml_is_told_with_its_place(text: str, place: str) -> None:
    document = parse(text, Format.TOML)
    assert document.policies == ()
    (only,) = document.findings
    assert only.place in place.split("|")


@pytest.mark.parametrize("value", [[], 5, {"policies": []}, {"policy": {}}, {"policy": [5]}])
def test_what_is_no_list_of_policies_is_told(value: object) -> None:
    document = from_data(value)
    assert document.policies == ()
    assert not document.is_whole


def test_an_empty_document_has_no_policies() -> None:
    for form in Format:
        assert parse("", form) == Document((), ())


def test_a_document_of_any_size_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.control.policies.document.LONGEST", 10)
    assert not parse("# comments only", Format.TOML).is_whole


@pytest.mark.parametrize(
    "wrong",
    [
        {"clients": ["a"] * 10_001},
        {"client_query": "x" * 5000},
        {"client_query": "a\0b"},
        {"client_query": "a\ud800"},
        {
            "schedules": [
                {"name": "n", "kind": "full", "every": "1d", "windows": ["1:00-2:00"] * 101}
            ]
        },
        {"selections": [{"name": "n", "paths": ["/etc", "ALL_LOCAL_DRIVES"]}]},
        {"command_timeout": "0s"},
        {"command_timeout": "366d"},
        {"command_timeout": "1.5s"},
        {"command_timeout": "9" * 400 + "d"},
        {"pre_command": [""]},
        {"schedules": [{"name": "n", "kind": "continuous", "calendar": {"dates": ["2026-12-31"]}}]},
        {"schedules": [{"name": "n", "kind": "full", "calendar": {"rules": ["FREQ=NEVER"]}}]},
        {
            "schedules": [
                {
                    "name": "n",
                    "kind": "full",
                    "calendar": {"rules": ["FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"]},
                }
            ]
        },
        {
            "schedules": [
                {
                    "name": "n",
                    "kind": "full",
                    "calendar": {"rules": ["FREQ=WEEKLY;BYDAY=SU"]},
                    "windows": ["Mon-Fri 22:00-23:00"],
                }
            ]
        },
        {"schedules": [{"name": "n", "kind": "full", "calendar": {"dates": ["2026-W01-1"]}}]},
        {"schedules": [{"name": "n", "kind": "full", "calendar": {"dates": ["20260101"]}}]},
        {
            "schedules": [
                {
                    "name": "n",
                    "kind": "full",
                    "every": "1h",
                    "stagger": "3h",
                    "windows": ["1:00-2:00"],
                }
            ]
        },
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_is_out_of_bounds_is_told_once(wrong: dict[str, object]) -> None:
    read, findings = from_plain({"name": "p", **wrong})
    assert isinstance(read, Policy)
    assert len(findings) == 1
    assert len(findings[0].text) < 300


@pytest.mark.parametrize(
    ("text", "days", "opens", "closes"),
    [
        ("Mon-Fri 22:00-06:00", range(5), time(22), time(6)),
        ("Sat,Sun 0:00-24:00", (5, 6), time(), time()),
        ("sunday 1:30 - 2:30:15", (6,), time(1, 30), time(2, 30, 15)),
        ("Fri-Mon 08:00-08:00", (4, 5, 6, 0), time(8), time(8)),
        ("Mon , Wed-Thu 20:00-24:00", (0, 2, 3), time(20), time()),
        ("22:00-06:00", range(7), time(22), time(6)),
    ],
)
def test_a_window_is_read(text: str, days: Iterable[int], opens: time, closes: time) -> None:
    assert read_window(text) == Window(frozenset(days), opens, closes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "22:00",
        "Mon",
        "Mon-Fri",
        "Mon 24:00-06:00",
        "Mon 1:60-2:00",
        "Mo 1:00-2:00",
        "-Mon 1:00-2:00",
    ],
)
def test_what_is_no_window_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_window(text)
    assert "Mon-Fri 22:00-06:00" in (refused.value.hint or "")


def test_windows_and_spans_are_written_as_short_as_they_can_be() -> None:
    assert write_window(Window(frozenset(range(7)), time(20), time())) == "20:00-24:00"
    assert (
        write_window(Window(frozenset({0, 1}), time(1, 2, 3), time(4))) == "Mon,Tue 01:02:03-04:00"
    )
    assert write_days({0, 2, 3, 4, 6}) == "Mon,Wed-Fri,Sun"
    assert write_span(timedelta(days=30)) == "30d"
    assert write_span(timedelta(hours=25, seconds=1)) == "1d1h1s"
    assert write_span(timedelta()) == "0s"
    assert read_span("2w") == timedelta(days=14)


def test_the_end_of_a_name_tells_the_format() -> None:
    assert Format.of("site.policies.TOML") is Format.TOML
    assert Format.of("a.yml") is Format.of("a.yaml") is Format.YAML
    with pytest.raises(UsageError):
        Format.of("policies")


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"trim": "yes"}, "machines.trim"),
        ({"trim": True, "trim_timeout": "0s"}, "machines.trim_timeout"),
        ({"trim": True, "trim_timeout": "2d"}, "machines.trim_timeout"),
        ({"trim": True, "trim_timeout": "soon"}, "machines.trim_timeout"),
    ],
)
def test_how_long_guests_may_trim_is_read_or_told_of(given: dict[str, object], place: str) -> None:
    _, findings = from_plain({"name": "p", "type": "machines", "machines": {"query": "*", **given}})
    assert place in {one.place for one in findings}


def test_guests_do_not_trim_unless_that_is_said() -> None:
    plain = {"name": "p", "type": "machines", "machines": {"query": "*"}}
    found, _ = from_plain(plain)
    assert found is not None
    assert found.machines is not None
    assert (found.machines.trim, found.machines.trim_timeout_s) == (False, 600)
    assert "trim" not in to_plain(found)["machines"]
    said = {**plain, "machines": {"query": "*", "trim": True, "trim_timeout": "1h30m"}}
    found, _ = from_plain(said)
    assert found is not None
    assert found.machines is not None
    assert (found.machines.trim, found.machines.trim_timeout_s) == (True, 5400)
    assert to_plain(found)["machines"] == said["machines"]
