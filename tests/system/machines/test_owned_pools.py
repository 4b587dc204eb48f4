"""A media server with a pool on a disk of its own: what goes there comes back from there."""

from __future__ import annotations

import os
import re
import time
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.control.policies import Selection
from holdfast.control.retention import Rules
from holdfast.faces.cli.api_client import ApiClient, at
from holdfast.site.probing import this_client
from holdfast.vault import recovery_kit
from tests.kit.agents import Machine, MachineSite
from tests.kit.policies import policy
from tests.kit.served import put_policies, until
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def branch(network: MachineSite, tmp_path: Path) -> Iterator[Machine]:
    """A media server in a branch, with the storage unit 'branch' on its disk."""
    with network.media_server("media1", shares=False) as media:
        words = ("storage", "create", "branch", "--on", "media1", "--pool", tmp_path / "branch")
        network.site(*words).assert_ok()
        yield media


def protect(network: MachineSite, client: str, tree: Path, unit: str = "branch") -> None:
    put_policies(
        network.site.home / "catalog" / "catalog.db",
        policy(
            client,
            clients=(client,),
            selections=(Selection("files", (str(tree),)),),
            schedules=(),
            retention=Rules(last=9),
            storage_unit=unit,
        ),
    )


def unit(network: MachineSite, name: str = "branch") -> dict[str, object]:
    return {one["name"]: one for one in network.listed("storage", "list")}[name]


def test_an_agent_backs_up_to_the_disk_of_a_media_server(
    network: MachineSite, branch: Machine, tree: Path, tmp_path: Path
) -> None:
    with network.machine("web1"):
        protect(network, "web1", tree)
        done = network.ended(network.run("web1"))
        assert done["outcome"] == "completed", done
        assert unit(network)["images"] == 1
        # Nothing of it is in the site's own pool.
        default = network.site("pool", "stats", "--json").assert_ok().json()
        assert default["chunk_bytes"] < 2_000_000
        image = done["image_id"]
        # The master reads it all the same: catalog, lists, single files, a restore here.
        until(lambda: str(tree) in network.site("find", tree.name).text, "the catalog to be fed")
        network.site("ls", f"{image}:{tree}").assert_ok()
        network.site("restore", image, "--to", tmp_path / "here").assert_ok()
        assert_same_tree(tree, tmp_path / "here" / str(tree).lstrip("/"))
        words = ("restore", image, "--to", tmp_path / "there", "--client", "web1", "--verify")
        back = network.ended(int(network.site(*words).assert_ok().text))
        assert back["outcome"] == "completed", back
        assert_same_tree(tree, os.fsencode(tmp_path / "there") + os.fsencode(tree))
        network.site("verify", image, "--read-data").assert_ok()
        # Work on the whole pool is done where its disk is, and told here.
        checked = network.site("pool", "check", "--unit", "branch", "--read-data").assert_ok()
        assert "1 images" in checked.text
        network.site("pool", "rebuild-index", "--unit", "branch").assert_ok()
        packs = tmp_path / "branch" / "packs"
        packs.rename(packs.with_name("packs-gone"))
        found = network.site("pool", "check", "--unit", "branch")
        assert (found.status, "0 packs" in found.err) == (2, True), found
        assert "missing" in found.err
        packs.with_name("packs-gone").rename(packs)
        # What goes, goes there.
        network.site("expire", image).assert_ok()
        said = network.site("gc", "--unit", "branch", "--json").assert_ok().json()
        assert (said["outcome"], said["events"][0]["cause"]) == ("completed", "collected")
        assert unit(network)["images"] == 0
        for verb in ("verify", "check", "rebuild-index", "collect-garbage"):
            assert f"{verb} of pool" in branch.log.read_text()


def test_jobs_for_a_whole_pool_are_done_where_its_disk_is(
    network: MachineSite, branch: Machine, tree: Path
) -> None:
    with network.machine("web1"):
        protect(network, "web1", tree)
        done = network.ended(network.run("web1"))
        assert done["outcome"] == "completed", done
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        "verifications": ("verify", {"read_data": True, "images": [done["image_id"]]}),
        "checks": ("check", {"read_data": True}),
        "index": ("rebuild-index", {}),
        "collections": ("collect-garbage", {}),
    }
    with ApiClient.of_socket(network.site.home / "run" / "api.sock") as api:
        for path, (verb, body) in wanted.items():
            job = api.post(at("pool", path), {"unit": "branch", **body})["job"]
            ended = network.ended(int(job))
            said = network.site("events", str(job)).text
            assert ended["outcome"] == "completed", said
            assert re.search(rf"{verb} of pool \w+ has ended", branch.log.read_text()), said
            assert re.search("images|chunks|packs", said)
        branch.stop()
        until(lambda: not unit(network)["connected"], "it to be away")
    # Started anew, it has the pool again without anybody's help.
    branch.start()
    until(lambda: unit(network)["connected"], "it to be back")
    to = network.directory / "back"
    network.site("restore", done["image_id"], "--to", to).assert_ok()
    assert_same_tree(tree, to / str(tree).lstrip("/"))


