"""Two masters on one PostgreSQL: one works, the other takes over, no job is lost or done twice."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.ids import ClientName
from holdfast.control.policies import Selection
from holdfast.control.retention import Rules
from holdfast.control.schedule import BackupKind, Schedule
from tests.kit.policies import policy
from tests.kit.served import put_policies, served, until
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command

CLIENT = ClientName(os.uname().nodename)


def jobs(site: Command) -> list[dict[str, Any]]:
    """The jobs of the policy."""
    return site("jobs", "list", "--policy", "servers", "--json").assert_ok().json_lines()


@pytest.fixture
def masters(site: Command, tmp_path: Path, postgres_url: str) -> tuple[Command, Command]:
    """Two homes with one pool and one control database."""
    first = replace(site, environ={"HOLDFAST_DATABASE_URL": postgres_url})
    second = replace(first, home=tmp_path / "second")
    kit = tmp_path / "kit.txt"
    kit.write_text(site("pool", "recovery-kit").assert_ok().text)
    second("init", "--existing", "--pool", site.home / "pool", "--recovery-kit", kit).assert_ok()
    return first, second


@pytest.mark.parametrize("at", ["pre_command", "post_command"])
def test_a_job_at_work_when_its_master_is_killed_is_completed_once_by_the_other(
    masters: tuple[Command, Command], tree: Path, tmp_path: Path, postgres_url: str, at: str
) -> None:
    """Before anything is read, and when the image is there and nobody has heard of it."""
    first, second = masters
    reached, goes_on = tmp_path / "reached", tmp_path / "goes on"
    wait = (
        f"echo here >> {shlex.quote(str(reached))}; "
        f"until test -e {shlex.quote(str(goes_on))}; do sleep 0.1; done"
    )
    command: dict[str, Any] = {at: ("/bin/sh", "-c", wait)}
    daily = Schedule("daily", BackupKind.FULL, every=timedelta(days=1))
    put_policies(
        postgres_url,
        policy(
            clients=(CLIENT,),
            selections=(Selection("tree", (str(tree),)),),
            schedules=(daily,),
            retention=Rules(last=1000),
            **command,
        ),
    )
    with served(first) as one, served(second) as other:
        until(reached.exists, "the job to be at work")
        (job,) = jobs(first)
        assert job["state"] == "active"
        assert "this master is the active one" in one.log.read_text()
        assert "waiting to take over" in other.log.read_text()
        assert "this master is the active one" not in other.log.read_text()
        one.kill()
        until(lambda: "this master is the active one" in other.log.read_text(), "the other master")
        goes_on.touch()
        until(lambda: all(row["state"] == "ended" for row in jobs(second)), "the job to end", 120)
        (ended,) = jobs(second)
        assert (ended["id"], ended["outcome"]) == (job["id"], "completed"), ended
        # Everything else that there was to do ends, too.
        until(
            lambda: not second("jobs", "list", "--open", "--json").assert_ok().json_lines(),
            "nothing to be open",
        )
        (image,) = second("images", "--json").assert_ok().json_lines()
        assert image["id"] == ended["image_id"]
        other.stop()
    # The pool, which is the truth, has it once as well.
    second("catalog", "rebuild").assert_ok()
    assert [row["id"] for row in second("images", "--json").assert_ok().json_lines()] == [
        image["id"]
    ]
    second("restore", image["id"], "--to", tmp_path / "back", "--verify").assert_ok()
    assert_same_tree(tree, tmp_path / "back" / str(tree).lstrip("/"))
