"""Virtual machines into a real pool: whatever is written meanwhile, an image is one moment."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import Busy, Cancelled, InputOutput
from holdfast.base.ids import ImageId, SourceName
from holdfast.movers.machines.backup_run import MachineImage, MachineOrder, run_machine_backup
from holdfast.movers.machines.ends import NearDestination
from holdfast.movers.machines.record import read_record
from holdfast.sources.machines.provider import Remark
from holdfast.vault import PoolKey, create_pool
from tests.kit.raw_machines import RawMachine, RawProvider

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.engine import Counters, Image, Pool

UUID = "6d1f2f9e-92a4-4f7c-9a4c-0e52c9f8a001"
SIZE = 24 << 20


class Bench:
    """A machine of two disks, and a pool."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.random = random.Random(7)
        disks = {name: directory / f"{name}.raw" for name in ("vda", "vdb")}
        disks["vda"].write_bytes(self.random.randbytes(SIZE))
        with disks["vdb"].open("wb") as file:
            file.truncate(SIZE + 512)
        self.machine = RawMachine(UUID, disks)
        self.machine.write("vdb", 5_000_192, b"grown" * 1000)
        self.provider = RawProvider([self.machine])
        self.pool: Pool = create_pool(
            str(directory / "pool"), secret=PoolKey(bytes(range(32))), clock=SystemClock()
        )
        self.parent: ImageId | None = None
        self.told: list[Remark] = []
        (directory / "scratch").mkdir()
        self.order = MachineOrder(
            uuid=UUID,
            source=SourceName("web1:vm"),
            host="web1",
            scratch=directory / "scratch",
            label="site-7",
            labels={"policy": "vms"},
        )

    def run(self, order: MachineOrder | None = None) -> MachineImage:
        end = NearDestination(self.pool, self.parent)
        self.told = []
        done = run_machine_backup(
            self.provider, order or self.order, end, SystemClock(), self.told.append
        )
        self.parent = ImageId(done.image.id)
        return done

    def holds(self, image: str, disk: str) -> bytes:
        file = self.pool.open_file(image, f"/disks/{disk}".encode())
        return b"".join(file.read_at(at, 1 << 20) for at in range(0, file.size, 1 << 20))

    def assert_held(self, done: MachineImage) -> None:
        for name, path in self.machine.disks.items():
            assert self.holds(done.image.id, name) == path.read_bytes(), name


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_ten_images_follow_each_other_and_each_is_whole(bench: Bench) -> None:
    first = bench.run()
    bench.assert_held(first)
    assert first.frozen_s == 0.25
    assert first.image.host == "web1"
    assert first.image.labels["policy"] == "vms"
    for _ in range(9):
        written = 0
        for _ in range(6):
            length = bench.random.choice((512, 4096, 65536))
            offset = bench.random.randrange((SIZE - length) // 512) * 512
            bench.machine.write(
                bench.random.choice(("vda", "vdb")), offset, bench.random.randbytes(length)
            )
            written += length
        done = bench.run()
        bench.assert_held(done)
        assert bench.told == []
        assert done.image.stats["bytes_read"] < written + 12 * (128 << 10)
    assert bench.provider.released == 10
    assert not list((bench.directory / "scratch").iterdir())


def test_the_record_is_of_the_same_moment(bench: Bench) -> None:
    image = bench.run().image
    record = read_record(lambda path: bench.pool.open_file(image.id, path))
    assert record.machine.uuid == UUID
    assert record.checkpoint == "site-7-0"
    assert record.quiesced
    assert record.definitions == ("domain.xml",)
    assert [one.size for one in record.machine.disks] == [SIZE, SIZE + 512]
    stored = bench.pool.open_file(image.id, b"/definitions/domain.xml")
    assert stored.read_at(0, 100) == b"<domain/>"


def test_without_the_image_before_all_is_read(bench: Bench) -> None:
    bench.run()
    for gone in (True, False):
        if gone:
            assert bench.parent is not None
            bench.pool.expire(bench.parent)
        else:
            bench.parent = None
        done = bench.run()
        bench.assert_held(done)
        assert done.image.stats["bytes_read"] >= SIZE


def test_a_full_backup_reads_all(bench: Bench) -> None:
    bench.run()
    done = bench.run(replace(bench.order, read_all=True))
    bench.assert_held(done)
    assert done.image.stats["bytes_read"] >= SIZE


def test_an_image_of_another_machine_is_not_followed(bench: Bench) -> None:
    bench.run()
    other = RawMachine(UUID[:-1] + "2", bench.machine.disks, bench.machine.changed)
    bench.provider.of[other.uuid] = other
    done = bench.run(replace(bench.order, uuid=other.uuid))
    assert [one.code for one in bench.told] == ["other-machine"]
    bench.assert_held(done)


def test_an_image_of_files_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "some").write_text("file")
    made = bench.pool.backup(
        paths=[os.fsencode(tmp_path / "some")], source="web1:vm", host="web1", started_ns=1
    ).result()
    bench.parent = ImageId(made.id)
    done = bench.run()
    assert [one.code for one in bench.told] == ["no-record"]
    bench.assert_held(done)


