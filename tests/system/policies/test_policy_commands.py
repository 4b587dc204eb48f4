"""Policies by the command line, off a terminal."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from holdfast.control.policies import Format, parse
from tests.kit.command import Command, Ended
from tests.system.command_line.test_command_line import on_terminal

HERE = os.uname().nodename


@pytest.fixture
def file(tmp_path: Path, tree: Path) -> Path:
    """A file of two policies of this machine."""
    written = tmp_path / "policies.toml"
    written.write_text(
        f"""
[[policy]]
name = "homes"
clients = ["{HERE}"]
retention = {{daily = 14}}
[[policy.selections]]
name = "tree"
paths = ["{tree}"]
[[policy.schedules]]
name = "nightly"
kind = "differential"
every = "20h"
windows = ["Mon-Fri 22:00-06:00"]

[[policy]]
name = "many"
client_query = "*"
retention = {{last = 3}}
[[policy.selections]]
name = "tree"
paths = ["{tree}/many"]
[[policy.schedules]]
name = "always"
kind = "continuous"
every = "15m"
"""
    )
    return written


@pytest.fixture
def two(site: Command, file: Path) -> Command:
    """A site with both."""
    site("policy", "apply", file, "--yes").assert_ok()
    return site


def listed(site: Command, *words: str) -> list[str]:
    return [row["name"] for row in site("policy", "list", *words, "--json").json_lines()]


def test_a_file_is_planned_applied_and_exported(site: Command, file: Path) -> None:
    planned = site("policy", "apply", file, "--plan").assert_ok()
    assert planned.text.splitlines() == [
        f"+ policy 'homes': {HERE}; nightly",
        "+ policy 'many': clients like *; always",
        "2 to make",
    ]
    assert listed(site) == []
    site("policy", "apply", file).assert_failed(64, "nobody is here to ask", "--yes")
    done = site("policy", "apply", file, "--yes", "--json").assert_ok().json()
    assert done["created"] == ["homes", "many"]
    assert site("policy", "apply", file).assert_ok().text == "2 unchanged\n"
    for form in Format:
        text = site("policy", "export", "--format", form.value).assert_ok().text
        assert [one.name for one in parse(text, form).policies] == ["homes", "many"]
        other = file.with_suffix(f".{form}")
        other.write_text(text)
        assert site("policy", "apply", other).assert_ok().text == "2 unchanged\n"


def test_a_change_is_told_field_by_field_and_pruning_is_asked_for(two: Command, file: Path) -> None:
    text = file.read_text()
    changed = text[: text.index('[[policy]]\nname = "many"')].replace("daily = 14", "weekly = 4")
    file.write_text(changed.replace("Mon-Fri 22:00", "20:00"))
    planned = two("policy", "apply", file, "--plan").assert_ok()
    assert planned.text.splitlines() == [
        "~ policy 'homes'",
        "    retention.daily: 14 -> none",
        "    retention.weekly: none -> 4",
        '    schedules[nightly].windows: ["Mon-Fri 22:00-06:00"] -> ["20:00-06:00"]',
        "1 to change, 1 not named, and stay",
    ]
    pruned = two("policy", "apply", file, "--prune", "--yes").assert_ok()
    assert "- policy 'many'" in pruned.text
    assert listed(two) == ["homes"]
    revisions = two("policy", "show", "homes", "--revisions", "--json").json_lines()
    assert [row["act"] for row in revisions] == ["changed", "created"]


def errors_of(done: Ended) -> list[str]:
    return [line for line in done.err.splitlines() if line.startswith("error: policy")]


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_changed(
    site: Command, file: Path
) -> None:
    text = file.read_text()
    file.write_text(text.replace("Mon-Fri 22:00", "Mon-Fri 25:00").replace("last", "lsat"))
    done = site("policy", "apply", file, "--yes")
    assert done.status == 64
    assert len(errors_of(done)) == 2
    assert "policy 'homes', schedules[0].windows[0]" in done.err
    assert "did you mean 'last'?" in done.err
    assert "nothing was changed" in done.err
    assert done.out == b""
    validated = site("policy", "validate", file)
    assert validated.status == 64
    assert validated.text.count("error: ") == 2
    file.write_text(text.replace("/many", "/mnay"))
    done = site("policy", "apply", file, "--yes")
    assert len(errors_of(done)) == 1
    assert "/many'?" in done.err
    assert listed(site) == []
    site("policy", "apply", file, "--yes", "--offline").assert_ok()
    assert listed(site) == ["homes", "many"]
    assert site("policy", "validate").status == 64
    site("policy", "validate", "--offline").assert_ok()


def test_a_warning_is_told_and_taken(site: Command, file: Path, tree: Path) -> None:
    (tree / "hollow").mkdir()
    file.write_text(file.read_text().replace("/many", "/hollow"))
    validated = site("policy", "validate", file)
    assert validated.status == 1
    assert "warning: policy 'many', selections[0]: there is nothing in it" in validated.text
    assert "warning: " in site("policy", "apply", file, "--yes").assert_ok().err


def test_policies_are_listed_shown_switched_and_removed(two: Command) -> None:
    assert listed(two, "--client", HERE) == ["homes", "many"]
    assert listed(two, "--text", "any") == ["many"]
    two("policy", "deactivate", "homes").assert_ok()
    assert (listed(two, "--active"), listed(two, "--inactive")) == (["many"], ["homes"])
    shown = two("policy", "show", "homes").assert_ok().text
    assert "homes, inactive" in shown
    assert "starting Mon-Fri 22:00-06:00" in shown
    assert two("policy", "activate", "homes", "many").assert_ok().text.count("activated") == 2
    two("policy", "activate", "homes", "none").assert_failed(2, "there is no policy 'none'")
    two("policy", "remove", "many").assert_failed(64, "nobody is here to ask", "--yes")
    two("policy", "remove", "many", "none", "--yes").assert_failed(2, "there is no policy 'none'")
    assert listed(two) == ["homes", "many"]
    two("policy", "remove", "homes", "many", "--yes").assert_ok()
    assert two("policy", "list").assert_ok().text == ""
    assert two("policy", "show", "many", "--revisions").assert_ok().text.count("removed") == 1


def test_a_template_is_a_file_to_begin_with(site: Command, tmp_path: Path) -> None:
    assert "server" in site("policy", "template").assert_ok().text
    written = tmp_path / "mine.toml"
    text = site("policy", "template", "workstation", "--name", "mine").assert_ok().text
    written.write_text(
        text.replace('paths = ["/home", "/etc", "/root"]', f'paths = ["{tmp_path}"]')
    )
    assert f'clients = ["{HERE}"]' in text
    assert text.count("#") > 2
    site("policy", "apply", written, "--yes").assert_ok()
    assert listed(site) == ["mine"]
    site("policy", "template", "sever").assert_failed(2, "'sever'", "did you mean 'server'?")
    words = ("--client", "a", "--client-query", "b*")
    site("policy", "template", "server", *words).assert_failed(64, "contradict")


def test_a_policy_is_made_by_options_alone(site: Command, tree: Path) -> None:
    site("policy", "new").assert_failed(64, "needs a name", "nobody is here to ask")
    site("policy", "new", "homes").assert_failed(64, "what to back up", "--template")
    words = ("--path", tree, "--exclude", "*.tmp", "--every", "12h", "--keep", "daily 14, last 3")
    window = ("--window", "Mon-Fri 22:00-06:00", "--window", "Sun 00:00-24:00")
    shown = site("policy", "new", "homes", *words, *window, "--plan").assert_ok().text
    (planned,) = parse(shown, Format.TOML).policies
    assert listed(site) == []
    site("policy", "new", "homes", *words, *window, "--inactive").assert_ok()
    (made,) = parse(site("policy", "export").text, Format.TOML).policies
    assert made.name == "homes"
    assert not made.active
    assert made.selections == planned.selections
    assert made.schedules == planned.schedules
    assert made.retention == planned.retention
    assert len(made.schedules[0].windows) == 2
    site("policy", "new", "homes", *words).assert_failed(2, "there is a policy 'homes' already")
    site("policy", "new", "Homes", *words).assert_failed(64, "'Homes'")
    gone = site("policy", "new", "gone", "--path", tree / "gone")
    assert gone.status == 64
    assert "has no 'gone'" in gone.err


def test_a_file_that_is_none_is_refused_in_clear_words(site: Command, tmp_path: Path) -> None:
    site("policy", "apply", tmp_path / "none.toml").assert_failed(2, "there is no file")
    strange = tmp_path / "policies"
    strange.write_bytes(b"\xff")
    site("policy", "apply", strange).assert_failed(64, "does not end in .toml", "--format")
    site("policy", "apply", strange, "--format", "toml").assert_failed(64, "not UTF-8", "line 1")
    site("policy", "apply", tmp_path, "--format", "toml").assert_failed(2, "can't read")
    strange.write_text("[[policy]")
    refused = site("policy", "apply", strange, "--format", "toml")
    assert refused.status == 64
    assert "this is not TOML" in refused.err


def test_a_file_comes_from_stdin(site: Command, file: Path) -> None:
    done = subprocess.run(
        site.line("policy", "apply", "-", "--yes"),
        input=file.read_bytes(), env=site.environment(), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert listed(site) == ["homes", "many"]


def test_every_table_and_every_help_fits_eighty_columns(
    two: Command, tmp_path: Path, tree: Path
) -> None:
    long = tmp_path / "long.toml"
    text = two("policy", "export", "homes").text
    long.write_text(
        text.replace('"homes"', f'"{"x" * 63}"')
        + "".join(
            f'\n[[policy.schedules]]\nname = "{"s" * 40}{n}"\nkind = "full"\nevery = "30d"\n'
            for n in range(5)
        )
    )
    two("policy", "apply", long, "--yes").assert_ok()
    screens = [("list",), ("show", "x" * 63), ("template",), ("show", "homes", "--revisions")]
    for words in screens:
        status, out, err = on_terminal(two, "policy", *words)
        assert (status, err) == (0, "")
        # A path is never broken.
        assert max(len(line) for line in out.splitlines() if str(tree) not in line) <= 80, out
    for name in ("list", "show", "new", "template", "validate", "export", "apply", "remove",
                 "activate", "deactivate"):  # fmt: skip
        text = two("policy", name, "--help").assert_ok().text
        assert "Examples:" in text
        assert max(len(line) for line in text.splitlines()) <= 80, name
