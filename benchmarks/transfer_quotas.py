"""Measure two media servers beside one: ``python benchmarks/transfer_quotas.py [--mib 192]``.

``[--quota 0.1] [--rounds 3] [--json FILE]``. Each media server may use a part of one processor and
no more, by a control group of its own, so that it alone is what holds a backup up: on one machine
two media servers would otherwise share what the agents and the master take as well. Two agents back
up data that can't be compressed and is not known, side by side, by one media server and by two. As
root, with control groups (version 1 or 2) that can be written.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from benchmarks.real_site import (  # noqa: E402 - the path comes first
    MEMORY,
    protect,
    real_site,
    run_jobs,
    unknown_data,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 20_000
AGENTS = ("web1", "web2")


def main(words: list[str] | None = None) -> int:
    """Measure, and print."""
    options = argparse.ArgumentParser(description="Measure two media servers beside one.")
    options.add_argument("--mib", type=int, default=192, help="of each agent")
    options.add_argument("--quota", type=float, default=0.1, help="processors of a media server")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", type=Path, help="where to write the figures, too")
    given = options.parse_args(words)
    if not can_limit():
        print("control groups can't be written here: run it as root", file=sys.stderr)
        return 2
    before = os.getloadavg()[0]
    took: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        for name in AGENTS:
            unknown_data(Path(made) / name, given.mib)
        for number in range(given.rounds):
            for servers in (1, 2) if number % 2 == 0 else (2, 1):
                place = Path(made) / "place"
                took[servers].append(measured(place, Path(made), servers, given.quota))
                print(f"round {number + 1}: {servers}: {took[servers][-1]:.2f} s", flush=True)
                shutil.rmtree(place)
    ratios = [one / two for one, two in zip(took[1], took[2], strict=True)]
    load = [round(before, 1), round(os.getloadavg()[0], 1)]
    for servers, seconds in took.items():
        rate = given.mib * len(AGENTS) / statistics.median(seconds)
        print(f"{servers} of {given.quota} processors: {rate:6.1f} MiB/s", flush=True)
    print(f"two beside one: {statistics.median(ratios):.2f}x ({min(ratios):.2f}-{max(ratios):.2f})")
    print(f"processes wanting to run, before and after: {load[0]}, {load[1]}")
    if given.json is not None:
        result = {
            "processors": os.cpu_count(),
            "load": load,
            "mib": given.mib,
            "quota": given.quota,
            "seconds": {str(servers): [round(s, 2) for s in one] for servers, one in took.items()},
            "ratio": round(statistics.median(ratios), 2),
        }
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def measured(place: Path, data: Path, servers: int, quota: float) -> float:
    """Seconds that both agents' backups took."""
    with ExitStack() as stack:
        network = stack.enter_context(real_site(place))
        for number in range(servers):
            prefix = stack.enter_context(limited(f"holdfast-bench-{os.getpid()}-{number}", quota))
            stack.enter_context(network.media_server(f"media{number + 1}", prefix=prefix))
        for name in AGENTS:
            stack.enter_context(network.machine(name))
            protect(network, name, data / name)
        return run_jobs(network, *AGENTS)


def can_limit() -> bool:
    """Whether control groups can be made."""
    return os.access(_root(), os.W_OK)


@contextmanager
def limited(name: str, quota: float) -> Iterator[tuple[str, ...]]:
    """Words to put before a command that may use so much of the processors."""
    group = _root() / name
    group.mkdir()
    try:
        quota_us = int(PERIOD_US * quota)
        if (group / "cpu.cfs_quota_us").exists():
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        yield ("sh", "-c", enter, os.fspath(group))
    finally:
        group.rmdir()


def _root() -> Path:
    """Where groups for processors are: a tree of its own in version 1."""
    return GROUPS / "cpu" if (GROUPS / "cpu").is_dir() else GROUPS


if __name__ == "__main__":
    sys.exit(main())
