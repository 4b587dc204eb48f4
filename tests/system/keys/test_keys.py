"""Passphrases, key files, and the paper for when all else is lost."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.kit.command import Command
from tests.kit.trees import assert_same_tree


def test_the_key_file_is_for_its_owner_alone(site: Command) -> None:
    assert stat.S_IMODE((site.home / "pool.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(site.home.stat().st_mode) == 0o700


def test_init_says_what_it_made(holdfast: Command) -> None:
    made = holdfast("init", "--json").assert_ok().json()
    assert made["home"] == str(holdfast.home)
    assert made["pool"] == str(holdfast.home / "pool")
    assert made["key"] == "key-file"
    assert holdfast("pool", "stats", "--json").json()["pool_id"] == made["pool_id"]


def test_a_passphrase_file_opens_the_pool_each_time(
    holdfast: Command, tree: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("größer als das Meer\n")
    holdfast("init", "--passphrase-file", secret).assert_ok()
    assert not (holdfast.home / "pool.key").exists()
    holdfast("backup", tree).assert_ok()
    moved = tmp_path / "moved"
    secret.rename(moved)
    holdfast("pool", "stats").assert_failed(2, "secret")
    elsewhere = Command(holdfast.home, {"HOLDFAST_PASSPHRASE_FILE": str(moved)})
    elsewhere("restore", "latest", "--to", tmp_path / "back").assert_ok()
    assert_same_tree(tree, os.fsencode(tmp_path / "back") + os.fsencode(tree))


@pytest.mark.parametrize("existing_secret", ["kit", "key file", "passphrase"])
def test_a_lost_machine_comes_back_from_the_pool(
    holdfast: Command, tree: Path, tmp_path: Path, existing_secret: str
) -> None:
    pool, secret, kit = tmp_path / "pool", tmp_path / "secret", tmp_path / "kit.txt"
    secret.write_text("horse battery")
    protect = ("--passphrase-file", secret) if existing_secret == "passphrase" else ()
    holdfast("init", "--pool", pool, *protect).assert_ok()
    holdfast("backup", tree).assert_ok()
    holdfast("pool", "recovery-kit", "--text", kit).assert_ok()
    holdfast("catalog", "update").assert_ok()
    before = holdfast("images", "--json").json_lines()
    found = holdfast("find", "noise", "--versions", "--json").json_lines()

    other = Command(tmp_path / "new machine")
    give: tuple[str | Path, ...] = protect
    if existing_secret == "kit":
        give = ("--recovery-kit", kit)
    elif existing_secret == "key file":
        other.home.mkdir()
        (holdfast.home / "pool.key").rename(other.home / "pool.key")
    other("init", "--existing", "--pool", pool, *give).assert_ok()
    other("catalog", "rebuild").assert_ok()
    assert other("images", "--json").json_lines() == before
    assert other("find", "noise", "--versions", "--json").json_lines() == found
    other("restore", "latest", "--to", tmp_path / "back").assert_ok()
    assert_same_tree(tree, os.fsencode(tmp_path / "back") + os.fsencode(tree))


def test_joining_a_pool_without_any_secret_is_refused(site: Command, tmp_path: Path) -> None:
    other = Command(tmp_path / "new machine")
    words = ("init", "--existing", "--pool", site.home / "pool")
    other(*words).assert_failed(2, "--recovery-kit")


def test_a_kit_of_another_pool_does_not_open_this_one(site: Command, tmp_path: Path) -> None:
    other = Command(tmp_path / "other")
    other("init").assert_ok()
    other("pool", "recovery-kit", "--text", tmp_path / "kit.txt").assert_ok()
    third = Command(tmp_path / "third")
    words = ("init", "--existing", "--pool", site.home / "pool")
    third(*words, "--recovery-kit", tmp_path / "kit.txt").assert_failed(2)
    (tmp_path / "rubbish.txt").write_text("zebra " * 24)
    done = third(*words, "--recovery-kit", tmp_path / "rubbish.txt")
    assert done.status in (2, 64)
    assert "Traceback" not in done.err


def test_the_kit_is_written_for_its_owner_and_never_over_a_file(
    site: Command, tmp_path: Path
) -> None:
    html = tmp_path / "kit.html"
    site("pool", "recovery-kit", "--html", html).assert_ok()
    assert stat.S_IMODE(html.stat().st_mode) == 0o600
    assert "<svg" in html.read_text() or "data:image" in html.read_text()
    before = html.read_bytes()
    site("pool", "recovery-kit", "--html", html).assert_failed(2, "kit.html")
    assert html.read_bytes() == before


def test_nothing_readable_lies_in_the_pool(site: Command, tmp_path: Path) -> None:
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "unmistakable-name").write_bytes(b"unmistakable content " * 100)
    site("backup", tmp_path / "diary").assert_ok()
    for path in (site.home / "pool").rglob("*"):
        assert "unmistakable" not in path.name
        if path.is_file():
            assert b"unmistakable" not in path.read_bytes()
