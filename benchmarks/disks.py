"""Virtual disks: read, backed up with few changes, restored; beside qemu-img and zstd.

    python benchmarks/disks.py [--gib 2] [--rounds 3] [--work DIRECTORY]
        [--growth | --formats | --restores]

The disk is made from a seed: a third holes, a third what compresses to about half, a third noise.
All of it lies in the page cache: what is measured is the work on the bytes. Prints one line a
measurement, the best of the rounds (of processors: without those of qemu-nbd, which still runs),
and the load of the machine before.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.engine import DiskInput, DiskSink, DiskSource, Image, Pool, PoolConfig
from holdfast.movers.machines.work import WRITTEN_HERE, connected
from holdfast.sources.machines.machine import Disk
from holdfast.sources.machines.new_disks import target_of
from holdfast.sources.machines.provider import SnapshotOrder, WholePart
from holdfast.sources.machines.providers import open_provider
from holdfast.sources.nbd import client, qemu_nbd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.sources.machines.provider import DiskTarget

KEY = bytes(range(32))
MIB = 1 << 20
GRAIN = 1 << 16
HOLE, DATA, SAME = 0, 1, 2


def make_disk(path: Path, size: int) -> None:
    """Write the disk, a stretch of each sort after the other."""
    made = random.Random(1)
    words = [made.randbytes(made.randrange(3, 12)) for _ in range(4000)]
    text = b" ".join(made.choices(words, k=3 * MIB // 8))
    with path.open("wb") as file:
        file.truncate(size)
        for at in range(0, size, 6 * MIB):
            shift = made.randrange(len(text) - 2 * MIB)
            file.seek(at)
            file.write(text[shift : shift + 2 * MIB][: size - at])
            file.seek(at + 2 * MIB)
            file.write(made.randbytes(max(0, min(2 * MIB, size - at - 2 * MIB))))


def change(path: Path, size: int, share: float, seed: int) -> list[tuple[int, int, int]]:
    """Change that share of the disk in stretches of 64 KiB; the ranges of it."""
    made = random.Random(seed)
    grains = sorted(made.sample(range(size // GRAIN), int(size // GRAIN * share)))
    ranges, at = [], 0
    with path.open("r+b") as file:
        for grain in grains:
            file.seek(grain * GRAIN)
            file.write(made.randbytes(GRAIN))
            if grain * GRAIN > at:
                ranges.append((at, grain * GRAIN - at, SAME))
            ranges.append((grain * GRAIN, GRAIN, DATA))
            at = (grain + 1) * GRAIN
    if at < size:
        ranges.append((at, size - at, SAME))
    return ranges


def processor_s() -> float:
    """What this process and programs that it ran have used."""
    return sum(os.times()[:4])


class Bench:
    """One disk, and the pools it goes into."""

    def __init__(self, work: Path, size: int, rounds: int) -> None:
        self.work, self.size, self.rounds = work, size, rounds
        self.disk = work / "disk.raw"

    def best(self, name: str, act: Callable[[], object], prepare: Callable[[], object]) -> float:
        """The shortest time of `act`, told."""
        times = []
        for _ in range(self.rounds):
            prepare()
            started, before = time.perf_counter(), processor_s()
            act()
            times.append((time.perf_counter() - started, processor_s() - before))
        took, worked = min(times)
        speed = f"{self.size / took / 1e6:6.0f} MB/s"
        print(f"{name:<44} {took:6.2f} s {worked:6.2f} s of processors {speed}", flush=True)
        return took

    def new_pool(self) -> Pool:
        """An empty pool."""
        shutil.rmtree(self.work / "pool", ignore_errors=True)
        (self.work / "pool").mkdir()
        return Pool.create(str(self.work / "pool"), KEY, PoolConfig(), 0)

    def back_up(
        self,
        pool: Pool,
        source: DiskSource,
        ranges: list[tuple[int, int, int]] | None = None,
        parent: Image | None = None,
    ) -> Image:
        """An image of the disk."""
        whole = [(0, self.size, DATA)]
        return pool.backup_machine(
            files={"machine.json": b"{}"},
            disks=[DiskInput("vda", self.size, ranges or whole, source, 0)],
            source="machine:bench",
            host="bench",
            started_ns=1,
            parent=parent.id if parent else None,
        ).result()

    def run(self, *command: object) -> None:
        """Run a program."""
        subprocess.run([str(one) for one in command], check=True, stdout=subprocess.DEVNULL)

    def back_up_file(self, pool: Pool, path: Path) -> None:
        """An image of a disk file, as a directory of them is backed up: opened, looked at, read."""
        provider = open_provider("diskfiles", str(path.parent))
        (machine,) = provider.machines()
        order = SnapshotOrder(machine.uuid, None, False, False, self.work, "bench")
        with provider.snapshot(order) as frozen:
            ranges = [(one.offset, one.length, int(one.kind)) for one in frozen.disks[0].ranges()]
            self.back_up(pool, frozen.disks[0].source(), ranges)

    @contextlib.contextmanager
    def served(self, path: Path, image_format: str = "raw") -> Iterator[DiskSource]:
        """The disk as qemu-nbd has it."""
        with (
            qemu_nbd.serving(qemu_nbd.image_node(path, image_format), "bench") as served,
            client.sockets(served.address, count=4) as sockets,
        ):
            export = sockets.export
            yield DiskSource.nbd(sockets.fds, size=export.size, structured=export.structured)


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
    ranges = change(disk, size, 0.01, 1)
    started = time.perf_counter()
    second = bench.back_up(pool, DiskSource.file(str(disk)), ranges, first)
    took = time.perf_counter() - started
    changed = sum(length for _, length, kind in ranges if kind == DATA)
    factor = second.stats["bytes_read"] / changed
    print(
        f"incremental of 1 % in pieces of 64 KiB: {took:.2f} s, {factor:.2f} of what changed read"
    )
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
    one = Bench(bench.work, bench.size, 1)
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
    middle, alone = statistics.median(shares), statistics.median(by_server)
    print(f"{name}: {middle:.0%} of the speed of qemu-img convert; {alone:.0%} by qemu-nbd alone")


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
    one = Bench(bench.work, bench.size, 1)
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
        middle, least, most = statistics.median(found), min(found), max(found)
        print(f"{image_format}: {name}: {middle:.0%} of its speed ({least:.0%} to {most:.0%})")


def measure_growth(bench: Bench) -> None:
    """The same few changes on a disk and on one eight times as large."""
    for times in (1, 8):
        size = bench.size * times
        make_disk(bench.disk, bench.size)
        os.truncate(bench.disk, size)
        # The same data again, as disks have it that were cloned: chunks are known, lists are not.
        with bench.disk.open("r+b") as file:
            for at in range(bench.size, size, 16 * MIB):
                file.seek(at % bench.size)
                piece = file.read(16 * MIB)
                file.seek(at)
                file.write(piece)
        large = Bench(bench.work, size, bench.rounds)
        pool = large.new_pool()
        image = large.back_up(pool, DiskSource.file(str(bench.disk)))
        took, read = [], 0
        for number in range(max(5, bench.rounds)):
            few = change(bench.disk, bench.size // 16, 0.05, number)
            ranges = [*few, (bench.size // 16, size - bench.size // 16, SAME)]
            source = DiskSource.file(str(bench.disk))
            before = processor_s()
            started = time.perf_counter()
            image = large.back_up(pool, source, ranges, image)
            took.append((time.perf_counter() - started, processor_s() - before))
            read = image.stats["bytes_read"]
        middle = sorted(took)[len(took) // 2]
        print(
            f"incremental of a disk of {size >> 20} MiB: {middle[0] * 1e3:.0f} ms,"
            f" {middle[1] * 1e3:.0f} ms of processors, {read >> 10} KiB read",
            flush=True,
        )


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument(
        "--growth", action="store_true", help="only few changes of a disk, and of a larger one"
    )
    parser.add_argument(
        "--formats", action="store_true", help="only disk files of several formats, read whole"
    )
    parser.add_argument(
        "--restores", action="store_true", help="only restores to files of several formats"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        bench = Bench(Path(work), int(given.gib * (1 << 30)) // GRAIN * GRAIN, given.rounds)
        if given.formats:
            measure_formats(bench)
        elif given.restores:
            measure_restores(bench)
        else:
            (measure_growth if given.growth else measure)(bench)


if __name__ == "__main__":
    main()
