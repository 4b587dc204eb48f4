"""Images of virtual machines, made of raw disks."""

from __future__ import annotations

from pathlib import Path

from holdfast.base.ids import ImageId
from holdfast.engine import DiskInput, DiskSource, Pool
from holdfast.movers.machines.record import Record
from holdfast.sources.machines.machine import Disk, Machine

UUID = "6f1c2f3e-0a3c-4a50-9e53-3a3b1f1d7a10"


def back_up(pool: Pool, disks: dict[str, Path], *, name: str = "web") -> ImageId:
    """Back up a machine with these disks."""
    machine = Machine(
        UUID,
        name,
        "host1",
        disks=tuple(
            Disk(one, path.stat().st_size, str(path), "raw") for one, path in disks.items()
        ),
    )
    inputs = [
        DiskInput(one, size, [(0, size, 1)], DiskSource.file(str(path)), 0)
        for one, path in disks.items()
        for size in [path.stat().st_size]
    ]
    made = pool.backup_machine(
        files={"machine.json": Record(machine, None, quiesced=True).to_bytes()},
        disks=inputs,
        source=f"{name}:machine-{UUID}",
        host=name,
        started_ns=1_700_000_000_000_000_000,
        labels={"machine": UUID},
    ).result()
    return ImageId(made.id)
