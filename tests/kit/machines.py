"""A door for machines, with what is behind it, and machines that come by it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from holdfast.base import settings
from holdfast.base.clock import SystemClock
from holdfast.control.access import AuditLog
from holdfast.control.jobs import JobBook
from holdfast.control.machines import MachineBook
from holdfast.movers import joining, machine_home
from holdfast.movers.holding import Runs, run_until
from holdfast.movers.remote_agent import no_movers
from holdfast.movers.session import MachineSession
from holdfast.site.machines import Machines, serving
from holdfast.wire.identity import MachineKey, MachineRole, machine_name
from holdfast.wire.messages import Answer
from holdfast.wire.sessions import PROTOCOLS
from tests.kit.served import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.base.ids import ClientName
    from holdfast.control.database import Database
    from holdfast.movers.machine_home import MachineHome
    from holdfast.movers.remote_agent import Movers
    from holdfast.site.master import Master
    from holdfast.wire.identity import EnrollmentToken
    from holdfast.wire.messages import WorkMessage

HOUR = timedelta(hours=1)
POOL_KEY = b"k" * 32


@dataclass
class Door:
    """A door that is open.

    Attributes:
        url: Where.
        machines: Whom it is for.
        heard: What they said of jobs.
        answer: What each is answered.
    """

    url: str
    machines: Machines
    heard: list[WorkMessage] = field(default_factory=list)
    answer: Answer = Answer.GO_ON

    @property
    def book(self) -> MachineBook:
        return self.machines.master.machines

    def hear(self, message: WorkMessage) -> Answer:
        self.heard.append(message)
        return self.answer

    def token(
        self, name: str | None = None, role: MachineRole = MachineRole.AGENT
    ) -> EnrollmentToken:
        return self.book.invite(role, HOUR, "a test", name)[1]

    def joined(
        self,
        home: Path,
        name: str = "web1",
        token: EnrollmentToken | None = None,
        role: MachineRole = MachineRole.AGENT,
    ) -> MachineHome:
        """Have a machine join; its home."""
        identity = asyncio.run(
            joining.join(
                self.url,
                token or self.token(role=role),
                key=MachineKey.generate(),
                role=role,
                name=machine_name(name),
                clock=SystemClock(),
            )
        )
        home.mkdir(exist_ok=True)
        return machine_home.save(home, (self.url,), identity)

    def await_machine(self, name: str) -> None:
        until(lambda: name in self.machines.sessions.names, f"machine '{name}' to connect", 20)

    def await_nobody(self) -> None:
        until(lambda: not self.machines.sessions.names, "nobody to be connected", 20)


def stand_in(database: Database, home: Path, **environ: str) -> Master:
    """As much of a master as machines need."""
    clock = SystemClock()
    audit = AuditLog(database, clock)
    return cast(
        "Master",
        SimpleNamespace(
            site=SimpleNamespace(pool_key=lambda: POOL_KEY),
            settings=settings.load(home, environ),
            database=database,
            clock=clock,
            audit=audit,
            machines=MachineBook(database, clock, audit),
            jobs=JobBook(database, clock),
            news=lambda: None,
        ),
    )


@contextlib.contextmanager
def open_door(
    master: Master,
    listen: str = "127.0.0.1:0",
    heartbeat_s: float = 0.5,
    protocols: tuple[int, int] = PROTOCOLS,
) -> Iterator[Door]:
    """A door while the block lasts."""
    machines = Machines(master, heartbeat_s)
    door = Door("", machines)
    machines.hear = door.hear
    with serving(machines, listen, protocols=protocols) as place:
        door.url = f"https://{place}"
        yield door


@dataclass
class Running:
    """A machine's end of its session, in a thread."""

    session: Any
    thread: threading.Thread
    ended: list[BaseException | None]
    _stop: list[Any]

    def stop(self) -> None:
        for loop, event in self._stop:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)
        self.thread.join(30)
        assert not self.thread.is_alive()

    def await_end(self) -> BaseException | None:
        self.thread.join(30)
        assert not self.thread.is_alive()
        return self.ended[0]


@contextlib.contextmanager
def running(
    home: MachineHome, movers: Movers = no_movers, protocols: tuple[int, int] = PROTOCOLS
) -> Iterator[Running]:
    """Hold a machine's session while the block lasts."""
    with at_work(MachineSession(home, movers, protocols=protocols)) as found:
        yield found


@contextlib.contextmanager
def at_work(session: Runs) -> Iterator[Running]:
    """Have a machine's end of its session, or what holds it, run while the block lasts."""
    ended: list[BaseException | None] = []
    stop: list[Any] = []

    def run() -> None:
        try:
            run_until(session, lambda event: stop.append((asyncio.get_running_loop(), event)))
            ended.append(None)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            ended.append(error)

    thread = threading.Thread(target=run, name="machine")
    thread.start()
    found = Running(session, thread, ended, stop)
    try:
        until(lambda: stop or ended, "the machine to run", 10)
        yield found
    finally:
        found.stop()


def names(door: Door) -> set[ClientName]:
    return set(door.machines.sessions.names)
