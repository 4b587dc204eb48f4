"""Media servers on machines of their own, which share the site's pool and its load."""

from __future__ import annotations

import http.client
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.movers.machine_home import load
from holdfast.wire.identity import MachineRole, client_context
from tests.kit.agents import SOON_MISSED, Machine, MachineSite, machine_site
from tests.kit.served import served, until
from tests.kit.trees import assert_same_tree
from tests.system.machines.test_agents import protect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.command import Command
    from tests.kit.hosts import Hosts


@pytest.fixture
def network(site: Command, tmp_path: Path, own_hosts: Hosts | None) -> Iterator[MachineSite]:
    (tmp_path / "machines").mkdir()
    machines = tmp_path / "machines"
    with machine_site(site, machines, environ=SOON_MISSED, hosts=own_hosts) as made:
        yield made


def took(machine: Machine) -> int:
    """How many images came by a media server."""
    return machine.log.read_text().count("is in the pool")


def assert_restored(network: MachineSite, image: str, tree: Path, to: Path) -> None:
    words = ("restore", image, "--to", to, "--client", "web1", "--verify")
    done = network.ended(int(network.site(*words).assert_ok().text))
    said = network.site("events", str(done["id"])).text
    assert done["outcome"] == "completed", said
    assert_same_tree(tree, os.fsencode(to) + os.fsencode(tree))


def a_slow_network(network: MachineSite, tree: Path, limit: str = "4M") -> None:
    """A job that is surely still on its way when a test comes between, on any machine."""
    for number in range(20):
        (tree / f"large {number}").write_bytes(os.urandom(4_000_000))
    network.site("bandwidth", "set", "slow", "--limit", limit).assert_ok()


def test_data_goes_by_a_media_server_and_comes_back_by_it(
    network: MachineSite, tree: Path, tmp_path: Path
) -> None:
    with network.media_server("media1") as media, network.machine("web1"):
        protect(network, "web1", tree)
        done = network.ended(network.run("web1"))
        assert done["outcome"] == "completed", done
        assert took(media) == 1
        assert_restored(network, done["image_id"], tree, tmp_path / "back")
        media.stop()
        # Without one, the master takes the data itself.
        until(lambda: "media1" not in network.connected(), "it to be gone")
        again = network.ended(network.run("web1"))
        assert again["outcome"] == "completed", again
        assert took(media) == 1
        network.site("pool", "check", "--read-data").assert_ok()


def asked_in_vain(machine: Machine, url: str) -> int:
    """What a media server answers a machine that shows a token which is none."""
    context = client_context(load(machine.command.home).identity, (MachineRole.MEDIA,))
    headers = {"Authorization": "Bearer rubbish"}
    host, _, port = url.removeprefix("https://").partition(":")
    connection = http.client.HTTPSConnection(host, int(port), timeout=30, context=context)
    try:
        connection.request("GET", "/v1/transfer/terms", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_what_a_media_server_refuses_is_in_the_masters_audit_log(network: MachineSite) -> None:
    with network.media_server("media1") as media:
        web1 = network.join("web1")
        found = re.search(r"taking data at (https://[0-9.:]+)", media.log.read_text())
        assert found is not None
        for _ in range(5):
            assert asked_in_vain(web1, found[1]) == 401

        def told() -> list[dict[str, Any]]:
            return [
                one
                for one in network.listed("audit", "list", "--outcome", "refused")
                if one["what"] == "transfer"
            ]

        until(lambda: bool(told()), "the audit log to say so")
        row = told()[0]
        assert (row["who"], row["object"]) == ("machine:web1", "machines/web1")
        details = row["details"]
        known = ("code", "from", "media_server")
        assert [details[name] for name in known] == ["not-authenticated", network.ours, "media1"]
        # What came within one look is one row; the rest is told a minute later.
        assert len(told()) == 1


def test_a_master_that_is_killed_meanwhile_costs_a_job_nothing(
    network: MachineSite, tree: Path, tmp_path: Path
) -> None:
    a_slow_network(network, tree)
    with network.media_server("media1") as media, network.machine("web1"):
        protect(network, "web1", tree)
        job = network.run("web1")
        until(lambda: network.job(job)["counters"]["new_bytes"] > 0, "data to be on its way")
        network.running.kill()
        with served(network.site) as again:
            network.running = again
            network.await_connected("media1", "web1")
            network.site("bandwidth", "remove", "slow").assert_ok()
            done = network.ended(job)
            assert done["outcome"] == "completed", done
            assert done["attempt"] == 1
            assert took(media) == 1
            assert_restored(network, done["image_id"], tree, tmp_path / "back")
            assert len(network.listed("images")) == 1


def test_a_job_that_a_frozen_media_server_never_answers_is_taken_from_it(
    network: MachineSite, tree: Path
) -> None:
    with network.media_server("media1") as media, network.machine("web1"):
        protect(network, "web1", tree)
        assert media.process is not None
        media.process.send_signal(signal.SIGSTOP)
        # Nobody knows yet: the agent waits for an upload that is not opened.
        done = network.ended(network.run("web1"))
        assert done["outcome"] == "completed", done
        media.process.send_signal(signal.SIGCONT)
        assert took(media) == 0


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGSTOP])
def test_a_media_server_that_dies_or_freezes_loses_no_job(
    network: MachineSite, tree: Path, tmp_path: Path, way: signal.Signals
) -> None:
    # So slow that the other one, which takes a while to join, is there before the data is.
    a_slow_network(network, tree, "1M")
    with network.media_server("media1") as first, network.machine("web1"):
        protect(network, "web1", tree)
        job = network.run("web1")
        until(lambda: network.job(job)["counters"]["new_bytes"] > 0, "data to be on its way")
        # Were it not there when the first one is given up, the master would take the job.
        with network.media_server("media2") as second:
            assert network.job(job)["state"] == "active"
            assert first.process is not None
            first.process.send_signal(way)
            if way is signal.SIGKILL:
                first.process.wait()
            network.site("bandwidth", "remove", "slow").assert_ok()
            done = network.ended(job)
            assert done["outcome"] == "completed", done
            assert (took(first), took(second)) == (0, 1)
            if way is signal.SIGSTOP:
                first.process.send_signal(signal.SIGCONT)
            assert_restored(network, done["image_id"], tree, tmp_path / "back")
            # Whoever comes back from the dead has committed nothing.
            assert len(network.listed("images")) == 1
            assert (took(first), took(second)) == (0, 1)
            network.site("verify", "--read-data").assert_ok()
