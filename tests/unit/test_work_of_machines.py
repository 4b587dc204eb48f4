"""Jobs that machines do over their sessions, whose word is checked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast.base.errors import (
    Fenced,
    HoldfastError,
    Invalid,
    NotAuthenticated,
)
from holdfast.base.ids import ClientName, SourceName
from holdfast.control.jobs import JobKind, NewJob, Outcome, Result
from holdfast.movers import session
from holdfast.movers.remote_agent import Transfer
from holdfast.movers.ways import Ways
from holdfast.site.hypervisors import why_untrimmed
from holdfast.site.machines.sessions import Session
from holdfast.site.master import Master
from holdfast.wire import sessions
from holdfast.wire.machine_work import TRIM_VERSION, MachineWork
from holdfast.wire.messages import Answer, BackupWork, ImageNote, WorkEnded, WorkOffer
from tests.kit.databases import new_file
from tests.kit.machines import Door, open_door, running, stand_in
from tests.kit.served import until

WEB1 = ClientName("web1")


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(session, "LONGEST_WAIT_S", 0.2)


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    database = new_file(tmp_path / "control.db")
    yield stand_in(database, tmp_path)
    database.close()


@pytest.fixture
def door(master: Master) -> Iterator[Door]:
    with open_door(master) as opened:
        yield opened


def offer(job: int = 7, fence: int = 1, **more: Any) -> WorkOffer:
    return WorkOffer(job, fence, 30.0, BackupWork("web1", "web1:/srv", ("/srv",), **more))


class Work:
    """A way for data that does what a test says."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.transfers: list[Transfer] = []
        self.tokens: list[str] = []

    def __call__(self, transfer: Transfer, /) -> Ways:
        self.transfers.append(transfer)

        def back_up(order: Any, report: Any, /) -> Any:
            self.tokens += [transfer.token(), transfer.token()]
            self.begun.set()
            while not self.go_on.wait(0.02):
                report(Counters())
            return Made()

        return Ways(back_up, back_up)


class Counters:
    def __getattr__(self, name: str) -> int:
        return 1


class Made:
    """An image, as a hostile machine would tell of it."""

    id = "a" * 32
    number, source, host, started_ns, finished_ns, parent = 1, "db1:/etc", "db1", 1, 2, None
    status, findings_total, findings, software = "completed", 0, (), "x"
    client_key, has_sealed_names = None, False
    stats: dict[str, int] = {"files": 3}  # noqa: RUF012 - read only
    labels: dict[str, str] = {}  # noqa: RUF012 - read only


def ended(door: Door) -> WorkEnded:
    def look() -> WorkEnded | None:
        return next((one for one in door.heard if isinstance(one, WorkEnded)), None)

    found = until(look, "the end of a job", 20)
    assert found is not None
    return found


def given(number: list[int]) -> Any:
    def transfer(_: object, __: object) -> dict[str, Any]:
        number.append(len(number))
        return {"urls": ["https://m"], "pool": "p", "token": f"t{number[-1]}", "more": 1}

    return transfer