def test_a_disk_that_has_grown_or_come_is_read_where_it_is_new(bench: Bench) -> None:
    bench.run()
    with bench.machine.disks["vda"].open("ab") as file:
        file.write(bench.random.randbytes(3 << 20))
    late = bench.directory / "vdc.raw"
    late.write_bytes(bench.random.randbytes(1 << 20))
    bench.machine.disks["vdc"] = late
    done = bench.run()
    bench.assert_held(done)
    assert 4 << 20 <= done.image.stats["bytes_read"] < 5 << 20


def test_a_record_of_a_later_version_is_not_followed(bench: Bench) -> None:
    first = bench.run()
    record = bench.pool.open_file(first.image.id, b"/machine.json")
    later = record.read_at(0, record.size).replace(b'"version": 1', b'"version": 2')
    made = bench.pool.backup_machine(
        files={"machine.json": later}, disks=[], source="web1:vm", host="web1", started_ns=1
    ).result()
    bench.parent = ImageId(made.id)
    done = bench.run()
    assert [one.code for one in bench.told] == ["record-unreadable"]
    bench.assert_held(done)


def test_what_fails_lets_the_machine_go_and_is_not_followed(bench: Bench) -> None:
    bench.run()
    bench.provider.remarks = [Remark("warning", "not-quiesced", "the guest has no agent")]
    before = dict(bench.machine.changed)
    bench.machine.write("vda", 0, b"x" * 512)

    def stop(counters: Counters | None) -> None:
        if counters is not None:
            raise Cancelled("told to stop")

    end = NearDestination(bench.pool, bench.parent)
    with pytest.raises(Cancelled):
        run_machine_backup(bench.provider, bench.order, end, SystemClock(), bench.told.append, stop)
    assert bench.provider.released == 2
    assert [one.code for one in bench.told] == ["not-quiesced"]
    assert set(before) <= set(bench.machine.changed)
    done = bench.run()
    bench.assert_held(done)


class Endless:
    """A backup that goes on until it is told to stop."""

    def __init__(self) -> None:
        self.cancelled = False

    def counters(self) -> Counters:
        raise NotImplementedError

    def cancel(self) -> None:
        self.cancelled = True

    def wait(self, timeout_s: float, /) -> bool:
        return self.cancelled

    def result(self) -> Image:
        raise NotImplementedError


def test_a_snapshot_that_breaks_ends_the_backup(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Endless()
    monkeypatch.setattr(run, "counters", lambda: None)
    monkeypatch.setattr(NearDestination, "begin", lambda *_, **__: run)

    def breaks(counters: Counters | None) -> None:
        if bench.provider.snapshots:
            bench.provider.snapshots[-1].broken = InputOutput("the scratch file is full")

    end = NearDestination(bench.pool, None)
    with pytest.raises(InputOutput, match="scratch file is full"):
        run_machine_backup(
            bench.provider, bench.order, end, SystemClock(), bench.told.append, breaks
        )
    assert run.cancelled
    assert bench.provider.released == 1


def test_an_image_whose_checkpoint_is_not_kept_stands(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object) -> None:
        raise Busy("the hypervisor is busy")

    monkeypatch.setattr("tests.kit.raw_machines.RawSnapshot.keep_checkpoint", refuse)
    done = bench.run()
    assert [one.code for one in bench.told] == ["checkpoint-not-kept"]
    bench.assert_held(done)


def test_what_was_not_at_rest_is_said_in_the_image(bench: Bench) -> None:
    bench.provider.remarks = [Remark("warning", "not-quiesced", "the guest has no agent")]
    image = bench.run().image
    record = json.loads(bench.pool.open_file(image.id, b"/machine.json").read_at(0, 1 << 20))
    assert record["quiesced"] is False
