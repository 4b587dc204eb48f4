"""A hypervisor whose machines are raw files, and which knows what was written to them.

For tests of what is above a hypervisor: it keeps the promises of `sources.machines.provider`, and
its changes are those that a test tells it of.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast.base.errors import NotFound
from holdfast.engine import DiskSource
from holdfast.sources.machines.machine import Disk, Machine, State
from holdfast.sources.machines.overlays import RunsNoImages
from holdfast.sources.machines.provider import Kind, Range, Remark

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from holdfast.sources.machines.provider import DiskWriter, NewMachine, SnapshotOrder


@dataclass
class RawMachine:
    """One machine.

    Attributes:
        uuid: Its.
        disks: Its disks, by name.
        changed: What was written since each checkpoint, by disk.
    """

    uuid: str
    disks: dict[str, Path]
    changed: dict[str, dict[str, list[tuple[int, int]]]] = field(default_factory=dict)
    checkpoints: list[str] = field(default_factory=list)

    def write(self, disk: str, offset: int, data: bytes) -> None:
        """Write as the guest would."""
        with self.disks[disk].open("r+b") as file:
            file.seek(offset)
            file.write(data)
        for by_disk in self.changed.values():
            by_disk.setdefault(disk, []).append((offset, len(data)))

    def seen(self) -> Machine:
        disks = tuple(
            Disk(name, path.stat().st_size, str(path), "raw") for name, path in self.disks.items()
        )
        return Machine(self.uuid, "web1", "here", State.RUNNING, disks=disks)


@dataclass
class RawSnapshot:
    """A copy of a machine's disks."""

    machine: Machine
    disks: Sequence[RawFrozen]
    checkpoint: str | None
    kept: Callable[[], None]
    definitions: dict[str, bytes]
    remarks: list[Remark] = field(default_factory=list)
    frozen_s: float = 0.25
    broken: Exception | None = None

    def check(self) -> None:
        if self.broken is not None:
            raise self.broken

    def keep_checkpoint(self) -> None:
        self.kept()


@dataclass
class RawFrozen:
    """A disk's copy."""

    name: str
    path: Path
    size: int
    changed: list[tuple[int, int]] | None

    def ranges(self) -> list[Range]:
        if self.changed is None:
            return [Range(0, self.size, Kind.DATA)]
        dirty = bytearray(-(-self.size // 512))
        for offset, length in self.changed:
            for sector in range(offset // 512, -(-(offset + length) // 512)):
                dirty[sector] = 1
        found: list[Range] = []
        for sector, changed in enumerate(dirty):
            kind = Kind.DATA if changed else Kind.SAME
            offset, length = sector * 512, min(512, self.size - sector * 512)
            if found and found[-1].kind is kind:
                found[-1] = Range(found[-1].offset, found[-1].length + length, kind)
            else:
                found.append(Range(offset, length, kind))
        return found

    def source(self) -> DiskSource:
        return DiskSource.file(str(self.path))


class RawProvider(RunsNoImages):
    """All of them."""

    def __init__(self, machines: Sequence[RawMachine]) -> None:
        self.of = {one.uuid: one for one in machines}
        self.released = 0
        self.remarks: list[Remark] = []
        self.snapshots: list[RawSnapshot] = []

    def machines(self) -> list[Machine]:
        return [one.seen() for one in self.of.values()]

    def machine(self, uuid: str) -> Machine:
        if uuid not in self.of:
            raise NotFound(f"there is no machine {uuid}")
        return self.of[uuid].seen()

    def try_out(
        self, uuid: str, scratch: Path, *, trim: bool = False, leave_out: Collection[str] = ()
    ) -> list[Remark]:
        raise NotImplementedError

    @contextlib.contextmanager
    def snapshot(
        self, order: SnapshotOrder, alive: Callable[[], None] = lambda: None
    ) -> Iterator[RawSnapshot]:
        alive()
        machine = self.of[order.uuid]
        known = machine.changed.get(order.since) if order.since is not None else None
        name = f"{order.label}-{len(machine.checkpoints)}"
        machine.checkpoints.append(name)
        frozen = []
        for disk, path in machine.disks.items():
            copy = order.scratch / f"{name}-{disk}"
            shutil.copyfile(path, copy)
            changed = None if known is None else list(known.get(disk, []))
            frozen.append(RawFrozen(disk, copy, copy.stat().st_size, changed))
        machine.changed[name] = {}

        def keep() -> None:
            machine.changed = {name: machine.changed[name]}

        snapshot = RawSnapshot(
            machine.seen(), frozen, name, keep, {"domain.xml": b"<domain/>"}, list(self.remarks)
        )
        self.snapshots.append(snapshot)
        try:
            yield snapshot
        finally:
            self.released += 1
            for one in frozen:
                one.path.unlink()

    def restore(self, order: NewMachine, write: DiskWriter) -> Machine:
        raise NotImplementedError

    def throw_away(self, order: NewMachine) -> list[str]:
        raise NotImplementedError

    def start(self, uuid: str) -> None:
        raise NotImplementedError

    def clean_up(self) -> list[Remark]:
        return []
