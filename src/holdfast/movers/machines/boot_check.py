"""Boot a virtual machine from its backup, cut off from the world, and see whether it comes up.

Must not change the image: what the machine writes is thrown away. Invariant: the verdict is that of
the image alone; what keeps it from being judged (no emulator, no room) is an error, and no verdict.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import HoldfastError, HypervisorError, Invalid
from holdfast.movers.machines.record import disk_path, read_record
from holdfast.sources.machines.guest_agent import GuestAgent
from holdfast.sources.machines.isolated import BootDisk, Isolated, IsolatedOrder, isolated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from holdfast.movers.machines.record import Record, StoredDisk

    Alive = Callable[[], None]
    Serve = Callable[[Mapping[str, StoredDisk]], AbstractContextManager[Mapping[str, str]]]

DEFAULT_WITHIN_S = 600.0
_LOOKED_EVERY_S = 0.5
_ANSWER_S = 5.0
_MOST_MEMORY = 4 << 30
_SERIAL_KEPT = 2000


@dataclass(frozen=True, slots=True)
class BootChecks:
    """What a machine that is well does.

    Attributes:
        serial: A regular expression that something on its serial console matches.
        port: A TCP port where something answers, by itself or when it is sent two empty lines.
        agent: Its guest agent answers.
        command: What the guest agent is to run, with success; empty for nothing.
        within_s: How long all of that may take, from power on.
    """

    serial: str | None = None
    port: int | None = None
    agent: bool = False
    command: tuple[str, ...] = ()
    within_s: float = DEFAULT_WITHIN_S

    def __post_init__(self) -> None:
        """Refuse what can't be judged by.

        Raises:
            Invalid: There is nothing to wait for, or something that can't be.
        """
        if self.serial is None and self.port is None and not self.agent and not self.command:
            raise Invalid(
                "nobody said what the machine does when it is well",
                "name a text on its serial console, a TCP port, its guest agent, or a command",
            )
        try:
            re.compile(self.serial or "")
        except re.error as error:
            raise Invalid(f"'{self.serial}' is no regular expression: {error}") from error
        if self.port is not None and not 0 < self.port < 1 << 16:
            raise Invalid(f"{self.port} is no TCP port", "say 1 to 65535")
        if not 0 < self.within_s <= 86_400:
            raise Invalid(f"it can't be waited for {self.within_s:g} s", "say 1 to 86400")


@dataclass(frozen=True, slots=True)
class BootVerdict:
    """How it went.

    Attributes:
        passed: Whether all checks were met in time.
        took_s: From power on to the last check, or to giving up.
        met: Checks that were met, each with the seconds since power on.
        missed: Those that were not, in words.
        said: The end of what came over the serial console.
        screenshot: What the screen showed at the end, as PNG; None where it showed nothing.
    """

    passed: bool
    took_s: float
    met: Mapping[str, float] = field(default_factory=dict)
    missed: tuple[str, ...] = ()
    said: str = ""
    screenshot: bytes | None = None


def run_boot_check(
    open_file: Callable[[bytes], StoredDisk],
    checks: BootChecks,
    serve: Serve,
    scratch: Path,
    alive: Alive = lambda: None,
) -> BootVerdict:
    """Boot an image, and wait until all checks are met or time is over.

    Args:
        open_file: Opens a file of the image by its path.
        checks: What is waited for.
        serve: Has disks read over NBD for the time of a block; gives the URL of each, by name.
        scratch: An empty directory for what the machine writes.
        alive: Called all the while; what it raises ends it.

    Raises:
        PathMissing: It is no image of a machine, or holds none of its disks.
        LibraryMissing: There is no emulator here.
        HypervisorError: The emulator does not start.
    """
    record = read_record(open_file)
    disks = {
        disk.name: open_file(disk_path(disk.name))
        for disk in record.machine.disks
        if disk.left_out is None
    }
    with serve(disks) as urls:
        order = IsolatedOrder(
            disks=[BootDisk(name, urls[name]) for name in disks],
            memory=min(record.machine.memory or 1 << 30, _MOST_MEMORY),
            cpus=min(record.machine.cpus or 1, 2),
            efi=_is_efi(record),
            scratch=scratch,
            ports=() if checks.port is None else (checks.port,),
        )
        started_s = time.monotonic()
        with isolated(order, alive) as machine:
            return _judge(machine, checks, started_s, alive)


def _judge(machine: Isolated, checks: BootChecks, started_s: float, alive: Alive) -> BootVerdict:
    waiting = dict(_waited_for(checks))
    met: dict[str, float] = {}
    ended = ""
    while waiting:
        alive()
        for name, is_met in list(waiting.items()):
            if is_met(machine):
                met[name] = time.monotonic() - started_s
                del waiting[name]
        if not waiting or time.monotonic() - started_s > checks.within_s:
            break
        try:
            machine.require_running()
        except HypervisorError as error:
            ended = f": {error.message}"
            break
        time.sleep(_LOOKED_EVERY_S)
    took_s = time.monotonic() - started_s
    picture = None
    with contextlib.suppress(HoldfastError, OSError):
        picture = machine.screenshot()
    missed = tuple(f"{name} not within {took_s:.0f} s{ended}" for name in waiting)
    said = machine.serial()[-_SERIAL_KEPT:]
    return BootVerdict(not waiting, took_s, met, missed, said, picture)


def _waited_for(checks: BootChecks) -> Iterator[tuple[str, Callable[[Isolated], bool]]]:
    if checks.serial is not None:
        wanted = re.compile(checks.serial)
        yield (
            f"'{checks.serial}' on the serial console",
            lambda one: bool(wanted.search(one.serial())),
        )
    if checks.port is not None:
        port = checks.port
        yield f"an answer at TCP port {port}", lambda one: _answers(one.port(port))
    if checks.agent:
        yield "an answer of the guest agent", lambda one: _asked(one, ()) is not None
    if checks.command:
        words = " ".join(checks.command)
        yield f"success of '{words}'", lambda one: _asked(one, checks.command) == 0


def _answers(address: tuple[str, int]) -> bool:
    """Whether something in the guest says anything, by itself or when it is spoken to.

    That the connection is taken means nothing: the emulator takes it before the guest does.
    """
    try:
        with socket.create_connection(address, _ANSWER_S) as connection:
            connection.settimeout(1)
            with contextlib.suppress(TimeoutError):
                return connection.recv(1) != b""
            connection.sendall(b"\r\n\r\n")
            connection.settimeout(_ANSWER_S)
            return connection.recv(1) != b""
    except OSError:
        return False


def _asked(machine: Isolated, command: tuple[str, ...]) -> int | None:
    """Have the guest agent run something; how that ended; None where no agent answers."""
    try:
        agent = GuestAgent(machine.agent, timeout_s=_ANSWER_S)
        try:
            if not command:
                return 0
            return _run(agent, command)
        finally:
            agent.close()
    except HoldfastError:
        return None


def _run(agent: GuestAgent, command: tuple[str, ...]) -> int | None:
    arguments = {"path": command[0], "arg": list(command[1:]), "capture-output": False}
    begun: dict[str, Any] = agent.ask("guest-exec", _ANSWER_S, arguments)
    end_s = time.monotonic() + 12 * _ANSWER_S
    while time.monotonic() < end_s:
        state: dict[str, Any] = agent.ask("guest-exec-status", _ANSWER_S, {"pid": begun["pid"]})
        if state.get("exited"):
            return int(state.get("exitcode", 1))
        time.sleep(_LOOKED_EVERY_S)
    return None


def _is_efi(record: Record) -> bool:
    """Whether it began with UEFI: then it has variables of its own."""
    return any("nvram" in name.lower() for name in record.definitions)