def test_a_machine_works_and_its_word_of_an_image_is_not_taken(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, work = door.joined(tmp_path / "web1"), Work()
    door.machines.transfer_for = given([])
    monkeypatch.setattr(door.machines, "_is_backup", lambda _: True)
    with running(home, work) as machine:
        door.await_machine("web1")
        door.machines.offer(WEB1, offer())
        door.machines.offer(WEB1, offer())
        assert work.begun.wait(10)
        assert len(work.transfers) == 1
        assert work.transfers[0].identity.name == "web1"
        # The second offer, which is not taken, was made with one before or after it asked anew.
        assert work.tokens in (["t0", "t1"], ["t0", "t2"])
        assert machine.session._hands.working == ((7, 1),)
        work.go_on.set()
        message = ended(door)
    assert (message.job_id, message.fence) == (7, 1)
    assert message.image is None
    assert message.error is not None
    assert "no image is there" in message.error.message


def test_what_the_storage_says_is_taken_for_the_image(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, work = door.joined(tmp_path / "web1"), Work()
    note = ImageNote("b" * 32, 1, "web1:/srv", "web1", 1, 2, None, "completed", {}, 0, "x", {})
    door.machines.transfer_for = given([])
    door.machines.committed = lambda job, fence: note if (job, fence) == (7, 1) else None
    with running(home, work):
        door.await_machine("web1")
        door.machines.offer(WEB1, offer())
        work.go_on.set()
        assert ended(door).image == note
        assert ended(door).error is None


def test_without_a_way_for_data_a_job_ends_with_a_clear_error(door: Door, tmp_path: Path) -> None:
    home = door.joined(tmp_path / "web1")
    with running(home):
        door.await_machine("web1")
        door.machines.offer(WEB1, offer())
        message = ended(door)
    assert message.error is not None
    assert message.error.code == "unsupported"
    assert "named no place for its data" in message.error.message


def test_a_defect_in_the_way_for_data_ends_the_job(door: Door, tmp_path: Path) -> None:
    def broken(_transfer: Transfer, /) -> Ways:
        raise ValueError("a defect")

    home = door.joined(tmp_path / "web1")
    door.machines.transfer_for = given([])
    with running(home, broken):
        door.await_machine("web1")
        door.machines.offer(WEB1, offer())
        message = ended(door)
    assert message.error is not None
    assert message.error.code == "internal"


def test_a_machine_is_not_heard_of_jobs_of_others(door: Door, tmp_path: Path) -> None:
    home = door.joined(tmp_path / "web1")
    with running(home) as machine:
        door.await_machine("web1")
        from holdfast.wire.messages import WorkProgress

        assert machine.session.hear(WorkProgress(7, 1, {})) is Answer.FENCED
        assert machine.session.hear(WorkProgress(2**62, 1, {})) is Answer.FENCED
        with pytest.raises(HoldfastError, match="not at work"):
            machine.session._fresh(7, 1)
    assert door.heard == []


def test_a_job_is_stopped_when_its_machine_is(door: Door, tmp_path: Path) -> None:
    home, work = door.joined(tmp_path / "web1"), Work()
    door.machines.transfer_for = given([])
    with running(home, work) as machine:
        door.await_machine("web1")
        door.machines.offer(WEB1, offer())
        assert work.begun.wait(10)
        machine.stop()
        assert machine.ended == [None]
    message = ended(door)
    assert message.error is not None
    assert message.error.code == "worker-lost"


def test_a_job_ends_at_once_when_its_machine_is_revoked(door: Door, tmp_path: Path) -> None:
    home, work = door.joined(tmp_path / "web1"), Work()
    door.machines.transfer_for = given([])
    with running(home, work) as machine:
        door.await_machine("web1")
        door.machines.offer(WEB1, offer())
        assert work.begun.wait(10)
        door.book.revoke(WEB1)
        assert isinstance(machine.await_end(), NotAuthenticated)
        assert machine.session._hands.working == ()
    assert not any(isinstance(one, WorkEnded) for one in door.heard)


def test_a_job_goes_on_while_the_session_is_lost(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, work = door.joined(tmp_path / "web1"), Work()
    door.machines.transfer_for = given([])
    with running(home, work) as machine:
        door.await_machine("web1")
        door.machines.offer(WEB1, offer())
        assert work.begun.wait(10)
        first = door.machines.sessions.get(WEB1)
        door.machines.sessions.close_all(sessions.Closed.STOPPING, "a test")
        until(lambda: door.machines.sessions.get(WEB1) not in {None, first}, "another", 10)
        again = door.machines.sessions.get(WEB1)
        assert again is not None
        assert again.hello.working == ((7, 1),)
        assert machine.session._hands.working == ((7, 1),)
        monkeypatch.setattr(door.machines, "_is_backup", lambda _: True)
        work.go_on.set()
        assert ended(door).job_id == 7


def test_a_job_that_another_master_gave_out_is_given_tokens(door: Door) -> None:
    source = SourceName("web1:/srv")
    work = BackupWork("web1", source, ("/srv",), labels={"policy": "nightly"})
    jobs = door.machines.master.jobs
    new = NewJob(kind=JobKind.BACKUP, work=work.to_json(), client=WEB1, source=source)
    (queued,) = jobs.enqueue([new])
    (granted,) = jobs.grant([queued.id])
    offers: list[WorkOffer] = []

    def transfer_for(_: object, offer: WorkOffer) -> dict[str, Any]:
        offers.append(offer)
        return {"token": "t"}

    door.machines.transfer_for = transfer_for
    asking = cast(Session, SimpleNamespace(peer=SimpleNamespace(name=WEB1)))
    order = {"ask": "transfer", "job": queued.id, "fence": granted.job.fence}
    assert door.machines.answer(asking, order) == {"token": "t"}
    (offer,) = offers
    assert isinstance(offer.work, BackupWork)
    site = door.machines.authority.site_id
    assert offer.work.labels == {"policy": "nightly", "job": f"{site}/{queued.id}/1"}
    for wrong in ({**order, "fence": 2}, {**order, "job": 99}):
        with pytest.raises(Fenced):
            door.machines.answer(asking, wrong)
    other = cast(Session, SimpleNamespace(peer=SimpleNamespace(name="web2")))
    with pytest.raises(Fenced):
        door.machines.answer(other, order)
    jobs.end(queued.id, granted.job.fence, Result(Outcome.CANCELLED))
    with pytest.raises(Fenced):
        door.machines.answer(asking, order)
    with pytest.raises(Invalid):
        door.machines.answer(asking, {"ask": "something"})


def test_a_proxy_that_knows_of_no_trimming_backs_up_and_that_is_said(
    door: Door, tmp_path: Path
) -> None:
    work = MachineWork("vm1", "machine:ab", "ab", "vm1", "kvm", proxy="web1", trim_s=60)
    note = ImageNote("b" * 32, 1, "machine:ab", "vm1", 1, 2, None, "completed", {}, 0, "x", {})
    door.machines.committed = lambda _job, _fence: note
    with running(door.joined(tmp_path / "web1")):
        door.await_machine("web1")
        session = door.machines.sessions.get(WEB1)
        assert session is not None
        known = session.hello.work

        def told(version: int, work: MachineWork) -> list[str]:
            session.hello = replace(session.hello, work=version)
            assert work.to_json()["version"] <= version
            door.machines._remember((7, 1), WEB1, WorkOffer(7, 1, 30.0, work))
            door.machines.told(session.peer, WorkEnded(7, 1, None, (), 0, {}, None))
            last = door.heard[-1]
            assert isinstance(last, WorkEnded)
            assert last.events_total == len(last.events)
            return [one.message for one in last.events]

        (message,) = told(TRIM_VERSION - 1, work)
        assert "is not asked to trim" in message
        assert "update Holdfast on 'web1'" in message
        assert why_untrimmed(door.machines.master, WEB1) == message
        assert told(TRIM_VERSION - 1, replace(work, trim_s=0)) == []
        assert told(known, work) == []
        assert why_untrimmed(door.machines.master, WEB1) is None
