"""A site that is served does by itself what its policies say, and survives its own death."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.ids import ClientName
from holdfast.control.policies import Policy, Selection
from holdfast.control.retention import Rules
from holdfast.control.schedule import BackupKind, Schedule
from tests.kit.policies import policy
from tests.kit.served import put_policies, served, until
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command

CLIENT = ClientName(os.uname().nodename)
KILLS = int(os.environ.get("HOLDFAST_TEST_KILLS", "6"))
"""How often a site is killed; each time costs seconds, and two hundred are right now and then."""


def often(tree: Path, **more: Any) -> Policy:
    """Back a tree up every second."""
    schedule = Schedule("often", BackupKind.CONTINUOUS, every=timedelta(seconds=1))
    return policy(
        clients=(CLIENT,),
        selections=(Selection("tree", (str(tree),)),),
        schedules=(schedule,),
        retention=Rules(last=1000),
        **more,
    )


def images(site: Command) -> list[dict[str, Any]]:
    return site("images", "--json").assert_ok().json_lines()


def another_image(site: Command) -> None:
    before = len(images(site))
    until(lambda: len(images(site)) > before, "another image")


def is_past(moment: float) -> bool:
    return time.monotonic() >= moment


def database(site: Command) -> Path:
    return site.home / "catalog" / "catalog.db"


def test_a_policy_makes_images_that_restore(site: Command, tree: Path, tmp_path: Path) -> None:
    put_policies(database(site), often(tree))
    with served(site) as running:
        made = until(lambda: images(site)[1:], "two images")
        running.stop()
    assert list((site.home / "catalog" / "inbox").iterdir()) == []
    assert {one["policy"] for one in made} == {"servers"}
    assert {one["schedule"] for one in made} == {"often"}
    site("restore", made[0]["id"], "--to", tmp_path / "back", "--verify").assert_ok()
    assert_same_tree(tree, os.fsencode(tmp_path / "back") + os.fsencode(tree))
    # The catalog was fed, and kept in the pool, without anybody asking.
    site("find", "hole").assert_ok()


def test_a_site_is_served_once_and_without_a_site_not_at_all(site: Command, tmp_path: Path) -> None:
    replace(site, home=tmp_path / "nowhere")("serve").assert_failed(2, "there is no Holdfast site")
    with served(site) as running:
        site("serve").assert_failed(2, "is served at")
        running.stop()


def test_a_stop_at_any_moment_after_the_start_ends_it_well(site: Command) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        with served(site) as running:
            running.process.send_signal(number)
            assert running.process.wait(60) == 0, running.log.read_text()


def test_wrong_settings_are_refused_before_anything_is_served(site: Command) -> None:
    for variable, value, said in (
        ("HOLDFAST_JOBS_SLOTS", "none", "'none' is not a number"),
        ("HOLDFAST_SERVE_LISTEN", "nowhere", "is no address and port"),
        ("HOLDFAST_SERVE_LISTEN", "127.0.0.1:0", "serve.certificate is not"),
        ("HOLDFAST_DATABASE_URL", "mysql://x", "can't be of the kind 'mysql'"),
    ):
        ended = replace(site, environ={variable: value})("serve")
        assert ended.status in {2, 64}
        assert said in ended.err
        assert "Traceback" not in ended.err


def test_killed_at_any_moment_it_goes_on_and_loses_nothing(
    site: Command, tree: Path, tmp_path: Path
) -> None:
    dice = random.Random(7)
    put_policies(database(site), often(tree))
    for _ in range(KILLS):
        with served(site) as running:
            another_image(site)
            moment = time.monotonic() + min(dice.expovariate(1 / 1.2), 5)
            until(partial(is_past, moment), "the moment")
            running.kill()
        site("pool", "check").assert_ok()
    put_policies(database(site), replace(often(tree), active=False))
    with served(site) as running:
        # What was at work is completed, and nothing is left hanging.
        until(lambda: not unended(site), "every job to end")
        running.stop()
    site("verify").assert_ok()
    labels = [one["job"] for one in images(site)]
    assert len(labels) == len(set(labels))
    site("restore", "latest", "--to", tmp_path / "back", "--verify").assert_ok()
    assert_same_tree(tree, os.fsencode(tmp_path / "back") + os.fsencode(tree))


def unended(site: Command) -> int:
    from holdfast.base.clock import SystemClock
    from holdfast.control.database import Database
    from holdfast.control.jobs import JobBook, JobState, Wanted

    opened = Database(database(site))
    states = (JobState.QUEUED, JobState.ACTIVE, JobState.ENDING)
    count = JobBook(opened, SystemClock()).count(Wanted(states=states, policies=("servers",)))
    opened.close()
    return count


def test_a_stop_while_a_backup_is_at_work_puts_it_back_into_the_queue(
    site: Command, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.mkdir()
    for at in range(20):
        (large / f"{at}").write_bytes(os.urandom(8 << 20))
    once = Schedule("once", BackupKind.FULL, every=timedelta(days=1))
    put_policies(database(site), replace(often(large), schedules=(once,)))
    with served(site) as running:
        until(lambda: any((site.home / "pool" / "packs").rglob("*")), "data to be stored")
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 0
    if not images(site):
        with served(site) as running:
            until(lambda: images(site), "the backup to be done")
            running.stop()
    assert len(images(site)) == 1
    assert unended(site) == 0


def test_the_unit_of_a_service_names_this_program_and_this_home(
    site: Command, tmp_path: Path
) -> None:
    odd = replace(site, home=tmp_path / 'a "home" of 100%')
    odd("init").assert_ok()
    unit = odd("service", "install", "--print").assert_ok().text
    assert 'a \\"home\\" of 100%%"' in unit
    assert "Type=notify" in unit
    there = replace(site, environ={"XDG_CONFIG_HOME": str(tmp_path / "config")})
    there("service", "install", "--user").assert_ok()
    written = tmp_path / "config" / "systemd" / "user" / "holdfast.service"
    assert f'Environment="HOLDFAST_HOME={site.home}"' in written.read_text()
    site.without_privileges()


def test_settings_say_who_set_them(site: Command) -> None:
    with (site.home / "config.toml").open("a") as file:
        file.write("\n[jobs]\nattempts = 5\n")
    secret = {"HOLDFAST_JOBS_SLOTS": "7"}
    shown = replace(site, environ=secret)("config", "show", "--json").assert_ok().json_lines()
    by = {one["key"]: (one["value"], one["origin"]) for one in shown}
    assert by["jobs.slots"] == ("7", "environment")
    assert by["jobs.attempts"] == ("5", "file")
    assert by["housekeeping.at"] == ("12:00", "default")
    with served(site) as running:
        text = site("config", "show").assert_ok().text
        assert "jobs.attempts" in text
        running.stop()


@pytest.mark.parametrize("wrong", ["[jobs]\nslot = 3", "[jobs]\nslots = 0"])
def test_a_wrong_file_is_named(site: Command, wrong: str) -> None:
    with (site.home / "config.toml").open("a") as file:
        file.write(f"\n{wrong}\n")
    site("config", "show").assert_failed(2, "config.toml", "jobs.slot")
