"""Joining and sessions, over real sockets: a door and machines in one process."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import (
    AlreadyExists,
    ClockDoubtful,
    ConfigInvalid,
    Fenced,
    HoldfastError,
    Invalid,
    NotAuthenticated,
    SiteMissing,
    TooManyAttempts,
    Unreachable,
    Unsupported,
)
from holdfast.base.ids import ClientName, SourceName
from holdfast.control.database import Database
from holdfast.control.jobs import JobKind, NewJob, Outcome, Result
from holdfast.movers import dialling, joining, machine_home, session
from holdfast.movers.agent import Ways
from holdfast.movers.remote_agent import Transfer
from holdfast.site.machines.sessions import Session
from holdfast.site.master import Master
from holdfast.wire import sessions
from holdfast.wire.identity import (
    Authority,
    EnrollmentToken,
    MachineKey,
    MachineRole,
    client_context,
    machine_name,
)
from holdfast.wire.looking import LookOrder, LookReport
from holdfast.wire.messages import Answer, BackupWork, MachineWork, WorkEnded, WorkOffer
from tests.kit.clock import FakeClock
from tests.kit.machines import Door, names, open_door, running, stand_in
from tests.kit.served import until

WEB1 = ClientName("web1")


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(session, "LONGEST_WAIT_S", 0.2)


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    database = Database(tmp_path / "control.db")
    database.migrate()
    yield stand_in(database, tmp_path)
    database.close()


@pytest.fixture
def door(master: Master) -> Iterator[Door]:
    with open_door(master) as opened:
        yield opened


def offer(job: int = 7, fence: int = 1, **more: Any) -> WorkOffer:
    return WorkOffer(job, fence, 30.0, BackupWork("web1", "web1:/srv", ("/srv",), **more))


# -- joining ------------------------------------------------------------------------------


def test_a_machine_joins_and_is_there_with_what_it_says(door: Door, tmp_path: Path) -> None:
    home = door.joined(tmp_path / "web1")
    assert machine_home.load(tmp_path / "web1") == home
    assert (home.home / "machine" / "key.pem").stat().st_mode & 0o777 == 0o600
    with running(home):
        door.await_machine("web1")
        one = door.book.machine("web1")
        assert one.last_seen_at is not None
        assert one.addresses == ("127.0.0.1",)
        assert "/" in one.drives
        assert one.software.startswith("holdfast ")
        assert door.machines.standing.drives == {"web1": one.drives}
    door.await_nobody()


def test_a_used_token_says_who_used_it(door: Door, tmp_path: Path) -> None:
    token = door.token()
    door.joined(tmp_path / "web1", token=token)
    with pytest.raises(NotAuthenticated, match=r"used already.*'web1'") as told:
        door.joined(tmp_path / "web2", "web2", token)
    assert "machine revoke web1" in str(told.value.hint)
    refused = [row.entry for row in door.machines.master.audit.rows(limit=9)]
    assert [(one.who, one.what, one.outcome) for one in refused] == [
        ("(unknown)", "enroll", "refused"),
        ("machine:web1", "enroll", "done"),
    ]
    assert all(token.secret not in one.details for one in refused)


def test_the_secret_is_not_shown_to_another_site(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Authority.create("f" * 32, SystemClock().now())

    def show(*_: object) -> None:
        raise AssertionError("the secret was shown")

    monkeypatch.setattr(joining, "_post", show)
    with pytest.raises(NotAuthenticated, match="not the site that the token was made for"):
        door.joined(tmp_path / "x", token=EnrollmentToken.generate(elsewhere.certificate_pem))


def test_a_name_that_is_taken_is_refused(door: Door, tmp_path: Path) -> None:
    door.joined(tmp_path / "web1")
    with pytest.raises(AlreadyExists, match="machine 'web1' already"):
        door.joined(tmp_path / "other")


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_off_is_told(door: Door, hours: int) -> None:
    clock = FakeClock(SystemClock().now() + timedelta(hours=hours))
    with pytest.raises(ClockDoubtful, match="the clock of this machine says"):
        asyncio.run(
            joining.join(
                door.url,
                door.token(),
                key=MachineKey.generate(),
                role=MachineRole.AGENT,
                name=machine_name("web1"),
                clock=clock,
            )
        )


def join(url: str, token: EnrollmentToken) -> None:
    asyncio.run(
        joining.join(
            url,
            token,
            key=MachineKey.generate(),
            role=MachineRole.AGENT,
            name=machine_name("web1"),
            clock=SystemClock(),
        )
    )


def test_nobody_at_the_url_is_told(door: Door, unused_port: int) -> None:
    with pytest.raises(Unreachable, match="can't reach"):
        join(f"https://127.0.0.1:{unused_port}", door.token())


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as end:
        port: int = end.getsockname()[1]
        return port


def test_something_else_at_the_url_is_told(door: Door) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as end:

        def answer() -> None:
            connection, _ = end.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unreachable, match="does not speak as a master"):
            join(f"https://127.0.0.1:{end.getsockname()[1]}", door.token())
        thread.join()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("master.example.org", "https://master.example.org:8444"),
        ("https://master.example.org:1/", "https://master.example.org:1"),
        ("[::1]:9", "https://[::1]:9"),
        (" 192.0.2.1 ", "https://192.0.2.1:8444"),
    ],
)
def test_a_url_is_what_a_person_writes(given: str, url: str) -> None:
    assert dialling.master_url(given) == url


@pytest.mark.parametrize("given", ["http://m", "https://", "m:99999", "https://a@m", "m/path", ""])
def test_what_is_no_url_is_refused(given: str) -> None:
    with pytest.raises(Invalid):
        dialling.master_url(given)


def test_a_home_that_is_not_whole_is_told(door: Door, tmp_path: Path) -> None:
    with pytest.raises(SiteMissing, match="has not joined"):
        machine_home.load(tmp_path / "nowhere")
    home = door.joined(tmp_path / "web1")
    (home.home / "machine" / "certificate.pem").unlink()
    with pytest.raises(ConfigInvalid, match="is gone"):
        machine_home.load(home.home)


def test_a_try_that_was_cut_off_goes_on_with_its_key(tmp_path: Path) -> None:
    first = machine_home.prepare_key(tmp_path)
    assert machine_home.prepare_key(tmp_path) == first


def test_who_joins_anew_keeps_what_there_is_until_that_is_done(door: Door, tmp_path: Path) -> None:
    home = door.joined(tmp_path / "web1")
    with pytest.raises(AlreadyExists):
        machine_home.prepare_key(home.home)
    key = machine_home.prepare_key(home.home, again=True)
    assert machine_home.prepare_key(home.home, again=True) == key != home.identity.key
    assert machine_home.load(home.home) == home
    again = door.joined(home.home, token=door.token("web1"))
    assert machine_home.load(home.home) == again
    assert not (home.home / "machine" / "next-key.pem").exists()


# -- sessions -----------------------------------------------------------------------------


def test_who_is_revoked_is_out_at_once_and_ends(door: Door, tmp_path: Path) -> None:
    home = door.joined(tmp_path / "web1")
    with running(home) as machine:
        door.await_machine("web1")
        door.book.revoke(WEB1)
        error = machine.await_end()
        assert isinstance(error, NotAuthenticated)
        assert "was revoked" in error.message
        assert names(door) == set()
    with running(home) as machine:
        error = machine.await_end()
    assert isinstance(error, NotAuthenticated)
    assert "machine token --name web1" in str(error.hint)


def test_a_certificate_that_is_not_taken_ends_the_machine(door: Door, tmp_path: Path) -> None:
    home = door.joined(tmp_path / "web1")
    elsewhere = Authority.create("f" * 32, SystemClock().now())
    key = home.identity.key
    pem = elsewhere.issue(
        key.csr_pem(), MachineRole.AGENT, "web1", SystemClock().now(), timedelta(days=7)
    ).pem
    with running(machine_home.renewed(home, pem)) as machine:
        error = machine.await_end()
    assert isinstance(error, NotAuthenticated)
    assert "does not take the certificate" in error.message


def test_who_another_process_revokes_is_out_within_moments(
    door: Door, tmp_path: Path, master: Master
) -> None:
    home = door.joined(tmp_path / "web1")
    with running(home) as machine:
        door.await_machine("web1")
        stand_in(master.database, tmp_path).machines.revoke(WEB1)
        assert isinstance(machine.await_end(), NotAuthenticated)


def test_a_machine_comes_back_when_the_master_was_away(master: Master, tmp_path: Path) -> None:
    with open_door(master) as first:
        home = first.joined(tmp_path / "web1")
        place = first.url.removeprefix("https://")
        with running(home):
            first.await_machine("web1")
            first.machines.sessions.close_all(sessions.Closed.STOPPING, "a test")
            until(lambda: not names(first) or True, "the session to end", 10)
            first.await_machine("web1")
    with running(home), open_door(master, place) as second:
        second.await_machine("web1")


def test_a_machine_that_is_silent_is_given_up(door: Door, tmp_path: Path) -> None:
    home = door.joined(tmp_path / "web1")

    async def say_nothing() -> int | None:
        async with aiohttp.ClientSession() as http:
            socket = await http.ws_connect(
                f"{door.url}/v1/session", ssl=client_context(home.identity)
            )
            await socket.send_str(sessions.to_text(hello()))
            while (await socket.receive(20)).type is aiohttp.WSMsgType.TEXT:
                continue
            await asyncio.sleep(0.1)
            return socket.close_code

    assert asyncio.run(say_nothing()) == sessions.Closed.SILENT
    door.await_nobody()


def test_a_machine_that_is_cut_off_is_given_up_without_a_farewell(
    door: Door, tmp_path: Path
) -> None:
    home = door.joined(tmp_path / "web1")

    async def hear_nothing() -> float:
        async with aiohttp.ClientSession() as http:
            socket = await http.ws_connect(
                f"{door.url}/v1/session", ssl=client_context(home.identity)
            )
            await socket.send_str(sessions.to_text(hello()))
            await socket.receive(20)
            await asyncio.to_thread(door.await_machine, "web1")
            began_s = time.monotonic()
            # Nothing is read any more, so that the end of the session is never answered.
            await asyncio.to_thread(door.await_nobody)
            return time.monotonic() - began_s

    # Three heartbeats of half a second; the answer to a farewell is waited for ten seconds.
    assert asyncio.run(hear_nothing()) < 8


def hello(**more: Any) -> sessions.Hello:
    given: dict[str, Any] = {
        "protocols": sessions.PROTOCOLS,
        "software": "holdfast test",
        "role": "agent",
        "name": "web1",
        "boot_id": "x",
    }
    return sessions.Hello(**given | more)


async def said(door: Door, home: machine_home.MachineHome, *texts: str) -> tuple[list[Any], Any]:
    """What a door answers to some texts, and how it ends."""
    async with aiohttp.ClientSession() as http:
        socket = await http.ws_connect(f"{door.url}/v1/session", ssl=client_context(home.identity))
        for text in texts:
            await socket.send_str(text)
        heard = []
        while (got := await socket.receive(20)).type is aiohttp.WSMsgType.TEXT:
            one = json.loads(got.data)
            if one["say"] != "heartbeat":
                heard.append(one)
        # The loop must not end before TLS has.
        await asyncio.sleep(0.1)
        return heard, (socket.close_code, got.extra)


def test_an_older_machine_works_and_unknown_fields_are_passed_over(
    master: Master, tmp_path: Path
) -> None:
    with open_door(master, protocols=(1, 3)) as door:
        home = door.joined(tmp_path / "web1")
        greeting = json.loads(sessions.to_text(hello(protocols=(1, 2))))
        greeting["moon"] = {"phase": "full"}
        later = json.dumps({"say": "sing", "song": 1})
        beat = json.dumps({"say": "heartbeat", "load": {"jobs": 1}, "mood": "fine"})
        heard, _ = asyncio.run(said(door, home, json.dumps(greeting), later, beat))
        assert [(one["say"], one["protocol"]) for one in heard] == [("welcome", 2)]


def test_an_older_machine_is_not_given_work_that_it_does_not_know(
    door: Door, tmp_path: Path
) -> None:
    home = door.joined(tmp_path / "web1")
    work = MachineWork("vm1", "machine:ab", machine="ab", name="vm1", hypervisor="esx")
    refused: list[str] = []
    offered = sessions.Offer(WorkOffer(7, 1, 60, work))

    def refuse() -> None:
        door.await_machine("web1")
        with pytest.raises(Unsupported, match="does not know such work") as told:
            door.machines.sessions.offer(WEB1, offered)
        refused.append(str(told.value.hint))
        known = sessions.Offer(offer())
        door.machines.sessions.offer(WEB1, known)
        door.machines.sessions.close_all(sessions.Closed.STOPPING, "enough")

    greeting = json.loads(sessions.to_text(hello()))
    del greeting["work"]
    other = threading.Thread(target=refuse)
    other.start()
    heard, _ = asyncio.run(said(door, home, json.dumps(greeting)))
    other.join()
    assert refused == ["update Holdfast on 'web1'"]
    assert [one["say"] for one in heard] == ["welcome", "offer"]


def test_a_newer_machine_works(master: Master, tmp_path: Path) -> None:
    with open_door(master, protocols=(1, 1)) as door:
        home = door.joined(tmp_path / "web1")
        with running(home, protocols=(1, 9)):
            door.await_machine("web1")


@pytest.mark.parametrize(("theirs", "who"), [((1, 1), "machine"), ((4, 9), "master")])
def test_a_machine_that_is_too_old_or_new_is_told(
    master: Master, tmp_path: Path, theirs: tuple[int, int], who: str
) -> None:
    with open_door(master, protocols=(2, 3)) as door:
        home = door.joined(tmp_path / "web1")
        with running(home, protocols=theirs) as machine:
            error = machine.await_end()
    assert isinstance(error, Unsupported)
    assert f"versions {theirs[0]} to {theirs[1]}" in error.message
    with pytest.raises(Unsupported) as told:
        sessions.agree((2, 3), theirs)
    assert who in str(told.value.hint)


@pytest.mark.parametrize(
    "text",
    [
        "rubbish",
        "[]",
        "{}",
        '{"say": "hello"}',
        sessions.to_text(hello(name="db1")),
        sessions.to_text(hello(role="media")),
        sessions.to_text(sessions.Heartbeat()),
        json.dumps({"say": "hello", "protocols": [1, 1, 1]}),
    ],
)
def test_who_does_not_say_who_it_is_is_sent_away(door: Door, tmp_path: Path, text: str) -> None:
    home = door.joined(tmp_path / "web1")
    _, (code, _) = asyncio.run(said(door, home, text))
    assert code == sessions.Closed.NOT_UNDERSTOOD
    assert names(door) == set()


def test_nobody_without_a_certificate_has_a_session(door: Door) -> None:
    async def ask(path: str, method: str = "GET", data: bytes | None = None) -> tuple[int, Any]:
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, door.url + path, ssl=False, data=data) as got,
        ):
            return got.status, await got.json()

    status, body = asyncio.run(ask("/v1/session"))
    assert (status, body["code"]) == (401, "not-authenticated")
    status, body = asyncio.run(ask("/v1/renew", method="POST", data=b"{}"))
    assert (status, body["code"]) == (401, "not-authenticated")
    status, body = asyncio.run(ask("/v1/enroll", method="POST", data=b"rubbish"))
    assert (status, body["code"]) == (422, "invalid")
    status, body = asyncio.run(ask("/v1/enroll", method="POST", data=b"x" * 100_000))
    assert (status, body["code"]) == (413, "too-large")
    status, body = asyncio.run(ask("/nothing"))
    assert (status, body["code"]) == (404, "not-found")


def test_strangers_who_want_to_join_wait_for_each_other(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.site.machines import door as module

    monkeypatch.setattr(module, "JOINING_AT_ONCE", 0)
    token = door.token()
    with pytest.raises(TooManyAttempts):
        door.joined(tmp_path / "web1", token=token)
    monkeypatch.setattr(module, "JOINING_AT_ONCE", 1)
    door.joined(tmp_path / "web1", token=token)


def test_a_master_that_gives_out_no_work_opens_no_session(door: Door, tmp_path: Path) -> None:
    home = door.joined(tmp_path / "web1")
    door.machines.hear = None
    with running(home):
        until(lambda: True, "a moment", 1)
        assert names(door) == set()
        door.machines.hear = door.hear
        door.await_machine("web1")


def test_the_session_that_was_opened_last_is_the_one(door: Door, tmp_path: Path) -> None:
    home = door.joined(tmp_path / "web1")
    with running(home):
        door.await_machine("web1")
        first = door.machines.sessions.get(WEB1)
        with running(home):
            until(lambda: door.machines.sessions.get(WEB1) not in {None, first}, "another", 10)


def test_a_certificate_is_renewed_while_the_session_goes_on(
    tmp_path: Path, master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "RENEWAL_LOOK_S", 0.1)
    short = stand_in(master.database, tmp_path, HOLDFAST_MACHINES_CERTIFICATE_LIFE="2s")
    with open_door(short) as door:
        home = door.joined(tmp_path / "web1")
        before = home.identity.certificate_pem
        with running(home) as machine:
            door.await_machine("web1")
            until(lambda: machine.session.identity.certificate_pem != before, "another", 10)
            stored = machine_home.load(home.home).identity.certificate_pem
            assert stored != before
            # It outlives the first by far.
            until(lambda: machine.session.identity.certificate_pem != stored, "a third", 10)
            door.await_machine("web1")
            assert machine.thread.is_alive()


# -- looking and working ------------------------------------------------------------------


def test_a_machine_looks_at_its_files(door: Door, tmp_path: Path) -> None:
    home = door.joined(tmp_path / "web1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_bytes(b"x" * 10)
    with running(home):
        door.await_machine("web1")
        order = LookOrder((str(tmp_path / "data"), "/not/there")).to_json()
        seen = LookReport.from_json(door.machines.sessions.ask(WEB1, order | {"new": 1}, 10))
        assert seen.size_bytes == 10
        assert [one.cause for one in seen.troubles] == ["missing"]
        drives = door.machines.sessions.ask(WEB1, {"ask": "drives"}, 10)
        assert "/" in drives["drives"]
        with pytest.raises(Unsupported):
            door.machines.sessions.ask(WEB1, {"ask": "the way"}, 10)
    door.await_nobody()
    with pytest.raises(Unreachable, match="not connected"):
        door.machines.sessions.ask(WEB1, order, 10)


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
    from holdfast.wire.messages import ImageNote

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
