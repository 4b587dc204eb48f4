"""What a site does for itself, and when."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base.ids import ImageId
from holdfast.control.catalog import Feeder
from holdfast.control.jobs import JobKind, Outcome, Result
from holdfast.site.chores import Chores
from holdfast.site.service import Service
from holdfast.wire.messages import SiteWork, work_from_json
from tests.kit.catalog_model import fed
from tests.kit.fake_pool import FakePool, Node
from tests.kit.policies import policy

if TYPE_CHECKING:
    from holdfast.base.clock import ClockMark
    from holdfast.control.jobs import Job
    from tests.kit.api import Api

HOUR = timedelta(hours=1)


@pytest.fixture
def chores(api: Api, monkeypatch: pytest.MonkeyPatch) -> Chores:
    # There is no pool from which the catalog could be fed.
    monkeypatch.setattr(Chores, "image_came", lambda _self: None)
    monkeypatch.setattr(Feeder, "start", lambda _self: None)
    api.master.zone = UTC
    # The clock shows 3:04, and housekeeping is at 12:00.
    assert api.clock.now() == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return Chores(api.master)


def jobs(api: Api, kind: JobKind) -> list[Job]:
    return [one for one in api.master.jobs.each() if one.kind is kind]


def finish_all(api: Api, outcome: Outcome = Outcome.COMPLETED) -> None:
    for granted in api.master.jobs.grant(list(api.master.jobs.ready_ids())):
        assert isinstance(work_from_json(granted.work), SiteWork)
        job = granted.job
        api.master.jobs.end(job.id, job.fence, Result(outcome))


def test_housekeeping_is_once_a_day_at_its_time(api: Api, chores: Chores) -> None:
    for _ in range(8):
        chores.queue_what_is_due()
        api.clock.move(HOUR)
    # Not for a time that was over when the site began.
    assert jobs(api, JobKind.EXPIRE) == []
    for _ in range(48):
        chores.queue_what_is_due()
        finish_all(api)
        api.clock.move(HOUR)
    due = [one.due_at for one in jobs(api, JobKind.EXPIRE)]
    assert sorted(one.hour for one in due if one) == [12, 12]
    assert len(set(due)) == 2


def test_days_that_were_slept_through_are_one_and_no_clock_repeats_one(
    api: Api, chores: Chores
) -> None:
    chores.queue_what_is_due()
    api.clock.move(timedelta(days=5))
    chores.queue_what_is_due()
    Chores(api.master).queue_what_is_due()
    assert len(jobs(api, JobKind.EXPIRE)) == 1
    for by in (-30 * HOUR, 20 * HOUR, 10 * HOUR):
        api.clock.set_by(by)
        Chores(api.master).queue_what_is_due()
    assert len(jobs(api, JobKind.EXPIRE)) == 1


def test_housekeeping_does_not_wait_for_the_time_to_which_a_wrong_clock_had_jumped(
    api: Api, chores: Chores
) -> None:
    chores.queue_what_is_due()
    api.clock.set_by(timedelta(days=700))
    chores.queue_what_is_due()
    finish_all(api)
    api.clock.set_by(timedelta(days=-700))
    for _ in range(48):
        chores.queue_what_is_due()
        finish_all(api)
        api.clock.move(HOUR)
    assert len(jobs(api, JobKind.EXPIRE)) == 3


def test_a_clock_is_remembered_each_hour_and_believed_after_a_restart_of_some_days(
    api: Api, chores: Chores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    passed_s = 0.0
    monkeypatch.setattr("holdfast.site.chores.time.monotonic", lambda: passed_s)

    def look_for(hours: int) -> ClockMark | None:
        nonlocal passed_s
        for _ in range(hours):
            api.clock.move(HOUR)
            passed_s += 3600
            chores.queue_what_is_due()
            finish_all(api)
        return api.master.catalog.clock_mark()

    assert look_for(30) == api.clock.mark()
    # The machine is off for some days: nobody is asked.
    api.clock.move(timedelta(days=6))
    api.clock.restart("b")
    trusted = look_for(3)
    assert trusted == api.clock.mark()
    assert caplog.messages == []
    # It is started anew with its clock two years ahead, and then works on.
    api.clock.set_by(timedelta(days=730))
    api.clock.restart("c")
    assert look_for(300) == trusted
    (said,) = caplog.messages
    assert "shows 730 d 01 h" in said
    assert "--trust-clock" in said
    # The clock is set right: time has passed, and no more.
    api.clock.set_by(timedelta(days=-730) + timedelta(days=-8))
    assert look_for(2) == api.clock.mark()
    assert len(caplog.messages) == 1


def test_a_changed_catalog_is_kept_once_when_nothing_is_at_work(api: Api, chores: Chores) -> None:
    def look() -> int:
        api.clock.move(timedelta(minutes=20))
        chores.queue_what_is_due()
        return len(jobs(api, JobKind.CATALOG_BACKUP))

    assert look() == 1
    # It is queued itself: nothing more as long as it is not done.
    api.master.policies.apply(api.master.policies.plan([policy()]), "a test")
    assert look() == 1
    finish_all(api)
    assert look() == 2
    finish_all(api)
    # That it was kept is no change.
    assert [look(), look()] == [2, 2]


def test_a_hold_a_lock_and_a_user_are_worth_keeping(api: Api, chores: Chores) -> None:
    def look() -> int:
        api.clock.move(timedelta(minutes=20))
        chores.queue_what_is_due()
        finish_all(api)
        return len(jobs(api, JobKind.CATALOG_BACKUP))

    image = fed(api.master.catalog, FakePool(), {b"/": Node("dir"), b"/a": Node()}).id
    assert [look(), look()] == [1, 1]
    api.master.catalog.hold(ImageId(image), "an audit")
    assert [look(), look()] == [2, 2]
    api.master.catalog.lock(ImageId(image), api.clock.now() + timedelta(days=1))
    assert [look(), look()] == [3, 3]
    api.client().post("/users", {"name": "carol", "role": "auditor"})
    assert [look(), look()] == [4, 4]


def test_a_defect_ends_no_service(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Semaphore(0)

    def fail(_service: Service) -> None:
        looked.release()
        raise ZeroDivisionError

    monkeypatch.setattr(Service, "_lead", fail)
    service = Service(api.master)
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        for _ in range(2):
            service.wake()
            assert looked.acquire(timeout=10)
        assert thread.is_alive()
    finally:
        service.stop()
        thread.join(10)
    assert not thread.is_alive()


def test_a_catalog_that_could_not_be_kept_is_tried_again(api: Api, chores: Chores) -> None:
    def look(outcome: Outcome) -> int:
        api.clock.move(timedelta(minutes=20))
        chores.queue_what_is_due()
        finish_all(api, outcome)
        return len(jobs(api, JobKind.CATALOG_BACKUP))

    assert [look(Outcome.FAILED), look(Outcome.FAILED), look(Outcome.COMPLETED)] == [1, 2, 3]
    assert look(Outcome.COMPLETED) == 3


def test_a_catalog_that_changes_all_the_time_is_kept_now_and_then(api: Api, chores: Chores) -> None:
    for number in range(60):
        changed = policy(priority=number % 100)
        api.master.policies.apply(api.master.policies.plan([changed]), "a test")
        chores.queue_what_is_due()
        finish_all(api)
        api.clock.move(timedelta(minutes=1))
    assert len(jobs(api, JobKind.CATALOG_BACKUP)) == 4
