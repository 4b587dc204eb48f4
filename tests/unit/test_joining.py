"""Joining a site, over real sockets: a door and machines in one process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import (
    AlreadyExists,
    ClockDoubtful,
    ConfigInvalid,
    Invalid,
    NotAuthenticated,
    SiteMissing,
    Unreachable,
)
from holdfast.movers import dialling, joining, machine_home, session
from holdfast.site.master import Master
from holdfast.wire.identity import (
    Authority,
    EnrollmentToken,
    MachineKey,
    MachineRole,
    machine_name,
)
from tests.kit.clock import FakeClock
from tests.kit.databases import new_file
from tests.kit.machines import Door, open_door, running, stand_in


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
