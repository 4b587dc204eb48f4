"""One clear sentence with a hint, the documented exit status, and nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.command import Command
from tests.kit.trees import assert_same_tree


@pytest.fixture
def filled(site: Command, tree: Path) -> Command:
    """A site with one image."""
    site("backup", tree).assert_ok()
    return site


def assert_nothing_lost(site: Command, tree: Path, scratch: Path) -> None:
    site("restore", "latest", "--to", scratch).assert_ok()
    assert_same_tree(tree, os.fsencode(scratch) + os.fsencode(tree))


def test_no_site_yet(holdfast: Command) -> None:
    for words in (["images"], ["backup", "/etc/hostname"], ["ls", "latest"], ["gc"]):
        holdfast(*words).assert_failed(2, "no Holdfast site", "holdfast init")


def test_a_second_init_leaves_the_site_alone(filled: Command, tree: Path, tmp_path: Path) -> None:
    before = (filled.home / "config.toml").read_bytes()
    filled("init").assert_failed(2, "already")
    assert (filled.home / "config.toml").read_bytes() == before
    assert_nothing_lost(filled, tree, tmp_path / "back")


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "abcdef"],
        ["restore", "abcdef", "--to", "/nonexistent/target"],
        ["expire", "abcdef"],
        ["verify", "abcdef"],
        ["diff", "latest", "abcdef"],
        ["ls", "0" * 32],
        ["expire", "latest", "abcdef"],
    ],
)
def test_an_unknown_image(filled: Command, words: list[str], tree: Path, tmp_path: Path) -> None:
    filled(*words).assert_failed(2, words[-1] if words[0] != "restore" else "abcdef")
    assert_nothing_lost(filled, tree, tmp_path / "back")


def test_an_ambiguous_prefix(filled: Command, tree: Path) -> None:
    # Of seventeen ids at least two share their first digit; most often far fewer are enough.
    firsts: list[str] = []
    while len(set(firsts)) == len(firsts):
        filled("backup", tree / "one").assert_ok()
        firsts = [one["id"][0] for one in filled("images", "--json").json_lines()]
    shared = next(first for first in firsts if firsts.count(first) > 1)
    filled("ls", shared).assert_failed(64, shared)


def test_latest_of_an_empty_pool(site: Command) -> None:
    site("ls", "latest").assert_failed(2, "image")


def test_a_path_that_is_not_in_the_image(filled: Command, tmp_path: Path) -> None:
    filled("ls", "latest:/not/there").assert_failed(2, "/not/there")
    filled("restore", "latest", "/not/there", "--to", tmp_path / "x").assert_failed(2, "/not/there")


def test_a_wrong_passphrase(holdfast: Command, tree: Path, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("correct horse\n")
    wrong.write_text("battery staple\n")
    holdfast("init", "--passphrase-file", right).assert_ok()
    holdfast("backup", tree).assert_ok()
    other = Command(holdfast.home, {"HOLDFAST_PASSPHRASE_FILE": str(wrong)})
    other("backup", tree).assert_failed(2, "passphrase")
    assert_nothing_lost(holdfast, tree, tmp_path / "back")


def test_a_passphrase_file_that_is_gone_empty_or_no_text(holdfast: Command, tmp_path: Path) -> None:
    words = ("init", "--passphrase-file", tmp_path / "secret")
    holdfast(*words).assert_failed(2, "secret")
    (tmp_path / "secret").write_text("\n")
    holdfast(*words).assert_failed(64, "empty")
    (tmp_path / "secret").write_bytes(b"\xff\xfe\n")
    holdfast(*words).assert_failed(64, "UTF-8")


def test_a_passphrase_that_nobody_can_be_asked_for(site: Command) -> None:
    config = site.home / "config.toml"
    text = config.read_text().replace('"key-file"', '"passphrase"')
    config.write_text(text)
    site("pool", "stats").assert_failed(2, "HOLDFAST_PASSPHRASE_FILE")


def test_a_key_file_that_is_gone(filled: Command) -> None:
    (filled.home / "pool.key").unlink()
    filled("pool", "stats").assert_failed(2, "pool.key", "recovery-kit")


def test_a_directory_of_something_else_as_a_pool(holdfast: Command, tmp_path: Path) -> None:
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "holiday.jpg").write_bytes(b"beach")
    holdfast("init", "--pool", foreign).assert_failed(64, "photos", "other files")
    (tmp_path / "secret").write_text("words")
    joining = ("init", "--existing", "--pool", foreign, "--passphrase-file", tmp_path / "secret")
    holdfast(*joining).assert_failed(2, "photos")
    assert [path.name for path in foreign.iterdir()] == ["holiday.jpg"]
    assert (foreign / "holiday.jpg").read_bytes() == b"beach"


def test_a_file_of_something_else_where_the_header_should_be(
    holdfast: Command, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "pool").write_text("a swimming pool")
    (tmp_path / "secret").write_text("words")
    for existing in ((), ("--existing",)):
        words = ("init", *existing, "--pool", foreign, "--passphrase-file", tmp_path / "secret")
        holdfast(*words).assert_failed(2, "foreign")
    assert (foreign / "pool").read_text() == "a swimming pool"


def test_a_pool_that_was_moved_away(filled: Command, tree: Path, tmp_path: Path) -> None:
    pool = filled.home / "pool"
    pool.rename(tmp_path / "moved")
    filled("backup", tree).assert_failed(2, str(pool))
    (tmp_path / "moved").rename(pool)
    assert_nothing_lost(filled, tree, tmp_path / "back")


def test_another_pool_in_the_place_of_the_sites_own(
    filled: Command, tree: Path, tmp_path: Path
) -> None:
    other = Command(tmp_path / "other")
    other("init").assert_ok()
    pool, key = filled.home / "pool", filled.home / "pool.key"
    shutil.rmtree(pool)
    shutil.copytree(other.home / "pool", pool)
    shutil.copy(other.home / "pool.key", key)
    filled("backup", tree).assert_failed(2, "another pool")


def test_a_pool_of_a_newer_format(filled: Command, tree: Path, tmp_path: Path) -> None:
    header = filled.home / "pool" / "pool"
    kept = header.read_bytes()
    assert kept[:7] == b"HFPOOL\0"
    header.chmod(0o600)
    header.write_bytes(kept[:7] + b"\x02" + kept[8:])
    for words in (["backup", str(tree)], ["pool", "check"], ["restore", "latest", "--to", "/x/y"]):
        filled(*words).assert_failed(2, "version 2")
    header.write_bytes(kept)
    assert_nothing_lost(filled, tree, tmp_path / "back")


def test_a_missing_path_is_named_and_nothing_is_backed_up(filled: Command, tree: Path) -> None:
    filled("backup", tree, tree / "nowhere").assert_failed(2, "nowhere")
    filled("backup", "nowhere", cwd=tree).assert_failed(2, f"{tree}/nowhere")
    filled("backup", "").assert_failed(64, "empty")
    assert len(filled("images", "--json").json_lines()) == 1


def test_a_target_that_is_not_empty_is_left_alone(
    filled: Command, tree: Path, tmp_path: Path
) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    (target / "letter").write_text("dear")
    filled("restore", "latest", "--to", target).assert_failed(2, "not empty", "--overwrite")
    assert [path.name for path in target.iterdir()] == ["letter"]
    assert (target / "letter").read_text() == "dear"


def test_a_target_that_is_a_file(filled: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear")
    filled("restore", "latest", "--to", tmp_path / "file").assert_failed(64, "not a directory")
    assert (tmp_path / "file").read_text() == "dear"


def test_a_selection_that_may_not_be_read(site: Command, tmp_path: Path) -> None:
    (tmp_path / "locked" / "inside").mkdir(parents=True)
    (tmp_path / "locked").chmod(0)
    try:
        command = site.without_privileges()
        command("backup", tmp_path / "locked").assert_failed(2, "locked")
        command("backup", tmp_path / "locked" / "inside").assert_failed(2, "locked")
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert site("images", "--json").json_lines() == []


def test_a_target_that_may_not_be_written(filled: Command, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    command = filled.without_privileges()
    command("restore", "latest", "--to", tmp_path / "locked" / "x").assert_failed(2, "locked")
    assert list((tmp_path / "locked").iterdir()) == []


def test_a_home_that_may_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    command = Command(tmp_path / "locked" / "home").without_privileges()
    command("init").assert_failed(2, "locked")


def test_a_pool_that_may_not_be_written(filled: Command, tree: Path, tmp_path: Path) -> None:
    pool = filled.home / "pool"
    directories = [pool, *(path for path in pool.rglob("*") if path.is_dir())]
    for one in directories:
        one.chmod(0o500)
    try:
        (tree / "new").write_bytes(os.urandom(100_000))
        filled.without_privileges()("backup", tree).assert_failed(2)
        (tree / "new").unlink()
    finally:
        for one in directories:
            one.chmod(0o700)
    filled("pool", "check", "--read-data").assert_ok()


@pytest.mark.parametrize(
    "words",
    [
        ["no-such-command"],
        ["backup"],
        ["backup", "/etc", "--no-such-option"],
        ["backup", "/etc", "--compression", "0"],
        ["backup", "/etc", "--compression", "99"],
        ["backup", "/etc", "--compression", "much"],
        ["restore", "latest"],
        ["restore", "latest", "--to", "/x/y", "--overwrite", "maybe"],
        ["restore", "latest", "--to", "/x/y", "--strip-components", "-1"],
        ["restore", "", "--to", "/x/y"],
        ["ls", "latest:/a/../b"],
        ["find", ""],
        ["pool"],
        ["pool", "no-such-command"],
        ["init", "--recovery-kit", "kit"],
        ["init", "--ask-passphrase"],
        ["init", "--pool", ""],
        ["init", "--pool", "file://elsewhere/pool"],
        ["init", "--pool", "gopher://bucket/pool"],
    ],
)
def test_wrong_usage(holdfast: Command, site: Command, words: list[str], tmp_path: Path) -> None:
    command = Command(tmp_path / "fresh") if words[0] == "init" else site
    command(*words).assert_failed(64)


def test_an_error_is_json_when_json_was_asked_for(site: Command) -> None:
    done = site("ls", "abcdef", "--json")
    assert done.status == 2
    assert done.out == b""
    assert '"code": "image-missing"' in done.err


def test_a_configuration_that_makes_no_sense(site: Command) -> None:
    (site.home / "config.toml").write_text("version = ")
    site("images").assert_failed(2, "config.toml")


def test_damage_is_named_and_nothing_wrong_is_restored(
    filled: Command, tree: Path, tmp_path: Path
) -> None:
    packs = sorted((filled.home / "pool" / "packs").rglob("*"), key=lambda one: one.stat().st_size)
    pack = packs[-1]
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 0x40
    pack.chmod(0o600)
    pack.write_bytes(content)
    found = filled("verify", "--read-data", "--json")
    assert found.status == 2
    assert found.json()["problems_total"] > 0
    done = filled("restore", "latest", "--to", tmp_path / "back")
    assert done.status in (1, 2)
    assert "Traceback" not in done.err
    back = Path(f"{tmp_path}/back{tree}")
    for path in back.rglob("*") if back.exists() else []:
        original = tree / path.relative_to(back)
        if path.is_file() and not path.is_symlink() and path.stat().st_size:
            assert path.stat().st_size <= original.stat().st_size


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system to fill up")
    at = tmp_path / "small disk"
    at.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", at], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    yield at
    subprocess.run(["umount", "-l", at], check=True)


def test_a_full_disk_under_the_pool(
    holdfast: Command, small_disk: Path, tree: Path, tmp_path: Path
) -> None:
    holdfast("init", "--pool", small_disk / "pool").assert_ok()
    holdfast("backup", tree).assert_ok()
    big = tmp_path / "big"
    big.write_bytes(os.urandom(8 << 20))
    holdfast("backup", big).assert_failed(2, "space")
    assert len(holdfast("images", "--json").json_lines()) == 1
    holdfast("pool", "check", "--read-data").assert_ok()
    assert_nothing_lost(holdfast, tree, tmp_path / "back")


def test_a_full_disk_under_a_restore(site: Command, small_disk: Path, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(8 << 20))
    site("backup", big).assert_ok()
    site("restore", "latest", "--to", small_disk / "back").assert_failed(2, "space")
    site("restore", "latest", "--to", tmp_path / "back").assert_ok()
    assert Path(f"{tmp_path}/back{big}").read_bytes() == big.read_bytes()
