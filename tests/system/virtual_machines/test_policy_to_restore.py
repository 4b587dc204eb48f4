"""From a hypervisor to an image and back: a site that is served, by its real commands.

The hypervisor is a directory of disk files, so that what comes back can be compared to the byte.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("lxml", reason="lxml is not installed: see the extra 'vm'")

from tests.kit.agents import machine_site
from tests.kit.asking import ended, job_of
from tests.kit.served import PATIENCE_S, served, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command

MIB = 1 << 20

POLICY = """
[[policy]]
name = "estate"
type = "machines"
active = false
machines = {query = "name=web* and size<1GB", leave_out = ["*:nothing"]}
retention = {daily = 7}

[[policy.schedules]]
name = "nightly"
kind = "differential"
every = "20h"
"""


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Three machines at rest, each a raw disk."""
    made = tmp_path / "machines"
    made.mkdir()
    for number, name in enumerate(("web1", "web2", "db1")):
        with (made / f"{name}.raw").open("wb") as disk:
            disk.truncate(24 * MIB)
            disk.seek(4 * MIB + number * MIB)
            disk.write(random.Random(number).randbytes(6 * MIB))
    return made


def run_and_wait(
    site: Command, *words: str, patience_s: float = PATIENCE_S
) -> list[dict[str, Any]]:
    """Queue a job, wait for its end, and tell its parts, or itself."""
    job = site(*words, "--json").assert_ok().json()["job"]

    done = ended(site, job, patience_s)
    parts: list[dict[str, Any]] = site("jobs", "list", "--json").json_lines()
    mine = [one for one in parts if one.get("parent_id") == job]
    return mine or [done]


def images(site: Command) -> dict[str, list[str]]:
    """Ids by client, the newest first."""
    found: dict[str, list[str]] = {}
    rows = site("images", "--json").assert_ok().json_lines()
    for row in sorted(rows, key=lambda row: row["number"], reverse=True):
        found.setdefault(row["host"], []).append(row["id"])
    return found


def test_a_policy_backs_machines_up_and_each_comes_back_to_the_byte(
    site: Command, shelf: Path, tmp_path: Path
) -> None:
    (tmp_path / "policy.toml").write_text(POLICY)
    with served(site) as running:
        site("hypervisor", "add", "shelf", "--kind", "diskfiles", "--at", str(shelf)).assert_ok()
        known = site("machines", "--json").assert_ok().json_lines()
        assert [one["name"] for one in known] == ["db1", "web1", "web2"]
        site("policy", "apply", str(tmp_path / "policy.toml"), "--yes").assert_ok()
        first = run_and_wait(site, "policy", "run", "estate")
        assert {(one["client"], one["outcome"]) for one in first} == {
            ("web1", "completed"),
            ("web2", "completed"),
        }
        before = (shelf / "web1.raw").read_bytes()
        with (shelf / "web1.raw").open("r+b") as disk:
            disk.seek(20 * MIB)
            disk.write(os.urandom(MIB))
        run_and_wait(site, "policy", "run", "estate", "--client", "web1")
        newest, oldest = images(site)["web1"]
        shown = site("machines", "show", "web1", "--json").assert_ok().json()
        assert shown["image"] == newest
        for image, content in ((oldest, before), (newest, (shelf / "web1.raw").read_bytes())):
            back = tmp_path / image
            words = ("restore-machine", image, "--to-dir", str(back), "--format", "raw")
            (done,) = run_and_wait(site, *words)
            assert done["outcome"].startswith("completed"), done
            (disk_file,) = [one for one in back.rglob("*") if one.stat().st_size == len(content)]
            assert disk_file.read_bytes() == content
        # The same identity a second time is for nobody; another is made beside it.
        refused = site("restore-machine", newest, "--to", "shelf")
        refused.assert_failed(2, "has a machine 'web1' already")
        running.stop()


def test_a_proxy_does_the_work_where_the_master_does_not_reach(
    site: Command, shelf: Path, tmp_path: Path
) -> None:
    """Images stand under the machines' names; an agent of the same name has no part in it."""
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "hosts").mkdir()
    with machine_site(site, tmp_path / "hosts") as network, network.machine("proxy1") as proxy:
        network.join("web1")
        words = ("hypervisor", "add", "shelf", "--kind", "diskfiles", "--at", str(shelf))
        site(*words, "--proxy", "proxy1").assert_ok()
        site("policy", "apply", str(tmp_path / "policy.toml"), "--yes").assert_ok()
        done = run_and_wait(site, "policy", "run", "estate")
        assert {(one["client"], one["outcome"]) for one in done} == {
            ("web1", "completed"),
            ("web2", "completed"),
        }, proxy.log.read_text()
        (image,) = images(site)["web1"]
        back = tmp_path / "back"
        where = ("--to-dir", str(back), "--client", "proxy1")
        (restored,) = run_and_wait(site, "restore-machine", image, *where)
        assert restored["outcome"].startswith("completed"), restored
        content = (shelf / "web1.raw").read_bytes()
        (disk_file,) = [one for one in back.rglob("*") if one.stat().st_size == len(content)]
        assert disk_file.read_bytes() == content
        # While it is away, its jobs wait, and what is known of machines is kept.
        proxy.stop()
        silent = site("machines", "--refresh")
        assert "machine 'proxy1' is not connected" in silent.err
        assert len(silent.assert_ok().text.splitlines()) == 4
        job = (
            site("policy", "run", "estate", "--client", "web1", "--json").assert_ok().json()["job"]
        )

        def waits() -> bool:
            found = job_of(site, job)["waits_for"]
            return bool(found == "machine 'proxy1' to connect")

        until(waits, "the job to wait for its proxy")
        proxy.start()
        until(lambda: len(images(site)["web1"]) == 2, "the job to be done")
