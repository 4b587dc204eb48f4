"""A media server that is cut off by the network in the middle of jobs, and comes back."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.kit.agents import SOON_MISSED, machine_site
from tests.kit.network import cables, can_make_networks, inside
from tests.kit.served import until
from tests.kit.trees import assert_same_tree
from tests.system.machines.test_agents import protect
from tests.system.machines.test_media_servers import took

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command

pytestmark = pytest.mark.skipif(
    not can_make_networks(), reason="may not make network namespaces here"
)


def test_a_media_server_that_is_cut_off_loses_no_job_and_commits_nothing_later(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    for number in range(30):
        (tree / f"large {number}").write_bytes(os.urandom(4_000_000))
    (tmp_path / "machines").mkdir()
    with cables(1, "1gbit") as between:
        here, there = tuple(inside(between.near)), tuple(inside(between.far))
        (ours,), (theirs,) = between.near_addresses, between.far_addresses
        with (
            machine_site(
                replace(site, prefix=here),
                tmp_path / "machines",
                f"{ours}:8444",
                environ=SOON_MISSED,
            ) as network,
            network.media_server("media1", theirs, there) as first,
            network.machine("web1", prefix=here) as web1,
        ):
            network.site("bandwidth", "set", "slow", "--limit", "4M").assert_ok()
            protect(network, "web1", tree)
            job = network.run("web1")
            until(lambda: network.job(job)["counters"]["new_bytes"] > 0, "data to be on its way")
            between.cut(0)
            with network.media_server("media2", ours, here) as second:
                network.site("bandwidth", "remove", "slow").assert_ok()
                done = network.ended(job)
                assert done["outcome"] == "completed", done
                assert (took(first), took(second)) == (0, 1)
                assert first.process is not None
                assert first.process.poll() is None
                between.mend(0)
                until(lambda: "media1" in network.connected(), "it to be back", 120)
                (image,) = network.listed("images")
                assert image["id"] == done["image_id"]
                second.stop()
            until(lambda: "media2" not in network.connected(), "the other to be gone")
            # What comes back is of use again, and knows nothing of the job that it lost.
            (tree / "new").write_bytes(os.urandom(100_000))
            again = network.ended(network.run("web1"))
            assert again["outcome"] == "completed", again
            assert took(first) == 1
            assert len(network.listed("images")) == 2
            to = tmp_path / "back"
            words = ("restore", again["image_id"], "--to", to, "--client", "web1", "--verify")
            done = network.ended(int(network.site(*words).assert_ok().text))
            assert done["outcome"] == "completed", done
            assert_same_tree(tree, os.fsencode(to) + os.fsencode(tree))
            network.site("verify", "--read-data").assert_ok()
            for one in (first, web1):
                one.stop()
