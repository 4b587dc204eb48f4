"""The whole way once."""

from __future__ import annotations

from pathlib import Path

from tests.kit.command import Command
from tests.kit.trees import snapshot


def test_quickstart_finds_a_tree_identical_and_the_second_backup_small(
    holdfast: Command, tree: Path
) -> None:
    told = holdfast("quickstart", tree, "--json").assert_ok().json()
    assert told["identical"] is True
    assert told["comparison"]["differences"] == []
    assert told["comparison"]["entries"] == len(snapshot(tree))
    assert told["restore"]["verified_files"] == told["first_backup"]["stats"]["files"] - 2
    assert told["second_backup"]["stats"]["bytes_new"] < 10_000
    assert told["second_backup"]["parent"] == told["first_backup"]["id"]


def test_quickstart_leaves_the_named_site_ready_for_use(holdfast: Command, tree: Path) -> None:
    holdfast("quickstart", tree).assert_ok()
    assert len(holdfast("images", "--json").assert_ok().json_lines()) == 2
    assert holdfast("find", "noise").assert_ok().out != b""


def test_quickstart_without_a_home_cleans_up_and_tells_the_numbers(
    tree: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    command = Command(tmp_path, {"HOLDFAST_HOME": "", "TMPDIR": str(work), "HOME": str(tmp_path)})
    before = snapshot(tree)
    done = command("quickstart", tree).assert_ok()
    assert "identical" in done.text
    for word in ("first backup", "restore", "comparison", "second backup", "new data"):
        assert word in done.text
    assert all(len(line) <= 80 for line in done.text.splitlines())
    assert list(work.iterdir()) == []
    assert snapshot(tree) == before


def test_quickstart_keeps_what_it_made_if_told_to(tree: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    command = Command(tmp_path, {"HOLDFAST_HOME": "", "TMPDIR": str(work)})
    command("quickstart", tree, "--keep").assert_ok()
    (made,) = work.iterdir()
    assert len(Command(made / "site")("images", "--json").assert_ok().json_lines()) == 2


def test_quickstart_of_something_missing_is_one_sentence(holdfast: Command) -> None:
    holdfast("quickstart", "/no/such/place").assert_failed(2, "/no/such/place")
