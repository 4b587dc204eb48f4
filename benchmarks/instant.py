"""Time from an order to a login prompt: a Debian that runs from its image, and from a local disk.

    python benchmarks/instant.py [--rounds 3] [--json FILE]

The guest is the tests' Debian (GRUB, kernel, systemd), made by debootstrap if it is not there yet.
It is put into a pool in a directory; then, in turns, it is started from a local qcow2 disk, and by
an instant recovery: serving, overlay, QEMU. Both clocks begin with the order and end when the
prompt comes over the serial console. Needs root, as debootstrap does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from holdfast.engine import DiskInput, DiskSource, Pool, PoolConfig  # noqa: E402 - the path first
from holdfast.movers.machines.instant import Image, discard_machine, serve_machine  # noqa: E402
from holdfast.movers.machines.record import Record  # noqa: E402
from holdfast.sources.machines.machine import Disk, Machine  # noqa: E402
from holdfast.sources.machines.providers import open_provider  # noqa: E402
from holdfast.wire.machine_work import InstantWork  # noqa: E402
from tests.kit import debian_guest  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

GOAL = 1.5
"""Login prompt at most so many times the time from a local disk."""

UUID = "6f1c2f3e-0a3c-4a50-9e53-3a3b1f1d7a10"
NAME = "debian"
PATIENCE_S = 900.0


class Stop(Exception):  # noqa: N818 - it is no error
    """The machine was seen; it may go."""


def words(disk: Path, console: Path) -> list[str]:
    """What starts the guest."""
    found = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "qemu64"]
    found += ["-smp", "2", "-m", "384"]
    found += ["-nodefaults", "-display", "none", "-no-reboot", "-name", NAME, "-uuid", UUID]
    found += ["-chardev", f"file,id=s0,path={console}", "-serial", "chardev:s0"]
    found += ["-drive", f"if=none,id=d0,file={disk},format=qcow2"]
    return [*found, "-device", "virtio-blk-pci,drive=d0,id=vda"]


def await_login(console: Path, started_s: float) -> float:
    """Seconds from a moment to the prompt."""
    while time.perf_counter() - started_s < PATIENCE_S:
        with contextlib.suppress(FileNotFoundError):
            if debian_guest.LOGIN in console.read_text("utf-8", "replace"):
                return time.perf_counter() - started_s
        time.sleep(0.05)
    raise TimeoutError("no login prompt came")


def from_local(work: Path) -> float:
    """Start it from a local disk; what it writes is thrown away."""
    console = work / "console"
    console.unlink(missing_ok=True)
    started_s = time.perf_counter()
    line = [
        one.replace("format=qcow2", "format=qcow2,snapshot=on")
        for one in words(work / "local.qcow2", console)
    ]
    with subprocess.Popen(
        line, stdin=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(work)}
    ) as machine:
        try:
            return await_login(console, started_s)
        finally:
            machine.kill()


def put_image(work: Path) -> tuple[Pool, str]:
    """The machine in a new pool, as a backup of it is."""
    raw, place = work / "disk.raw", work / "local.qcow2"
    debian_guest.copy(place)
    subprocess.run(["qemu-img", "convert", "-O", "raw", place, raw], check=True)
    size = raw.stat().st_size
    machine = Machine(UUID, NAME, "host1", disks=(Disk("vda", size, str(place), "qcow2"),))
    command = {
        "words": words(place, work / "console"),
        "disks": {"vda": {"place": str(place), "format": "qcow2"}},
    }
    record = Record(machine, None, quiesced=True, definitions=("qemu.json",))
    (work / "pool").mkdir()
    pool = Pool.create(str(work / "pool"), bytes(range(32)), PoolConfig(), 0)
    made = pool.backup_machine(
        files={
            "machine.json": record.to_bytes(),
            "definitions/qemu.json": json.dumps(command).encode(),
        },
        disks=[DiskInput("vda", size, [(0, size, 1)], DiskSource.file(str(raw)), 0)],
        source=f"machine:{UUID}",
        host=NAME,
        started_ns=1,
        labels={"machine": UUID},
    ).result()
    raw.unlink()
    return pool, made.id


def from_image(work: Path, pool: Pool, image: str) -> float:
    """Start it by an instant recovery, as a worker does, and throw it away."""
    console = work / "console"
    console.unlink(missing_ok=True)
    run = work / "run"
    run.mkdir(exist_ok=True)
    order = InstantWork(image, "serve", f"bench-{os.getpid()}", UUID, NAME, "here")
    provider = open_provider("qmp", str(run))
    seen = threading.Event()

    def alive() -> None:
        if seen.is_set():
            raise Stop

    def tell(_: Mapping[str, int]) -> None:
        return None

    def serve() -> None:
        with contextlib.suppress(Stop):
            serve_machine(
                provider,
                Image(lambda path: pool.open_file(image, path), lambda: pool.image(image)),
                order,
                tell,
                alive,
                print,
            )

    started_s = time.perf_counter()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        return await_login(console, started_s)
    finally:
        seen.set()
        thread.join()
        discard_machine(provider, order, lambda: None, lambda _: None)


def main() -> None:
    """Take the options, measure, tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    local: list[float] = []
    instant: list[float] = []
    with tempfile.TemporaryDirectory(prefix="hf-instant-") as directory:
        work = Path(directory)
        pool, image = put_image(work)
        for number in range(given.rounds):
            for name, times in (("local", local), ("image", instant))[:: 1 - 2 * (number % 2)]:
                took = from_local(work) if name == "local" else from_image(work, pool, image)
                times.append(took)
                print(f"login prompt from {name:<6} {took:7.1f} s", flush=True)
    ratio = min(instant) / min(local)
    print(f"the best from the image, over the best from a local disk: {ratio:.2f} (goal {GOAL})")
    if given.json is not None:
        told = {
            "local_s": local,
            "image_s": instant,
            "ratio": ratio,
            "goal": GOAL,
            "load_before": load,
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
        }
        given.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
