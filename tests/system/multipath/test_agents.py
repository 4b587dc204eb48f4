"""An agent and a media server at two networks: both are used, or those that were said."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.kit.agents import MachineSite, machine_site
from tests.kit.hosts import hosts
from tests.kit.served import until
from tests.kit.trees import assert_same_tree
from tests.system.machines.test_agents import protect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.agents import Machine
    from tests.kit.command import Command
    from tests.kit.hosts import Host

SIZE = 40_000_000


@pytest.fixture
def network(site: Command, namespaces: bool, tmp_path: Path) -> Iterator[MachineSite]:
    if not namespaces:
        pytest.skip("may not make network namespaces here")
    (tmp_path / "machines").mkdir()
    with (
        hosts(tmp_path / "hosts", switches=2) as made,
        machine_site(site, tmp_path / "machines", hosts=made) as network,
        network.media_server("media1", also=made.host("media1").addresses[1:]),
    ):
        yield network


def host(network: MachineSite) -> Host:
    assert network.hosts is not None
    return network.hosts.host("web1")


def backed_up(network: MachineSite, tree: Path) -> tuple[int, int]:
    """Have the client back up something new; what it sent over each network."""
    (tree / "large").write_bytes(os.urandom(SIZE))
    before = [host(network).sent_bytes(at) for at in (0, 1)]
    done = network.ended(network.run("web1"))
    assert done["outcome"] == "completed", done
    first, second = (host(network).sent_bytes(at) - before[at] for at in (0, 1))
    assert first + second > SIZE
    return first, second


def restart(machine: Machine, network: MachineSite, addresses: str) -> None:
    machine.stop()
    until(lambda: machine.name not in network.connected(), "it to be away")
    machine.command.environ["HOLDFAST_AGENT_ADDRESS"] = addresses
    machine.start()
    network.await_connected(machine.name)


def test_data_goes_over_every_network_or_over_those_that_were_said(
    network: MachineSite, tree: Path, tmp_path: Path
) -> None:
    with network.machine("web1") as web1:
        protect(network, "web1", tree)
        first, second = backed_up(network, tree)
        assert min(first, second) > SIZE // 10
        restart(web1, network, host(network).addresses[1])
        (told,) = [one for one in network.listed("machine", "list") if one["name"] == "web1"]
        assert told["addresses"] == list(host(network).addresses)
        first, second = backed_up(network, tree)
        # What is left on the first is what the session and the look of this test say.
        assert (first < SIZE // 100, second > SIZE) == (True, True)
        restart(web1, network, " ".join(host(network).addresses))
        first, second = backed_up(network, tree)
        assert min(first, second) > SIZE // 10
        to = tmp_path / "back"
        words = ("restore", "latest", "--to", to, "--client", "web1", "--verify")
        done = network.ended(int(network.site(*words).assert_ok().text))
        assert done["outcome"] == "completed", done
        assert_same_tree(tree, os.fsencode(to) + os.fsencode(tree))


def test_a_network_that_fails_meanwhile_costs_no_job(network: MachineSite, tree: Path) -> None:
    with network.machine("web1"):
        protect(network, "web1", tree)
        network.site("bandwidth", "set", "slow", "--limit", "8M").assert_ok()
        (tree / "large").write_bytes(os.urandom(SIZE))
        job = network.run("web1")
        until(lambda: host(network).sent_bytes(1) > SIZE // 20, "data to be on its way")
        host(network).cut(1)
        network.site("bandwidth", "remove", "slow").assert_ok()
        done = network.ended(job)
        assert (done["outcome"], done["attempt"]) == ("completed", 1), done
        host(network).mend(1)
        network.site("pool", "check", "--read-data").assert_ok()
