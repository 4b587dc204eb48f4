"""Measure what travels in a restore: ``python benchmarks/transfer_restore.py [--mib 384]``.

``[--rounds 3] [--json FILE]``. One agent restores data that shrinks to about a half from a media
server, over a fast link and a slow one. Prints seconds, the media server's processor seconds, and
the bytes on the cable beside those that the pool has of it. As root, with network namespaces.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from benchmarks.transfer_compression import words_of  # noqa: E402 - the path comes first
from benchmarks.transfer_second import on_the_cable  # noqa: E402
from holdfast.base.clock import SystemClock  # noqa: E402
from holdfast.base.ids import ClientName, ImageId  # noqa: E402
from holdfast.engine import Pool, PoolConfig, RemotePool  # noqa: E402
from holdfast.movers.backup_run import BackupOrder, run_backup  # noqa: E402
from holdfast.movers.restore_run import RestoreOrder  # noqa: E402
from holdfast.movers.transfer.remote_runs import TransferTarget, remote_restore  # noqa: E402
from tests.kit.machine_identities import client_context  # noqa: E402
from tests.kit.network import cables, can_make_networks, inside  # noqa: E402

MEMORY = Path("/dev/shm")
"""Where everything is: no disk is measured."""

LINKS = (("1000 Mbit/s", "1000mbit"), ("100 Mbit/s", "100mbit"))


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore took.

    Attributes:
        seconds: From its beginning to its end.
        server_s: Processor seconds of the media server.
        travelled: Bytes on the cable, both ways, with all headers.
    """

    seconds: float
    server_s: float
    travelled: int


def main(words: list[str]) -> int:
    """Measure, and print."""
    if words[:1] == ["--as-agent"]:
        return _agent(*words[1:])
    options = argparse.ArgumentParser(description="Measure what travels in a restore.")
    options.add_argument("--mib", type=int, default=384, help="how much there is")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", type=Path, help="where to write the figures, too")
    given = options.parse_args(words)
    if not can_make_networks():
        print("network namespaces can't be made here: run it as root", file=sys.stderr)
        return 2
    before = os.getloadavg()[0]
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        made = Path(directory)
        stored = _stored(made, given.mib)
        print(f"{given.mib} MiB, {stored / 1e6:.1f} MB in the pool")
        for name, rate in LINKS:
            rounds = [_measured(made / "pool", rate) for _ in range(given.rounds)]
            figures[name] = [asdict(one) for one in rounds]
            seconds = statistics.median(one.seconds for one in rounds)
            server_s = statistics.median(one.server_s for one in rounds)
            travelled = statistics.median(one.travelled for one in rounds)
            print(
                f"{name:12} {seconds:6.2f} s, media server {server_s:5.2f} processor seconds, "
                f"{travelled / 1e6:6.1f} MB travelled ({travelled / stored:.3f} times)",
                flush=True,
            )
    load = [round(before, 1), round(os.getloadavg()[0], 1)]
    print(f"processes wanting to run, before and after: {load[0]}, {load[1]}")
    if given.json is not None:
        result = {"processors": os.cpu_count(), "load": load, "mib": given.mib, "stored": stored,
                  "figures": figures}  # fmt: skip
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _stored(made: Path, mib: int) -> int:
    """A pool with an image; how many bytes it has of it."""
    words_of(made / "data", mib)
    pool = Pool.create(str(made / "pool"), bytes(range(32)), PoolConfig(), 0)
    run_backup(pool, BackupOrder(ClientName("alpha"), (os.fsencode(made / "data"),)), SystemClock())
    return pool.stats().pack_bytes


def _measured(pool: Path, rate: str) -> Restored:
    """One restore, over a cable of that rate, by machines that are new."""
    with cables(1, rate) as between, tempfile.TemporaryDirectory(dir=pool.parent) as directory:
        made = Path(directory)
        (made / "pool").symlink_to(pool)
        serve = (sys.executable, "-m", "tests.kit.media_process", str(made), "0.0.0.0")
        server = subprocess.Popen(
            inside(between.far, *serve),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        said = json.loads(server.stdout.readline())
        server.stdin.write("restore\n")
        server.stdin.flush()
        token = json.loads(server.stdout.readline())["token"]
        url = f"https://{between.far_addresses[0]}:{said['port']}"
        before, used_s = on_the_cable(between.near), _processor_s(server.pid)
        agent = (sys.executable, str(Path(__file__)), "--as-agent", str(made), token, url)
        done = subprocess.run(
            inside(between.near, *agent), check=True, capture_output=True, text=True, cwd=ROOT
        )
        travelled = on_the_cable(between.near) - before
        server_s = _processor_s(server.pid) - used_s
        server.communicate()
    return Restored(float(done.stdout), server_s, travelled)


def _processor_s(pid: int) -> float:
    """Processor seconds of a process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _agent(directory: str, token: str, url: str) -> int:
    made = Path(directory)
    image = Pool.open(str(made / "pool"), bytes(range(32))).image_ids()[0]
    target = TransferTarget(
        urls=(url,),
        context=client_context(made, "alpha"),
        token=lambda: token,
        remote_pool=RemotePool,
    )
    back = made / "back"
    began_s = time.monotonic()
    remote_restore(target, RestoreOrder(ImageId(image), (), os.fsencode(back)))
    print(time.monotonic() - began_s)
    shutil.rmtree(back)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
