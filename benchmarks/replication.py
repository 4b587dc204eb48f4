"""Measure images that go to another pool: ``python benchmarks/replication.py [--mib 1024]``.

Over loopback, mutual TLS 1.3, each end a process of its own, all files in memory:

- an image of data that can't be compressed, to an empty pool; the same without a link, within one
  process;
- an image of many small files;
- the next image of those, with changes in one directory of a hundred: with the first image as base,
  and as if there were none, when nothing need travel.

Prints a table, with the most memory that the sender had. Ratios are worth something only within one
run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from holdfast.base.clock import SystemClock  # noqa: E402 - the path comes first
from holdfast.base.ids import ClientName, ImageId  # noqa: E402
from holdfast.engine import Pool, PoolConfig, RemotePool  # noqa: E402
from holdfast.movers.backup_run import BackupOrder, run_backup  # noqa: E402
from holdfast.movers.transfer.remote_runs import TransferTarget  # noqa: E402
from holdfast.movers.transfer.replicate_run import remote_replicate  # noqa: E402
from tests.kit.machine_identities import (  # noqa: E402
    Machines,
    client_context,
    server_context,
)
from tests.kit.transfer_site import transfer_site  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.engine import Image

MEMORY = Path("/dev/shm")
KEY, OTHER = bytes(range(32)), bytes(range(32, 64))
FILES_A_DIRECTORY = 500


def main(words: list[str] | None = None) -> int:
    """Measure, and print."""
    options = argparse.ArgumentParser(description="Measure images that go to another pool.")
    options.add_argument("--mib", type=int, default=1024, help="how much data goes over")
    options.add_argument("--files", type=int, default=100_000, help="how many small files")
    options.add_argument("--json", type=Path, help="where to write the figures, too")
    given = options.parse_args(words)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        figures = measured(Path(made), given.mib, given.files)
    for what, (value, unit) in figures.items():
        print(f"{what:58} {value:10.2f} {unit}")
    if given.json is not None:
        load = [round(before, 1), round(os.getloadavg()[0], 1)]
        plain = {what: round(value, 2) for what, (value, _) in figures.items()}
        result = {
            "processors": os.cpu_count(),
            "load": load,
            "mib": given.mib,
            "files": given.files,
            "figures": plain,
        }
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def measured(directory: Path, mib: int, files: int) -> dict[str, tuple[float, str]]:
    """Every figure, and what it is of."""
    machines = Machines(directory)
    machines.server()
    machines.client("store", "media")
    figures: dict[str, tuple[float, str]] = {}
    source = Pool.create(str(directory / "source"), KEY, PoolConfig(), 0)
    large = directory / "large"
    large.mkdir()
    for number in range(8):
        with (large / f"{number}").open("wb") as file:
            for _ in range(mib // 8):
                file.write(os.urandom(1 << 20))
    image = back_up(source, large)
    shutil.rmtree(large)
    with target(directory, source) as to:
        forget_peak()
        figures["data, to another machine"] = (mib * 1.048576 / to.copy(image), "MB/s")
        figures["the most memory of the sender of data"] = (peak_mib(), "MiB")
    near = Pool.create(str(directory / "near"), OTHER, PoolConfig(), 0, naming=source.naming)
    began_s = time.perf_counter()
    source.replicate(image.id, near, started_ns=0).result()
    took_s = time.perf_counter() - began_s
    figures["data, to another pool of the process"] = (mib * 1.048576 / took_s, "MB/s")
    del near
    shutil.rmtree(directory / "near")

    small = directory / "small"
    for number in range(files):
        if number % FILES_A_DIRECTORY == 0:
            (small / f"{number // FILES_A_DIRECTORY}").mkdir(parents=True)
        path = small / f"{number // FILES_A_DIRECTORY}" / f"{number}"
        path.write_bytes(os.urandom(60) + b"%d" % number)
    first = back_up(source, small)
    for number in range(files):
        if number // FILES_A_DIRECTORY % 100 == 0:
            path = small / f"{number // FILES_A_DIRECTORY}" / f"{number}"
            path.write_bytes(os.urandom(70))
    second = back_up(source, small)
    with target(directory, source) as to:
        forget_peak()
        figures["small files, to another machine"] = (files / to.copy(first), "files/s")
        figures["the most memory of the sender meanwhile"] = (peak_mib(), "MiB")
        figures["the next image, with a base"] = (to.copy(second, first.id), "s")
        to.expire(second)
        figures["the same again, with a base: nothing travels"] = (to.copy(second, first.id), "s")
        to.expire(second)
        figures["the same again, without a base: nothing travels"] = (to.copy(second), "s")
        figures["the same again, while it is there"] = (to.copy(second), "s")
    return figures


def forget_peak() -> None:
    """From here on the most memory of this process counts."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """The most memory since then."""
    status = Path("/proc/self/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def back_up(pool: Pool, tree: Path) -> Image:
    """An image of a directory."""
    return run_backup(pool, BackupOrder(ClientName("alpha"), (os.fsencode(tree),)), SystemClock())


class Target:
    """A media server with an empty pool, in a process of its own."""

    def __init__(self, directory: Path, source: Pool, port: int, pipe: Any) -> None:
        self._directory = directory
        self._source = source
        self._port = port
        self._pipe = pipe
        self._job = 0

    def copy(self, image: Image, base: str | None = None) -> float:
        """Send an image; how many seconds that took."""
        self._job += 1
        self._pipe.send(("token", self._job, image.id, image.source, base))
        token = str(self._pipe.recv())
        there = TransferTarget(
            urls=(f"https://127.0.0.1:{self._port}",),
            context=client_context(self._directory, "store", "media"),
            token=lambda: token,
            remote_pool=RemotePool,
        )
        began_s = time.perf_counter()
        remote_replicate(there, self._source, ImageId(image.id))
        return time.perf_counter() - began_s

    def expire(self, image: Image) -> None:
        """Let the copy go, if there is one; its chunks stay."""
        self._pipe.send(("expire", image.id))
        self._pipe.recv()


@contextmanager
def target(directory: Path, source: Pool) -> Iterator[Target]:
    """Serve, and clean up."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs, directory, source.naming)
    )
    process.start()
    yield Target(directory, source, int(ours.recv()), ours)
    ours.send(None)
    process.join()
    shutil.rmtree(directory / "target")


def _serve(pipe: Any, directory: Path, naming: bytes) -> None:
    pool = Pool.create(str(directory / "target"), OTHER, PoolConfig(), 0, naming=naming)
    machines: Any = SimpleNamespace(server=lambda: server_context(directory))
    with transfer_site(directory, pool, machines=machines, pool_id=pool.id.hex()) as site:
        pipe.send(site.port)
        while (said := pipe.recv()) is not None:
            if said[0] == "expire":
                if said[1] in pool.image_ids():
                    pool.expire(said[1])
                pipe.send(None)
                continue
            _, job, image, source, base = said
            token = site.token(
                "store",
                job=job,
                verbs=frozenset({"replicate"}),
                images=frozenset({image}),
                source=source,
                parent=base,
            )
            pipe.send(token)


if __name__ == "__main__":
    sys.exit(main())
