"""Two media servers that write to one pool in object storage at the same time."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.kit.agents import MachineSite, machine_site
from tests.kit.served import until
from tests.kit.trees import assert_same_tree
from tests.system.machines.test_agents import protect
from tests.system.machines.test_media_servers import took

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.agents import Machine
    from tests.kit.command import Command
    from tests.kit.hosts import Hosts
    from tests.kit.s3_server import S3Server


def test_two_media_servers_write_to_one_bucket_at_once(
    holdfast: Command,
    s3_server: S3Server,
    own_hosts: Hosts | None,
    tree: Path,
    tmp_path: Path,
) -> None:
    pool = s3_server.make_bucket("shared")
    site = replace(holdfast, environ=s3_server.environment())
    site("init", "--pool", pool).assert_ok()
    (tmp_path / "machines").mkdir()
    # Half of what each has the other has too, so that both want to store the same chunks at once.
    for number in range(8):
        (tree / f"common {number}").write_bytes(os.urandom(4_000_000))
    trees = {name: tmp_path / f"tree of {name}" for name in ("web1", "web2")}
    for one in trees.values():
        shutil.copytree(tree, one, symlinks=True, ignore=_no_special_files)
        for number in range(8):
            (one / f"own {number}").write_bytes(os.urandom(4_000_000))
    with machine_site(site, tmp_path / "machines", pool=pool, hosts=own_hosts) as network:
        network.site("bandwidth", "set", "slow", "--limit", "8M").assert_ok()
        with (
            network.media_server("media1") as first,
            network.media_server("media2") as second,
            network.machine("web1"),
            network.machine("web2"),
        ):
            for name, one in trees.items():
                protect(network, name, one)
            jobs = [network.run(name) for name in trees]
            await_data(network, jobs)
            assert {network.job(job)["state"] for job in jobs} == {"active"}
            network.site("bandwidth", "remove", "slow").assert_ok()
            done = [network.ended(job) for job in jobs]
            assert [one["outcome"] for one in done] == ["completed"] * 2, done
            assert (took(first), took(second)) == (1, 1)
            # Again, each with what the other has brought: whoever takes it, nothing is sent.
            for one in trees.values():
                for at in range(8):
                    shutil.copy(tree / f"common {at}", one / f"copy {at}")
            more = [network.ended(network.run(name)) for name in trees]
            assert [one["outcome"] for one in more] == ["completed"] * 2, more
            images = {one["id"]: one for one in network.listed("images")}
            assert all(images[one["image_id"]]["transmitted_bytes"] < 1_000_000 for one in more)
            _restored(network, trees, {one["client"]: one["image_id"] for one in more}, tmp_path)
            network.site("verify", "--read-data").assert_ok()
            network.site("pool", "check", "--read-data").assert_ok()
            first.stop()
            second.stop()


def await_data(network: MachineSite, jobs: list[int]) -> None:
    until(
        lambda: all(network.job(job)["counters"]["new_bytes"] > 0 for job in jobs),
        "all to bring data at once",
    )


def await_open(pool: str, *servers: Machine) -> None:
    opened = f"pool {pool} is open here"
    until(lambda: all(opened in one.log.read_text() for one in servers), opened)


def _restored(
    network: MachineSite, trees: dict[str, Path], images: dict[str, str], tmp_path: Path
) -> None:
    """Each machine gets the other's image."""
    for name, other in (("web1", "web2"), ("web2", "web1")):
        to = tmp_path / "back" / name
        words = ("restore", images[other], "--to", to, "--client", name, "--verify")
        done = network.ended(int(network.site(*words).assert_ok().text))
        assert done["outcome"] == "completed", done
        assert_same_tree(trees[other], os.fsencode(to) + os.fsencode(trees[other]))


def _no_special_files(directory: str, names: list[str]) -> set[str]:
    """What a plain copy can't copy."""
    paths = {name: os.path.join(directory, name) for name in names}
    return {
        name
        for name, path in paths.items()
        if not (os.path.islink(path) or os.path.isdir(path) or os.path.isfile(path))
    }


def test_a_further_unit_in_object_storage_is_served_by_every_media_server(
    site: Command,
    s3_server: S3Server,
    own_hosts: Hosts | None,
    tree: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "machines").mkdir()
    own = replace(site, environ={**site.environ, **s3_server.environment()})
    trees = {name: tmp_path / f"tree of {name}" for name in ("web1", "web2")}
    for number in range(4):
        (tree / f"common {number}").write_bytes(os.urandom(4_000_000))
    for one in trees.values():
        shutil.copytree(tree, one, symlinks=True, ignore=_no_special_files)
        (one / "own").write_bytes(os.urandom(8_000_000))
    with machine_site(own, tmp_path / "machines", hosts=own_hosts) as network:
        early, late = (s3_server.make_bucket(name) for name in ("early", "late"))
        network.site("storage", "create", "early", "--pool", early).assert_ok()
        with (
            network.media_server("media1") as first,
            network.media_server("media2") as second,
            network.media_server("branch", shares=False) as branch,
            network.machine("web1"),
            network.machine("web2"),
        ):
            # One that is made while they run, too.
            network.site("storage", "create", "late", "--pool", late).assert_ok()
            ids = {one["name"]: one["pool_id"] for one in network.listed("storage", "list")}
            for number, unit in enumerate(("early", "late"), 1):
                await_open(ids[unit], first, second)
                for name, one in trees.items():
                    protect(network, name, one, f'storage_unit = "{unit}"')
                network.site("bandwidth", "set", "slow", "--limit", "8M").assert_ok()
                jobs = [network.run(name) for name in trees]
                await_data(network, jobs)
                network.site("bandwidth", "remove", "slow").assert_ok()
                done = [network.ended(job) for job in jobs]
                assert [one["outcome"] for one in done] == ["completed"] * 2, done
                assert (took(first), took(second)) == (number, number)
                images = {one["client"]: one["image_id"] for one in done}
                _restored(network, trees, images, tmp_path / unit)
                network.site("pool", "check", "--read-data", "--unit", unit).assert_ok()
            # Again: what is there is not sent, whoever takes it.
            done = [network.ended(network.run(name)) for name in trees]
            assert sum(one["counters"]["transmitted_bytes"] for one in done) < 1_000_000
            # One that has not the site's pool is given no key but those of its own.
            assert took(branch) == 0
            assert not any(pool in branch.log.read_text() for pool in ids.values())
            for unit in ("early", "late"):
                network.site("verify", "--read-data", "--unit", unit).assert_ok()
