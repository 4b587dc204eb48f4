"""Restores are jobs of a site that is served: seen, and true to the byte."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base import errors
from holdfast.faces.cli.api_client import ApiClient, at
from holdfast.site import local_socket
from tests.kit.served import served, until
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command


def ended(api: ApiClient, job: int) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = api.get(at("jobs", job))
        return found if found["state"] == "ended" else None

    found = until(look, f"job {job} to end")
    assert found is not None
    return found


def test_an_image_and_a_part_of_it_come_back(site: Command, tree: Path, tmp_path: Path) -> None:
    image = site("backup", tree, "--json").assert_ok().json()["id"]
    (tree / "added").mkdir()
    (tree / "added" / "file").write_text("text")
    later = site("backup", tree, "--json").assert_ok().json()["id"]
    with served(site) as running, ApiClient.of_socket(site.home / local_socket.NAME) as api:
        whole = {"target": str(tmp_path / "whole"), "verify": True}
        part = {
            "target": str(tmp_path / "part"),
            "paths": [str(tree / "added")],
            "strip_components": len(tree.parts) - 1,
        }
        first = api.post(at("images", later, "restores"), whole)["job"]
        second = api.post(at("images", later, "restores"), part)["job"]
        done = ended(api, first)
        assert (done["outcome"], done["kind"], done["policy"]) == ("completed", "restore", "adhoc")
        assert ended(api, second)["outcome"] == "completed"
        assert_same_tree(tree, os.fsencode(tmp_path / "whole") + os.fsencode(tree))
        # Into what is no longer empty nothing is restored, unless that is said.
        again = ended(api, api.post(at("images", image, "restores"), whole)["job"])
        assert again["outcome"] == "failed"
        assert again["error"]["code"] == "target-not-empty"
        over = api.post(at("images", image, "restores"), {**whole, "overwrite": "always"})["job"]
        assert ended(api, over)["outcome"] == "completed"
        with pytest.raises(errors.ImageMissing):
            api.post(at("images", "00" * 16, "restores"), whole)
        with pytest.raises(errors.Invalid):
            api.post(at("images", image, "restores"), {"target": "relative"})
        running.stop()
    assert (tmp_path / "part" / "added" / "file").read_text() == "text"
