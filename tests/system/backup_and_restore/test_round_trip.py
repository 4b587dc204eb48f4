"""What goes in comes out: every byte and attribute, through the real command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kit.command import Command
from tests.kit.trees import assert_same_tree, change_tree, holes, snapshot


def restored(root: Path, tree: Path) -> bytes:
    """Where a tree lies below the directory that its image was restored into."""
    return os.fsencode(root) + os.fsencode(tree)


def test_a_tree_with_everything_comes_back_identical(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    site("backup", tree).assert_ok()
    done = site("restore", "latest", "--to", tmp_path / "back", "--verify", "--json").assert_ok()
    assert_same_tree(tree, restored(tmp_path / "back", tree))
    assert done.json()["findings_total"] == 0
    # Three names of the tree are one file, which is read back once.
    assert done.json()["verified_files"] == done.json()["files"] - 2


def test_holes_stay_holes(site: Command, tree: Path, tmp_path: Path) -> None:
    site("backup", tree).assert_ok()
    site("restore", "latest", "--to", tmp_path / "back").assert_ok()
    back = Path(os.fsdecode(restored(tmp_path / "back", tree)))
    for name in ("hole in the middle", "hole at the end", "only hole"):
        assert holes(back / name) == holes(tree / name)


def test_parents_of_the_selection_keep_their_attributes(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    above = tmp_path / "above"
    above.mkdir(mode=0o750)
    (above / "inside").mkdir()
    os.utime(above, ns=(1, 123_456_789))
    before = above.stat()
    site("backup", above / "inside").assert_ok()
    site("restore", "latest", "--to", tmp_path / "back").assert_ok()
    after = Path(f"{tmp_path}/back{above}").stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_every_image_brings_back_its_own_moment(site: Command, tree: Path, tmp_path: Path) -> None:
    first_state = snapshot(tree)
    first = site("backup", tree, "--json").assert_ok().json()
    change_tree(tree)
    second = site("backup", tree, "--json").assert_ok().json()
    assert second["parent"] == first["id"]
    assert second["number"] == first["number"] + 1
    for image, name in ((first, "one"), (second, "two")):
        site("restore", image["id"][:12], "--to", tmp_path / name).assert_ok()
    assert snapshot(restored(tmp_path / "one", tree)) == first_state
    assert_same_tree(tree, restored(tmp_path / "two", tree))


def test_a_full_backup_reads_everything_and_stores_next_to_nothing(
    site: Command, tree: Path
) -> None:
    first = site("backup", tree, "--json").assert_ok().json()
    full = site("backup", "--full", tree, "--json").assert_ok().json()
    assert full["parent"] is None
    assert full["stats"]["files_changed"] == first["stats"]["files_changed"]
    assert full["stats"]["bytes_new"] < first["stats"]["bytes_new"] / 10


def test_an_unchanged_second_backup_reads_and_stores_next_to_nothing(
    site: Command, tree: Path
) -> None:
    first = site("backup", tree, "--json").assert_ok().json()
    second = site("backup", tree, "--json").assert_ok().json()
    assert first["stats"]["bytes_new"] > 500_000
    assert second["stats"]["files"] == first["stats"]["files"]
    assert second["stats"]["files_changed"] == 0
    assert second["stats"]["bytes_read"] == 0
    assert second["stats"]["bytes_new"] < 10_000


def test_equal_files_are_stored_once(site: Command, tmp_path: Path) -> None:
    content = os.urandom(2 << 20)
    (tmp_path / "twins").mkdir()
    for name in ("one", "other", "third"):
        (tmp_path / "twins" / name).write_bytes(content)
    image = site("backup", tmp_path / "twins", "--json").assert_ok().json()
    assert image["stats"]["bytes_found"] == 3 * len(content)
    assert len(content) <= image["stats"]["bytes_new"] < 1.1 * len(content)


def test_relative_paths_and_their_order_make_the_same_source(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    first = site("backup", tree, tmp_path / "other", "--json").assert_ok().json()
    second = site("backup", "other", "tree/../tree", "--json", cwd=tmp_path).assert_ok().json()
    assert second["source"] == first["source"]
    assert second["parent"] == first["id"]


def test_what_is_excluded_or_marked_is_left_out(site: Command, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("kept", "cache", "marked"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_text(name)
    (root / "kept" / "note.tmp").touch()
    (root / "kept" / "important.tmp").touch()
    (root / "cache" / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    (root / "marked" / ".nobackup").touch()
    rules = ("--exclude", "*.tmp", "--exclude", "!important.tmp")
    site("backup", root, *rules).assert_ok()
    site("restore", "latest", "--to", tmp_path / "back").assert_ok()
    back = Path(f"{tmp_path}/back{root}")
    names = {str(path.relative_to(back)) for path in back.rglob("*") if path.is_file()}
    assert {"kept/file", "kept/important.tmp"} <= names
    assert not names & {"kept/note.tmp", "cache/file", "marked/file"}


def test_the_pool_does_not_back_up_itself(site: Command, tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear reader")
    site("backup", tmp_path).assert_ok()
    paths = [one["path"] for one in site("ls", "latest", "-R", "--json").assert_ok().json_lines()]
    assert f"{tmp_path}/letter" in paths
    assert not [path for path in paths if path.startswith(f"{tmp_path}/home/pool/")]


@pytest.mark.parametrize("level", ["1", "19"])
def test_every_compression_level_restores(
    site: Command, tree: Path, tmp_path: Path, level: str
) -> None:
    site("backup", tree, "--compression", level).assert_ok()
    site("restore", "latest", "--to", tmp_path / "back").assert_ok()
    assert_same_tree(tree, restored(tmp_path / "back", tree))


def test_a_single_file_can_be_backed_up_and_restored(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    site("backup", tree / "noise").assert_ok()
    site("restore", "latest", "--to", tmp_path / "back").assert_ok()
    assert Path(f"{tmp_path}/back{tree}/noise").read_bytes() == (tree / "noise").read_bytes()


def test_a_file_that_may_not_be_read_is_named_and_the_rest_is_taken(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    (tree / "secret").write_text("not for you")
    (tree / "secret").chmod(0)
    os.chown(tree / "one", os.geteuid(), os.getegid())
    done = site.without_privileges()("backup", tree, "--json")
    assert done.status == 1, done.err
    image = done.json()
    assert image["status"] == "completed with errors"
    assert [one["path"] for one in image["findings"]] == [f"{tree}/secret"]
    site("restore", "latest", "--to", tmp_path / "back").assert_ok()
    (tree / "secret").unlink()
    mine, theirs = snapshot(tree), snapshot(restored(tmp_path / "back", tree))
    del mine[b"."], theirs[b"."]
    theirs.pop(b"secret", None)
    assert mine == theirs
