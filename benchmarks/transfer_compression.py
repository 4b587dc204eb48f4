"""Measure who compresses: ``python benchmarks/transfer_compression.py [--mib 384] [--rounds 3]``.

``[--json FILE] [--only NAME]``. One agent backs up data that shrinks to about a half and is not
known, over loopback and over links that have a rate, with and without a limit on the processor of
either end. In each round all is compressed by the agent, then by the media server, then as the
backup itself measures that it is faster. Prints seconds, what travelled, and what the pool takes.
As root, with control groups that can be written and network namespaces.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from benchmarks.transfer_quotas import can_limit, limited  # noqa: E402 - the path comes first
from holdfast.base.clock import SystemClock  # noqa: E402
from holdfast.base.ids import ClientName  # noqa: E402
from holdfast.engine import Pool, PoolConfig, RemotePool  # noqa: E402
from holdfast.movers.backup_run import BackupOrder  # noqa: E402
from holdfast.movers.transfer.remote_runs import TransferTarget, remote_backup  # noqa: E402
from tests.kit.machine_identities import client_context  # noqa: E402
from tests.kit.network import cables, can_make_networks, inside  # noqa: E402

MEMORY = Path("/dev/shm")
WAYS = ("here", "there", "measured")


@dataclass(frozen=True, slots=True)
class Setting:
    """Two machines and what is between them.

    Attributes:
        name: For the table.
        mbit: What the link carries; None for loopback.
        agent: Processors that the agent may use; None for all.
        server: Likewise the media server.
        share: Of the data, as much is backed up.
    """

    name: str
    mbit: int | None = None
    agent: float | None = None
    server: float | None = None
    share: float = 1.0


SETTINGS = (
    Setting("loopback"),
    Setting("loopback, half a processor for the agent", agent=0.5),
    Setting("loopback, half a processor for the server", server=0.5),
    Setting("1000 Mbit/s", mbit=1000),
    Setting("1000 Mbit/s, half a processor for the agent", mbit=1000, agent=0.5),
    Setting("100 Mbit/s", mbit=100, share=0.4),
    Setting("100 Mbit/s, half a processor for the agent", mbit=100, agent=0.5, share=0.4),
)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a backup took.

    Attributes:
        seconds: From its beginning to its end.
        travelled: Bytes of blocks on the way.
        pool: Bytes that the pool has then.
    """

    seconds: float
    travelled: int
    pool: int


def main(words: list[str]) -> int:
    """Measure, and print."""
    if words[:1] == ["--as-agent"]:
        return _agent(*words[1:])
    options = argparse.ArgumentParser(description="Measure who compresses.")
    options.add_argument("--mib", type=int, default=384, help="how much is backed up")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", help="settings whose name begins so")
    options.add_argument("--json", type=Path, help="where to write the figures, too")
    given = options.parse_args(words)
    if not can_limit() or not can_make_networks():
        print("control groups or network namespaces can't be made: run it as root", file=sys.stderr)
        return 2
    before = os.getloadavg()[0]
    settings = [one for one in SETTINGS if one.name.startswith(given.only or "")]
    figures: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        words_of(Path(made) / "data", given.mib)
        for setting in settings:
            found: dict[str, list[Taken]] = {way: [] for way in WAYS}
            for _ in range(given.rounds):
                for way in WAYS:
                    found[way].append(measured(Path(made), setting, way))
            show(setting, found)
            figures[setting.name] = {
                way: [asdict(one) for one in rounds] for way, rounds in found.items()
            }
    load = [round(before, 1), round(os.getloadavg()[0], 1)]
    print(f"processes wanting to run, before and after: {load[0]}, {load[1]}")
    if given.json is not None:
        result = {"processors": os.cpu_count(), "load": load, "mib": given.mib, "figures": figures}
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def words_of(directory: Path, mib: int) -> None:
    """Lines of words and numbers: in every file other ones, as if in another language."""
    directory.mkdir()
    chance = random.Random(7)
    letters = "etaoinshrdlucmfwygpbvk"
    known = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(3000)]
    text = bytearray()
    while len(text) < 4 << 20:
        line = " ".join(chance.choices(known, k=9))
        text += f"{chance.getrandbits(40):x} {line} {chance.getrandbits(24)}\n".encode()
    for number in range(mib // 4):
        table = bytearray(range(256))
        chance.shuffle(table)
        (directory / f"{number:04}").write_bytes(text.translate(bytes(table)))


def show(setting: Setting, found: dict[str, list[Taken]]) -> None:
    """Medians, and how they compare with compressing here in the same round."""
    print(f"\n{setting.name}")
    for way, rounds in found.items():
        ratios = [
            one.seconds / here.seconds for one, here in zip(rounds, found["here"], strict=True)
        ]
        pools = [one.pool / here.pool for one, here in zip(rounds, found["here"], strict=True)]
        seconds = statistics.median(one.seconds for one in rounds)
        travelled = statistics.median(one.travelled for one in rounds) / (1 << 20)
        print(
            f"  {way:9} {seconds:7.2f} s  {statistics.median(ratios):5.2f}x "
            f"({min(ratios):.2f}-{max(ratios):.2f})  {travelled:6.0f} MiB on the way  "
            f"pool {statistics.median(pools):.3f}x",
            flush=True,
        )


def measured(made: Path, setting: Setting, way: str) -> Taken:
    """One backup, into a pool of its own."""
    place = made / "place"
    place.mkdir()
    try:
        pool = Pool.create(str(place / "pool"), bytes(range(32)), PoolConfig(), 0)
        with ExitStack() as stack:
            link = None if setting.mbit is None else f"{setting.mbit}mbit"
            between = None if link is None else stack.enter_context(cables(1, link))
            prefixes = []
            for end, quota in (("server", setting.server), ("agent", setting.agent)):
                group = f"holdfast-bench-{os.getpid()}-{end}"
                limit = nullcontext(()) if quota is None else limited(group, quota)
                prefixes.append(stack.enter_context(limit))
            serve = [sys.executable, "-m", "tests.kit.media_process", str(place), "0.0.0.0"]
            if between is not None:
                serve = inside(between.far, *serve)
            server = subprocess.Popen(
                [*prefixes[0], *serve],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            assert server.stdout is not None
            said = json.loads(server.stdout.readline())
            host = "127.0.0.1" if between is None else between.far_addresses[0]
            url = f"https://{host}:{said['port']}"
            agent = [sys.executable, str(Path(__file__)), "--as-agent", str(place), said["token"]]
            agent += [url, str(made / "data"), way, str(setting.share)]
            if between is not None:
                agent = inside(between.near, *agent)
            done = subprocess.run(
                [*prefixes[1], *agent], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT
            )
            server.communicate()
        told = json.loads(done.stdout)
        return Taken(told["seconds"], told["travelled"], pool.stats().pack_bytes)
    finally:
        shutil.rmtree(place)


def _agent(directory: str, token: str, url: str, data: str, way: str, share: str) -> int:
    target = TransferTarget(
        urls=(url,),
        context=client_context(Path(directory), "alpha"),
        token=lambda: token,
        remote_pool=RemotePool,
        compress=way,
    )
    files = sorted(Path(data).iterdir())
    some = files[: max(1, int(len(files) * float(share)))]
    paths = tuple(os.fsencode(path) for path in some)
    began_s = time.monotonic()
    image = remote_backup(target, BackupOrder(ClientName("alpha"), paths), SystemClock())
    took_s = time.monotonic() - began_s
    print(json.dumps({"seconds": took_s, "travelled": image.stats["bytes_transmitted"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