def test_a_disk_that_is_gone_is_shown_and_waited_for(
    network: MachineSite, branch: Machine, tree: Path, tmp_path: Path
) -> None:
    with network.machine("web1"):
        protect(network, "web1", tree)
        assert unit(network)["problem"] is None
        (tmp_path / "branch").rename(tmp_path / "unmounted")
        until(lambda: unit(network)["problem"], "the disk to be missed", 90)
        shown = network.site("storage", "list")
        shown.assert_ok()
        assert "media1 (disk)" in shown.text
        assert "is its disk mounted?" in shown.text + shown.err
        job = network.run("web1")
        until(lambda: network.job(job)["waits_for"], "the job to say what it waits for")
        (tmp_path / "unmounted").rename(tmp_path / "branch")
        done = network.ended(job)
        assert done["outcome"] == "completed", done
        assert (unit(network)["problem"], unit(network)["connected"]) == (None, True)


def test_jobs_wait_for_the_media_server_that_owns_their_storage(
    network: MachineSite, branch: Machine, tree: Path
) -> None:
    with network.machine("web1"):
        protect(network, "web1", tree)
        first = network.ended(network.run("web1"))
        assert first["outcome"] == "completed", first
        branch.stop()
        until(lambda: not unit(network)["connected"], "it to be away")
        job = network.run("web1")
        waits = until(lambda: network.job(job)["waits_for"], "the job to say what it waits for")
        assert "media1" in str(waits)
        # What needs it says so soon, whichever way it would go about it.
        began_s = time.monotonic()
        for words in (
            ("ls", f"{first['image_id']}:{tree}"),
            ("gc", "--unit", "branch"),
            ("verify", first["image_id"]),
            ("pool", "check", "--unit", "branch"),
        ):
            network.site(*words).assert_failed(2, "media server 'media1', which owns storage unit")
        assert time.monotonic() - began_s < 40
        # It is known by no port: the next one is another.
        branch.start()
        done = network.ended(job)
        assert done["outcome"] == "completed", done
        network.site("ls", f"{done['image_id']}:{tree}").assert_ok()
        assert unit(network)["images"] == 2


def test_the_masters_own_files_go_there_as_well(
    network: MachineSite, branch: Machine, tree: Path, tmp_path: Path
) -> None:
    protect(network, this_client(), tree)
    done = network.ended(network.run(this_client()))
    assert done["outcome"] == "completed", done
    network.site("restore", "latest", "--to", tmp_path / "back").assert_ok()
    assert_same_tree(tree, tmp_path / "back" / str(tree).lstrip("/"))
    assert unit(network)["images"] == 1


def test_wrong_words_are_told(network: MachineSite, branch: Machine, tmp_path: Path) -> None:
    create = ("storage", "create", "other", "--on")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()
    network.site(*create, "media1", "--pool", taken).assert_failed(64, "taken")
    network.site(*create, "media1", "--pool", tmp_path / "branch").assert_failed(2, "pool")
    network.site(*create, "nobody", "--pool", "/x").assert_failed(2, "nobody")
    with network.machine("web1"):
        network.site(*create, "web1", "--pool", "/x").assert_failed(64, "no media server")
    assert len(network.listed("storage", "list")) == 2


def test_the_key_is_nowhere_on_the_disks_of_the_branch(
    network: MachineSite, branch: Machine, tmp_path: Path
) -> None:
    kit = network.site("pool", "recovery-kit", "--unit", "branch").assert_ok().text
    key = recovery_kit.read(kit)
    files = [
        one
        for place in (branch.command.home, tmp_path / "branch")
        for one in place.rglob("*")
        if one.is_file()
    ]
    assert (tmp_path / "branch" / "pool") in files
    said = [branch.log.read_bytes(), *(one.read_bytes() for one in files)]
    for shape in (key, key.hex().encode(), b64encode(key)):
        assert not any(shape in one for one in said)
