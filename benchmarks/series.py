"""Run benchmarks one after the other: ``python benchmarks/series.py transfer`` or ``machines``.

``[--full | --smallest] [--only NAME]``. Without a word each is in a quick form, which is too short
to hold anything against a goal; ``--full`` has the amounts that docs/performance.md tells of, and
``--smallest`` those that show whether all of it runs. What can't run here is left out with a line
that says why, and what fails keeps nothing after it from running.

Must not measure anything itself. Invariant: the exit status is 1 if a benchmark failed, and never
because one was left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from benchmarks.transfer_quotas import can_limit  # noqa: E402 - the path comes first
from tests.kit.loop_devices import why_no_loop_devices  # noqa: E402
from tests.kit.network import can_make_networks  # noqa: E402

Need = Callable[[], str]
"""What a benchmark needs: why that can't be had here, or nothing."""


def root() -> str:
    """To be root."""
    return "" if os.geteuid() == 0 else "needs root"


def networks() -> str:
    """Network namespaces with cables between them."""
    return root() or ("" if can_make_networks() else "needs network namespaces, and iproute2")


def groups() -> str:
    """Control groups."""
    return root() or ("" if can_limit() else "needs control groups that can be written")


def loops() -> str:
    """Loop devices, which take root."""
    return why_no_loop_devices() or ""


def programs(*names: str) -> Need:
    """Programs of the system."""

    def missing() -> str:
        path = f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin"
        gone = [one for one in names if shutil.which(one, path=path) is None]
        return f"needs the programs {', '.join(gone)}" if gone else ""

    return missing


