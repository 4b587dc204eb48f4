"""A served site and agents in processes of their own, on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kit.asking import ended, machines_of
from tests.kit.command import Command
from tests.kit.served import served, until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as end:
        port: int = end.getsockname()[1]
        return port


@dataclass
class Site:
    """A site that takes machines."""

    command: Command
    url: str

    def token(self, *words: str) -> str:
        made = self.command("machine", "token", "--json", *words).assert_ok().json()
        token: str = made["token"]
        return token

    def machine(self, name: str = "web1") -> dict[str, Any]:
        return next((one for one in machines_of(self.command) if one["name"] == name), {})

    def await_state(self, connected: bool, name: str = "web1") -> None:
        words = "connected" if connected else "away"
        until(lambda: self.machine(name).get("connected") is connected, f"{name} to be {words}", 60)


@pytest.fixture
def machines(site: Command) -> Site:
    port = free_port()
    site.environ["HOLDFAST_SERVE_MACHINES"] = f"127.0.0.1:{port}"
    return Site(site, f"https://127.0.0.1:{port}")


def machine_at(directory: Path, name: str = "web1") -> Command:
    return Command(directory / name)


@dataclass
class Agent:
    """One running ``holdfast agent run``."""

    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text()


@contextlib.contextmanager
def agent(machine: Command) -> Iterator[Agent]:
    """An agent at work while the block lasts."""
    log = machine.home / "agent.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            machine.line("agent", "run"),
            env=machine.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield Agent(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_a_machine_joins_works_and_is_let_out(machines: Site, tmp_path: Path) -> None:
    web1 = machine_at(tmp_path)
    with served(machines.command) as running:
        token = machines.token()
        joined = web1("enroll", machines.url, "--token", token, "--name", "web1", "--json")
        assert joined.assert_ok().json()["name"] == "web1"
        key = web1.home / "machine" / "key.pem"
        assert key.stat().st_mode & 0o777 == 0o600
        # A token lets one machine in.
        other = machine_at(tmp_path, "web2")
        words = ("enroll", machines.url, "--token", token, "--name", "web2")
        other(*words).assert_failed(2, "used already", "web1")
        web1("enroll", machines.url, "--token", machines.token()).assert_failed(2, "has joined")
        with agent(web1) as at_work:
            machines.await_state(True)
            seen = machines.machine()
            assert seen["addresses"] == ["127.0.0.1"]
            assert seen["last_seen_at"] is not None
            shown = machines.command("machine", "list").assert_ok().text
            assert "connected" in shown
            assert max(map(len, shown.splitlines())) <= 80
            machines.command("machine", "revoke", "web1").assert_ok()
            assert at_work.process.wait(20) == 2
            assert "was revoked" in at_work.log.read_text()
        web1("agent", "run").assert_failed(2, "revoked", "machine token --name web1")
        # Back in with a token for its name, and only so.
        again = ("enroll", machines.url, "--name", "web1", "--again", "--token")
        web1(*again, machines.token()).assert_failed(2, "machine 'web1' already")
        web1(*again, machines.token("--name", "web1")).assert_ok()
        with agent(web1) as at_work:
            machines.await_state(True)
            at_work.stop()
        machines.await_state(False)
        running.stop()
    audited = machines.command("audit", "list", "--json").assert_ok().json_lines()
    told = [(one["what"], one["outcome"]) for one in reversed(audited)]
    assert ("enroll", "done") in told
    assert ("enroll", "refused") in told
    assert ("revoke_machine", "done") in told
    assert token.split(".")[1] not in json.dumps(audited)


def test_a_machine_survives_its_own_death_and_its_masters(machines: Site, tmp_path: Path) -> None:
    web1 = machine_at(tmp_path)
    with served(machines.command) as running:
        web1("enroll", machines.url, "--token", machines.token(), "--name", "web1").assert_ok()
        with agent(web1) as first:
            machines.await_state(True)
            first.process.kill()
            first.process.wait()
        with agent(web1) as second:
            machines.await_state(True)
            running.kill()
            with served(machines.command) as again:
                machines.await_state(True)
                assert second.process.poll() is None
                again.stop()
            second.stop()


def test_a_machine_of_another_site_is_refused(
    machines: Site, tmp_path: Path, holdfast: Command
) -> None:
    elsewhere = Command(tmp_path / "elsewhere")
    elsewhere("init").assert_ok()
    port = free_port()
    elsewhere.environ["HOLDFAST_SERVE_MACHINES"] = f"127.0.0.1:{port}"
    other = Site(elsewhere, f"https://127.0.0.1:{port}")
    web1 = machine_at(tmp_path)
    with served(machines.command), served(elsewhere):
        token = other.token()
        web1("enroll", machines.url, "--token", token).assert_failed(2, "not the site")
        web1("enroll", other.url, "--token", token, "--name", "web1").assert_ok()
        # The right certificate, shown at the wrong door, and a master that is not ours.
        config = web1.home / "machine.toml"
        config.write_text(config.read_text().replace(other.url, machines.url))
        with agent(web1) as lost:
            until(
                lambda: "not the master of this machine's site" in lost.log.read_text(),
                "the agent to see who that is",
                30,
            )
            assert machines.machine() == {}
        # Nor does the door take it from a machine that does not look.
        web3 = machine_at(tmp_path, "web3")
        joined = web3("enroll", machines.url, "--token", machines.token(), "--name", "web3")
        joined.assert_ok()
        right = (web3.home / "machine" / "authority.pem").read_bytes()
        (web1.home / "machine" / "authority.pem").write_bytes(right)
        config.write_text((web3.home / "machine.toml").read_text().replace("web3", "web1"))
        ended = web1("agent", "run")
        assert ended.status == 2
        assert "does not take the certificate" in ended.err


def test_a_job_waits_for_its_machine_and_says_so(machines: Site, tmp_path: Path) -> None:
    web1 = machine_at(tmp_path)
    site = machines.command
    with served(site) as running:
        web1("enroll", machines.url, "--token", machines.token(), "--name", "web1").assert_ok()
        os.makedirs(tmp_path / "data")
        (tmp_path / "data" / "a").write_text("something")
        words = ("policy", "new", "web", "--client", "web1", "--path", str(tmp_path / "data"))
        made = site(*words, "--every", "1d", "--yes").assert_ok()
        assert "not connected" in made.err + made.text
        job = site("policy", "run", "web", "--json").assert_ok().json()["job"]

        def waits() -> bool:
            shown = site("jobs", "show", str(job)).assert_ok().text
            return "machine 'web1' to connect" in shown

        until(waits, "the job to say what it waits for", 30)
        with agent(web1) as at_work:
            ended(site, job, 60)
            at_work.stop()
        running.stop()
    hosts = [one["host"] for one in site("images", "--json").assert_ok().json_lines()]
    assert hosts
    assert set(hosts) == {"web1"}


@pytest.mark.slow
def test_a_frozen_machine_is_given_up_and_comes_back(machines: Site, tmp_path: Path) -> None:
    web1 = machine_at(tmp_path)
    with served(machines.command) as running:
        web1("enroll", machines.url, "--token", machines.token(), "--name", "web1").assert_ok()
        with agent(web1) as frozen:
            machines.await_state(True)
            frozen.process.send_signal(signal.SIGSTOP)
            machines.await_state(False)
            frozen.process.send_signal(signal.SIGCONT)
            machines.await_state(True)
            frozen.stop()
        # Likewise the other way round: the machine gives up a master that says nothing.
        with agent(web1) as waiting:
            machines.await_state(True)
            running.process.send_signal(signal.SIGSTOP)
            until(lambda: "has been silent" in waiting.log.read_text(), "it to be missed", 60)
            running.process.send_signal(signal.SIGCONT)
            machines.await_state(True)
            waiting.stop()
        running.stop()
