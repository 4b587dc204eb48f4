"""Many agents in one process, whose jobs do nothing for a while: a part of `machines`.

    python -m benchmarks.master.machine_agents DIRECTORY JOB_SECONDS

Each directory below the first has the membership of a machine. Ends when it is told to, by SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.movers import machine_home
from holdfast.movers.session import MachineSession

if TYPE_CHECKING:
    from holdfast.movers.remote_agent import Transfer
    from holdfast.movers.ways import BackUp, Restore

LOOK_S = 0.2


class Counters:
    """Those of a job that does nothing."""

    def __getattr__(self, name: str) -> int:
        return 1


class Image:
    """What it comes to; the master has what counts from elsewhere."""

    id = "0" * 32
    number, source, host, started_ns, finished_ns, parent = 1, "", "", 1, 2, None
    status, findings_total, findings, software = "completed", 0, (), "benchmark"
    stats, labels = {"files": 1}, {}  # type: ignore[var-annotated]


def lasting(job_s: float) -> Any:
    """A way to move data that takes a while and moves none."""

    def movers(_transfer: Transfer, /) -> tuple[BackUp, Restore]:
        def back_up(_order: Any, report: Any, /) -> Any:
            end_s = time.monotonic() + job_s
            while time.monotonic() < end_s:
                report(Counters())
                time.sleep(LOOK_S)
            return Image()

        return back_up, back_up

    return movers


async def run(directory: Path, job_s: float) -> None:
    """Hold every machine's session until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    homes = [machine_home.load(one) for one in sorted(directory.iterdir())]
    sessions = [MachineSession(home, lasting(job_s)) for home in homes]
    await asyncio.gather(*(one.run(stop) for one in sessions))


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), float(sys.argv[2])))
