"""Joining and sessions, over real sockets: a door and machines in one process."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import (
    HoldfastError,
    NotAuthenticated,
    TooManyAttempts,
    Unreachable,
    Unsupported,
)
from holdfast.base.ids import ClientName
from holdfast.control.access.strangers import ROWS_A_MINUTE
from holdfast.movers import machine_home, session
from holdfast.site.master import Master
from holdfast.wire import sessions, silent_connections
from holdfast.wire.identity import (
    Authority,
    MachineRole,
    client_context,
)
from holdfast.wire.looking import LookOrder, LookReport
from holdfast.wire.machine_work import MachineWork
from holdfast.wire.messages import BackupWork, WorkOffer
from tests.kit.databases import new_file
from tests.kit.machines import Door, names, open_door, running, stand_in
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


def noted(master: Master) -> list[tuple[str, str, str, str, str]]:
    """What the audit log tells of refusals: who, what, about whom, which code, and from where."""
    rows = [one.entry for one in master.audit.rows(limit=500, newest_first=False)]
    found = []
    for one in rows:
        if one.outcome == "refused":
            details = json.loads(one.details)
            found.append((one.who, one.what, one.about, details["code"], details["from"]))
    return found


async def answered(
    door: Door, method: str, path: str, context: Any = False, data: bytes | None = None
) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, door.url + path, ssl=context, data=data) as got,
    ):
        assert got.status >= 400
        await got.read()


STRANGERS: list[tuple[str, str, bytes | None, str, str]] = [
    ("POST", "/v1/enroll", b"rubbish", "enroll", "invalid"),
    ("POST", "/v1/enroll", b"[]", "enroll", "invalid"),
    ("POST", "/v1/enroll", b'{"role": "king", "name": "x"}', "enroll", "invalid"),
    ("POST", "/v1/enroll", b"x" * 100_000, "enroll", "too-large"),
    ("POST", "/v1/renew", b"{}", "renew", "not-authenticated"),
    ("GET", "/v1/session", None, "session", "not-authenticated"),
]


def test_what_strangers_are_refused_at_the_door_is_in_the_audit_log(
    door: Door, master: Master, tmp_path: Path
) -> None:
    for method, path, data, _, _ in STRANGERS:
        asyncio.run(answered(door, method, path, data=data))
    token = door.token("db1")
    with pytest.raises(HoldfastError):
        door.joined(tmp_path / "web1", token=token)
    assert noted(master) == [
        *(("(unknown)", what, "machines/", code, "127.0.0.1") for *_, what, code in STRANGERS),
        ("(unknown)", "enroll", "machines/web1", "forbidden", "127.0.0.1"),
    ]


MACHINES: list[tuple[str, str]] = [
    ("rubbish", "invalid"),
    ('{"say": "hello"}', "invalid"),
    (sessions.to_text(hello(name="db1")), "not-authenticated"),
    (sessions.to_text(hello(role="media")), "not-authenticated"),
    (sessions.to_text(sessions.Heartbeat()), "invalid"),
]
ASKED: list[tuple[str, str]] = [
    (sessions.to_text(sessions.Ask(1, {"ask": "for the moon"})), "invalid"),
    (sessions.to_text(sessions.Ask(1, {"ask": "transfer", "job": 7, "fence": 1})), "fenced"),
    (sessions.to_text(sessions.Ask(1, {"ask": "transfer", "job": "x"})), "invalid"),
    ('{"say": "tell", "id": "x"}', "invalid"),
]


def test_what_machines_are_refused_at_the_door_is_in_the_audit_log(
    door: Door, master: Master, tmp_path: Path
) -> None:
    home = door.joined(tmp_path / "web1")
    end = "no message"
    for text, _ in MACHINES:
        asyncio.run(said(door, home, text))
    for text, _ in ASKED:
        asyncio.run(said(door, home, sessions.to_text(hello()), text, end))
    told = [code for _, code in MACHINES]
    for text, code in ASKED:
        # What ends a session is told once; else what this test ends it by is told as well.
        told += [code] if "tell" in text else [code, "invalid"]
    door.book.revoke(WEB1)
    door.machines.refresh()
    context = client_context(home.identity)
    asyncio.run(answered(door, "POST", "/v1/renew", context, b"{}"))
    assert sorted(noted(master)) == sorted(
        [
            *(("machine:web1", "session", "machines/web1", code, "127.0.0.1") for code in told),
            ("machine:web1", "renew", "machines/web1", "not-authenticated", "127.0.0.1"),
        ]
    )


def test_one_that_tries_without_end_costs_few_rows_and_nobody_elses(
    door: Door, master: Master, tmp_path: Path
) -> None:
    home = door.joined(tmp_path / "web1")
    asked = sessions.to_text(sessions.Ask(1, {"ask": "for the moon"}))
    asyncio.run(said(door, home, sessions.to_text(hello()), *[asked] * 200, "end"))
    asyncio.run(answered(door, "GET", "/v1/session"))
    rows = noted(master)
    assert rows[-1][0] == "(unknown)"
    # A minute may have ended meanwhile.
    assert ROWS_A_MINUTE <= len(rows) - 1 <= 2 * ROWS_A_MINUTE


def test_a_connection_that_asks_nothing_is_told_of(
    door: Door, master: Master, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silent_connections, "WAIT_S", 0.3)
    with open_door(master) as other:
        home = other.joined(tmp_path / "web1")

        async def hold() -> None:
            port = int(other.url.rpartition(":")[2])
            where: dict[str, Any] = {"ssl": client_context(home.identity), "server_hostname": "x"}
            reader, writer = await asyncio.open_connection("127.0.0.1", port, **where)
            assert await reader.read() == b""
            writer.close()

        asyncio.run(hold())
        until(lambda: bool(noted(master)), "it to be told of", 20)
    assert noted(master) == [
        ("machine:web1", "connection", "machines/web1", "too-slow", "127.0.0.1")
    ]


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
