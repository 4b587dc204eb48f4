"""Virtual disks: read, backed up with few changes, restored; beside qemu-img and zstd.

    python benchmarks/disks.py [--gib 2] [--rounds 3] [--work DIRECTORY] [--json FILE]
        [--growth | --incremental | --formats | --running | --restores]

The disk is made from a seed: a third holes, a third what compresses to about half, a third noise.
All of it lies in the page cache: what is measured is the work on the bytes. Prints one line a
measurement, the best of the rounds (of processors: without those of qemu-nbd, which still runs),
and the load of the machine before; the file has all rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from benchmarks.disk_bench import (  # noqa: E402 - the path comes first
    DATA,
    GRAIN,
    MIB,
    Bench,
    change,
    make_disk,
    middle_and_spread,
)
from benchmarks.disk_changes import measure_growth, measure_incrementals  # noqa: E402
from benchmarks.running_disk import measure_running  # noqa: E402
from holdfast.engine import DiskSink, DiskSource, Image, Pool  # noqa: E402
from holdfast.movers.machines.work import WRITTEN_HERE, connected  # noqa: E402
from holdfast.sources.machines.machine import Disk  # noqa: E402
from holdfast.sources.machines.new_disks import target_of  # noqa: E402
from holdfast.sources.machines.provider import WholePart  # noqa: E402
from holdfast.sources.nbd import client, qemu_nbd  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.sources.machines.provider import DiskTarget


def measure(bench: Bench) -> None:
    """Everything, one after the other."""
    work, disk, size = bench.work, bench.disk, bench.size
    print(f"disk of {size >> 20} MiB; load before: {os.getloadavg()[0]:.2f}")
    make_disk(disk, size)
    os.sync()

    def gone(name: str) -> Callable[[], None]:
        return lambda: (work / name).unlink(missing_ok=True)

    def read(path: Path) -> None:
        with path.open("rb") as file:
            while file.read(MIB):
                pass

    read(disk)
    zstd = bench.best(
        "zstd -1 -T0",
        lambda: bench.run("zstd", "-q", "-1", "-T0", disk, "-o", work / "disk.zst"),
        gone("disk.zst"),
    )
    convert = bench.best(
        "qemu-img convert -O raw",
        lambda: bench.run("qemu-img", "convert", "-f", "raw", "-O", "raw", disk, work / "copy"),
        gone("copy"),
    )
    (work / "copy").unlink()
    (work / "disk.zst").unlink()
    source = DiskSource.file(str(disk))
    pools: list[Pool] = []

    def fresh() -> None:
        pools[:] = [bench.new_pool()]

    unknown = bench.best("backup, all data new", lambda: bench.back_up(pools[0], source), fresh)
    pool = pools[0]
    first = bench.back_up(pool, source)
    known = bench.best("backup, all data known", lambda: bench.back_up(pool, source), lambda: None)
    with bench.served(disk) as nbd:
        bench.best(
            "backup, all data known, from qemu-nbd",
            lambda: bench.back_up(pool, nbd),
            lambda: None,
        )
    copy = work / "copy"
    restore = bench.best(
        "restore to a raw file",
        lambda: pool.restore_disk(first.id, b"/disks/vda", DiskSink.file(str(copy), size)).result(),
        gone("copy"),
    )
    bench.run("cmp", disk, copy)

    def convert_and_sync() -> None:
        bench.run("qemu-img", "convert", "-t", "writeback", "-f", "raw", "-O", "raw", disk, copy)
        bench.run("sync", copy)

    flushed = bench.best(
        "qemu-img convert -O raw -t writeback, sync", convert_and_sync, gone("copy")
    )
    copy.unlink()
    ranges = change(disk, size, size // GRAIN // 100, 1)
    started = time.perf_counter()
    second = bench.back_up(pool, DiskSource.file(str(disk)), ranges, first)
    took = time.perf_counter() - started
    changed = sum(length for _, length, kind in ranges if kind == DATA)
    factor = second.stats["bytes_read"] / changed
    name = "incremental of 1 % in pieces of 64 KiB"
    print(f"{name}: {took:.2f} s, {factor:.2f} of what changed read")
    bench.note(name, seconds=took, read_of_changed=factor)
    print(f"all data new: {zstd / unknown:.0%} of the speed of zstd -1 -T0")
    print(f"all data known: {convert / known:.0%} of the speed of qemu-img convert")
    print(f"restore: {convert / restore:.0%} of the speed of qemu-img convert", end="")
    print(f", {flushed / restore:.0%} of that with a sync")


def scatter(path: Path, disk: Path, size: int) -> None:
    """Make a qcow2 of a disk whose clusters lie in any order, as one that lived for long."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], check=True)
    places = list(range(0, size, GRAIN))
    random.Random(2).shuffle(places)
    node = qemu_nbd.image_node(path, "qcow2")
    with qemu_nbd.serving(node, "bench", writable=True) as served, disk.open("rb") as file:
        connection = client.connect(served.address)
        for at in places:
            file.seek(at)
            if any(piece := file.read(GRAIN)):
                connection.write(at, piece)
        connection.close()


def measure_formats(bench: Bench) -> None:
    """Files of several formats, read whole; all data known to the pool."""
    work, disk, size = bench.work, bench.disk, bench.size
    print(f"disk of {size >> 20} MiB; load before: {os.getloadavg()[0]:.2f}")
    make_disk(disk, size)
    pool = bench.new_pool()
    bench.back_up(pool, DiskSource.file(str(disk)))
    for name, options in (
        ("qcow2", ("-O", "qcow2")),
        ("qcow2 scattered", None),
        ("qcow2 compressed", ("-O", "qcow2", "-c", "-W")),
        ("raw", ("-O", "raw")),
        ("vmdk", ("-O", "vmdk")),
        ("vhdx", ("-O", "vhdx")),
    ):
        image_format = name.split()[0]
        path = work / image_format / f"disk.{image_format}"
        path.parent.mkdir()
        if options is None:
            scatter(path, disk, size)
        else:
            bench.run("qemu-img", "convert", "-f", "raw", *options, disk, path)
        os.sync()
        measure_format(bench, pool, path, name)
        shutil.rmtree(path.parent)


