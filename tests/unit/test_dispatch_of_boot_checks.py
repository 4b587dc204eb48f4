"""After a backup its image is booted: a job of its own, one at a time, and in nobody's way."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from holdfast.control.jobs import BY_SITE, JobKind, JobState, Outcome
from holdfast.control.policies import MACHINES, MachineSelection, VerifyBoot
from holdfast.control.schedule import BackupKind
from holdfast.site.boot_checks import queue_boot_check
from holdfast.wire.machine_work import BootCheckWork, MachineWork
from holdfast.wire.messages import WorkError, work_from_json
from tests.kit.clock import FakeClock
from tests.kit.dispatching import Stage
from tests.kit.policies import NIGHTLY, policy
from tests.kit.virtual_machines import estate, machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from holdfast.base.ids import ImageId
    from holdfast.control.database import Database
    from holdfast.control.jobs import Job
    from holdfast.site.master import Master
    from holdfast.wire.messages import WorkOffer

NIGHT = datetime(2026, 3, 2, 22, 30, tzinfo=UTC)
DAY = timedelta(days=1)
WANTED = VerifyBoot(serial="login:", within_s=300)


@pytest.fixture
def stage(database: Database, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(database, tmp_path, FakeClock(NIGHT), slots=100)
    master = cast(
        "Master", SimpleNamespace(policies=made.policies, catalog=made.catalog, jobs=made.jobs)
    )

    def follow(job: Job, image: ImageId) -> None:
        queue_boot_check(master, job, image)

    made.follow = follow
    made.estate = estate(machine("web1", 1), machine("web2", 2), per_host=9)
    yield made
    made.close()


def put(stage: Stage, query: str = "*", wanted: VerifyBoot | None = WANTED, **others: Any) -> None:
    given: dict[str, Any] = {
        "type": MACHINES,
        "clients": (),
        "selections": (),
        "machines": MachineSelection(query),
        "verify_boot": wanted,
    }
    stage.put(policy("vms", **given | others))


def backups(offers: Sequence[WorkOffer]) -> list[WorkOffer]:
    return [one for one in offers if isinstance(one.work, MachineWork)]


def checks(offers: Sequence[WorkOffer]) -> list[WorkOffer]:
    return [one for one in offers if isinstance(one.work, BootCheckWork)]


def of_kind(stage: Stage) -> list[Job]:
    return [one for one in stage.all_jobs() if one.kind is JobKind.BOOT_CHECK]


def test_an_image_is_booted_after_its_backup(stage: Stage) -> None:
    put(stage, "web1")
    (backup,) = stage.step()
    assert of_kind(stage) == []
    stage.finish(backup)
    (queued,) = of_kind(stage)
    assert (queued.policy, queued.client, queued.worker) == ("vms", "web1", BY_SITE)
    (made_by,) = [one for one in stage.all_jobs() if one.kind is JobKind.BACKUP]
    assert queued.priority < made_by.priority
    (check,) = stage.step()
    assert isinstance(check.work, BootCheckWork)
    assert (check.work.image, check.work.serial, check.work.within_s) == (
        f"{1:032x}",
        "login:",
        300,
    )
    assert work_from_json(check.work.to_json()) == check.work
    error = WorkError("does-not-boot", "no prompt", None)
    stage.finish(check, error)
    (ended,) = of_kind(stage)
    assert (ended.outcome, ended.attempt) == (Outcome.FAILED, 1)


@pytest.mark.parametrize("wanted", [None, replace(WANTED, on="full")])
def test_none_is_where_nobody_wants_one(stage: Stage, wanted: VerifyBoot | None) -> None:
    put(stage, "web1", wanted)
    (backup,) = stage.step()
    stage.finish(backup)
    assert stage.step() == []
    assert of_kind(stage) == []


def test_fulls_alone_are_booted_where_that_is_said(stage: Stage) -> None:
    weekly = replace(NIGHTLY, kind=BackupKind.FULL)
    put(stage, "web1", replace(WANTED, on="full"), schedules=(weekly,))
    (backup,) = stage.step()
    stage.finish(backup)
    assert len(checks(stage.step())) == 1


def test_a_backup_that_failed_has_nothing_to_boot(stage: Stage) -> None:
    put(stage, "web1")
    (backup,) = stage.step()
    stage.finish(backup, WorkError("machine-missing", "it is gone", None))
    assert of_kind(stage) == []


def test_not_all_are_booted_at_once(stage: Stage) -> None:
    put(stage)
    for one in stage.step():
        stage.finish(one)
    first = checks(stage.step())
    assert len(first) == 1
    (waiting,) = [one for one in of_kind(stage) if one.state is JobState.QUEUED]
    assert waiting.waits_for == (
        f"server 'master' has 1 of 1 boot checks running: job {first[0].job_id}"
    )
    stage.finish(first[0])
    assert len(checks(stage.step())) == 1


def test_one_that_waits_or_runs_keeps_no_backup_from_beginning(stage: Stage) -> None:
    stage.slots = 1
    put(stage, "web1")
    (backup,) = stage.step()
    stage.finish(backup)
    assert len(checks(stage.step())) == 1
    offers = stage.pass_time(DAY)
    assert len(backups(offers)) == 1
    (check,) = checks(offers)
    # The end of a boot check is not that of the backup beside it, which goes on for another day.
    stage.finish(check)
    (backup,) = backups(offers)
    for _ in range(48):
        stage.alive(backup)
        stage.clock.move(timedelta(minutes=30))
        stage.alive(backup)
        assert backups(stage.step()) == []
    assert len([one for one in stage.all_jobs() if one.kind is JobKind.BACKUP]) == 2


def test_a_crash_queues_none_twice_and_forgets_none(stage: Stage) -> None:
    put(stage, "web1")
    (backup,) = stage.step()
    note = stage.image(backup)
    # The image is there; the master ends before it hears so, twice.
    stage.restart()
    stage.restart()
    (queued,) = of_kind(stage)
    assert queued.state is JobState.QUEUED
    (check,) = checks(stage.step())
    assert isinstance(check.work, BootCheckWork)
    assert check.work.image == note.id
    # Its own worker ends with the master: it is booted anew.
    stage.restart()
    assert [one.state for one in of_kind(stage)] == [JobState.QUEUED]


def test_of_images_that_come_faster_the_newest_is_booted(stage: Stage) -> None:
    put(stage)
    for one in stage.step():
        stage.finish(one)
    assert len(checks(stage.step())) == 1
    offers = stage.pass_time(DAY)
    # Its worker was silent for a day, and it is given out once more.
    (running,) = checks(offers)
    for one in backups(offers):
        stage.finish(one)
    states = [(one.state, one.outcome) for one in of_kind(stage)]
    assert states == [
        (JobState.ACTIVE, None),
        (JobState.ENDED, Outcome.MISSED),
        (JobState.QUEUED, None),
        (JobState.QUEUED, None),
    ]
    (missed,) = [one for one in of_kind(stage) if one.outcome is Outcome.MISSED]
    (told,) = [one.message for one in stage.jobs.events(missed.id)]
    assert "a newer image of the machine came" in told
    stage.finish(running)
    assert len(checks(stage.step())) == 1
