"""A process beside a backup that wakes the guest should the backup be killed while it stands still.

Must not do anything else: it outlives the backup by the time of one command. Invariant: a guest is
frozen or stopped only while a guard is known to listen.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import HoldfastError, TooSlow

if TYPE_CHECKING:
    from collections.abc import Iterator

_READY = "ready"
_DONE = "done"
_TRIES_S = 30.0


@contextlib.contextmanager
def guarded(**wake: str) -> Iterator[None]:
    """Have a guard for the time of the block.

    Args:
        wake: What to do if this process dies in it, see `main`: ``agent`` (socket of a guest
            agent, to thaw), ``monitor`` (socket of QMP, to continue), ``libvirt`` and ``uuid`` (URL
            and machine, to thaw; ``user`` and ``password`` where they are asked for).

    Raises:
        TooSlow: It did not start.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
    with process:
        with contextlib.suppress(OSError):
            # Not as an argument: those are seen by everybody on this machine.
            process.stdin.write(f"{json.dumps(wake)}\n")
            process.stdin.flush()
        if process.stdout.readline().strip() != _READY:
            raise TooSlow("what would wake the guest in an emergency did not start")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                process.stdin.write(_DONE)
                process.stdin.close()


def main() -> None:
    """Wait until the other end is done or dead; if it is dead, wake the guest."""
    wake: dict[str, Any] = json.loads(sys.stdin.readline())
    print(_READY, flush=True)  # noqa: T201
    if sys.stdin.read() == _DONE:
        return
    until = time.monotonic() + _TRIES_S
    while time.monotonic() < until:
        with contextlib.suppress(HoldfastError, OSError):
            _wake(wake)
            return
        time.sleep(0.2)


def _wake(wake: dict[str, Any]) -> None:
    if "monitor" in wake:
        from holdfast.sources.machines.qmp.monitor import Monitor

        monitor = Monitor(wake["monitor"])
        monitor.execute("cont")
        monitor.close()
    if "agent" in wake:
        from holdfast.sources.machines.guest_agent import GuestAgent

        agent = GuestAgent(wake["agent"])
        agent.thaw()
        agent.close()
    if "libvirt" in wake:
        from holdfast.sources.machines.libvirt.connection import thaw_at
        from holdfast.sources.machines.providers import Credentials

        user, password = wake.get("user", ""), wake.get("password", "")
        thaw_at(wake["libvirt"], wake["uuid"], Credentials(user, password))


if __name__ == "__main__":
    main()
