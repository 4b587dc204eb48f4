"""A policy by question and answer, on a terminal."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.control.policies import Format, parse
from tests.kit.command import Command
from tests.kit.conversation import Conversation

HERE = os.uname().nodename


def test_a_policy_is_made_by_question_and_answer(site: Command, tree: Path) -> None:
    talk = Conversation(site, "policy", "new")
    talk.answer("[server]", "workstation")
    talk.answer("[workstation]", "Homes!")
    talk.answer("[workstation]", "homes")
    talk.answer(f"[{HERE}]")
    talk.answer("/home", f"{tree} {tree}/gone")
    talk.answer("node_modules", "'*.tmp'")
    talk.answer("[4h]")
    talk.answer("[-]", "Mon-Fri 25:00-06:00")
    talk.answer("no clock shows 25:00", "Mon-Fri 22:00-06:00")
    talk.answer("[last 12", "daily 14")
    # What the look found is asked again, and nothing else.
    talk.answer("has no 'gone'", str(tree))
    talk.answer("make it?")
    assert talk.end() == 0
    (made,) = parse(site("policy", "export").text, Format.TOML).policies
    assert made.name == "homes"
    assert made.selections[0].paths == (str(tree),)
    assert made.selections[0].exclude == ("*.tmp",)


def test_what_is_given_is_not_asked_and_nothing_is_made_without_consent(
    site: Command, tree: Path
) -> None:
    words = (
        "policy",
        "new",
        "homes",
        "--template",
        "workstation",
        "--path",
        tree,
        "--exclude",
        "x",
    )
    talk = Conversation(site, *words, "--every", "8h", "--keep", "daily 3", "--window", "1:00-2:00")
    talk.answer(f"[{HERE}]")
    talk.answer("make it?", "n")
    assert talk.end() == 130
    assert "nothing was made" in talk.seen
    assert talk.seen.count("]: ") == 2
    assert site("policy", "list").assert_ok().text == ""


def test_a_plan_is_agreed_to_or_not(site: Command, tmp_path: Path, tree: Path) -> None:
    file = tmp_path / "policies.toml"
    made = site("policy", "new", "homes", "--path", tree, "--plan").assert_ok()
    file.write_text(made.text)
    talk = Conversation(site, "policy", "apply", file)
    talk.answer("do that?")
    assert talk.end() == 130
    talk = Conversation(site, "policy", "apply", file)
    talk.answer("do that?", "y")
    assert talk.end() == 0
    talk = Conversation(site, "policy", "remove", "homes")
    talk.answer("remove homes?", "y")
    assert talk.end() == 0
    assert site("policy", "list").assert_ok().text == ""
