"""A damaged catalog is named by the commands, and comes back from the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command


def answers(site: Command) -> list[object]:
    found = site("find", "level", "--versions", "--json").assert_ok().json_lines()
    key = str
    return [
        [{**row, "catalog_state": None} for row in site("images", "--json").json_lines()],
        sorted(found, key=key),
    ]


@pytest.mark.parametrize("ruined", ["catalog.db", "files"])
def test_damaged_catalog_is_named_and_rebuilt_with_the_same_answers(
    site: Command, tree: Path, ruined: str
) -> None:
    site("backup", tree).assert_ok()
    (tree / "level 0" / "another level").write_bytes(b"new")
    site("backup", tree).assert_ok()
    before = answers(site)
    catalog = site.home / "catalog"
    for file in [catalog / ruined] if ruined == "catalog.db" else catalog.glob("files/*.db"):
        file.write_bytes(b"this is no database " * 1000)
    site("find", "level").assert_failed(2, "damaged", "holdfast catalog rebuild")
    site("catalog", "rebuild").assert_ok()
    assert answers(site) == before


def test_image_that_left_the_pool_only_can_still_be_expired(site: Command, tree: Path) -> None:
    image = site("backup", tree, "--json").assert_ok().json()["id"]
    (site.home / "pool" / "images" / image).unlink()
    site("expire", image).assert_ok()
    assert site("images", "--json").json_lines() == []
    site("expire", image).assert_failed(2, image)
