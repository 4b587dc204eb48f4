"""Certificates of machines that renew themselves before their end, while all goes on."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from holdfast.base.clock import SystemClock
from holdfast.wire.identity import valid_between
from tests.kit.agents import Machine, MachineSite, machine_site
from tests.kit.served import until
from tests.kit.trees import assert_same_tree
from tests.system.machines.test_agents import protect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.command import Command
    from tests.kit.hosts import Hosts

LIFE = {"HOLDFAST_MACHINES_CERTIFICATE_LIFE": "45s"}


@pytest.fixture
def network(site: Command, tmp_path: Path, own_hosts: Hosts | None) -> Iterator[MachineSite]:
    (tmp_path / "machines").mkdir()
    with machine_site(site, tmp_path / "machines", environ=LIFE, hosts=own_hosts) as made:
        yield made


def certificate(machine: Machine) -> bytes:
    return (machine.command.home / "machine" / "certificate.pem").read_bytes()


def over(pem: bytes) -> bool:
    return SystemClock().now() > valid_between(pem)[1]


def test_machines_work_on_beyond_the_end_of_their_certificates(
    network: MachineSite, tree: Path, tmp_path: Path
) -> None:
    with network.media_server("media1") as media, network.machine("web1") as web1:
        protect(network, "web1", tree)
        first = {one.name: certificate(one) for one in (media, web1)}
        for one in (media, web1):
            until(partial(over, first[one.name]), "the first certificates to be over")
            assert not over(certificate(one)), one.log.read_text()
            assert "the certificate was renewed" in one.log.read_text()
        # Sessions and data go by the new ones; what is over is worth nothing at either end.
        network.await_connected("media1", "web1")
        done = network.ended(network.run("web1"))
        assert done["outcome"] == "completed", done
        assert "is in the pool" in media.log.read_text()
        to = tmp_path / "back"
        words = ("restore", done["image_id"], "--to", to, "--client", "web1", "--verify")
        done = network.ended(int(network.site(*words).assert_ok().text))
        assert done["outcome"] == "completed", done
        assert_same_tree(tree, os.fsencode(to) + os.fsencode(tree))
    listed = network.listed("audit", "list")
    assert {one["object"] for one in listed if one["what"] == "renew"} >= {
        "machines/media1",
        "machines/web1",
    }
