"""Clients on other machines: joined, backed up by a policy, restored to themselves or another."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.agents import MachineSite, machine_site
from tests.kit.served import until
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.command import Command
    from tests.kit.hosts import Hosts


MARGIN = 4_000_000
"""Bodies that were on their way, what TCP and TLS add, and what is said besides data."""


@pytest.fixture(params=["sqlite", "postgresql"])
def network(
    site: Command, tmp_path: Path, own_hosts: Hosts | None, request: pytest.FixtureRequest
) -> Iterator[MachineSite]:
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        site = replace(site, environ={"HOLDFAST_DATABASE_URL": url})
    with machine_site(site, tmp_path / "machines", hosts=own_hosts) as made:
        (tmp_path / "machines").mkdir()
        yield made


def test_a_machine_that_is_restarted_goes_on_at_once(
    network: MachineSite, tree: Path, tmp_path: Path
) -> None:
    for number in range(20):
        (tree / f"large {number}").write_bytes(os.urandom(4_000_000))
    network.site("bandwidth", "set", "slow", "--limit", "4M").assert_ok()
    with network.machine("web1") as web1:
        protect(network, "web1", tree)
        job = network.run("web1")
        until(lambda: transmitted(network.job(job)) > 16_000_000, "data to be on its way")
        web1.kill()
        network.site("bandwidth", "remove", "slow").assert_ok()
        # The master takes the data itself here, and keeps what it has when the machine is gone.
        before, sent_bytes = time.monotonic(), sent(network)
        web1.start()
        done = network.ended(job)
        assert done["outcome"] == "completed", done
        assert done["attempt"] == 2
        # Nothing is sent twice, but for what was on its way when the machine died.
        assert transmitted(done) < done["counters"]["new_bytes"] + MARGIN
        assert sent(network) - sent_bytes < done["counters"]["new_bytes"] + MARGIN
        assert sent(network) < done["counters"]["size_bytes"] + MARGIN
        # Long before the lease of the first try ends, or its work would be tried again by itself.
        assert time.monotonic() - before < 50
        (image,) = network.listed("images")
        assert image["id"] == done["image_id"]
        network.site("verify", "--read-data").assert_ok()


def transmitted(job: dict[str, Any]) -> int:
    found: int = job["counters"]["transmitted_bytes"]
    return found


def sent(network: MachineSite) -> int:
    """What the client has sent on the wire; 0 where it has none of its own."""
    return 0 if network.hosts is None else network.hosts.host("web1").sent_bytes()


def test_a_bandwidth_rule_holds_for_a_job_at_work_and_lets_go(
    network: MachineSite, tree: Path
) -> None:
    (tree / "large").write_bytes(os.urandom(60_000_000))
    of_web1 = ("--network", network.address("web1"))
    words = ("bandwidth", "set", "thin", "--limit", "1M", *of_web1)
    network.site(*words).assert_ok()
    with network.machine("web1"):
        protect(network, "web1", tree)
        job = network.run("web1")
        until(lambda: network.job(job)["state"] == "active", "it to begin")
        # A megabyte a second.
        time.sleep(12)
        assert network.job(job)["state"] == "active"
        network.site("bandwidth", "remove", "thin").assert_ok()
        before = time.monotonic()
        done = network.ended(job)
        assert done["outcome"] == "completed", done
        assert time.monotonic() - before < 30


def protect(network: MachineSite, client: str, tree: Path, more: str = "") -> None:
    file = network.directory / f"{client}.toml"
    file.write_text(
        f"""
[[policy]]
name = "{client}"
clients = ["{client}"]
retention = {{last = 3}}
{more}
[[policy.selections]]
name = "tree"
paths = ["{tree}"]
[[policy.schedules]]
name = "nightly"
kind = "differential"
calendar = {{dates = ["2099-12-31"]}}
windows = ["22:00-06:00"]
"""
    )
    network.site("policy", "apply", file, "--yes").assert_ok()


def test_a_client_is_backed_up_over_the_network_and_restored_to_another(
    network: MachineSite, tree: Path, tmp_path: Path
) -> None:
    with network.machine("web1") as web1, network.machine("web2"):
        protect(network, "web1", tree)
        first = network.ended(network.run("web1"))
        assert (first["outcome"], first["client"]) == ("completed", "web1"), first
        (tree / "new").write_bytes(os.urandom(300_000))
        time.sleep(0.2)
        second = network.ended(network.run("web1"))
        assert second["outcome"] == "completed", second
        oldest, newest = network.listed("images")
        assert (newest["host"], newest["policy"]) == ("web1", "web1")
        assert newest["parent"] == oldest["id"]
        assert newest["transmitted_bytes"] < 400_000
        assert oldest["id"] == first["image_id"]
        # Each to itself, and to the other.
        for client in ("web1", "web2"):
            to = tmp_path / "back" / client
            words = ("restore", newest["id"], "--to", to, "--client", client, "--verify")
            job = int(network.site(*words).assert_ok().text)
            done = network.ended(job)
            assert done["outcome"] == "completed", done
            assert_same_tree(tree, os.fsencode(to) + os.fsencode(tree))
        assert list((web1.command.home / "cache").glob("*.trees"))
        found = network.site("find", "new").assert_ok().text
        assert str(tree / "new") in found
        network.site("pool", "check", "--read-data").assert_ok()
        web1.stop()
        network.running.stop()
