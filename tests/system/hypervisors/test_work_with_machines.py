"""From a running machine into a pool and back to a machine, all of it real."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import AlreadyExists, Cancelled, Invalid, NotFound, PathMissing
from holdfast.base.ids import ImageId
from holdfast.movers.machines.ends import NearDestination, NearImage
from holdfast.movers.machines.work import back_up_machine, restore_machine
from holdfast.vault import PoolKey, create_pool
from holdfast.wire.machine_work import MachineRestoreWork, MachineWork, Reached
from holdfast.wire.messages import WorkEvent
from tests.kit.qemu import Load, Qemu, needs_qemu

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.engine import Counters, Image

pytestmark = needs_qemu


class Bench:
    """A machine that runs, and a pool."""

    def __init__(self, directory: Path, machine: Qemu) -> None:
        self.directory = directory
        self.machine = machine
        self.scratch = directory / "scratch"
        self.pool = create_pool(
            str(directory / "pool"), secret=PoolKey(bytes(range(32))), clock=SystemClock()
        )
        self.parent: ImageId | None = None
        self.events: list[WorkEvent] = []
        self.job = 0
        self.reached = Reached("qemu1", "qmp", str(machine.run))

    def work(self) -> MachineWork:
        self.job += 1
        return MachineWork(
            client="web",
            source="web:vm",
            machine=self.machine.uuid,
            name="web",
            hypervisor="qemu1",
            reached=self.reached,
            quiesce=False,
            labels={"job": f"0a1b/{self.job}/1"},
        )

    def back_up(self, *, full: bool = False) -> Image:
        end = NearDestination(self.pool, self.parent)
        work = replace(self.work(), read_all=full)
        image = back_up_machine(
            work, end, self.scratch, SystemClock(), lambda _: None, self.events.append
        )
        self.parent = ImageId(image.id)
        return image

    def holds(self, image: Image, disk: str) -> bytes:
        file = self.pool.open_file(image.id, f"/disks/{disk}".encode())
        return file.read_at(0, file.size)

    def restore(self, work: MachineRestoreWork) -> None:
        end = NearImage(self.pool, ImageId(work.image))
        restore_machine(work, end, lambda _: None, self.events.append)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Qemu(tmp_path / "machine", formats=("qcow2", "qcow2")) as machine:
        machine.some_writes(Random(3), 20)
        yield Bench(tmp_path, machine)


def test_images_follow_each_other_while_the_machine_is_written_to(bench: Bench) -> None:
    random = Random(11)
    first = bench.back_up()
    for disk, content in bench.machine.contents.items():
        assert bench.holds(first, disk) == bytes(content.now)
    for number in range(4):
        if number % 2:
            with Load(bench.machine, random) as load:
                load.wait_for(20)
                image = bench.back_up()
            # Which moment it is of, under load, the tests of the hypervisor see; it is one image.
        else:
            bench.machine.some_writes(random)
            image = bench.back_up()
            for disk, content in bench.machine.contents.items():
                assert bench.holds(image, disk) == bytes(content.now), (number, disk)
        assert image.stats["bytes_read"] < first.stats["bytes_found"]
    assert bench.machine.leftovers() == []
    assert len(bench.machine.bitmaps()) == 1
    assert not list(bench.scratch.iterdir())


def test_a_machine_is_made_again_beside_the_one_that_runs(bench: Bench, tmp_path: Path) -> None:
    image = bench.back_up()
    work = MachineRestoreWork(
        image.id,
        hypervisor="qemu1",
        reached=bench.reached,
        name="web2",
        keep_identity=False,
        storage=str(tmp_path / "stored"),
        verify=True,
    )
    bench.restore(work)
    for disk, content in bench.machine.contents.items():
        raw = tmp_path / f"{disk}.raw"
        made = tmp_path / "stored" / "web2" / f"{disk}.qcow2"
        subprocess.run(["qemu-img", "convert", "-O", "raw", made, raw], check=True)
        assert raw.read_bytes() == bytes(content.now)
    assert [one.cause for one in bench.events][-1] == "machine-made"
    with pytest.raises(AlreadyExists):
        bench.restore(work)


def test_one_disk_alone_is_made_again(bench: Bench, tmp_path: Path) -> None:
    image = bench.back_up()
    work = MachineRestoreWork(
        image.id,
        hypervisor="qemu1",
        reached=bench.reached,
        name="web3",
        keep_identity=False,
        storage=str(tmp_path / "stored"),
        disks=("disk1",),
    )
    bench.restore(work)
    made = sorted(one.name for one in (tmp_path / "stored" / "web3").iterdir())
    assert made == ["disk1.qcow2"]
    with pytest.raises(NotFound, match="no disk 'disk9'"):
        bench.restore(replace(work, disks=("disk9",)))


def test_a_backup_that_is_stopped_leaves_nothing_and_the_next_is_right(bench: Bench) -> None:
    bench.back_up()
    bench.machine.write("disk0", 65536, 4096, 7)

    def stop(counters: Counters | None) -> None:
        if counters is not None:
            raise Cancelled("told to stop")

    end = NearDestination(bench.pool, bench.parent)
    with pytest.raises(Cancelled):
        back_up_machine(bench.work(), end, bench.scratch, SystemClock(), stop, bench.events.append)
    assert bench.machine.leftovers() == []
    bench.machine.write("disk1", 0, 512, 9)
    image = bench.back_up()
    for disk, content in bench.machine.contents.items():
        assert bench.holds(image, disk) == bytes(content.now)


def test_what_dead_workers_left_in_scratch_goes(bench: Bench) -> None:
    # No process has a number above 2**22.
    dead, other = bench.scratch / "machine-4194305-x", bench.scratch / "precious"
    alive = bench.scratch / f"machine-{os.getpid()}-x"
    for one in (dead, alive, other):
        one.mkdir(parents=True)
        (one / "overlay").write_bytes(b"x" * 100)
    bench.back_up()
    assert sorted(bench.scratch.iterdir()) == sorted((alive, other))


def test_what_can_not_be_is_told(bench: Bench, tmp_path: Path) -> None:
    end = NearDestination(bench.pool, None)
    work = replace(bench.work(), reached=None)
    with pytest.raises(Invalid, match="how hypervisor 'qemu1' is reached"):
        back_up_machine(
            work, end, bench.scratch, SystemClock(), lambda _: None, bench.events.append
        )
    (tmp_path / "some").write_text("file")
    files = bench.pool.backup(
        paths=[str(tmp_path / "some").encode()], source="web:/", host="web", started_ns=1
    ).result()
    with pytest.raises(PathMissing):
        bench.restore(
            MachineRestoreWork(
                files.id, hypervisor="qemu1", reached=bench.reached, storage=str(tmp_path)
            )
        )


def test_credentials_are_in_no_event_and_no_image(bench: Bench) -> None:
    bench.reached = replace(bench.reached, credentials={"user": "root", "password": "s3cr3t-word"})
    image = bench.back_up()
    for path in (b"/machine.json", b"/definitions/"):
        if path.endswith(b"/"):
            names = [one.name for one in bench.pool.list_dir(image.id, path.rstrip(b"/"))]
            found = [bench.pool.open_file(image.id, path + one) for one in names]
        else:
            found = [bench.pool.open_file(image.id, path)]
        for file in found:
            assert b"s3cr3t-word" not in file.read_at(0, file.size)
    record = json.loads(bench.pool.open_file(image.id, b"/machine.json").read_at(0, 1 << 20))
    assert record["machine"]["uuid"] == bench.machine.uuid
    assert "s3cr3t-word" not in repr(bench.events)
    assert "s3cr3t-word" not in repr(bench.reached)
