"""The disk of a machine that runs, read whole from its QEMU; beside `qemu-img convert` of its file.

Must not measure a guest: the machine runs without one, and nobody writes to its disk meanwhile.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.disk_bench import make_disk, middle_and_spread
from holdfast.engine import DiskSink, DiskSource
from holdfast.sources.machines.providers import open_provider
from tests.kit.qemu import Qemu

if TYPE_CHECKING:
    from benchmarks.disk_bench import Bench
    from holdfast.engine import Image, Pool

LOOK_S = 0.25
IDLE_S = 0.02
"""Less of a processor from look to look is a machine that waits."""


def measure_running(bench: Bench) -> None:
    """A qcow2 with known data, in turns: converted, backed up at rest, and while its machine runs.

    While it runs its QEMU has it: a snapshot by ``copy-before-write`` and ``snapshot-access``,
    read over NBD, as of any machine that is reached over QMP.
    """
    work, disk = bench.work, bench.disk
    print(f"disk of {bench.size >> 20} MiB; load before: {os.getloadavg()[0]:.2f}")
    make_disk(disk, bench.size)
    pool = bench.new_pool()
    bench.back_up(pool, DiskSource.file(str(disk)))
    machine = Qemu(work / "machine", formats=("qcow2",))
    file, copy = machine.files[0], work / "copy"
    bench.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, file)
    command = ("qemu-img", "convert", "-f", "qcow2", "-O", "raw", file, copy)
    gone = partial(copy.unlink, missing_ok=True)
    one = bench.one_round()
    at_rest, running, beside_rest = [], [], []
    for _ in range(bench.rounds):
        convert = one.best("qemu-img convert -O raw", partial(one.run, *command), gone)
        copy.unlink()
        rest = one.best("backup at rest", partial(one.back_up_file, pool, file), os.sync)
        at_rest.append(convert / rest)
        made: list[Image] = []
        with machine:
            wait_until_idle(machine)
            act = partial(back_up_running, one, pool, machine, made)
            took = one.best("backup while its machine runs", act, os.sync)
        running.append(convert / took)
        beside_rest.append(rest / took)
        sink = DiskSink.file(str(copy), bench.size)
        pool.restore_disk(made[0].id, b"/disks/vda", sink).result()
        bench.run("cmp", disk, copy)
    for name, found in (("at rest", at_rest), ("while its machine runs", running)):
        print(f"{name}: {middle_and_spread(found)} of the speed of qemu-img convert")
    print(f"while its machine runs: {middle_and_spread(beside_rest)} of the speed at rest")


def back_up_running(bench: Bench, pool: Pool, machine: Qemu, made: list[Image]) -> None:
    """Back a machine up that runs; the image is the next of those that were made."""
    made.append(bench.back_up_machine(pool, open_provider("qmp", str(machine.run))))


def wait_until_idle(machine: Qemu) -> None:
    """Wait until the firmware has found that there is nothing to start."""
    assert machine.process is not None
    place = Path(f"/proc/{machine.process.pid}/stat")

    def used_s() -> float:
        user, system = place.read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    before = used_s()
    while True:
        time.sleep(LOOK_S)
        now = used_s()
        if now - before < IDLE_S:
            return
        before = now
