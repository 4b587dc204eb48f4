"""Images of one media server's pool brought into another's: only what is missing travels."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.agents import Machine, MachineSite
from tests.kit.served import until
from tests.kit.trees import assert_same_tree
from tests.system.machines.test_owned_pools import protect

if TYPE_CHECKING:
    from collections.abc import Iterator


LARGE = 30_000_000


@pytest.fixture
def branch(network: MachineSite, tmp_path: Path) -> Iterator[Machine]:
    with network.media_server("branch1", shares=False) as media:
        words = ("storage", "create", "branch", "--on", "branch1", "--pool", tmp_path / "branch")
        network.site(*words).assert_ok()
        yield media


@pytest.fixture
def head(network: MachineSite, tmp_path: Path) -> Iterator[Machine]:
    with network.media_server("head1", shares=False) as media:
        words = ("storage", "create", "head", "--on", "head1", "--pool", tmp_path / "head")
        network.site(*words).assert_ok()
        yield media


@pytest.fixture
def large(tree: Path) -> Path:
    (tree / "large").write_bytes(os.urandom(LARGE))
    return tree


def back_up(network: MachineSite, client: str) -> str:
    done = network.ended(network.run(client))
    assert done["outcome"] == "completed", done
    return str(done["image_id"])


def replicate(network: MachineSite, unit: str, *words: str) -> dict[str, Any]:
    job = int(network.site("replicate", *words, "--to", unit).assert_ok().text)
    done = network.ended(job)
    assert done["outcome"] == "completed", network.site("events", str(job)).text
    return done


def packs(place: Path) -> int:
    """Bytes of packs in a pool."""
    return sum(one.stat().st_size for one in (place / "packs").rglob("*") if one.is_file())


def assert_same(network: MachineSite, image: str, tree: Path, to: Path) -> None:
    network.site("restore", image, "--to", to, "--verify").assert_ok()
    assert_same_tree(tree, to / str(tree).lstrip("/"))


def test_a_branch_deduplicates_to_headquarters(
    network: MachineSite,
    branch: Machine,
    head: Machine,
    large: Path,
    tmp_path: Path,
) -> None:
    with network.machine("web1"):
        protect(network, "web1", large, "branch")
        first = back_up(network, "web1")
        replicate(network, "head", first)
        sent = packs(tmp_path / "head")
        assert sent > LARGE
        # Again it costs nothing.
        job = replicate(network, "head", first)
        assert "already" in network.site("events", str(job["id"])).text
        assert packs(tmp_path / "head") == sent
        # Of the next image only what is new travels.
        (large / "new").write_bytes(os.urandom(2_000_000))
        second = back_up(network, "web1")
        assert second != first
        replicate(network, "head", "--source", network.listed("images")[0]["source"])
        assert 2_000_000 < packs(tmp_path / "head") - sent < 4_000_000
    assert "was sent" not in head.log.read_text()
    # With the branch lost, all comes back from headquarters, here and on a machine.
    branch.kill()
    shutil.rmtree(tmp_path / "branch")
    until(lambda: "branch1" not in network.connected(), "the branch to be gone")
    assert_same(network, second, large, tmp_path / "here")
    with network.machine("web2"):
        words = ("restore", second, "--to", tmp_path / "there", "--client", "web2")
        done = network.ended(int(network.site(*words).assert_ok().text))
        assert done["outcome"] == "completed", done
        assert_same_tree(large, os.fsencode(tmp_path / "there") + os.fsencode(large))
    network.site("pool", "check", "--unit", "head", "--read-data").assert_ok()


def test_images_go_from_the_site_to_a_branch_and_back(
    network: MachineSite, branch: Machine, large: Path, tmp_path: Path
) -> None:
    network.site("backup", large).assert_ok()
    network.site("backup", Path(__file__).parent).assert_ok()
    images = [one["id"] for one in network.listed("images")]
    assert replicate(network, "branch", *images)["children"] == 0
    # Sources that are known there go side by side, each part with tokens of its own.
    for source in (large, Path(__file__).parent):
        network.site("backup", source).assert_ok()
    later = {one["id"] for one in network.listed("images")} - set(images)
    assert replicate(network, "branch", *later)["children"] == 2
    assert packs(tmp_path / "branch") > LARGE
    where = {one["name"]: one["images"] for one in network.listed("storage", "list")}
    assert where["branch"] == 4
    assert_same(network, images[0], large, tmp_path / "back")
    # An image that goes, goes from both.
    network.site("expire", *images, *later).assert_ok()
    network.site("gc", "--unit", "branch").assert_ok()
    network.site("gc").assert_ok()
    assert packs(tmp_path / "branch") < 1_000_000
    # The other way.
    with network.machine("web1"):
        protect(network, "web1", large, "branch")
        image = back_up(network, "web1")
        replicate(network, "default", image)
    branch.kill()
    assert_same(network, image, large, tmp_path / "again")


def test_a_replication_that_is_cut_off_goes_on(
    network: MachineSite, branch: Machine, large: Path, tmp_path: Path
) -> None:
    for number in range(6):
        (large / f"large {number}").write_bytes(os.urandom(LARGE))
    with network.machine("web1"):
        protect(network, "web1", large, "branch")
        image = back_up(network, "web1")
    job = int(network.site("replicate", image, "--to", "default").assert_ok().text)
    until(lambda: packs(network.site.home / "pool") > LARGE, "data to be on its way")
    branch.kill()
    before = network.job(job)
    assert before["state"] != "ended", before
    branch.start()
    done = network.ended(job)
    assert done["outcome"] == "completed", network.site("events", str(job)).text
    branch.stop()
    assert_same(network, image, large, tmp_path / "back")


def test_what_can_not_be_brought_is_told(
    network: MachineSite, branch: Machine, tree: Path, tmp_path: Path
) -> None:
    network.site("backup", tree).assert_ok()
    network.site("replicate", "latest", "--to", "nowhere").assert_failed(2, "nowhere")
    network.site("replicate", "--to", "branch").assert_failed(64, "--source")
    network.site("replicate", "--source", "nobody:/x", "--to", "branch").assert_failed(64, "nobody")
    network.site("replicate", "0" * 32, "--to", "branch").assert_failed(2, "image")
