"""Measure backups over slow, long and several links: ``python benchmarks/transfer_paths.py``.

``[--shrink N]``, as root: two network namespaces are the machines, with cables between them that
have a rate. Data can't be compressed and nothing is known. Prints how long each took beside bytes
over rate, and how much faster several paths are than one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from holdfast.engine import Pool, PoolConfig  # noqa: E402 - the path comes first
from tests.kit.network import Cables, cables, can_make_networks, inside  # noqa: E402

MEMORY = Path("/dev/shm")
RELAY_PORT = 7777


def main(words: list[str] | None = None) -> int:
    """Measure, and print."""
    options = argparse.ArgumentParser(description="Measure backups over slow links.")
    options.add_argument("--shrink", type=int, default=1, metavar="N", help="N times less data")
    less = options.parse_args(words).shrink
    if not can_make_networks():
        print("network namespaces can't be made here: run it as root", file=sys.stderr)
        return 2
    for delay_s in (0.0, 0.025):
        took_s = measured(1, 100, 60 // less, delay_s=delay_s)
        ideal_s = 60 // less / (100 / 8)
        line = f"one path of 100 Mbit/s, {2 * delay_s * 1000:.0f} ms there and back"
        print(
            f"{line:56} {took_s:5.2f} s  {took_s / ideal_s:.2f} times bytes over rate", flush=True
        )
    one = 100 // less / measured(1, 200, 100 // less)
    print(f"{'one path of 200 Mbit/s':56} {one:5.1f} MB/s", flush=True)
    for cut in (False, True):
        rate = 400 // less / measured(4, 200, 400 // less, cut=cut)
        line = f"four paths of 200 Mbit/s{', one cut half-way' * cut}"
        print(f"{line:56} {rate:5.1f} MB/s  {rate / one:.2f} times one", flush=True)
    return 0


def measured(
    paths: int, mbit: int, megabytes: int, *, delay_s: float | None = None, cut: bool = False
) -> float:
    """Seconds that a backup took."""
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as made,
        cables(paths, f"{mbit}mbit") as between,
    ):
        directory = Path(made)
        Pool.create(str(directory / "pool"), bytes(range(32)), PoolConfig(), 0)
        tree = directory / "tree"
        tree.mkdir()
        for number in range(8):
            (tree / f"{number}").write_bytes(os.urandom(megabytes * 125_000))
        return _backup(between, directory, megabytes, delay_s, cut)


def _backup(
    between: Cables, directory: Path, megabytes: int, delay_s: float | None, cut: bool
) -> float:
    kit = (sys.executable, "-m")
    serve = inside(between.far, *kit, "tests.kit.media_process", str(directory), "0.0.0.0")
    server = subprocess.Popen(
        serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert server.stdout is not None
    said = json.loads(server.stdout.readline())
    port, relay = said["port"], None
    if delay_s is not None:
        words = (str(RELAY_PORT), str(port), str(delay_s))
        relay = subprocess.Popen(
            inside(between.far, *kit, "tests.kit.delay_relay", *words), cwd=ROOT
        )
        port = RELAY_PORT
        time.sleep(1)
    urls = ",".join(f"https://{one}:{port}" for one in between.far_addresses)
    given = (str(directory), said["token"], urls, "backup", str(directory / "tree"))
    agent = subprocess.Popen(
        inside(between.near, *kit, "tests.kit.agent_process", *given),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert agent.stdout is not None
    for line in agent.stdout:
        said = json.loads(line)
        if cut and sum(said["paths"].values()) > megabytes * 500_000:
            between.cut(len(between.far_addresses) - 1)
            cut = False
    agent.wait()
    if relay is not None:
        relay.kill()
        relay.wait()
    server.communicate()
    return float(said["took_s"])


if __name__ == "__main__":
    sys.exit(main())
