"""A worker runs commands around a backup, and tells how they ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import NoSpace
from holdfast.movers.agent import Agent
from holdfast.movers.ways import Ways
from holdfast.wire.messages import (
    Answer,
    CommandWork,
    WorkOffer,
)
from tests.kit.fake_master import (
    LEASE_S,
    Backup,
    FakeMaster,
    Time,
    agent,
    no_restore,
    nothing,
    offer,
    say,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_commands_run_around_the_backup_and_are_heard(tmp_path: Path) -> None:
    time, master = Time(), FakeMaster()
    note = "import os; print(os.environ['HOLDFAST_POLICY'], os.environ.get('HOLDFAST_FAILED'))"
    work = offer(tmp_path, pre_command=say(note), post_command=say(note))
    agent(Backup(time), master, time).work(work)
    (ended,) = master.ended
    said = [one.message for one in ended.events if one.severity == "info"]
    assert said == ["pre-command said: files None", "post-command said: files 0"]
    assert ended.events_total == 3


def test_a_failed_command_before_keeps_the_backup_from_running(tmp_path: Path) -> None:
    time, master = Time(), FakeMaster()
    backup = Backup(time)
    marker = tmp_path / "marker"
    after = say(f"open({str(marker)!r}, 'w')")
    work = offer(tmp_path, pre_command=say("exit('no dump')"), post_command=after)
    agent(backup, master, time).work(work)
    assert backup.orders == []
    assert not marker.exists()
    (ended,) = master.ended
    assert ended.error is not None
    assert ended.error.code == "command-failed"
    assert "no dump" in ended.error.message
    assert [one.severity for one in ended.events] == ["error"]


def test_the_command_after_runs_where_the_backup_failed_and_hides_nothing(tmp_path: Path) -> None:
    time, master = Time(), FakeMaster()
    after = say("import os; exit('failed=' + os.environ['HOLDFAST_FAILED'])")
    work = offer(tmp_path, post_command=after)
    agent(Backup(time, error=NoSpace("disk full")), master, time).work(work)
    (ended,) = master.ended
    assert ended.error is not None
    assert ended.error.code == "no-space"
    assert "failed=1" in ended.events[0].message


def around(**more: Any) -> WorkOffer:
    return WorkOffer(7, 3, LEASE_S, CommandWork("web1", labels={"policy": "files"}, **more))


@pytest.mark.parametrize("failed", [True, False])
def test_a_command_that_is_a_job_is_told_how_the_backups_ended(failed: bool) -> None:
    time, master = Time(), FakeMaster()
    note = "import os; print(os.environ['HOLDFAST_POLICY'], os.environ.get('HOLDFAST_FAILED'))"
    backup = Backup(time)
    agent(backup, master, time).work(around(pre_command=say(note), post_command=say("exit(1)")))
    agent(backup, master, time).work(around(post_command=say(note), failed=failed))
    assert [one.error for one in master.ended] == [None, None]
    said = [one.message for ended in master.ended for one in ended.events]
    assert said == ["pre-command said: files None", f"post-command said: files {int(failed)}"]
    assert backup.orders == []


@pytest.mark.parametrize(
    ("answer", "is_undone"), [(Answer.STOP, True), (Answer.FENCED, False)], ids=["stop", "fenced"]
)
def test_a_command_that_is_a_job_and_was_stopped_is_undone_by_whoever_has_it(
    tmp_path: Path, answer: Answer, is_undone: bool
) -> None:
    """What another has now, the master has undone when its turn has come."""
    time, master = Time(), FakeMaster()
    master.answer = lambda _message: answer if master.heard[1:] else Answer.GO_ON
    thawed = tmp_path / "thawed"
    after = say(f"open({str(thawed)!r}, 'w')")
    given = around(pre_command=say("import time; time.sleep(30)"), post_command=after)

    def passing() -> float:
        time.now_s += 0.5
        return time.now_s

    Agent(Ways(Backup(time), no_restore), nothing, master, passing).work(given)
    assert thawed.exists() is is_undone


def test_a_command_after_that_fails_says_so_whatever_became_of_the_backups() -> None:
    time, master = Time(), FakeMaster()
    agent(Backup(time), master, time).work(around(post_command=say("exit('stuck')"), failed=True))
    (ended,) = master.ended
    assert ended.error is not None
    assert "stuck" in ended.error.message


@pytest.mark.parametrize("answer", [Answer.STOP, Answer.FENCED])
@pytest.mark.parametrize("before", [True, False], ids=["in the first command", "in the backup"])
def test_the_command_after_ends_in_peace_when_the_work_is_stopped(
    tmp_path: Path, answer: Answer, before: bool
) -> None:
    """What a pre-command froze must not stay frozen because somebody cancelled the job."""
    time, master = Time(), FakeMaster()
    thawed = tmp_path / "thawed"
    master.answer = lambda _message: answer if master.heard[1:] else Answer.GO_ON
    sleep = "import time; time.sleep(30)" if before else "pass"
    after = say(f"import time; time.sleep(1); open({str(thawed)!r}, 'w')")
    work = offer(tmp_path, pre_command=say(sleep), post_command=after)

    def passing() -> float:
        time.now_s += 0.5
        return time.now_s

    Agent(Ways(Backup(time), no_restore), nothing, master, passing).work(work)
    assert thawed.exists()
    assert [one.error and one.error.code for one in master.ended] == [
        "cancelled" if answer is Answer.STOP else "fenced"
    ]


def test_a_command_before_that_took_too_long_is_tidied_up_after(tmp_path: Path) -> None:
    time, master = Time(), FakeMaster()
    thawed = tmp_path / "thawed"
    work = offer(
        tmp_path,
        pre_command=say("import time; time.sleep(30)"),
        post_command=say(f"open({str(thawed)!r}, 'w')"),
        command_timeout_s=1,
    )
    agent(Backup(time), master, time).work(work)
    assert thawed.exists()
    assert [one.error and one.error.code for one in master.ended] == ["command-failed"]


def test_a_failed_command_after_is_the_jobs_failure_and_keeps_the_image_known(
    tmp_path: Path,
) -> None:
    time, master = Time(), FakeMaster()
    agent(Backup(time), master, time).work(offer(tmp_path, post_command=say("exit(1)")))
    (ended,) = master.ended
    assert ended.error is not None
    assert ended.error.code == "command-failed"
    assert ended.image is not None
