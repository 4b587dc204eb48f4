"""An image of one stream stands for all streams of its backup, whatever is done with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import EXIT_FAILED
from tests.kit.agents import MachineSite, machine_site
from tests.kit.shown import shown
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.command import Command


@pytest.fixture
def network(site: Command, tmp_path: Path) -> Iterator[MachineSite]:
    (tmp_path / "machines").mkdir()
    with machine_site(site, tmp_path / "machines") as made:
        yield made


def protect(network: MachineSite, tree: Path, streams: int = 3) -> None:
    file = network.directory / "wide.toml"
    file.write_text(
        f"""
[[policy]]
name = "wide"
clients = ["{os.uname().nodename}"]
streams = {streams}
retention = {{last = 5}}
[[policy.selections]]
name = "tree"
paths = ["{tree}"]
"""
    )
    network.site("policy", "apply", file, "--yes").assert_ok()


def backed_up(network: MachineSite) -> list[dict[str, Any]]:
    """The images of one more backup."""
    before = {one["id"] for one in network.listed("images")}
    done = network.ended(network.run("wide"))
    assert done["outcome"] == "completed", done
    return [one for one in network.listed("images") if one["id"] not in before]


def several(tree: Path) -> None:
    for at in range(4):
        for below in ("inner", "other"):
            (tree / f"part {at}" / below).mkdir(parents=True)
            for number in range(3):
                (tree / f"part {at}" / below / f"{number}").write_bytes(os.urandom(100_000))


def test_what_is_told_of_one_stream_is_told_of_all(
    network: MachineSite, tree: Path, tmp_path: Path
) -> None:
    several(tree)
    protect(network, tree)
    first = backed_up(network)
    assert len(first) == 3
    (tree / "part 1" / "inner" / "1").unlink()
    (tree / "new").write_bytes(b"new")
    second = backed_up(network)
    assert len(second) == 3
    site = network.site

    # Mounted, whichever is named, it is the tree.
    for image in second[:2]:
        with shown(site, tmp_path / f"at {image['id'][:8]}", image["id"]) as at:
            assert_same_tree(tree, os.fsencode(at) + os.fsencode(tree))
    with shown(site, tmp_path / "one", second[0]["id"], "--only-this") as at:
        there = sum(len(files) for _, _, files in os.walk(at))
        assert there == second[0]["files"] < sum(one["files"] for one in second)

    # Two backups differ by what changed, whichever streams are named.
    for old, new in zip(first, reversed(second), strict=True):
        rows = network.listed("diff", old["id"], new["id"])
        files = {(one["change"], one["path"]) for one in rows if one["kind"] == "file"}
        assert files == {
            ("removed", f"{tree}/part 1/inner/1"),
            ("added", f"{tree}/new"),
        }
        below = [one["path"] for one in rows if one["path"].startswith(str(tree))]
        assert {*below} - {one for _, one in files} <= {
            str(tree),
            f"{tree}/part 1/inner",
        }
    same = site("diff", first[0]["id"], first[1]["id"], "--json").assert_ok()
    assert same.out == b""
    assert "--only-this" in same.err
    assert site("diff", first[0]["id"], first[1]["id"], "--only-this", "--json").assert_ok().out

    # Another division is no difference.
    protect(network, tree, 2)
    third = backed_up(network)
    assert {one["source"] for one in third}.isdisjoint(one["source"] for one in second)
    rows = network.listed("diff", second[0]["id"], third[0]["id"])
    assert [one for one in rows if one["path"].startswith(str(tree))] == []

    # All of it is verified, and one alone if wanted.
    assert site("verify", first[0]["id"], "--json").assert_ok().json()["images"] == 3
    alone = site("verify", first[0]["id"], "--only-this", "--json").assert_ok()
    assert alone.json()["images"] == 1

    # What a search finds comes back by the image that it names.
    rows = network.listed("find", "inner/0", "--source", second[0]["source"])
    for row in rows:
        back = tmp_path / f"back {row['path'].replace('/', ' ')}"
        site("restore", f"{row['last_image']}:{row['path']}", "--to", back).assert_ok()
        assert (back / row["path"].lstrip("/")).is_file()


def test_a_backup_is_kept_whole_and_one_that_is_not_any_more_is_told(
    network: MachineSite, tree: Path
) -> None:
    several(tree)
    protect(network, tree)
    first = [one["id"] for one in backed_up(network)]
    backed_up(network)
    site = network.site
    held = site("hold", first[1], "--reason", "case 17", "--json").assert_ok().json_lines()
    assert {one["held"] for one in held} == {*first}
    site("unhold", first[0], "--only-this").assert_ok()
    lifted = site("unhold", first[1], "--json").assert_ok().json_lines()
    assert {one["unheld"] for one in lifted} == {*first[1:]}
    locked = site("lock", first[0], "--until", "1d", "--only-this", "--json").assert_ok()
    assert [one["locked"] for one in locked.json_lines()] == [first[0]]
    refused = site("expire", *first)
    assert refused.status == EXIT_FAILED or refused.status != 0
    gone = site("expire", first[1]).assert_ok()
    assert first[0][:8] in gone.err
    assert first[2][:8] in gone.err
    assert "other streams" in gone.err
    assert "other streams" not in site("expire", first[2], "--json").assert_ok().out.decode()


def test_a_damaged_stream_is_told_by_the_name_of_another(network: MachineSite, tree: Path) -> None:
    several(tree)
    protect(network, tree)
    images = backed_up(network)
    # Each stream sent packs of its own: lose those of one.
    packs = sorted((network.site.home / "pool").rglob("*.pack")) or sorted(
        one for one in (network.site.home / "pool" / "packs").rglob("*") if one.is_file()
    )
    told = []
    for pack in packs:
        lost = pack.rename(tree.parent / "lost")
        ended = [network.site("verify", image["id"], "--json") for image in images[:2]]
        lost.rename(pack)
        told.append({done.status for done in ended})
    # Whichever of them is asked about, the answer is the same.
    assert all(len(one) == 1 for one in told)
    assert {EXIT_FAILED} in told
