"""A worker: leases, fences, commands around a backup, and one word of the end."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from holdfast.base.errors import DatabaseLost, InputOutput, Invalid, NoSpace
from holdfast.base.ids import ClientName, SourceName
from holdfast.movers.agent import Agent
from holdfast.movers.backup_run import BackupOrder
from holdfast.movers.ways import Ways
from holdfast.wire.machine_work import HYPERVISOR_VERSION, MachineRestoreWork, MachineWork, Reached
from holdfast.wire.messages import (
    Answer,
    RestoreWork,
    SiteWork,
    WorkEvent,
    WorkOffer,
    WorkProgress,
    work_from_json,
)
from tests.kit.fake_master import (
    LEASE_S,
    Backup,
    FakeMaster,
    Time,
    agent,
    counters,
    image,
    no_restore,
    nothing,
    offer,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from holdfast.engine import Image, RestoreResult
    from holdfast.movers.drive import Reporter
    from holdfast.movers.restore_run import RestoreOrder
    from holdfast.movers.ways import Alive, Note
    from holdfast.wire.messages import WorkMessage


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
    assert "trim_s" not in MACHINE.to_json()
    assert work_from_json(replace(MACHINE, trim_s=60).to_json()) == replace(MACHINE, trim_s=60)
    for wrong in ({"version": 8}, {"work": "dance"}, {"version": None}):
        with pytest.raises(Invalid):
            work_from_json({**data, **wrong})
    with pytest.raises(Invalid, match="not complete"):
        work_from_json({"version": 1, "work": "backup", "client": "web1"})