def library(name: str) -> Need:
    """A Python library that is not in every installation."""
    return lambda: "" if importlib.util.find_spec(name) else f"needs the library {name}"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One of a series.

    Attributes:
        script: Its name below ``benchmarks/``, without the ending.
        full: Its words in full size.
        quick: Its words for a minute or so.
        smallest: Its words for as little as it can.
        needs: What has to be there.
    """

    script: str
    full: str
    quick: str
    smallest: str
    needs: tuple[Need, ...] = ()

    def why_not(self) -> str:
        """What of its needs is not there; nothing if all is."""
        return next((why for one in self.needs if (why := one())), "")


MEMORY = "--mib 8 --rounds 1"

TRANSFER = (
    Benchmark("transfer", "--mib 512", "--mib 256", "--mib 8", (programs("openssl"),)),
    Benchmark("transfer_paths", "", "--shrink 2", "--shrink 20", (networks,)),
    Benchmark("transfer_second", "--rounds 2", "--mib 100 --rounds 1", MEMORY, (networks,)),
    Benchmark(
        "transfer_second", "--few --rounds 2", "--few --mib 100 --rounds 1", f"--few {MEMORY}",
        (networks,),
    ),
    Benchmark(
        "transfer_restore", "--mib 192 --rounds 2", "--mib 64 --rounds 1", MEMORY, (networks,)
    ),
    Benchmark(
        "transfer_compression", "--mib 512", "--mib 64 --rounds 1", MEMORY, (networks, groups)
    ),
    Benchmark("transfer_quotas", "", "--mib 64 --rounds 1", f"{MEMORY} --quota 0.5", (groups,)),
    Benchmark("transfer_memory", "", "--files 100000", "--files 1000"),
    Benchmark("transfer_peers", "", "--mib 512 --rounds 1", MEMORY),
    Benchmark(
        "replication", "--mib 1024 --files 500000", "--mib 256 --files 50000",
        "--mib 8 --files 1000",
    ),
)  # fmt: skip
"""What goes between two machines, and between two pools."""

LEAST_XFS = "--mib 320"
"""XFS is made on no disk below 300 MiB."""

MACHINES = (
    Benchmark(
        "disks", "--gib 2", "--gib 0.5 --rounds 1", "--gib 0.03 --rounds 1",
        (programs("qemu-img", "qemu-nbd", "zstd"),),
    ),
    Benchmark(
        "disks", "--gib 0.25 --rounds 1 --growth", "--gib 0.0625 --rounds 1 --growth",
        "--gib 0.03 --rounds 1 --growth",
    ),
    Benchmark(
        "disks", "--gib 1 --rounds 9 --incremental --work /dev/shm",
        "--gib 0.125 --rounds 1 --incremental", "--gib 0.03 --rounds 1 --incremental",
    ),
    Benchmark(
        "disks", "--gib 1 --rounds 4 --formats --work /dev/shm",
        "--gib 0.125 --rounds 1 --formats", "--gib 0.03 --rounds 1 --formats",
        (programs("qemu-img", "qemu-nbd"),),
    ),
    Benchmark(
        "disks", "--gib 1 --rounds 9 --running --work /dev/shm",
        "--gib 0.125 --rounds 1 --running", "--gib 0.03 --rounds 1 --running",
        (programs("qemu-img", "qemu-system-x86_64"), library("lxml")),
    ),
    Benchmark(
        "disks", "--gib 0.5 --rounds 3 --restores --work /dev/shm",
        "--gib 0.125 --rounds 1 --restores", "--gib 0.03 --rounds 1 --restores",
        (programs("qemu-img", "qemu-nbd"),),
    ),
    Benchmark(
        "free_space", "--mib 1024", "--mib 512", LEAST_XFS,
        (loops, programs("mkfs.ext4", "mkfs.xfs", "mkntfs", "ntfs-3g", "fstrim", "unshare")),
    ),
    Benchmark(
        "nbd", "--mib 1500", "--mib 256 --rounds 1", MEMORY,
        (programs("qemu-nbd", "qemu-img", "nbdcopy"),),
    ),
    Benchmark(
        "instant", "--rounds 3", "--rounds 1", "--rounds 1",
        (root, programs("qemu-system-x86_64", "qemu-img", "debootstrap")),
    ),
    Benchmark(
        "files_in_machines", "", "--files 5000", "--files 500 --large-mib 8",
        (root, programs("mkfs.ext4", "mkfs.ntfs", "ntfs-3g"), library("pytsk3")),
    ),
    Benchmark(
        "machines_dedup", "--own-mib 48", "--machines 4 --days 3 --own-mib 12",
        "--machines 2 --days 2 --own-mib 4 --os /etc", (programs("mke2fs", "debugfs"),),
    ),
)  # fmt: skip
"""Disks of virtual machines, and what is in them."""

SERIES = {"transfer": TRANSFER, "machines": MACHINES}


def main(words: list[str] | None = None) -> int:
    """Run a series."""
    options = argparse.ArgumentParser(description="Run benchmarks one after the other.")
    options.add_argument("series", choices=tuple(SERIES))
    size = options.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="the amounts of docs/performance.md")
    size.add_argument("--smallest", action="store_true", help="only to see that all of it runs")
    options.add_argument("--only", action="append", metavar="NAME", help="only this script (+)")
    given = options.parse_args(words)
    form = "full" if given.full else "smallest" if given.smallest else "quick"
    known = {one.script for one in SERIES[given.series]}
    for name in given.only or []:
        if name not in known:
            options.error(f"there is no benchmark '{name}': say {', '.join(sorted(known))}")
    chosen = [one for one in SERIES[given.series] if one.script in (given.only or known)]
    failed = [one.script for one in chosen if not run(one, form)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def run(benchmark: Benchmark, form: str) -> bool:
    """Run one, unless it can't be; whether it did not fail."""
    words: str = getattr(benchmark, form)
    named = f"benchmarks/{benchmark.script}.py {words}".rstrip()
    if why := benchmark.why_not():
        print(f"\nleft out: {named}: {why}", flush=True)
        return True
    print(f"\n{named}", flush=True)
    path = f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin"
    began_s = time.monotonic()
    status = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / f"{benchmark.script}.py", *words.split()],
        env={**os.environ, "PATH": path},
        check=False,
    ).returncode
    took_s = time.monotonic() - began_s
    said = f"ended with {status}" if status else "done"
    print(f"({said} after {took_s:.0f} s)", flush=True)
    return status == 0


if __name__ == "__main__":
    sys.exit(main())
