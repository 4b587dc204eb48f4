"""Virtual machines of a policy: a job each, by who reaches them, and never too many on a host."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import Invalid, MachineMissing
from holdfast.base.ids import ClientName, JobId
from holdfast.control.dispatch import Presence, by_hand
from holdfast.control.jobs import BY_SITE, JobState, Outcome, Sort, Wanted
from holdfast.control.policies import MACHINES, MachineSelection
from holdfast.control.schedule import BackupKind
from holdfast.wire.machine_work import MachineWork
from holdfast.wire.messages import WorkError
from tests.kit.clock import FakeClock
from tests.kit.dispatching import Stage
from tests.kit.policies import NIGHTLY, policy
from tests.kit.virtual_machines import estate, machine, uuid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from holdfast.control.database import Database
    from holdfast.control.jobs import Job
    from holdfast.control.policies import Policy
    from holdfast.wire.messages import Work, WorkOffer

NIGHT = datetime(2026, 3, 2, 22, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PROXY = ClientName("proxy1")
FULL = replace(NIGHTLY, name="weekly", kind=BackupKind.FULL)


@pytest.fixture
def stage(database: Database, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(database, tmp_path, FakeClock(NIGHT), slots=100)
    yield made
    made.close()


def vms(query: str = "*", name: str = "vms", **others: Any) -> Policy:
    wanted = MachineSelection(query, **others.pop("wanted", {}))
    given = {"type": MACHINES, "clients": (), "selections": (), "machines": wanted}
    return policy(name, **given | others)


def names(offers: Sequence[WorkOffer]) -> list[str]:
    found = []
    for one in offers:
        assert isinstance(one.work, MachineWork)
        found.append(one.work.name)
    return sorted(found)


def test_a_guest_that_is_to_trim_is_given_its_time(stage: Stage) -> None:
    stage.estate = estate(machine("web1", 1))
    stage.put(vms("web1", wanted={"trim": True, "trim_timeout_s": 90}))
    (offer,) = stage.step()
    assert isinstance(offer.work, MachineWork)
    assert offer.work.trim_s == 90


def test_every_machine_that_is_selected_is_a_part_of_one_job(stage: Stage) -> None:
    stage.estate = estate(
        machine("web1", 1), machine("web 2", 2, host="esx8"), machine("db1", 3), per_host=9
    )
    stage.put(vms("web*", wanted={"leave_out": ("vdb",), "quiesce": "require"}))
    offers = stage.step()
    assert names(offers) == ["web 2", "web1"]
    (first,) = [one.work for one in offers if getattr(one.work, "name", "") == "web1"]
    assert isinstance(first, MachineWork)
    assert (first.client, first.source, first.machine) == ("web1", f"machine:{uuid(1)}", uuid(1))
    assert (first.hypervisor, first.proxy, first.reached) == ("esx", None, None)
    assert (first.leave_out, first.quiesce, first.require_quiesce) == (("vdb",), True, True)
    assert first.trim_s == 0
    assert first.labels["machine"] == uuid(1)
    assert first.labels["policy"] == "vms"
    assert "job" in first.labels
    jobs = list(stage.jobs.each(Wanted(), Sort("id")))
    parent, *parts = jobs
    assert (parent.children, parent.client) == (2, None)
    assert {str(one.client) for one in parts} == {"web1", "web-2"}
    assert {one.parent_id for one in parts} == {parent.id}
    assert {one.worker for one in parts} == {BY_SITE}
    for one in offers:
        stage.finish(one)
    assert stage.jobs.job(parent.id).outcome is Outcome.COMPLETED


def test_a_host_never_has_more_backups_than_its_limit(stage: Stage) -> None:
    some = [machine(f"a{n}", n, datastores=()) for n in range(5)]
    other = [machine(f"b{n}", n + 9, host="esx8", datastores=()) for n in range(3)]
    stage.estate = estate(*some, *other, per_host=2)
    stage.put(vms())
    running = list(stage.step())
    assert [name[0] for name in names(running)] == ["a", "a", "b", "b"]
    waits = [one.waits_for for one in stage.all_jobs() if one.waits_on == "host 'esx7 of esx'"]
    assert len(waits) == 3
    assert all("has 2 of 2 backups running" in str(one) for one in waits)
    most = 0
    while running:
        stage.finish(running.pop(0))
        running += stage.step()
        most = max(most, sum(name[0] == "a" for name in names(running)))
    assert most == 2
    assert {one.outcome for one in stage.all_jobs()} == {Outcome.COMPLETED}


def test_a_datastore_never_has_more_backups_than_its_limit(stage: Stage) -> None:
    some = [machine(f"a{n}", n, host=f"h{n}", datastores=("slow",)) for n in range(4)]
    stage.estate = estate(*some, per_host=9, per_datastore=3)
    stage.put(vms())
    assert len(stage.step()) == 3
    (waiting,) = [one for one in stage.all_jobs() if one.waits_for]
    assert waiting.waits_on == "datastore 'slow of esx'"


def test_fulls_of_machines_that_share_a_host_follow_each_other(stage: Stage) -> None:
    some = [machine(f"a{n}", n, datastores=()) for n in range(3)]
    stage.estate = estate(*some, machine("b0", 9, host="esx8", datastores=()), per_host=3)
    stage.put(vms("a*", "fulls", schedules=(FULL,), priority=90), vms("*", "increments"))
    offers = stage.step()
    fulls = [one for one in offers if isinstance(one.work, MachineWork) and one.work.read_all]
    assert len(fulls) == 1
    # The incrementals pass by it, as far as the host takes more.
    assert len(names(offers)) == 4


def test_jobs_are_done_by_who_reaches_the_hypervisor(stage: Stage) -> None:
    """An agent in the guest is of the same name, and has nothing to do with it."""
    web1 = ClientName("web1")
    agents = frozenset({web1, PROXY})
    stage.estate = estate(machine("web1", 1), proxy="proxy1")
    stage.presence = Presence(agents, frozenset({web1}))
    stage.put(vms())
    assert stage.step() == []
    (job,) = stage.all_jobs()
    assert (job.client, job.worker, job.waits_for) == (
        "web1",
        PROXY,
        "machine 'proxy1' to connect",
    )
    stage.presence = Presence(agents, agents)
    (offer,) = stage.step()
    assert isinstance(offer.work, MachineWork)
    # It stays its own when the master starts anew.
    stage.restart()
    assert stage.jobs.job(job.id).state is JobState.ACTIVE
    stage.finish(offer)


def test_a_job_that_waits_goes_where_its_machine_goes(stage: Stage) -> None:
    agents = frozenset({PROXY})
    stage.estate = estate(machine("web1", 1), proxy="proxy1")
    stage.presence = Presence(agents)
    stage.put(vms())
    assert stage.step() == []
    # Another hypervisor, which the master reaches itself, has it now.
    moved = estate(machine("web1", 1, host="kvm1"))
    stage.estate = moved
    (offer,) = stage.pass_time(MINUTE)
    (job,) = stage.all_jobs()
    assert job.worker == BY_SITE
    stage.finish(offer)


def test_what_is_known_only_then_is_added_when_a_job_is_given_out(stage: Stage) -> None:
    stage.estate = estate(machine("web1", 1))

    def complete(_job: Job, work: Work) -> Work:
        assert isinstance(work, MachineWork)
        return replace(work, name="now")

    stage.complete = complete
    stage.put(vms())
    (offer,) = stage.step()
    assert names([offer]) == ["now"]
    assert stage.jobs.work(JobId(offer.job_id))["name"] == "web1"


def test_a_job_that_nobody_can_do_any_more_fails_with_the_cause(stage: Stage) -> None:
    def gone(*_: object) -> Any:
        raise MachineMissing("virtual machine 'web1' is on no hypervisor any more")

    stage.estate = estate(machine("web1", 1))
    stage.complete = gone
    stage.put(vms())
    assert stage.step() == []
    (job,) = stage.all_jobs()
    assert job.outcome is Outcome.FAILED
    assert job.error is not None
    assert job.error.code == "machine-missing"


def test_machines_that_come_and_go_are_followed(stage: Stage) -> None:
    stage.estate = estate(machine("web1", 1))
    stage.put(vms())
    (offer,) = stage.step()
    stage.finish(offer)
    stage.estate = estate(machine("web1", 1), machine("web2", 2))
    (new,) = stage.pass_time(MINUTE)
    assert names([new]) == ["web2"]
    stage.finish(new)
    # Renamed, it is the same; gone, it is backed up no more.
    stage.estate = estate(machine("mail", 2))
    (again,) = stage.pass_time(timedelta(days=1))
    assert names([again]) == ["mail"]
    assert stage.finish(again, WorkError("no-space", "full", None)) is not None


def test_a_policy_with_machines_is_run_by_hand(stage: Stage) -> None:
    stage.estate = estate(machine("web1", 1), machine("db1", 2))
    stage.put(vms(active=False))
    stage.step()
    roster = stage.dispatcher.agenda.roster
    name = vms().name
    job = by_hand(roster, name, lambda _: None, kind=BackupKind.FULL)
    assert [part.client for part in job.parts] == ["db1", "web1"]
    assert all(part.work["read_all"] for part in job.parts)
    only = by_hand(roster, name, lambda _: None, clients=[ClientName("db1")])
    assert (only.client, only.work["read_all"]) == ("db1", False)
    with pytest.raises(Invalid, match="not for client 'web9'"):
        by_hand(roster, name, lambda _: None, clients=[ClientName("web9")])
