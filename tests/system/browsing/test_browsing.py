"""Looking at images: lists, searches, differences, a mounted image."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.kit.command import Command
from tests.kit.trees import AWKWARD_NAMES, change_tree, snapshot


@pytest.fixture
def twice(site: Command, tree: Path) -> Command:
    """A site with two images of one tree that changed between them."""
    site("backup", tree).assert_ok()
    change_tree(tree)
    site("backup", tree).assert_ok()
    return site


def exact(row: dict[str, str]) -> bytes:
    if "path_base64" in row:
        return base64.b64decode(row["path_base64"])
    return row["path"].encode()


def test_images_are_listed_newest_last(twice: Command, tree: Path) -> None:
    rows = twice("images", "--json").assert_ok().json_lines()
    assert [row["number"] for row in rows] == [1, 2]
    assert rows[1]["parent"] == rows[0]["id"]
    assert {row["catalog_state"] for row in rows} == {"pending"}
    files = sum(1 for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    assert rows[1]["files"] == files
    plain = twice("images").assert_ok().text.splitlines()
    assert plain[0].split()[:3] == ["id", "source", "time"]
    assert [line.split()[0] for line in plain[1:]] == [row["id"][:8] for row in rows]
    newest = twice("images", "--limit", "1").assert_ok()
    assert [line.split()[0] for line in newest.text.splitlines()[1:]] == [rows[1]["id"][:8]]
    assert "and 1 older: '--limit 2' shows all" in newest.err
    assert twice("images", "--limit", "1", "--json").assert_ok().json_lines() == rows[1:]
    twice("images", "--limit", "0").assert_failed(64, "limit")


def test_files_are_found_whether_the_catalog_was_fed_before_or_not(
    twice: Command, tree: Path
) -> None:
    searched = twice("find", "o", "--versions", "--json").assert_ok()
    assert searched.json_lines()
    twice("backup", tree).assert_ok()
    assert twice("catalog", "update", "--json").assert_ok().json() == {"images": 1}
    assert twice("catalog", "update", "--json").assert_ok().json() == {"images": 0}
    rows = twice("images", "--json").assert_ok().json_lines()
    assert [row["catalog_state"] for row in rows] == ["indexed"] * 3


def test_images_of_one_source_only(twice: Command, tree: Path) -> None:
    twice("backup", tree / "many").assert_ok()
    rows = twice("images", "--json").json_lines()
    wanted = rows[-1]["source"]
    only = twice("images", "--source", wanted, "--json").assert_ok().json_lines()
    assert [row["id"] for row in only] == [rows[-1]["id"]]


def test_ls_shows_every_name_with_its_exact_bytes(twice: Command, tree: Path) -> None:
    rows = twice("ls", f"latest:{tree}/names", "--json").assert_ok().json_lines()
    names = {os.path.basename(exact(row)) for row in rows}
    assert names == set(AWKWARD_NAMES)
    plain = twice("ls", f"latest:{tree}/names").assert_ok().out
    for name in AWKWARD_NAMES:
        assert os.fsencode(tree) + b"/names/" + name + b"\n" in plain


def test_ls_recursive_shows_the_whole_tree_and_its_attributes(twice: Command, tree: Path) -> None:
    rows = twice("ls", f"latest:{tree}", "--recursive", "--json").assert_ok().json_lines()
    seen = {os.path.relpath(exact(row), os.fsencode(tree)): row for row in rows}
    real = snapshot(tree)
    del real[b"."]
    assert set(seen) == set(real)
    for path, state in real.items():
        row = seen[path]
        assert row["mode"] == f"{state.mode:04o}" or state.kind == "l"
        assert (row["uid"], row["gid"]) == state.owner
        assert row["mtime_ns"] == state.mtime_ns
        if state.kind == "-":
            assert row["size"] == state.size


def test_ls_long_reads_like_ls(twice: Command, tree: Path) -> None:
    text = twice("ls", "-l", f"latest:{tree}/text").assert_ok().text
    assert text.startswith(stat.filemode((tree / "text").stat().st_mode))
    assert text.rstrip().endswith(f"{tree}/text")
    links = twice("ls", "-l", f"latest:{tree}/links").assert_ok().text
    assert "dangling -> /nowhere/at all" in links


def test_ls_of_the_root_shows_where_the_selection_begins(twice: Command, tree: Path) -> None:
    assert twice("ls", "latest").assert_ok().text.strip() == f"/{tree.parts[1]}/"


def test_find_by_part_of_a_name_and_by_glob(twice: Command, tree: Path) -> None:
    rows = twice("find", "nois", "--json").assert_ok().json_lines()
    assert {os.path.basename(row["path"]) for row in rows} == {"noise", "noise again"}
    rows = twice("find", "*/many/000?", "--json").assert_ok().json_lines()
    assert {os.path.basename(row["path"]) for row in rows} >= {f"000{at}" for at in range(1, 10)}
    nothing = twice("find", "no such name").assert_ok()
    assert nothing.out == b""
    assert "no such name" in nothing.err


def test_find_versions_names_the_image_of_each(twice: Command, tree: Path, tmp_path: Path) -> None:
    images = [row["id"] for row in twice("images", "--json").json_lines()]
    rows = twice("find", f"{tree}/one", "--versions", "--json").assert_ok().json_lines()
    rows = [row for row in rows if row["path"] == f"{tree}/one"]
    assert sorted((row["last_image"] for row in rows), key=images.index) == images
    for row, content in zip(
        sorted(rows, key=lambda row: images.index(row["last_image"])), (b"x", b"y"), strict=True
    ):
        target = tmp_path / row["last_image"]
        twice("restore", row["last_image"], row["path"], "--to", target).assert_ok()
        assert Path(f"{target}{tree}/one").read_bytes() == content


def test_diff_tells_what_changed(twice: Command, tree: Path) -> None:
    first, second = (row["id"] for row in twice("images", "--json").json_lines())
    rows = twice("diff", first[:10], "latest", "--json").assert_ok().json_lines()
    below = {row["path"].removeprefix(f"{tree}/"): row["change"] for row in rows}
    assert below["many/new"] == "added"
    assert below["many/0000"] == "removed"
    for name in ("one", "noise", "text", "empty directory"):
        assert below[name] == "changed"
    assert "two" not in below
    lines = twice("diff", first, second).assert_ok().text.splitlines()
    assert f"+ {tree}/many/new" in lines
    assert f"- {tree}/many/0000" in lines
    assert f"M {tree}/one" in lines
    backwards = twice("diff", second, first).assert_ok().text.splitlines()
    assert f"- {tree}/many/new" in backwards
    assert twice("diff", second, second).assert_ok().out == b""


def test_a_reader_that_has_seen_enough_ends_a_listing_quietly(twice: Command) -> None:
    with twice.start("ls", "latest", "-R", "--json") as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        errors = running.stderr.read()
    assert errors == b""
    assert running.returncode == 0


def test_a_mounted_image_is_the_tree(twice: Command, tree: Path, tmp_path: Path) -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or shutil.which("fusermount3") is None:
        pytest.skip("this machine has no FUSE")
    at = tmp_path / "mounted"
    at.mkdir()
    running = twice.start("mount", "latest", at, "--json")
    assert running.stdout is not None
    try:
        line = running.stdout.readline()
        assert str(at).encode() in line
        mounted, real = snapshot(os.fsencode(at) + os.fsencode(tree)), snapshot(tree)
        assert set(mounted) == set(real)
        for path, state in real.items():
            seen = mounted[path]
            assert (seen.kind, seen.content, seen.target) == (
                state.kind,
                state.content,
                state.target,
            )
            assert (seen.mode, seen.owner, seen.mtime_ns) == (
                state.mode,
                state.owner,
                state.mtime_ns,
            )
        with pytest.raises(OSError, match=r"Read-only|not permitted|denied"):
            (at / "new").write_text("no")
    finally:
        subprocess.run(["fusermount3", "-u", at], check=False)
        status = running.wait(60)
        running.stdout.close()
        if running.stderr is not None:
            running.stderr.close()
    assert status == 0
