"""A worker: leases, fences, commands around a backup, and one word of the end."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from holdfast.base.errors import DatabaseLost, InputOutput, Invalid, NoSpace
from holdfast.base.ids import ClientName, SourceName
from holdfast.movers.agent import COUNTERS, Agent, ForSite, Restore, Ways
from holdfast.movers.backup_run import BackupOrder
from holdfast.wire.messages import (
    HYPERVISOR_VERSION,
    Answer,
    BackupWork,
    CommandWork,
    MachineRestoreWork,
    MachineWork,
    Reached,
    RestoreWork,
    SiteWork,
    WorkEnded,
    WorkEvent,
    WorkOffer,
    WorkProgress,
    work_from_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from holdfast.engine import Counters, Image, RestoreResult
    from holdfast.movers.agent import Alive, Note
    from holdfast.movers.drive import Reporter
    from holdfast.movers.restore_run import RestoreOrder
    from holdfast.wire.messages import WorkMessage

LEASE_S = 10.0


def no_restore(order: RestoreOrder, _report: Reporter) -> RestoreResult:
    raise AssertionError(order)


def nothing(work: SiteWork, _report: Reporter, _alive: Callable[[], None]) -> list[WorkEvent]:
    raise AssertionError(work)


@dataclass
class FakeMaster:
    """Hears; answers, or fails, as it is told."""

    heard: list[WorkMessage] = field(default_factory=list)
    answer: Callable[[WorkMessage], Answer] = lambda _message: Answer.GO_ON

    def hear(self, message: WorkMessage) -> Answer:
        self.heard.append(message)
        return self.answer(message)

    @property
    def ended(self) -> list[WorkEnded]:
        return [one for one in self.heard if isinstance(one, WorkEnded)]


def agent(
    backup: Backup,
    master: FakeMaster,
    time: Time,
    restore: Restore = no_restore,
    for_site: ForSite = nothing,
) -> Agent:
    return Agent(Ways(backup, restore), for_site, master, time)


class Time:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def counters(files: int) -> Counters:
    return cast("Counters", SimpleNamespace(**dict.fromkeys(COUNTERS, files)))


def image(order: BackupOrder) -> Image:
    finding = SimpleNamespace(
        path=b"/srv/\xff", severity="error", code="no-permission", message="may not read it"
    )
    made = SimpleNamespace(
        id="ab" * 16, number=3, source=order.source, host=order.client, started_ns=1,
        finished_ns=2, parent=None, status="completed with errors", stats={"files": 9},
        findings=[finding], findings_total=1, software="holdfast", labels=order.labels,
        client_key=None, has_sealed_names=False,
    )  # fmt: skip
    return cast("Image", made)


@dataclass
class Backup:
    """Stands for a pool: reports as often as it is told while time passes."""

    time: Time
    steps: int = 3
    step_s: float = 2.0
    orders: list[BackupOrder] = field(default_factory=list)
    error: Exception | None = None

    def __call__(self, order: BackupOrder, report: Reporter) -> Image:
        self.orders.append(order)
        for step in range(self.steps):
            self.time.now_s += self.step_s
            report(counters(step))
        if self.error is not None:
            raise self.error
        return image(order)


def offer(path: Path, **more: Any) -> WorkOffer:
    work = BackupWork(
        client="web1", source="web1:srv", paths=(str(path),), labels={"policy": "files"}, **more
    )
    return WorkOffer(7, 2, LEASE_S, work)


def test_a_backup_renews_its_lease_and_ends_once(tmp_path: Path) -> None:
    time, master = Time(), FakeMaster()
    backup = Backup(time)
    agent(backup, master, time).work(offer(tmp_path, read_all=True, parent="cd" * 16))
    (order,) = backup.orders
    assert (order.source, order.client, order.read_all) == ("web1:srv", "web1", True)
    assert (order.parent, order.labels) == ("cd" * 16, {"policy": "files"})
    assert all((one.job_id, one.fence) == (7, 2) for one in master.heard)
    assert len([one for one in master.heard if isinstance(one, WorkProgress)]) == 4
    (ended,) = master.ended
    assert ended.error is None
    assert ended.image is not None
    assert ended.image.labels == {"policy": "files"}
    assert [(one.path, one.cause) for one in ended.events] == [(b"/srv/\xff", "no-permission")]
    assert ended.counters == {"files": 9}


def test_what_is_for_the_site_is_done_and_told(tmp_path: Path) -> None:
    time, master = Time(), FakeMaster()

    def collect(work: SiteWork, report: Reporter, alive: Callable[[], None]) -> list[WorkEvent]:
        report(counters(3))
        for _ in range(8):
            time.now_s += LEASE_S / 4
            alive()
        return [WorkEvent("info", work.verb, "2 packs are gone")]

    agent(Backup(time), master, time, for_site=collect).work(
        WorkOffer(7, 2, LEASE_S, SiteWork("collect"))
    )
    (ended,) = master.ended
    assert (ended.error, ended.image, ended.counters["files"]) == (None, None, 3)
    # Where the engine counts nothing, the lease is renewed all the same.
    assert len([one for one in master.heard if isinstance(one, WorkProgress)]) >= 8
    assert [(one.cause, one.message) for one in ended.events] == [("collect", "2 packs are gone")]


def test_a_restore_is_done_and_its_findings_are_told(tmp_path: Path) -> None:
    time, master = Time(), FakeMaster()
    orders: list[RestoreOrder] = []

    def restore(order: RestoreOrder, report: Reporter) -> RestoreResult:
        orders.append(order)
        report(counters(5))
        finding = SimpleNamespace(
            path=b"/a", severity="warning", code="foreign-owner", message="it is yours now"
        )
        return cast("RestoreResult", SimpleNamespace(findings=[finding], findings_total=2))

    work = RestoreWork("ab" * 16, ("/srv/\udcff",), str(tmp_path / "back"), verify=True)
    agent(Backup(time), master, time, restore=restore).work(WorkOffer(7, 1, LEASE_S, work))
    assert orders[0].paths == (b"/srv/\xff",)
    assert list((tmp_path / "back").iterdir()) == []
    ended = master.ended[0]
    assert (ended.image, ended.error, ended.events_total) == (None, None, 2)
    assert [one.cause for one in ended.events] == ["foreign-owner"]
    assert work_from_json(work.to_json()) == work


def test_a_restore_that_was_cut_off_goes_on_into_what_is_its_own(tmp_path: Path) -> None:
    time, master = Time(), FakeMaster()
    orders: list[RestoreOrder] = []
    target = tmp_path / "back"

    def restore(order: RestoreOrder, _report: Reporter) -> RestoreResult:
        orders.append(order)
        (target / "a").write_text("half of it")
        if len(orders) == 1:
            raise InputOutput("the disk went away")
        target.chmod(0o555)
        os.utime(target, ns=(5, 7))
        return cast("RestoreResult", SimpleNamespace(findings=[], findings_total=0))

    work = RestoreWork("ab" * 16, (), str(target))
    for fence in (1, 2):
        offer = WorkOffer(7, fence, LEASE_S, work)
        agent(Backup(time), master, time, restore=restore).work(offer)
    assert [one.overwrite for one in orders] == ["never", "always"]
    assert [one.error and one.error.code for one in master.ended] == ["io", None]
    assert [one.name for one in target.iterdir()] == ["a"]
    assert (target.stat().st_mode & 0o777, target.stat().st_mtime_ns) == (0o555, 7)


@pytest.mark.parametrize("fence", [1, 2])
def test_no_attempt_of_a_restore_touches_what_somebody_else_put_there(
    tmp_path: Path, fence: int
) -> None:
    """The first attempt may have ended with its master before it looked at the directory."""
    time, master = Time(), FakeMaster()
    (tmp_path / "mine").write_text("the only copy")
    work = RestoreWork("ab" * 16, (), str(tmp_path))
    agent(Backup(time), master, time, restore=no_restore).work(WorkOffer(7, fence, LEASE_S, work))
    (ended,) = master.ended
    assert ended.error is not None
    assert ended.error.code == "target-not-empty"
    assert [one.name for one in tmp_path.iterdir()] == ["mine"]


def test_an_error_is_told_with_its_code(tmp_path: Path) -> None:
    time, master = Time(), FakeMaster()
    full = Backup(time, error=NoSpace("disk full", "free some"))
    agent(full, master, time).work(offer(tmp_path))
    (ended,) = master.ended
    assert ended.error is not None
    assert (ended.error.code, ended.error.hint) == ("no-space", "free some")
    assert ended.image is None
    assert ended.counters["files"] == 2


def test_a_defect_is_told_as_well(tmp_path: Path) -> None:
    time, master = Time(), FakeMaster()
    agent(Backup(time, error=ZeroDivisionError("x")), master, time).work(offer(tmp_path))
    (ended,) = master.ended
    assert ended.error is not None
    assert (ended.error.code, ended.error.message) == ("internal", "ZeroDivisionError: x")


def test_a_path_that_is_not_there_fails_before_anything_is_read(tmp_path: Path) -> None:
    time, master = Time(), FakeMaster()
    backup = Backup(time)
    agent(backup, master, time).work(offer(tmp_path / "nowhere"))
    assert backup.orders == []
    assert [one.error.code for one in master.ended if one.error] == ["path-missing"]


@pytest.mark.parametrize(
    ("answer", "code"), [(Answer.STOP, "cancelled"), (Answer.FENCED, "fenced")]
)
def test_work_stops_when_the_master_says_so(tmp_path: Path, answer: Answer, code: str) -> None:
    time, master = Time(), FakeMaster()
    master.answer = lambda _message: answer if time.now_s > 3 else Answer.GO_ON
    agent(Backup(time, steps=100), master, time).work(offer(tmp_path))
    assert time.now_s == 4
    assert [one.error.code for one in master.ended if one.error] == [code]


def lost(_message: WorkMessage) -> Answer:
    raise DatabaseLost("no server")


def test_work_outlives_a_short_loss_of_the_master(tmp_path: Path) -> None:
    time, master = Time(), FakeMaster()
    master.answer = lambda message: lost(message) if 2 < time.now_s < 10 else Answer.GO_ON
    agent(Backup(time, steps=10), master, time).work(offer(tmp_path))
    (ended,) = master.ended
    assert ended.error is None


def test_work_stops_when_its_lease_ran_out_unheard(tmp_path: Path) -> None:
    time, master = Time(), FakeMaster()
    master.answer = lambda message: lost(message) if time.now_s > 2 else Answer.GO_ON
    backup = Backup(time, steps=100)
    agent(backup, master, time).work(offer(tmp_path))
    assert LEASE_S < time.now_s <= 2 + LEASE_S + backup.step_s
    assert [one.error.code for one in master.ended if one.error] == ["fenced"]


def say(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


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


REACHED = Reached("esx", "libvirt", "qemu+ssh://esx/system", {"password": "s3cret"})
MACHINE = MachineWork(
    client="web1", source="machine:ab", machine="ab", name="web 1", hypervisor="esx",
    reached=REACHED, leave_out=("vdb",), labels={"policy": "vms", "machine": "ab"},
)  # fmt: skip


def test_a_virtual_machine_is_backed_up_between_its_commands(tmp_path: Path) -> None:
    time, master, told = Time(), FakeMaster(), tmp_path / "told"
    works: list[MachineWork] = []

    def back_up(work: MachineWork, report: Reporter, alive: Alive, note: Note) -> Image:
        works.append(work)
        alive()
        report(counters(1))
        note(WorkEvent("warning", "not-quiesced", "no guest agent answers"))
        return image(BackupOrder(ClientName(work.client), (), name=SourceName(work.source)))

    write = "import os; open({!r}, 'a').write(os.environ['HOLDFAST_MACHINE_NAME'] + {!r})"
    work = replace(
        MACHINE,
        pre_command=say(write.format(str(told), " begins; ")),
        post_command=say(write.format(str(told), " ends")),
    )
    ways = Ways(Backup(time), no_restore, back_up)
    Agent(ways, nothing, master, time).work(WorkOffer(7, 1, LEASE_S, work))
    (ended,) = master.ended
    assert told.read_text() == "web 1 begins; web 1 ends"
    assert works == [work]
    assert ended.image is not None
    assert ended.image.source == "machine:ab"
    assert [one.cause for one in ended.events] == ["not-quiesced", "no-permission"]


def test_what_is_noted_of_a_virtual_machine_is_told_though_its_backup_fails() -> None:
    time, master = Time(), FakeMaster()

    def back_up(_work: MachineWork, _report: Reporter, _alive: Alive, note: Note) -> Image:
        note(WorkEvent("warning", "bitmap-lost", "it was lost"))
        raise NoSpace("the scratch directory is full")

    ways = Ways(Backup(time), no_restore, back_up)
    Agent(ways, nothing, master, time).work(WorkOffer(7, 1, LEASE_S, MACHINE))
    (ended,) = master.ended
    assert [one.cause for one in ended.events] == ["bitmap-lost"]
    assert ended.error is not None
    assert ended.error.code == "no-space"


def test_a_virtual_machine_is_made_of_an_image() -> None:
    time, master = Time(), FakeMaster()
    works: list[MachineRestoreWork] = []

    def restore(work: MachineRestoreWork, _: Reporter, _alive: Alive, note: Note) -> None:
        works.append(work)
        note(WorkEvent("info", "restored", "machine 'web2' was made"))

    work = MachineRestoreWork("ab" * 16, "esx", reached=REACHED, name="web2", networks=())
    ways = Ways(Backup(time), no_restore, restore_machine=restore)
    Agent(ways, nothing, master, time).work(WorkOffer(7, 1, LEASE_S, work))
    assert works == [work]
    assert master.ended[0].error is None
    assert [one.cause for one in master.ended[0].events] == ["restored"]


def test_a_worker_that_reaches_no_hypervisor_says_so() -> None:
    for work in (MACHINE, MachineRestoreWork("ab" * 16, to_dir="/srv/back")):
        time, master = Time(), FakeMaster()
        agent(Backup(time), master, time).work(WorkOffer(7, 1, LEASE_S, work))
        assert [one.error and one.error.code for one in master.ended] == ["unsupported"]


def test_work_with_virtual_machines_passes_json_and_shows_no_credentials() -> None:
    import json

    for work in (
        MACHINE,
        replace(MACHINE, reached=None, parent="cd" * 16),
        MachineRestoreWork("ab" * 16, "esx", reached=REACHED, networks=("br0",)),
        MachineRestoreWork("ab" * 16, to_dir="/srv/back", networks=None, disks=("vda",)),
    ):
        assert work_from_json(json.loads(json.dumps(work.to_json()))) == work
        assert work.to_json()["version"] == HYPERVISOR_VERSION
        assert "s3cret" not in repr(WorkOffer(7, 1, LEASE_S, work))
    for wrong in ({"reached": {"url": "x"}}, {"reached": "x"}):
        with pytest.raises(Invalid, match="not complete"):
            work_from_json({**MACHINE.to_json(), **wrong})


def test_messages_pass_json_and_newer_ones_are_refused(tmp_path: Path) -> None:
    import json

    work = offer(tmp_path, exclude=("*.tmp",), post_command=("a", "b\udcff")).work
    data = json.loads(json.dumps(work.to_json()))
    assert work_from_json(data) == work
    assert work_from_json(SiteWork("expire").to_json()) == SiteWork("expire")
    for wrong in ({"version": 6}, {"work": "dance"}, {"version": None}):
        with pytest.raises(Invalid):
            work_from_json({**data, **wrong})
    with pytest.raises(Invalid, match="not complete"):
        work_from_json({"version": 1, "work": "backup", "client": "web1"})
