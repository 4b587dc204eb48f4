"""Bandwidth rules: from the first byte of a job, by time of day, and no longer than they hold."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base.clock import SystemClock
from holdfast.control.bandwidth import BandwidthBook
from holdfast.control.database import Database
from tests.kit.agents import MachineSite, machine_site
from tests.kit.served import served, until
from tests.system.machines.test_agents import protect, sent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from tests.kit.command import Command
    from tests.kit.hosts import Hosts

SIZE = 12_000_000
LIMIT = "64K"
"""A job of this size would take three minutes; no test waits for so long."""


@pytest.fixture
def network(site: Command, tmp_path: Path, own_hosts: Hosts | None) -> Iterator[MachineSite]:
    zone = {"HOLDFAST_SITE_ZONE": "UTC"}
    (tmp_path / "machines").mkdir()
    with machine_site(site, tmp_path / "machines", environ=zone, hosts=own_hosts) as made:
        yield made


def window(opens: datetime, closes: datetime) -> str:
    return f"{opens:%H:%M}-{closes:%H:%M}"


def set_rule(network: MachineSite, opens: datetime, closes: datetime) -> None:
    words = ("bandwidth", "set", "thin", "--limit", LIMIT, "--window", window(opens, closes))
    network.site(*words, "--network", network.address("web1")).assert_ok()


def test_a_bandwidth_rule_holds_in_its_window_and_no_longer(
    network: MachineSite, tree: Path
) -> None:
    with network.machine("web1"):
        protect(network, "web1", tree)
        now = SystemClock().now()
        set_rule(network, now + timedelta(hours=6), now + timedelta(hours=8))
        (tree / "first").write_bytes(os.urandom(SIZE))
        done = network.ended(network.run("web1"))
        assert done["outcome"] == "completed", done
        # Windows end at a full minute, which is to be far enough for the job to begin.
        closes = (SystemClock().now() + timedelta(seconds=80)).replace(second=0, microsecond=0)
        set_rule(network, closes - timedelta(hours=6), closes)
        (tree / "second").write_bytes(os.urandom(SIZE))
        job = network.run("web1")
        until(lambda: network.job(job)["state"] == "active", "it to begin")
        assert SystemClock().now() < closes
        until(lambda: SystemClock().now() > closes - timedelta(seconds=2), "the window to end", 90)
        assert network.job(job)["state"] == "active"
        done = network.ended(job)
        assert done["outcome"] == "completed", done


def test_a_job_begins_under_a_rule_that_was_set_just_before(
    network: MachineSite, tree: Path
) -> None:
    (tree / "large").write_bytes(os.urandom(SIZE))
    with network.machine("web1"):
        protect(network, "web1", tree)
        now = SystemClock().now()
        set_rule(network, now - timedelta(hours=6), now + timedelta(hours=6))
        job = network.run("web1")
        until(lambda: network.job(job)["state"] == "active", "it to begin")
        time.sleep(2)
        assert network.job(job)["state"] == "active"
        assert sent(network) < SIZE / 4
        network.site("bandwidth", "remove", "thin").assert_ok()
        done = network.ended(job)
        assert done["outcome"] == "completed", done


def test_a_rule_that_went_while_the_site_was_not_served_holds_nobody_up(
    network: MachineSite, tree: Path
) -> None:
    (tree / "large").write_bytes(os.urandom(SIZE))
    with network.machine("web1"):
        protect(network, "web1", tree)
        now = SystemClock().now()
        set_rule(network, now - timedelta(hours=6), now + timedelta(hours=6))
        job = network.run("web1")
        until(lambda: network.job(job)["state"] == "active", "it to begin")
        network.running.kill()
        database = Database(network.site.home / "catalog" / "catalog.db")
        BandwidthBook(database).remove("thin")
        database.close()
        with served(network.site):
            network.await_connected("web1")
            done = network.ended(job)
            assert done["outcome"] == "completed", done
