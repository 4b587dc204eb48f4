"""A site that is served by the real command, in a process of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from holdfast.base.clock import SystemClock
from holdfast.control.database import Database
from holdfast.control.policies import PolicyBook
from holdfast.site import local_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holdfast.control.policies import Policy
    from tests.kit.command import Command

T = TypeVar("T")

PATIENCE_S = 60.0


PAUSES_S = (0.02, 0.3)
"""From one look to the next it takes as long as a look does, within these bounds: some are commands
of their own, and take from what is looked at."""


def until(look: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Look again and again, until there is something."""
    shortest_s, longest_s = PAUSES_S
    end = time.monotonic() + patience_s
    while (began := time.monotonic()) < end:
        found = look()
        if found:
            return found
        time.sleep(min(max(time.monotonic() - began, shortest_s), longest_s))
    raise AssertionError(f"waited {patience_s:.0f} s for {what}")


@dataclass
class Served:
    """One running ``holdfast serve``."""

    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """As a service manager does; it has to end well."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text()


@contextlib.contextmanager
def served(site: Command) -> Iterator[Served]:
    """Serve a site while the block lasts."""
    log = site.home / "serve.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            site.line("serve"),
            env=site.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    running = Served(process, log)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        return local_socket.answers(site.home / local_socket.NAME)

    try:
        until(answers, "the site to be served")
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def put_policies(place: Path | str, *policies: Policy) -> None:
    """Have a site protect what these policies say, and nothing else."""
    database = Database(place)
    database.migrate()
    book = PolicyBook(database, SystemClock())
    book.apply(book.plan(policies, prune=True), "a test")
    database.close()
