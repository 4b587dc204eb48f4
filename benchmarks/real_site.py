"""A site of real processes on this machine, for what is measured of jobs between machines.

Must not measure anything but a job. Invariant: what is timed is a job as a person has it, from the
command that asks for it to the end that the master notes.
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kit.agents import machine_site
from tests.kit.command import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.agents import MachineSite

JOB_S = 3600.0
MEMORY = Path("/dev/shm")


@contextmanager
def real_site(directory: Path) -> Iterator[MachineSite]:
    """A served site with a pool below a directory, at which machines can join."""
    (directory / "machines").mkdir(parents=True)
    site = Command(directory / "home")
    site("init").assert_ok()
    with machine_site(site, directory / "machines") as made:
        yield made
        made.running.stop()


def protect(network: MachineSite, client: str, path: Path) -> None:
    """Give a client a policy of its own name."""
    file = network.directory / f"{client}.toml"
    file.write_text(
        f'[[policy]]\nname = "{client}"\nclients = ["{client}"]\n'
        f'retention = {{last = 3}}\n[[policy.selections]]\nname = "all"\npaths = ["{path}"]\n'
    )
    network.site("policy", "apply", file, "--yes").assert_ok()


def run_jobs(network: MachineSite, *policies: str) -> float:
    """Have policies run side by side; seconds from the first command to the last job's end."""
    began_s = time.time()
    jobs = [network.run(policy) for policy in policies]
    ended_s = []
    for job in jobs:
        # One that waits, not one after the other that looks: those would take what is measured.
        subprocess.run(
            network.site.line("jobs", "watch", str(job), "--every", "2", "--json"),
            env=network.site.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=JOB_S,
            check=True,
        )
        ended_s.append(datetime.fromisoformat(network.job(job)["ended_at"]).timestamp())
    return max(ended_s) - began_s


def unknown_data(directory: Path, mib: int, files: int = 8) -> None:
    """Files that can't be compressed, and that no pool knows."""
    directory.mkdir(parents=True)
    for number in range(files):
        with (directory / f"{number}").open("wb") as file:
            for _ in range(mib // files):
                file.write(os.urandom(1 << 20))
