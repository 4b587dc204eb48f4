"""A restore of a machine is killed wherever it is, and goes on: its disks are the image's."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("lxml", reason="lxml is not installed: see the extra 'vm'")

from holdfast.base.clock import SystemClock
from holdfast.base.errors import AlreadyExists, Busy, Fenced
from holdfast.base.ids import ImageId, SourceName
from holdfast.movers import drive as driving
from holdfast.movers.machines import work as machine_work
from holdfast.movers.machines.backup_run import MachineOrder, run_machine_backup
from holdfast.movers.machines.ends import NearDestination, NearImage
from holdfast.movers.machines.work import restore_machine
from holdfast.sources.machines.providers import open_provider
from holdfast.vault import PoolKey, create_pool
from holdfast.wire.machine_work import MachineRestoreWork
from tests.kit import restoring_machine
from tests.kit.disk_images import MIB, content, needs_qemu
from tests.kit.killed_restores import kill_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.engine import Counters, Pool, RestoreResult
    from holdfast.movers.drive import Drivable, Reporter
    from holdfast.wire.messages import WorkEvent

pytestmark = needs_qemu

SIZE = 24 * MIB


class Stored:
    """A pool with two images of a machine, and what is in each; nobody writes to it."""

    def __init__(self, directory: Path) -> None:
        self.place = directory
        store = directory / "store"
        store.mkdir()
        self.truth: dict[str, bytes] = {}
        self.pool: Pool = create_pool(
            str(directory / "pool"),
            secret=PoolKey(restoring_machine.SECRET),
            clock=SystemClock(),
        )
        for number in range(2):
            disk = bytearray(random.Random(number).randbytes(SIZE))
            for hole in (3, 11, 12, 23):
                disk[hole * MIB : (hole + 1) * MIB] = bytes(MIB)
            (store / "web.raw").write_bytes(disk)
            provider = open_provider("diskfiles", str(store))
            order = MachineOrder(
                uuid=provider.machines()[0].uuid,
                source=SourceName("web:vm"),
                host="web",
                scratch=directory,
                label="site-7",
            )
            end = NearDestination(self.pool, None)
            done = run_machine_backup(provider, order, end, SystemClock(), lambda _: None)
            self.truth[done.image.id] = bytes(disk)


class Bench:
    """That pool, and a directory that its images are restored to."""

    def __init__(self, stored: Stored, directory: Path) -> None:
        self.place = directory
        self.target = directory / "target"
        self.stored = stored.place
        self.pool, self.truth = stored.pool, stored.truth
        self.first, self.second = self.truth
        self.events: list[WorkEvent] = []

    def work(self, image_format: str = "raw") -> MachineRestoreWork:
        return MachineRestoreWork(
            self.first, to_dir=str(self.target), name="web", format=image_format
        )

    def restore(
        self,
        work: MachineRestoreWork,
        report: Callable[[Counters | None], None] = lambda _: None,
    ) -> None:
        self.events.clear()
        image = NearImage(self.pool, ImageId(work.image))
        restore_machine(work, image, report, self.events.append)

    def kill_at(self, work: MachineRestoreWork, place: int) -> None:
        """Kill a process that restores when it has noted that it is as far as this."""
        kill_at(work, f"written:{place}", pool=self.stored / "pool", cache=self.place / "cache")

    def made(self, work: MachineRestoreWork) -> bytes:
        (disk,) = (self.target / "web").glob(f"*.{work.format}")
        return content(disk, work.format, self.place / "made.raw")

    @property
    def causes(self) -> list[str]:
        return [one.cause for one in self.events]

    @property
    def partial(self) -> Path:
        return self.target / ".holdfast-restore-web"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return Stored(tmp_path_factory.mktemp("stored"))


@pytest.fixture
def bench(stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(machine_work, "KEEP_BYTES", restoring_machine.KEPT)
    return Bench(stored, tmp_path)


ANYWHERE = (0, MIB, 7 * MIB, SIZE)


@pytest.mark.parametrize(
    ("image_format", "places"),
    [
        ("raw", ANYWHERE),
        ("qcow2", ANYWHERE),
        ("vmdk", (7 * MIB,)),
        ("vhdx", (MIB, 7 * MIB)),
        ("vdi", (MIB,)),
    ],
)
def test_a_restore_that_is_killed_anywhere_is_gone_on_with(
    bench: Bench, image_format: str, places: tuple[int, ...]
) -> None:
    work, continued = bench.work(image_format), 0
    for place in places:
        bench.kill_at(work, place)
        assert not (bench.target / "web").exists()
        if place == MIB:
            # Killed once more while it goes on.
            bench.kill_at(work, 4 * MIB)
        bench.restore(replace(work, verify=place == SIZE))
        assert bench.made(work) == bench.truth[bench.first]
        continued += "continued" in bench.causes
        assert not bench.partial.exists()
        for one in (bench.target / "web").iterdir():
            assert one.name in ("domain.xml", f"disk0.{image_format}")
            one.unlink()
        (bench.target / "web").rmdir()
    assert continued == sum(place > 0 for place in places)


def test_what_is_already_there_is_said_and_not_written_again(bench: Bench) -> None:
    work = bench.work()
    bench.kill_at(work, 12 * MIB)
    read: list[int] = []
    bench.restore(work, lambda one: read.append(0 if one is None else one.bytes_read))
    (told,) = [one for one in bench.events if one.cause == "continued"]
    assert told.message.startswith("disk 'disk0' is continued: ")
    assert told.message.endswith("of 24.0 MiB were already there")
    assert read[-1] <= 12 * MIB
    assert bench.made(work) == bench.truth[bench.first]


def test_another_image_name_or_format_never_takes_it(bench: Bench) -> None:
    work = bench.work()
    bench.kill_at(work, 5 * MIB)
    for other in (replace(work, image=bench.second), replace(work, format="qcow2")):
        with pytest.raises(AlreadyExists, match=f"unfinished.*|{bench.first}"):
            bench.restore(other)
    bench.restore(replace(work, name="other"))
    assert "continued" not in bench.causes
    for one in (bench.target / "other").iterdir():
        one.unlink()
    (bench.target / "other").rmdir()
    bench.restore(replace(work, image=bench.second, unfinished="restart"))
    assert "continued" not in bench.causes
    assert bench.made(work) == bench.truth[bench.second]


def test_a_partial_restore_is_thrown_away_by_who_says_so(bench: Bench) -> None:
    work = bench.work()
    bench.kill_at(work, 5 * MIB)
    bench.restore(replace(work, unfinished="discard"))
    assert bench.causes == ["thrown-away"]
    assert not list(bench.target.iterdir())
    bench.restore(replace(work, unfinished="discard"))
    assert bench.causes == []


@pytest.mark.parametrize("how", ["replaced", "shorter", "missing"])
def test_a_file_that_is_another_one_is_begun_anew(bench: Bench, how: str) -> None:
    work = bench.work()
    bench.kill_at(work, 5 * MIB)
    disk = bench.partial / "disk0.raw"
    if how == "replaced":
        copy = disk.with_name("copy")
        copy.write_bytes(bytes(SIZE))
        copy.replace(disk)
    elif how == "shorter":
        os.truncate(disk, SIZE - 1)
    else:
        disk.unlink()
    bench.restore(work)
    assert "continued" not in bench.causes
    assert bench.made(work) == bench.truth[bench.first]


def test_what_lies_behind_the_last_flush_is_not_believed(bench: Bench) -> None:
    """As after a loss of power: what was written and not flushed may be anything."""
    work = bench.work()
    bench.kill_at(work, 5 * MIB)
    journal = (bench.partial / ".journal").read_text().splitlines()
    until = max(json.loads(one).get("until", 0) for one in journal)
    assert 0 < until < 20 * MIB
    with (bench.partial / "disk0.raw").open("r+b") as file:
        file.seek(until)
        file.write(os.urandom(SIZE - until))
    bench.restore(work)
    assert bench.made(work) == bench.truth[bench.first]


@pytest.mark.usefixtures("often")
def test_a_server_that_is_lost_is_begun_again_in_the_same_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on hosts whose files the engine can't reach.
    monkeypatch.setattr(machine_work, "WRITTEN_HERE", ())
    killed: list[int] = []

    def kill(counters: Counters | None) -> None:
        if not killed and counters is not None and counters.bytes_read > 4 * MIB:
            killed.extend(servers())
            for one in killed:
                os.kill(one, signal.SIGKILL)

    work = bench.work("vmdk")
    bench.restore(work, kill)
    assert killed
    assert "disk-server-lost" in bench.causes
    assert bench.made(work) == bench.truth[bench.first]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs of the engine looked at a thousand times a second."""

    def drive(run: Drivable[RestoreResult], report: Reporter) -> RestoreResult:
        return driving.drive(run, report, 0.001)

    monkeypatch.setattr("holdfast.movers.machines.restore_run.drive", drive)