def measure_format(bench: Bench, pool: Pool, path: Path, name: str) -> None:
    """One file: `qemu-img convert`, a backup, and one by `qemu-nbd` alone, in turns."""
    image_format, copy = path.suffix[1:], bench.work / "copy"
    command = ("qemu-img", "convert", "-f", image_format, "-O", "raw", path, copy)
    shares, by_server = [], []
    one = bench.one_round()
    for _ in range(bench.rounds):
        convert = one.best(
            f"{name}: qemu-img convert -O raw",
            lambda: one.run(*command),
            lambda: copy.unlink(missing_ok=True),
        )
        backup = one.best(f"{name}: backup", lambda: one.back_up_file(pool, path), lambda: None)
        with one.served(path, image_format) as source:
            served = one.best(
                f"{name}: backup by qemu-nbd alone",
                lambda: one.back_up(pool, source),
                lambda: None,
            )
        shares.append(convert / backup)
        by_server.append(convert / served)
    own, alone = middle_and_spread(shares), middle_and_spread(by_server)
    print(f"{name}: {own} of the speed of qemu-img convert; {alone} by qemu-nbd alone")


RESTORED = {
    "raw": (),
    "qcow2": (),
    "vmdk": ("-o", "subformat=monolithicSparse"),
    "vhdx": ("-o", "subformat=dynamic"),
    "vdi": (),
}
"""What disks are restored as, and the options of `qemu-img` by which the files are alike."""


def measure_restores(bench: Bench) -> None:
    """Restores to files of several formats, beside `qemu-img convert` of the disk to the same."""
    work, disk, size = bench.work, bench.disk, bench.size
    print(f"disk of {size >> 20} MiB; load before: {os.getloadavg()[0]:.2f}")
    make_disk(disk, size)
    pool = bench.new_pool()
    image = bench.back_up(pool, DiskSource.file(str(disk)))
    os.sync()
    for image_format, options in RESTORED.items():
        measure_restore(bench, pool, image, image_format, options)
    (work / "copy").unlink()


def measure_restore(
    bench: Bench, pool: Pool, image: Image, image_format: str, options: tuple[str, ...]
) -> None:
    """One format: `qemu-img convert`, the same with a sync, and restores, in turns."""
    disk, copy = bench.disk, bench.work / "copy"
    one = bench.one_round()
    target = target_of(copy, image_format, "bench")
    ways = {"restore": target}
    if image_format in WRITTEN_HERE:
        ways["restore by qemu-nbd"] = replace(target, path=None)

    def convert(*more: str) -> None:
        words = ("-f", "raw", "-O", image_format, *options, disk, copy)
        one.run("qemu-img", "convert", *more, *words)

    def convert_and_sync() -> None:
        convert("-t", "writeback")
        one.run("sync", copy)

    def make() -> None:
        copy.unlink(missing_ok=True)
        one.run("qemu-img", "create", "-q", "-f", image_format, *options, copy, one.size)

    def restore(to: DiskTarget) -> None:
        with connected(Disk("vda", one.size, "", target.format), to, WholePart()) as sink:
            pool.restore_disk(image.id, b"/disks/vda", sink).result()

    shares: dict[str, list[float]] = {}
    for _ in range(bench.rounds):
        gone = partial(copy.unlink, missing_ok=True)
        plain = one.best(f"{image_format}: qemu-img convert", convert, gone)
        flushed = one.best(f"{image_format}: the same, and a sync", convert_and_sync, gone)
        for name, to in ways.items():
            took = one.best(f"{image_format}: {name}", partial(restore, to), make)
            one.run("qemu-img", "compare", "-f", "raw", "-F", image_format, disk, copy)
            # qemu's own count of the blocks of a VDI is wrong where several connections write.
            if image_format != "raw" and to.path is not None:
                one.run("qemu-img", "check", "-f", image_format, copy)
            shares.setdefault(f"{name} beside convert", []).append(plain / took)
            shares.setdefault(f"{name} beside convert with a sync", []).append(flushed / took)
    for name, found in shares.items():
        print(f"{image_format}: {name}: {middle_and_spread(found)} of its speed")


ONLY = {
    "growth": (measure_growth, "few changes of a disk, and of a larger one"),
    "incremental": (measure_incrementals, "more and more changes of a disk, and of a larger one"),
    "formats": (measure_formats, "disk files of several formats, read whole"),
    "running": (measure_running, "a qcow2 that a machine has, read whole while that runs"),
    "restores": (measure_restores, "restores to files of several formats"),
}
"""What is measured instead of `measure`, by the word that asks for it."""


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--json", type=Path, help="where to write the figures, too")
    one_of = parser.add_mutually_exclusive_group()
    for name, (_, what) in ONLY.items():
        one_of.add_argument(
            f"--{name}", dest="only", action="store_const", const=name, help=f"only {what}"
        )
    given = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        bench = Bench(Path(work), int(given.gib * (1 << 30)) // GRAIN * GRAIN, given.rounds)
        (ONLY[given.only][0] if given.only else measure)(bench)
    if given.json is not None:
        result = {
            "processors": os.cpu_count(),
            "load": [round(before, 1), round(os.getloadavg()[0], 1)],
            "measured": given.only or "all",
            "mib": bench.size // MIB,
            "rounds": bench.rounds,
            "figures": bench.figures,
        }
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
