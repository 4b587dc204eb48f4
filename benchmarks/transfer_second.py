"""Measure a second backup of changed data over a slow, long link.

``python benchmarks/transfer_second.py [--mib 400] [--rounds 3] [--mbit 100] [--json FILE]``
``[--few]``, as root: two network namespaces are the machines, with a cable of that rate between
them and a relay at its end, by which everything takes 25 ms longer each way. The first backup is
made beside the media server. Then of the files, which are text and noise by halves, an eighth is
replaced, an eighth has pieces put in, some are new, some are gone. Prints what the second backup
sent over the cable, both ways and with all headers, beside its new chunks after compression, its
time beside bytes over rate, and for how long the cable carried nothing: before the first body,
between bodies, after the last. With ``--few`` two files have a few bytes put in: what counts then
is how often something goes there and back before the next thing can.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from benchmarks.transfer_compression import words_of  # noqa: E402 - the path comes first
from holdfast.base.clock import SystemClock  # noqa: E402
from holdfast.base.ids import ClientName  # noqa: E402
from holdfast.engine import Pool, PoolConfig, RemotePool  # noqa: E402
from holdfast.movers.backup_run import BackupOrder  # noqa: E402
from holdfast.movers.transfer.remote_runs import TransferTarget, remote_backup  # noqa: E402
from tests.kit.clock import FakeClock  # noqa: E402
from tests.kit.machine_identities import client_context  # noqa: E402
from tests.kit.network import Cables, cables, can_make_networks, inside  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = Path("/dev/shm")
RELAY_PORT = 7777
DELAY_S = 0.025
MOST_BYTES, MOST_TIME = 1.05, 1.2
SAMPLE_S = 0.02
BUSY = 0.25
"""From this share of its rate on the cable carries something, and not questions alone."""


@dataclass(frozen=True, slots=True)
class Second:
    """What a second backup took.

    Attributes:
        seconds: From its beginning to its end.
        sent: Bytes on the cable, both ways, with all headers.
        new: New chunks after compression, in bytes.
        rate: Bytes a second that the cable carries each way.
        idle: For how many seconds it carried nothing: before, between, after.
    """

    seconds: float
    sent: int
    new: int
    rate: float
    idle: tuple[float, float, float]

    @property
    def bytes_ratio(self) -> float:
        """What was sent beside what was new."""
        return self.sent / self.new

    @property
    def time_ratio(self) -> float:
        """Beside bytes over rate."""
        return self.seconds / (self.sent / self.rate)


def main(words: list[str]) -> int:
    """Measure, and print."""
    if words[:1] == ["--as-agent"]:
        return _agent(*words[1:])
    if words[:1] == ["--as-sampler"]:
        return _sampler()
    options = argparse.ArgumentParser(description="Measure a second backup over a slow link.")
    options.add_argument("--mib", type=int, default=400, help="how much there is")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--mbit", type=int, default=100, help="what the link carries")
    options.add_argument("--few", action="store_true", help="a few bytes are new")
    options.add_argument("--json", type=Path, help="where to write the figures, too")
    given = options.parse_args(words)
    if not can_make_networks():
        print("network namespaces can't be made here: run it as root", file=sys.stderr)
        return 2
    before = os.getloadavg()[0]
    found = []
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory(dir=MEMORY) as made:
            one = measured(Path(made), given.mib, given.mbit, number, few=given.few)
        found.append(one)
        if given.few:
            print(
                f"{one.new:7} bytes new, {one.sent:7} bytes sent, {one.seconds:5.3f} s: "
                f"{one.seconds / (2 * DELAY_S):.1f} times there and back",
                flush=True,
            )
            continue
        before_s, between_s, after_s = one.idle
        print(
            f"{one.new / 1e6:6.1f} MB new, {one.sent / 1e6:6.1f} MB sent "
            f"({one.bytes_ratio:.3f} times), {one.seconds:5.2f} s "
            f"({one.time_ratio:.2f} times bytes over rate); idle for {before_s:.2f} s before, "
            f"{between_s:.2f} s between, {after_s:.2f} s after",
            flush=True,
        )
    sent = statistics.median(one.bytes_ratio for one in found)
    took = statistics.median(one.time_ratio for one in found)
    if not given.few:
        print(f"median: {sent:.3f} times the bytes (goal {MOST_BYTES}), {took:.2f} times the time "
              f"(goal {MOST_TIME})")  # fmt: skip
    load = [round(before, 1), round(os.getloadavg()[0], 1)]
    print(f"processes wanting to run, before and after: {load[0]}, {load[1]}")
    if given.json is not None:
        result = {
            "processors": os.cpu_count(),
            "load": load,
            "mib": given.mib,
            "mbit": given.mbit,
            "rounds": [asdict(one) for one in found],
        }
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def measured(made: Path, mib: int, mbit: int, seed: int, *, few: bool = False) -> Second:
    """One second backup, into a pool of its own."""
    data = made / "data"
    words_of(data, mib // 2)
    chance = random.Random(seed)
    for number in range(mib // 8):
        (data / f"noise {number:04}").write_bytes(chance.randbytes(4 << 20))
    Pool.create(str(made / "pool"), bytes(range(32)), PoolConfig(), 0)
    with cables(1, f"{mbit}mbit") as between, served(between, made) as site:
        first = _backup(between.far, made, site.token, f"https://127.0.0.1:{site.port}")
        change_little(data, chance) if few else change(data, chance)
        token = site.following(first["image"])
        before = on_the_cable(between.near)
        url = f"https://{between.far_addresses[0]}:{RELAY_PORT}"
        with sampled(between.near) as samples:
            told = _backup(between.near, made, token, url)
        sent = on_the_cable(between.near) - before
    rate = mbit * 1e6 / 8
    began_s, ended_s = told["began"], told["began"] + told["seconds"]
    idle = idle_in([one for one in samples if began_s <= one[0] <= ended_s], rate)
    return Second(told["seconds"], sent, told["new"], rate, idle)


@contextmanager
def sampled(namespace: str) -> Iterator[list[tuple[float, int]]]:
    """Moments, and how many bytes had left a machine by then; there at the end."""
    samples: list[tuple[float, int]] = []
    words = (sys.executable, str(Path(__file__)), "--as-sampler")
    sampler = subprocess.Popen(
        inside(namespace, *words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert sampler.stdout is not None
    sampler.stdout.readline()
    try:
        yield samples
    finally:
        said, _ = sampler.communicate()
        lines = [line.split() for line in said.splitlines()]
        samples += [(float(at), int(sent)) for at, sent in lines]


def _sampler() -> int:
    """Say what left the machine, until the input ends."""
    with Path("/sys/class/net/near0/statistics/tx_bytes").open() as file:
        while not select.select([sys.stdin], [], [], SAMPLE_S)[0]:
            file.seek(0)
            print(time.monotonic(), file.read().strip(), flush=True)
    return 0


def idle_in(samples: list[tuple[float, int]], rate: float) -> tuple[float, float, float]:
    """For how many seconds nothing was carried: before the first body, between, after the last."""
    spans = [(after[0] - first[0], after[1] - first[1]) for first, after in pairwise(samples)]
    busy = [at for at, (took_s, sent) in enumerate(spans) if sent > BUSY * rate * took_s]
    if not busy:
        return sum(took_s for took_s, _ in spans), 0.0, 0.0
    first, last = busy[0], busy[-1]
    carried = set(busy)
    return (
        sum(took_s for took_s, _ in spans[:first]),
        sum(
            took_s
            for at, (took_s, _) in enumerate(spans)
            if first < at < last and at not in carried
        ),
        sum(took_s for took_s, _ in spans[last + 1 :]),
    )


def change_little(data: Path, chance: random.Random) -> None:
    """Put a few bytes into two files."""
    for one in sorted(data.iterdir())[:2]:
        content = bytearray(one.read_bytes())
        content[100:100] = chance.randbytes(3000)
        one.write_bytes(content)


def change(data: Path, chance: random.Random) -> None:
    """Have data be what it may be a day later."""
    files = sorted(data.iterdir())
    chance.shuffle(files)
    eighth = len(files) // 8
    for one in files[:eighth]:
        one.write_bytes(other(one.read_bytes(), chance))
    for one in files[eighth : 2 * eighth]:
        content = bytearray(one.read_bytes())
        for at in sorted(chance.sample(range(len(content)), 4), reverse=True):
            content[at:at] = chance.randbytes(chance.randint(1, 20_000))
        one.write_bytes(content)
    for one in files[2 * eighth : 2 * eighth + 2]:
        one.unlink()
    for number in range(200):
        (data / f"new {number}").write_bytes(chance.randbytes(chance.randint(1, 30_000)))


def other(content: bytes, chance: random.Random) -> bytes:
    """Content of the same kind: every byte stands for another one."""
    table = bytearray(range(256))
    chance.shuffle(table)
    return content.translate(bytes(table))


@contextmanager
def served(between: Cables, made: Path) -> Iterator[Any]:
    """A media server on the far machine, and a relay before it.

    Its port, a token for a first backup, and what gives one for a backup that follows an image.
    """
    kit = (sys.executable, "-m")
    server = subprocess.Popen(
        inside(between.far, *kit, "tests.kit.media_process", str(made), "0.0.0.0"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert server.stdout is not None
    said: dict[str, Any] = json.loads(server.stdout.readline())
    words = (str(RELAY_PORT), str(said["port"]), str(DELAY_S))
    relay = subprocess.Popen(inside(between.far, *kit, "tests.kit.delay_relay", *words), cwd=ROOT)
    time.sleep(1)

    def following(image: str) -> str:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(f"backup {image}\n")
        server.stdin.flush()
        return str(json.loads(server.stdout.readline())["token"])

    try:
        yield SimpleNamespace(port=said["port"], token=said["token"], following=following)
    finally:
        relay.kill()
        relay.wait()
        server.communicate()


def on_the_cable(namespace: str) -> int:
    """Bytes that went over it so far, both ways."""
    names = [f"/sys/class/net/near0/statistics/{one}_bytes" for one in ("tx", "rx")]
    done = subprocess.run(inside(namespace, "cat", *names), check=True, capture_output=True)
    return sum(map(int, done.stdout.split()))


def _backup(namespace: str, made: Path, token: str, url: str) -> dict[str, Any]:
    words = (sys.executable, str(Path(__file__)), "--as-agent", str(made), token, url)
    done = subprocess.run(
        inside(namespace, *words), check=True, capture_output=True, text=True, cwd=ROOT
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _agent(directory: str, token: str, url: str) -> int:
    made = Path(directory)
    target = TransferTarget(
        urls=(url,),
        context=client_context(made, "alpha"),
        token=lambda: token,
        remote_pool=partial(RemotePool, trees=str(made / "remembered.trees")),
    )
    began_s = time.monotonic()
    order = BackupOrder(ClientName("alpha"), (os.fsencode(made / "data"),))
    # What changed just before a backup is read again by the next one: a minute has passed.
    clock = FakeClock(SystemClock().now() + timedelta(minutes=1))
    image = remote_backup(target, order, clock)
    took_s = time.monotonic() - began_s
    stats = image.stats
    print(
        json.dumps(
            {
                "began": began_s,
                "seconds": took_s,
                "new": stats["bytes_transmitted"],
                "image": image.id,
                "unchanged": stats["files_unchanged"],
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