def servers() -> list[int]:
    """Processes of qemu-nbd that this process began, through their supervisors."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            above = int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if words[0].endswith(b"qemu-nbd") and above == os.getpid():
            found.append(int(entry.name))
    return found


def test_two_of_one_are_never_at_work_at_once(bench: Bench) -> None:
    work, begun, go = bench.work(), threading.Event(), threading.Event()

    def wait(_: Counters | None) -> None:
        begun.set()
        go.wait(60)

    first = threading.Thread(target=bench.restore, args=(work, wait))
    first.start()
    try:
        assert begun.wait(60)
        image = NearImage(bench.pool, ImageId(work.image))
        with pytest.raises(Busy):
            restore_machine(work, image, lambda _: None, lambda _: None)
    finally:
        go.set()
        first.join()
    assert bench.made(work) == bench.truth[bench.first]


@pytest.mark.usefixtures("often")
def test_a_restore_that_is_stopped_says_what_stays(bench: Bench) -> None:
    def stop(counters: Counters | None) -> None:
        if (bench.partial / ".journal").exists() and "until" in (
            bench.partial / ".journal"
        ).read_text().partition('"bytes": 0')[2]:
            raise Fenced("enough")
        time.sleep(0.001)

    work = bench.work("qcow2")
    with pytest.raises(Fenced):
        bench.restore(work, stop)
    assert bench.causes == ["kept"]
    bench.restore(work)
    assert "continued" in bench.causes
    assert bench.made(work) == bench.truth[bench.first]
