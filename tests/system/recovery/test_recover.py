"""A site that is lost comes back from its pool, with what only its catalog knew."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast.site.protection import KEPT
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command


def listed(site: Command) -> list[dict[str, object]]:
    rows = site("images", "--json").assert_ok().json_lines()
    # Whether files are in the catalog yet is not what comes back.
    return [{name: one[name] for name in one if name != "catalog_state"} for one in rows]


def kit_of(site: Command, tmp_path: Path) -> Path:
    kit = tmp_path / "kit.txt"
    kit.write_text(site("pool", "recovery-kit").assert_ok().text)
    return kit


def test_a_site_comes_back_on_a_bare_machine(site: Command, tree: Path, tmp_path: Path) -> None:
    first = site("backup", tree, "--json").assert_ok().json()["id"]
    site("hold", first, "--reason", "a case").assert_ok()
    site("lock", first, "--until", "2100-01-01").assert_ok()
    site("catalog", "protect").assert_ok()
    (tree / "later").write_text("not in the catalog that is in the pool")
    site("backup", tree).assert_ok()
    before = listed(site)
    assert len(before) == 2

    bare = replace(site, home=tmp_path / "bare")
    done = (
        bare("recover", "--pool", site.home / "pool", "--kit", kit_of(site, tmp_path), "--json")
        .assert_ok()
        .json()
    )
    assert (done["images"], done["failed"]) == (2, {})
    assert done["catalog_rows"] > 0
    assert listed(bare) == before
    bare("expire", first).assert_failed(2, "is held: a case")
    bare("find", "later").assert_ok()
    bare("restore", "latest", "--to", tmp_path / "back").assert_ok()
    assert_same_tree(tree, bytes(tmp_path / "back") + bytes(tree))
    # The new site goes on where the old one was.
    bare("backup", tree).assert_ok()
    bare("catalog", "protect").assert_ok()


def test_a_pool_without_a_catalog_brings_back_its_images(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    site("backup", tree).assert_ok()
    bare = replace(site, home=tmp_path / "bare")
    kit = kit_of(site, tmp_path)
    done = bare("recover", "--pool", site.home / "pool", "--kit", kit).assert_ok()
    assert "holds no catalog of a site" in done.err
    assert len(listed(bare)) == 1


def test_a_recovery_that_was_done_is_not_done_over(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    site("backup", tree).assert_ok()
    site("catalog", "protect").assert_ok()
    bare = replace(site, home=tmp_path / "bare")
    words = ("recover", "--pool", site.home / "pool", "--kit", kit_of(site, tmp_path))
    bare(*words).assert_ok()
    bare(*words).assert_failed(2, "has a catalog already", "catalog rebuild")
    site(*words).assert_failed(2, "has a catalog already")
    bare("recover", "--pool", tmp_path / "other", "--kit", words[-1]).assert_failed(2, "already")


def test_the_catalog_in_the_pool_is_nobodys_image(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    made = site("backup", tree, "--json").assert_ok().json()["id"]
    for _ in range(KEPT + 2):
        site("catalog", "protect").assert_ok()
    assert [one["id"] for one in listed(site)] == [made]
    site("catalog", "rebuild").assert_ok()
    assert [one["id"] for one in listed(site)] == [made]
    site("ls", f"latest:{tree}").assert_ok()
    # One of files, and as many of the catalog as are kept.
    assert site("pool", "stats", "--json").assert_ok().json()["images"] == 1 + KEPT
    site("verify", "--read-data").assert_ok()


def test_of_two_sites_in_one_pool_the_one_that_is_named_comes_back(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    kit = kit_of(site, tmp_path)
    pool = site.home / "pool"
    other = replace(site, home=tmp_path / "other")
    other("init", "--existing", "--pool", pool, "--recovery-kit", kit).assert_ok()
    site("backup", tree).assert_ok()
    own = site("catalog", "protect", "--json").assert_ok().json()["site"]
    other("catalog", "protect").assert_ok()
    bare = replace(site, home=tmp_path / "bare")
    words = ("recover", "--pool", pool, "--kit", kit)
    bare(*words).assert_failed(64, "catalogs of 2 sites", "--site")
    done = bare(*words, "--site", own[:8], "--json").assert_ok().json()
    assert done["site"] == own


def test_a_key_file_in_the_new_home_opens_the_pool(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    site("backup", tree).assert_ok()
    site("catalog", "protect").assert_ok()
    bare = replace(site, home=tmp_path / "bare")
    bare("recover", "--pool", site.home / "pool").assert_failed(2, "nothing was given that opens")
    (bare.home / "pool.key").write_bytes((site.home / "pool.key").read_bytes())
    (bare.home / "pool.key").chmod(0o600)
    bare("recover", "--pool", site.home / "pool").assert_ok()
    assert listed(bare) == listed(site)
