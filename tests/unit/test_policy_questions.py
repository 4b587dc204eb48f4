"""What the guided dialogue asks, and what becomes of the answers."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from holdfast.base.errors import Invalid
from holdfast.control.policies import Format, from_plain, parse, templates, to_plain
from holdfast.faces.cli.policy_questions import QUESTIONS, Question

BY_KEY = {one.key: one for one in QUESTIONS}


def plain(name: str = "server") -> dict[str, Any]:
    (text,) = [one.text for one in templates() if one.name == name]
    return to_plain(parse(text, Format.TOML).policies[0])


ASKED = [
    (one.name, question)
    for one in templates()
    for question in QUESTIONS
    if question.wanted(plain(one.name))
]


@pytest.mark.parametrize(
    ("name", "question"), ASKED, ids=lambda one: one if isinstance(one, str) else one.key
)
def test_the_default_is_read_back_as_what_it_was(name: str, question: Question) -> None:
    policy = plain(name)
    question.write(policy, question.read(policy))
    assert from_plain(policy) == from_plain(plain(name))


@pytest.mark.parametrize(
    ("key", "answer", "place", "value"),
    [
        ("client", "web1 web2", "clients", ["web1", "web2"]),
        ("client", "web1,web2", "clients", ["web1", "web2"]),
        ("client", "web* !web9", "client_query", "web*,!web9"),
        ("keep", "daily 14, within 30d", "retention", {"daily": 14, "within": "30d"}),
        ("keep", "last=3", "retention", {"last": 3}),
        ("pre-command", "/bin/sh -c 'a b'", "pre_command", ["/bin/sh", "-c", "a b"]),
        ("pre-command", "-", "pre_command", []),
        ("name", " mine ", "name", "mine"),
    ],
)
def test_an_answer_becomes_part_of_the_policy(
    key: str, answer: str, place: str, value: object
) -> None:
    policy = plain()
    BY_KEY[key].write(policy, answer)
    assert policy[place] == value


def test_paths_and_rules_are_quoted_as_in_a_shell() -> None:
    policy = plain("workstation")
    BY_KEY["path"].write(policy, "/srv '/my documents'")
    BY_KEY["exclude"].write(policy, "'*.tmp' a\\ b")
    assert policy["selections"][0]["paths"] == ["/srv", "/my documents"]
    assert policy["selections"][0]["exclude"] == ["*.tmp", "a b"]
    BY_KEY["exclude"].write(policy, "-")
    assert policy["selections"][0]["exclude"] == []
    BY_KEY["path"].write(policy, "ALL_LOCAL_DRIVES")
    assert policy["selections"][0]["paths"] == "ALL_LOCAL_DRIVES"


def test_rules_for_the_root_go_with_it() -> None:
    policy = plain("server")
    assert "/tmp/" in policy["selections"][0]["exclude"]
    BY_KEY["path"].write(policy, "/srv")
    assert policy["selections"][0]["exclude"] == ["*.swp", "lost+found/"]


def test_windows_and_times_are_written_as_a_file_has_them() -> None:
    policy = plain()
    BY_KEY["window"].write(policy, "monday-friday 22:00-6:00; sat 0:00-24:00")
    BY_KEY["every"].write(policy, "90m")
    assert policy["schedules"][0]["windows"] == ["Mon-Fri 22:00-06:00", "Sat 00:00-24:00"]
    assert policy["schedules"][0]["every"] == "1h30m"
    BY_KEY["window"].write(policy, "-")
    assert policy["schedules"][0]["windows"] == []


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("name", "My Policy"),
        ("client", "a:b"),
        ("path", "'open"),
        ("every", "soon"),
        ("window", "22:00"),
        ("keep", "daily"),
        ("keep", "daily x"),
        ("keep", "daily 1, daily 2"),
        ("keep", "always 3"),
    ],
)
def test_what_is_no_answer_is_refused_and_changes_nothing(key: str, answer: str) -> None:
    policy = plain()
    before = deepcopy(policy)
    with pytest.raises(Invalid):
        BY_KEY[key].write(policy, answer)
    assert policy == before


@pytest.mark.parametrize(
    ("place", "keys"),
    [
        ("selections[0].paths[3]", ["path"]),
        ("selections[0]", ["path"]),
        ("selections[0].exclude[0]", ["exclude"]),
        ("schedules[0].windows[1]", ["window"]),
        ("schedules[0]", ["every", "window"]),
        ("schedules[1].every", []),
        ("clients[0]", ["client"]),
        ("client_query", ["client"]),
        ("retention.within", ["keep"]),
        ("storage_unit", []),
    ],
)
def test_what_is_wrong_is_asked_again_where_an_answer_helps(place: str, keys: list[str]) -> None:
    assert [one.key for one in QUESTIONS if one.is_about(place)] == keys
