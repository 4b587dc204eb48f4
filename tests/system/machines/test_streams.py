"""A path in several streams: each file in one image, and all of them come back."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import PathMissing
from tests.kit.agents import MachineSite
from tests.kit.served import until
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from pathlib import Path


def protect(network: MachineSite, client: str, tree: Path, more: str = "") -> None:
    file = network.directory / f"{client}.toml"
    file.write_text(
        f"""
[[policy]]
name = "wide"
clients = ["{client}"]
streams = 3
limits = {{streams_per_client = 3}}
retention = {{last = 3}}
{more}
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
    name = network.itself if client == "itself" else client
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
    # One command brings all of them back, whichever of them is named, also of the backup before.
    for number, image in enumerate([*second.values(), {"id": "latest"}]):
        to = tmp_path / f"back-{number}"
        done = network.site("restore", image["id"], "--to", to, "--json").assert_ok().json()
        assert len(done["images"]) == 3
        assert_same_tree(tree, os.fsencode(to) + os.fsencode(tree))
    of_before = {one["id"] for one in first.values()}
    for number, image in enumerate(first.values()):
        to = tmp_path / f"before-{number}"
        done = network.site("restore", image["id"], "--to", to, "--json").assert_ok().json()
        assert {one["image"] for one in done["images"]} == of_before
        assert os.path.exists(os.fsencode(to) + os.fsencode(tree) + b"/part 1/inner/2")
    only = tmp_path / "only"
    one = first[min(first)]
    network.site("restore", one["id"], "--to", only, "--only-this", "--verify").assert_ok()
    assert len(list(only.rglob("*"))) < len(list(to.rglob("*")))
    # A path is looked for in all of them.
    some = tmp_path / "some"
    paths = [f"{tree}/part {at}" for at in range(6)] + [f"{tree}/new"]
    network.site("restore", "latest", *paths, "--to", some, "--verify").assert_ok()
    for path in paths:
        assert_same_tree(os.fsencode(path), os.fsencode(some) + os.fsencode(path))
    wrong = network.site("restore", "latest", f"{tree}/nowhere", "--to", tmp_path / "none")
    wrong.assert_failed(PathMissing.exit_status, "no image of this backup has")
    listed = {one["path"] for one in network.listed("ls", f"latest:{tree}", "--recursive")}
    there = [*tree.rglob("*")]
    assert listed == {str(one) for one in there}
    if client == "web1":
        # On the machine itself, as one job.
        back = tmp_path / "on the machine"
        words = ("restore", "latest", "--to", back, "--client", client, "--json")
        job = network.site(*words).assert_ok().json()["job"]
        assert network.ended(job)["outcome"] == "completed"
        assert_same_tree(tree, os.fsencode(back) + os.fsencode(tree))
    network.site("verify", "--read-data").assert_ok()


NOTE = """import os, sys
told = os.environ.get("HOLDFAST_FAILED", "-")
with open(sys.argv[1], "a") as log:
    print(sys.argv[2], told, os.environ["HOLDFAST_POLICY"], os.environ["HOLDFAST_JOB"], file=log)
"""


def around(tmp_path: Path) -> tuple[Path, str]:
    """Where commands write that they ran, and what of a policy has them do so."""
    log, script = tmp_path / "ran", tmp_path / "note.py"
    script.write_text(NOTE)
    words = [
        f'{when}_command = ["{sys.executable}", "{script}", "{log}", "{when}"]'
        for when in ("pre", "post")
    ]
    return log, "\n".join(words)


def several(tree: Path, size: int = 200_000) -> None:
    for at in range(4):
        (tree / f"part {at}").mkdir()
        for number in range(4):
            (tree / f"part {at}" / f"{number}").write_bytes(os.urandom(size))


@pytest.mark.parametrize("client", ["web1", "itself"])
def test_commands_run_once_around_all_streams(
    network: MachineSite, tree: Path, tmp_path: Path, client: str
) -> None:
    several(tree)
    log, commands = around(tmp_path)
    name = network.itself if client == "itself" else client
    with contextlib.nullcontext() if client == "itself" else network.machine(name):
        protect(network, name, tree, commands)
        done = network.ended(network.run("wide"))
        assert done["outcome"] == "completed", done
        assert len(newest(network)) == 3
        first, second = log.read_text().splitlines()
        assert first.split()[:3] == ["pre", "-", "wide"]
        assert second.split()[:3] == ["post", "0", "wide"]
        # Both know the same job.
        assert first.split()[3] == second.split()[3]


def test_what_was_begun_is_undone_when_a_machine_died_and_the_job_was_cancelled(
    network: MachineSite, tree: Path, tmp_path: Path
) -> None:
    several(tree, 3_000_000)
    log, commands = around(tmp_path)
    # So slow that it is at work when it dies.
    network.site("bandwidth", "set", "slow", "--limit", "1M").assert_ok()
    with network.machine("web1") as machine:
        protect(network, "web1", tree, commands)
        job = network.run("wide")
        until(lambda: "pre" in (log.read_text() if log.exists() else ""), "the command before")
        until(lambda: at_work(network, job) >= 2, "streams to begin")
        machine.kill()
        network.site("jobs", "cancel", str(job)).assert_ok()
        assert "post" not in log.read_text()
        machine.start()
        done = network.ended(job)
    parts = network.listed("jobs", "list", "--parts-of", str(job))
    told = [(one["kind"], one["outcome"], one["error"]) for one in parts]
    assert done["outcome"] == "cancelled", told
    assert [line.split()[:2] for line in log.read_text().splitlines()] == [
        ["pre", "-"],
        ["post", "1"],
    ]


def at_work(network: MachineSite, job: int) -> int:
    parts = network.listed("jobs", "list", "--parts-of", str(job))
    return sum(one["state"] == "active" and one["kind"] == "backup" for one in parts)
