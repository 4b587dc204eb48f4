"""Machines of a served site, by the real commands, each in a home and processes of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.kit.asking import ended, job_of, machines_of
from tests.kit.command import Command
from tests.kit.served import Served, served, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.hosts import Hosts


def free_place() -> str:
    """An address and a port that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as end:
        return f"127.0.0.1:{end.getsockname()[1]}"


SOON_MISSED = {"HOLDFAST_MACHINES_HEARTBEAT": "2s"}
"""For a master that gives up who says nothing for six seconds; a loaded machine manages that."""


@dataclass
class Machine:
    """A machine that has joined, and its process while it runs."""

    command: Command
    name: str
    words: tuple[str, ...] = ("agent", "run")
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.command.home.parent / f"{self.name}.log"

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command.line(*self.words),
                env=self.command.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log.read_text()
        assert "Traceback" not in (said := self.log.read_text()), said


@dataclass
class MachineSite:
    """A served site at which machines join.

    Attributes:
        site: Its command line.
        running: The process that serves it.
        directory: Where homes of machines are.
        pool: Where the pool is, which media servers have to reach, too.
        hosts: Where each machine is a host of its own; None if all are this one.
    """

    site: Command
    running: Served
    directory: Path
    pool: str | Path
    hosts: Hosts | None = None

    def address(self, name: str) -> str:
        """Where a machine is."""
        return "127.0.0.1" if self.hosts is None else self.hosts.host(name).address

    @property
    def ours(self) -> str:
        """Where the tests come from."""
        return "127.0.0.1" if self.hosts is None else self.hosts.ours[0]

    @property
    def itself(self) -> str:
        """The name of the machine that serves the site."""
        return os.uname().nodename if self.hosts is None else self.hosts.host("master").name

    def _prefix(self, name: str) -> tuple[str, ...]:
        return () if self.hosts is None else self.hosts.host(name).prefix

    @property
    def url(self) -> str:
        found = re.findall(r"machines join at (https://\S+)", self.running.log.read_text())
        assert found, self.running.log.read_text()
        return str(found[-1])

    def listed(self, *words: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.site(*words, "--json").assert_ok().json_lines()
        return found

    def join(
        self, name: str, environ: dict[str, str] | None = None, prefix: tuple[str, ...] = ()
    ) -> Machine:
        """Have a machine join; it does not run yet."""
        made = self.site("machine", "token", "--name", name, "--json").assert_ok().json()
        command = Command(self.directory / name, environ or {}, prefix or self._prefix(name))
        command("enroll", self.url, "--token", made["token"], "--name", name).assert_ok()
        return Machine(command, name)

    @contextlib.contextmanager
    def machine(
        self, name: str, environ: dict[str, str] | None = None, prefix: tuple[str, ...] = ()
    ) -> Iterator[Machine]:
        """A machine that runs while the block lasts."""
        machine = self.join(name, environ, prefix)
        machine.start()
        try:
            self.await_connected(name)
            yield machine
        finally:
            if machine.process is not None and machine.process.poll() is None:
                machine.kill()

    @contextlib.contextmanager
    def media_server(
        self,
        name: str,
        address: str = "",
        prefix: tuple[str, ...] = (),
        *,
        shares: bool = True,
        port: int = 0,
        also: tuple[str, ...] = (),
    ) -> Iterator[Machine]:
        """A media server that runs while the block lasts.

        Args:
            name: Of the machine.
            address: Where it listens, if that is not where it is.
            prefix: Words before its command, if it is no host of its own.
            shares: Whether it has the site's pool, too, beside its own.
            port: Where it listens; another one each time it is started, if none is said.
            also: Other addresses at which agents reach it.
        """
        home = self.directory / name
        address, prefix = address or self.address(name), prefix or self._prefix(name)
        environ = {name: one for name, one in self.site.environ.items() if name[:4] == "AWS_"}
        command = Command(home, environ, prefix)
        if shares:
            kit = self.directory / f"{name}.kit"
            kit.write_text(self.site("pool", "recovery-kit").assert_ok().text)
            words = ("init", "--existing", "--pool", self.pool, "--recovery-kit", kit)
            command(*words).assert_ok()
        token = ("machine", "token", "--name", name, "--role", "media", "--json")
        made = self.site(*token).assert_ok().json()
        joining = ("enroll", self.url, "--token", made["token"], "--name", name, "--role", "media")
        command(*joining).assert_ok()
        places = tuple(word for one in (address, *also) for word in ("--address", one))
        listen = f"{'0.0.0.0' if also else address}:{port}"
        running = ("media", "run", "--listen", listen, *places)
        machine = Machine(command, name, running)
        machine.start()
        try:
            self.await_connected(name)
            until(lambda: f"media server '{name}' takes data" in self.running.log.read_text(), name)
            yield machine
        finally:
            if machine.process is not None and machine.process.poll() is None:
                machine.kill()

    def connected(self) -> set[str]:
        return {one["name"] for one in machines_of(self.site) if one["connected"]}

    def await_connected(self, *names: str) -> None:
        until(lambda: self.connected() >= set(names), f"{', '.join(names)} to be connected")

    def run(self, policy: str, *words: str) -> int:
        """Queue a policy's backup; the job."""
        return int(self.site("policy", "run", policy, *words, "--json").assert_ok().json()["job"])

    def job(self, job: int) -> dict[str, Any]:
        return job_of(self.site, job)

    def ended(self, job: int) -> dict[str, Any]:
        """A job when it has ended."""
        return ended(self.site, job)


@contextlib.contextmanager
def machine_site(
    site: Command,
    directory: Path,
    place: str | None = None,
    pool: str | None = None,
    environ: dict[str, str] | None = None,
    hosts: Hosts | None = None,
) -> Iterator[MachineSite]:
    """Serve a site at which machines can join.

    Args:
        site: Which.
        directory: Where homes of machines are.
        place: Where machines join; None for anywhere.
        pool: Where the pool is; None for one in the home.
        environ: For the master alone.
        hosts: Where each machine is to be a host of its own, and the master another; None if all
            are this one.
    """
    # The same port whenever it is served again: machines look for it there.
    prefix = site.prefix
    if hosts is not None:
        place, prefix = f"{hosts.host('master').address}:8444", hosts.host("master").prefix
    listen = {"HOLDFAST_SERVE_MACHINES": place or free_place()}
    listening = Command(site.home, {**site.environ, **listen, **(environ or {})}, prefix)
    with served(listening) as running:
        made = MachineSite(listening, running, directory, pool or site.home / "pool", hosts)
        until(lambda: "machines join at" in running.log.read_text(), "the door to be open")
        yield made
