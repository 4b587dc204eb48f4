"""Expiring, collecting garbage, verifying, checking, rebuilding."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.kit.command import Command
from tests.kit.trees import assert_same_tree, change_tree


def pool_bytes(site: Command) -> int:
    return sum(path.stat().st_size for path in (site.home / "pool" / "packs").rglob("*"))


def test_space_returns_after_expire_and_gc_and_the_rest_restores(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    (tree / "once").write_bytes(os.urandom(4 << 20))
    first = site("backup", tree, "--json").assert_ok().json()["id"]
    (tree / "once").unlink()
    change_tree(tree)
    site("backup", tree).assert_ok()
    full = pool_bytes(site)
    site("expire", first).assert_ok()
    assert [row["id"] for row in site("images", "--json").json_lines()] != [first]
    planned = site("gc", "--dry-run", "--json").assert_ok().json()
    assert planned["dry_run"] is True
    assert pool_bytes(site) == full
    done = site("gc", "--json").assert_ok().json()
    assert done["bytes_freed"] >= 4 << 20
    assert pool_bytes(site) <= full - (4 << 20)
    site("pool", "check", "--read-data").assert_ok()
    site("verify", "--read-data").assert_ok()
    site("restore", "latest", "--to", tmp_path / "back").assert_ok()
    assert_same_tree(tree, os.fsencode(tmp_path / "back") + os.fsencode(tree))


def test_an_expired_image_is_gone_from_every_command(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    gone = site("backup", tree, "--json").json()["id"]
    site("backup", tree / "many").assert_ok()
    assert site("expire", gone[:10], "--json").assert_ok().json() == {"expired": gone}
    for words in (["ls", gone], ["restore", gone, "--to", str(tmp_path / "x")], ["expire", gone]):
        site(*words).assert_failed(2, gone)
    assert site("find", "noise", "--versions").assert_ok().out == b""
    assert site("find", "0001").assert_ok().out != b""


def test_gc_of_a_pool_without_garbage_changes_nothing(site: Command, tree: Path) -> None:
    site("backup", tree).assert_ok()
    before = pool_bytes(site)
    assert site("gc", "--json").assert_ok().json()["bytes_freed"] == 0
    assert pool_bytes(site) == before


def test_the_last_image_can_go_and_the_pool_be_filled_again(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    site("backup", tree).assert_ok()
    site("expire", "latest").assert_ok()
    site("gc").assert_ok()
    assert site("images", "--json").json_lines() == []
    site("backup", tree).assert_ok()
    site("restore", "latest", "--to", tmp_path / "back").assert_ok()
    assert_same_tree(tree, os.fsencode(tmp_path / "back") + os.fsencode(tree))


def test_a_sound_pool_verifies(site: Command, tree: Path) -> None:
    image = site("backup", tree, "--json").json()["id"]
    for words in (["verify"], ["verify", "--read-data"], ["verify", image[:10], "latest"]):
        told = site(*words, "--json").assert_ok().json()
        assert told["problems_total"] == 0
        assert told["images"] >= 1
    for words in (["pool", "check"], ["pool", "check", "--read-data"]):
        told = site(*words, "--json").assert_ok().json()
        assert told["problems_total"] == 0
        assert told["packs"] >= 1
    assert "sound" in site("verify", "--read-data").assert_ok().text


def test_the_index_comes_back_from_the_packs(site: Command, tree: Path, tmp_path: Path) -> None:
    site("backup", tree).assert_ok()
    before = site("pool", "stats", "--json").assert_ok().json()
    shutil.rmtree(site.home / "pool" / "index")
    shutil.rmtree(site.home / "cache", ignore_errors=True)
    site("pool", "rebuild-index").assert_ok()
    after = site("pool", "stats", "--json").assert_ok().json()
    assert after["chunks"] == before["chunks"]
    assert after["packs"] == before["packs"]
    site("pool", "check").assert_ok()
    site("restore", "latest", "--to", tmp_path / "back").assert_ok()
    assert_same_tree(tree, os.fsencode(tmp_path / "back") + os.fsencode(tree))


@pytest.mark.parametrize("loss", ["all of it", "files of the sources"])
def test_the_catalog_is_rebuilt_with_the_same_answers(site: Command, tree: Path, loss: str) -> None:
    site("backup", tree).assert_ok()
    change_tree(tree)
    site("backup", tree).assert_ok()
    site("backup", tree / "many").assert_ok()
    site("catalog", "update").assert_ok()
    questions = (["images", "--json"], ["find", "o", "--versions", "--json"], ["find", "*e*"])
    before = [site(*words).assert_ok().out for words in questions]
    assert before[1].count(b"\n") > 10
    if loss == "all of it":
        shutil.rmtree(site.home / "catalog")
    told = site("catalog", "rebuild", "--json").assert_ok().json()
    assert (told["sources"], told["images"], told["failed"]) == (2, 3, {})
    for words, answer in zip(questions, before, strict=True):
        assert sorted(site(*words).assert_ok().out.splitlines()) == sorted(answer.splitlines())


def test_statistics_agree_with_the_disk(site: Command, tree: Path) -> None:
    site("backup", tree).assert_ok()
    told = site("pool", "stats", "--json").assert_ok().json()
    assert told["images"] == 1
    assert told["pack_bytes"] == pool_bytes(site) - sum(
        path.stat().st_size for path in (site.home / "pool" / "packs").rglob("*") if path.is_dir()
    )
    assert "images" in site("pool", "stats").assert_ok().text
