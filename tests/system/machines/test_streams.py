"""A path in several streams: each file in one image, and all of them come back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.agents import MachineSite, machine_site
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


def protect(network: MachineSite, client: str, tree: Path) -> None:
    file = network.directory / f"{client}.toml"
    file.write_text(
        f"""
[[policy]]
name = "wide"
clients = ["{client}"]
streams = 3
limits = {{streams_per_client = 3}}
retention = {{last = 3}}
[[policy.selections]]
name = "tree"
paths = ["{tree}"]
exclude = ["*.tmp"]
"""
    )
    network.site("policy", "apply", file, "--yes").assert_ok()


def newest(network: MachineSite) -> dict[str, dict[str, Any]]:
    """The newest image of each source."""
    return {one["source"]: one for one in network.listed("images")}


@pytest.mark.parametrize("client", ["web1", "itself"])
def test_all_streams_of_a_path_come_back_as_the_path(
    network: MachineSite, tree: Path, tmp_path: Path, client: str
) -> None:
    for at in range(6):
        (tree / f"part {at}" / "inner").mkdir(parents=True)
        for number in range(4):
            (tree / f"part {at}" / "inner" / f"{number}").write_bytes(os.urandom(200_000))
    (tree / "left out.tmp").write_bytes(b"x")
    name = os.uname().nodename if client == "itself" else client
    if client == "itself":
        back_up_and_compare(network, name, tree, tmp_path)
    else:
        with network.machine(name):
            back_up_and_compare(network, name, tree, tmp_path)


def back_up_and_compare(network: MachineSite, client: str, tree: Path, tmp_path: Path) -> None:
    protect(network, client, tree)
    done = network.ended(network.run("wide"))
    assert done["outcome"] == "completed", done
    first = newest(network)
    assert len(first) == 3, first.keys()
    assert all(f"{client}:split-1." in one for one in first)
    # What comes later falls to the rest, and what is gone is gone.
    (tree / "new" / "deep").mkdir(parents=True)
    (tree / "new" / "deep" / "file").write_bytes(os.urandom(50_000))
    (tree / "part 1" / "inner" / "2").unlink()
    (tree / "left out.tmp").unlink()
    done = network.ended(network.run("wide"))
    assert done["outcome"] == "completed", done
    second = newest(network)
    assert second.keys() == first.keys()
    for source, image in second.items():
        # Each goes on from its own, and reads what is new alone.
        assert image["parent"] == first[source]["id"]
        assert image["transmitted_bytes"] < 150_000
    to = tmp_path / "back"
    for image in second.values():
        words = ("restore", image["id"], "--to", to, "--overwrite", "always")
        network.site(*words).assert_ok()
    assert_same_tree(tree, os.fsencode(to) + os.fsencode(tree))
    network.site("verify", "--read-data").assert_ok()
